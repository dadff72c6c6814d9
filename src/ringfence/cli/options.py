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
