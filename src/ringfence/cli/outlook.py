"""What a change would do, in lines for people."""

from collections.abc import Iterator, Sequence
from typing import Any, Final

_FEW: Final = 6  # names and reasons that fit into one readable row
INDENT: Final = " " * 8


def outlook_lines(answer: dict[str, Any]) -> Iterator[str]:
    """What opens and closes, on which hosts, what is cut, what then fails, and what is doubtful that was not.

    Last what the lock-out guard would refuse it for, if a server was asked.
    """
    plan = answer["plan"]
    for verb in ("opens", "closes"):
        for row in plan[verb]:
            yield f"{verb:<8}{_few(row['from'])} -> {_few(row['to'])} {row['services']}"
            yield from (f"{INDENT}{words}" for words in _some(row["rules"]))
    if not (plan["opens"] or plan["closes"]):
        yield "no packet's fate changes"
    if plan["hosts"]:
        yield f"hosts   {_few(plan['hosts'])}"
    yield from (f"cuts    {_cut(one)}" for one in plan["connections"])
    yield from (f"drops   {words}" for words in _some([*map(_drop, plan["drops"])]))
    for result in plan["fails"]:
        yield f"fails   {result['assertion']}"
        yield from (f"{INDENT}{line}" for line in result["proof"])
    for finding in plan["findings"]:
        yield f"doubt   {finding['severity']} {finding['code']}: {finding['what']}, of group {finding['group']}"
        yield from (f"{INDENT}{finding[name]}" for name in ("proof", "advice"))
    if cuts := answer.get("guard"):
        yield from (f"guard   {text}" for text in cuts)
        yield f"{INDENT}so it is refused, unless you say --force"


def _cut(one: dict[str, Any]) -> str:
    if one["cut"] is None:
        return f'on {one["host"]}: unknown, it told of no connections (flow_log = "all" in its inventory)'
    return f"on {one['host']}: {one['cut']} of the connections that it told of since {one['since']}, if still open"


def _drop(row: dict[str, Any]) -> str:
    """A row as ``observed`` shows it."""
    way = "to" if row["direction"] == "egress" else "from"
    what = f"{row['service'] or 'packets'} {way} {row['peer'] or 'somebody'}"
    return f"{row['instance']}: {what} ({row['reason']}), packets {row['packets']}, last {row['last']}"


def _few(names: Sequence[str]) -> str:
    return ", ".join(_some(names))


def _some(words: Sequence[str]) -> list[str]:
    if len(words) <= _FEW + 1:
        return list(words)
    return [*words[:_FEW], f"and {len(words) - _FEW} more"]
