"""``ringfence unused``: rules without a hit, and whether what was counted is enough to remove them."""

import json
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from ringfence.cli.options import DataOption, query_of
from ringfence.cli.output import Format, FormatOption, complain, show
from ringfence.policy.values import parse_duration


def unused(
    data: DataOption,
    window: Annotated[str, typer.Option(help="For how long a rule must have been counted: 12h, 30d.")] = "30d",
    organisation: Annotated[str | None, typer.Option(help="Whose groups; without it those of all.")] = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """Rules of which no host has seen a packet: since when that is counted, on which hosts, and when each was made.

    Safe to remove is only what every host that enforces it has counted for the whole window.
    Example: [bold]ringfence unused --window 90d[/bold]
    """
    from ringfence.cli.admin_client import Ask, ask

    query = {"window-s": str(parse_duration(window, field="--window"))} | query_of(organisation)
    found = ask(data, Ask("GET", "/unused", query=query))["unused"]
    if output is Format.JSON:
        show(json.dumps(found, indent=2))
    elif found:
        show("\n".join(line for one in found for line in _lines(one, window)))
    else:
        complain("every rule that a host enforces was used")


def _lines(one: dict[str, Any], window: str) -> list[str]:
    made = _day(one["created-at"]) or "before the history begins"
    counted = "not counted yet"
    if one["hosts"]:
        counted = f"no hit since {_day(one['since-at'])} on {', '.join(one['hosts'])}"
    if one["silent"]:
        counted += f"; {', '.join(one['silent'])} told no count"
    advice = f"safe to remove, if {window} is long enough for whoever needs it seldom"
    return [
        f"rule {one['rule']}, {one['description']}, of group {one['group']}",
        f"        created {made}; {counted}",
        f"        {advice if one['safe'] else f'keep it: not every host that enforces it has counted for {window}'}",
    ]


def _day(seconds: int | None) -> str | None:
    return None if seconds is None else f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"
