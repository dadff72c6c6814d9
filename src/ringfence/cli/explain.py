"""``ringfence explain``: why a packet would pass or not, in words."""

from typing import Annotated

import typer

from ringfence.cli.options import DataOption, query_of
from ringfence.cli.output import Format, FormatOption, show
from ringfence.cli.questions import FileOption, question

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
    output: FormatOption = Format.TABLE,
) -> None:
    """Say whether a first packet from SOURCE to DESTINATION passes, by which rule, and what is missing if not.

    Sends nothing: this is what the policy means, and what the kernel does once the host has applied it.
    Example: [bold]ringfence explain internet db tcp/5432[/bold]
    """
    import json

    query = {"source": source, "destination": destination, "service": service} | query_of(organisation)
    answer = question(data, file, "explain", query)
    show(json.dumps(answer, indent=2) if output is Format.JSON else str(answer["text"]))
