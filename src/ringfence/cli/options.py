"""Options that several verbs share."""

import os
from pathlib import Path
from typing import Annotated

import typer


def default_folder() -> Path:
    """``$XDG_DATA_HOME/ringfence``, by default ``~/.local/share/ringfence``."""
    base = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    return Path(base) / "ringfence"


DataOption = Annotated[
    Path,
    typer.Option(
        "--data",
        envvar="RINGFENCE_DATA",
        default_factory=default_folder,
        show_default="~/.local/share/ringfence",
        help="The server's folder: database, keys, control socket. Works while the server runs and while it does not.",
    ),
]

OrganisationOption = Annotated[
    str | None, typer.Option("--organisation", help="Whose it is, by name; the first organisation if you give none.")
]


def query_of(organisation: str | None) -> dict[str, str]:
    """The part of a request to the operator's app that names an organisation."""
    return {} if organisation is None else {"organisation": organisation}
