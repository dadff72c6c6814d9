"""``ringfence suggest``: rules that would allow what was seen of an instance, to review."""

from pathlib import Path
from typing import Annotated
from urllib.parse import quote

import typer

from ringfence.cli.options import DataOption, query_of
from ringfence.cli.output import Format, FormatOption, complain, show


def suggest(
    data: DataOption,
    name: Annotated[str, typer.Argument(metavar="INSTANCE", help="Its name or id.")],
    log: Annotated[
        Path | None,
        typer.Option(help="The host's own flows.jsonl, which goes further back than what the server remembers."),
    ] = None,
    *,
    egress: Annotated[
        bool, typer.Option("--egress", help="Also for what it sends while no rule says anything about leaving.")
    ] = False,
    organisation: Annotated[
        str | None, typer.Option(help="Whose instance is meant, when several have instances of the name.")
    ] = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """Say by which rules an instance would be allowed what was refused of it, or would have been: a policy file.

    Nothing is changed: read it, cut it down, ask ringfence plan what it does, then apply it.
    Example: [bold]ringfence instance observe web-1[/bold], a day later [bold]ringfence suggest web-1[/bold]
    """
    import json

    from ringfence.cli.admin_client import Ask, ask

    query = query_of(organisation) | ({"egress": "true"} if egress else {})
    path = f"/instances/{quote(name, safe='')}/suggestion"
    wanted = Ask("GET", path, query=query) if log is None else Ask("POST", path, _records(log), query)
    answer = ask(data, wanted)
    if output is Format.JSON:
        show(json.dumps(answer, indent=2))
        return
    for left in answer["left-out"]:
        complain(f"left out: {left['packets']} packets refused as {left['reason']}, which no rule of a group decides")
    if answer["policy"]:
        show(answer["policy"].rstrip("\n"))
    else:
        complain(f"nothing was seen that a rule of {answer['instance']} would have to allow")


def _records(log: Path) -> dict[str, object]:
    import msgspec

    from ringfence.cli.questions import read_text
    from ringfence.control.suggestions import merge_records
    from ringfence.wire.flows import decode_log

    lines = read_text(log).encode().splitlines()
    return {"records": msgspec.to_builtins(merge_records(decode_log(lines, str(log))))}
