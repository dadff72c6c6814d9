"""``ringfence explain``: why a packet would pass or not, in words."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from ringfence.cli.options import DataOption, query_of
from ringfence.cli.output import Format, FormatOption, complain, show
from ringfence.cli.questions import FileOption, question

if TYPE_CHECKING:
    from ringfence.world.probing import Probed

_END = "An instance or group (name or id), an address, or internet."


def explain(
    data: DataOption,
    source: Annotated[str, typer.Argument(help=_END)],
    destination: Annotated[str, typer.Argument(help=_END)],
    service: Annotated[str, typer.Argument(help="tcp/5432, udp/53, icmp, icmpv6/128/0, esp, ah, gre, ipip.")],
    organisation: Annotated[
        str | None, typer.Option(help="Whose instances are meant, when several have instances of the name.")
    ] = None,
    file: FileOption = None,
    *,
    probe: Annotated[
        bool, typer.Option("--probe", help="Send such a packet too, if a network of this machine has SOURCE's address.")
    ] = False,
    output: FormatOption = Format.TABLE,
) -> None:
    """Say whether a first packet from SOURCE to DESTINATION passes, by which rule, and what is missing if not.

    This is what the policy means, and what the kernel does once the host has applied it. Nothing is sent but by
    --probe, which says open, closed, or skipped and why. Exit status 1 when that is not what the policy means.
    Example: [bold]ringfence explain internet db tcp/5432[/bold]
    """
    import json

    query = {"source": source, "destination": destination, "service": service} | query_of(organisation)
    answer = question(data, file, "explain", query)
    found = _probed(answer) if probe else None
    show(json.dumps(answer, indent=2) if output is Format.JSON else str(answer["text"]))
    if found is not None and found.contradicts(allowed=bool(answer["allowed"])):
        complain("that is not what the policy means: look at ringfence host status, and at ringfence doctor there")
        raise typer.Exit(1)


def _probed(answer: dict[str, Any]) -> "Probed":
    """What a probe finds, which the answer then says as well."""
    from ringfence.world.probing import probe_packet

    found = probe_packet(answer["packet"])
    answer["probe"] = {"answer": found.answer.value, "text": found.text}
    answer["text"] += f"\n  probe: {found.sentence}"
    return found
