"""``ringfence metrics``: what hosts enforce, in the text form of Prometheus."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, Final

import typer

from ringfence.cli.options import DataOption

# Each family: its name, its type, what it is, and the field of a row that it shows.
_OF_HOSTS: Final = (
    ("host_wanted_revision", "gauge", "The revision that the host should enforce.", "wanted"),
    ("host_applied_revision", "gauge", "The revision that the host enforces; absent until it has told.", "applied"),
    ("host_heard_seconds", "gauge", "How long ago the host was heard; absent until it was.", "age_s"),
    ("host_failing", "gauge", "1 when the host has told of an error, else 0.", "error"),
    ("host_foreign_chains", "gauge", "Chains of other programs on the host that may drop.", "others_drop"),
)
_OF_RULES: Final = (
    ("rule_judged_packets_total", "counter", "Packets that the rule let pass when they were judged.", "judged"),
    ("rule_connections_total", "counter", "Connections that began by the rule.", "connections"),
)
_ESCAPES: Final = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})
Row = Mapping[str, Any]


def metrics(
    data: DataOption,
    *,
    rules: Annotated[bool, typer.Option("--rules", help="Of each rule on each host too: hosts x rules lines.")] = False,
) -> None:
    """Print what each host should enforce and does, for Prometheus: its node exporter reads it from a file.

    It fails when no server runs, so that a file which is replaced by it grows old and an alert can tell.
    Example: [bold]ringfence metrics > ringfence.prom.new && mv ringfence.prom.new ringfence.prom[/bold]
    """
    from ringfence.cli.admin_client import Ask, ask, require_server

    require_server(data)
    hosts = ask(data, Ask("GET", "/hosts"))["hosts"]
    lines = list(_families(_OF_HOSTS, hosts, ("host",)))
    if rules:
        counted = ask(data, Ask("GET", "/counters"))["counters"]
        lines += _families(_OF_RULES, counted, ("host", "group", "rule", "direction"))
    typer.echo("\n".join(lines))  # every letter as it is: the format knows no other escapes


def _families(families: Iterable[tuple[str, str, str, str]], rows: list[Row], labels: tuple[str, ...]) -> Iterator[str]:
    for name, kind, meaning, field in families:
        yield f"# HELP ringfence_{name} {meaning}"
        yield f"# TYPE ringfence_{name} {kind}"
        for row in rows:
            value = _number(row[field], field)
            if value is not None:
                named = ",".join(f'{label}="{str(row[label]).translate(_ESCAPES)}"' for label in labels)
                yield f"ringfence_{name}{{{named}}} {value}"


def _number(value: object, field: str) -> object:
    if field == "error":
        return int(value is not None)
    return len(value) if isinstance(value, list) else value
