"""What hosts told of packets, one by one: shown once, or as they come."""

from pathlib import Path
from typing import Annotated, Final

import typer

from ringfence.cli.output import Format, show, show_rows

LimitOption = Annotated[int | None, typer.Option(min=1, help="Only the newest so many of those that are there.")]

_COLUMNS: Final = (
    *("time", "host", "interface", "instance", "verdict", "direction", "reason", "rule"),
    *("protocol", "source", "destination", "peer", "packets"),
)


def limit_query(limit: int | None) -> dict[str, str]:
    """The part of a request that the value of ``--limit`` is."""
    return {} if limit is None else {"limit": str(limit)}


def show_flows(data: Path, what: str, query: dict[str, str], *, follow: bool, output: Format) -> None:
    """``what`` is drops, or flows with what was allowed besides; with ``follow`` a line each, without end."""
    import json

    from ringfence.cli.admin_client import Ask, ask, wait_to_follow

    answer = ask(data, Ask("GET", f"/{what}", query=query, of_hosts=True))
    if not follow:
        show_rows(answer[what], _COLUMNS, output)
        return
    later = {name: value for name, value in query.items() if name != "limit"}
    while True:
        for row in answer[what]:
            show(json.dumps(row) if output is Format.JSON else _line(row))
        wait_to_follow(data)
        answer = ask(data, Ask("GET", f"/{what}", query=later | {"after": str(answer["last"])}))


def _line(row: dict[str, object]) -> str:
    return "  ".join(str(row[column]) for column in _COLUMNS if row[column] is not None)
