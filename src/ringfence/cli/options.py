"""Options that several verbs share."""

import os
import re
from pathlib import Path
from typing import Annotated, Final

import typer

from ringfence.policy.errors import Invalid
from ringfence.policy.values import parse_duration

_URL: Final = re.compile(r"https?://([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?(/v2)?/?")


def default_folder() -> Path:
    """``$XDG_DATA_HOME/ringfence``, by default ``~/.local/share/ringfence``."""
    base = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    return Path(base) / "ringfence"


DataOption = Annotated[
    Path,
    typer.Option(
        "--data",
        metavar="DIR",
        envvar="RINGFENCE_DATA",
        default_factory=default_folder,
        show_default="~/.local/share/ringfence",
        help="The server's folder: database, keys, control socket. Works while the server runs and while it does not.",
    ),
]

OrganisationOption = Annotated[
    str | None, typer.Option("--organisation", help="Whose it is, by name; the first organisation if you give none.")
]

FollowOption = Annotated[
    bool,
    typer.Option(
        "--follow", help="Go on: show what comes, until you end it; it waits for a server that is started anew."
    ),
]

SinceOption = Annotated[
    str | None, typer.Option(metavar="TIME", help="From then on: 2h, 7d, 2026-01-31; all that is kept if not given.")
]


def check_url(text: str, *, field: str) -> None:
    """``Invalid`` when it cannot be the URL of an API."""
    if not _URL.fullmatch(text):
        raise Invalid("expected http(s)://HOST[:PORT], with the path /v2 or none", field=field)


def since_query(text: str | None) -> dict[str, str]:
    """The part of a request that the value of ``--since`` is."""
    return {} if text is None else {"since": str(_moment(text))}


def _moment(text: str) -> int:
    import time
    from datetime import UTC, datetime

    try:
        return int(time.time()) - parse_duration(text, field="--since")
    except Invalid as error:
        try:
            found = datetime.fromisoformat(text)
        except ValueError:
            raise Invalid(f"{error}, or a date such as 2026-01-31") from error
        return int((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp())


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
