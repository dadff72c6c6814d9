"""``ringfence observed``: what would be dropped of who is observed, before it is."""

from typing import Annotated, Any

import typer

from ringfence.cli.flows import LimitOption, limit_query, show_flows
from ringfence.cli.options import DataOption, FollowOption, OrganisationOption, SinceOption, query_of, since_query
from ringfence.cli.output import Format, FormatOption, complain, show, show_rows
from ringfence.policy.errors import Invalid

_COLUMNS = ("instance", "verdict", "direction", "peer", "groups", "service", "packets", "first", "last", "reason")


def observed(
    data: DataOption,
    target: Annotated[str, typer.Argument(metavar="INSTANCE|GROUP", help="Name or id; group:NAME leaves no doubt.")],
    since: SinceOption = None,
    limit: LimitOption = None,
    organisation: OrganisationOption = None,
    *,
    log: Annotated[bool, typer.Option("--log", help="The packets one by one, oldest first, not summed up.")] = False,
    follow: FollowOption = False,
    output: FormatOption = Format.TABLE,
) -> None:
    """Say what would be dropped of an observed instance, or of all that wear a group: by peer and service, most first.

    What was really dropped of instances that are enforced is shown as well.
    With --log packet by packet: --since, --limit and --follow go with that.
    Example: [bold]ringfence group observe web[/bold], a day later [bold]ringfence observed web[/bold], or
    [bold]ringfence observed web --log --since 1h[/bold]
    """
    import json

    from ringfence.cli.admin_client import Ask, ask

    query = {"of": target} | query_of(organisation)
    if log:
        show_flows(data, "drops", query | since_query(since) | limit_query(limit), follow=follow, output=output)
        return
    for option, given in (("--since", since), ("--limit", limit), ("--follow", follow)):
        if given:
            raise Invalid("expected only with --log", field=option)
    answer = ask(data, Ask("GET", "/observed", query=query, of_hosts=True))
    if output is Format.JSON:
        show(json.dumps(answer, indent=2))
        return
    show_rows(answer["refused"], _COLUMNS, output)
    complain(_summary(answer))


def _summary(answer: dict[str, Any]) -> str:
    """How many are observed, and what may follow."""
    whom = [one["instance"] for one in answer["instances"] if one["mode"] == "observe"]
    said = f"{len(whom)} of {len(answer['instances'])} observed"
    if not whom:
        return f"{said}: begin with ringfence instance observe, or group observe"
    would = sum(row["packets"] for row in answer["refused"] if row["verdict"] == "would-drop")
    if not would:
        return f"{said}, and nothing of them would have been dropped: ringfence instance enforce {whom[0]}"
    return f"{said}, {would} packets would have been dropped: ringfence suggest {whom[0]} says which rules they need"
