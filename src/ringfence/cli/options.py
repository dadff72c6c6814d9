"""Options that several verbs share."""

import os
from pathlib import Path
from typing import Annotated

import typer

from ringfence.policy.errors import Invalid


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

FollowOption = Annotated[bool, typer.Option("--follow", help="Go on: show what comes, until you end it.")]


def query_of(organisation: str | None) -> dict[str, str]:
    """The part of a request to the operator's app that names an organisation."""
    return {} if organisation is None else {"organisation": organisation}


def refuse_before_verb(context: typer.Context) -> bool:
    """Whether a verb of the group follows, which does the work; an option before it would be lost, and is refused."""
    verb = context.invoked_subcommand
    if verb is None:
        return False
    for parameter in context.command.params:
        source = context.get_parameter_source(parameter.name or "")
        if source is not None and source.name == "COMMANDLINE":
            raise Invalid(f"options come after {verb}", field=parameter.opts[0])
    return True
