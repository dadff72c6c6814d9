"""``ringfence check``: whether assertions hold, exactly, and the packet that proves it when one does not."""

from pathlib import Path
from typing import Annotated, Any

import typer

from ringfence.cli.options import DataOption, query_of
from ringfence.cli.output import Format, FormatOption, complain, show, show_rows
from ringfence.cli.questions import FileOption, name_of, question, read_text
from ringfence.policy.errors import CallerError, Invalid

_AT = "$.assertions"


def check(
    data: DataOption,
    assertions: Annotated[
        Path | None,
        typer.Argument(
            help="The file with the assertions; without it, those of --file, or those that the server holds."
        ),
    ] = None,
    file: FileOption = None,
    organisation: Annotated[str | None, typer.Option(help="Whose names are meant, when several have them.")] = None,
    *,
    probe: Annotated[
        bool, typer.Option("--probe", help="Send some of the packets too, from addresses that this machine has.")
    ] = False,
    output: FormatOption = Format.TABLE,
) -> None:
    """Say which assertions hold, over all the packets they mean, and show a packet for each that does not.

    Nothing is sent but by --probe. Exit status: 0 all hold, 1 some do not, or failed when they were tried.
    Example: [bold]ringfence check --file policy.yaml[/bold]
    """
    given, query = assertions or file, query_of(organisation) | (_probe_query() if probe else {})
    results = question(data, None, "check", query)["assertions"] if given is None else _ask(data, given, file, query)
    for result in results:
        examples = result.pop("examples")
        if probe:
            result["probe"] = _probe(examples, allowed=str(result["assertion"]).endswith("allow"))
    if output is Format.JSON:
        show_rows(results, (), output)
    elif not results:
        complain("no assertion is held: ringfence assertion set FILE")
    else:
        show("\n".join(line for result in results for line in _lines(result)))
    _tell(results)


def _tell(results: list[dict[str, Any]]) -> None:
    wrong = sum(not result["holds"] for result in results)
    failed = sum(result.get("probe", {}).get("outcome") == "failed" for result in results)
    if wrong:
        complain(f"{wrong} of {len(results)} assertions {'does' if wrong == 1 else 'do'} not hold")
    if failed:
        complain(f"{failed} of {len(results)} failed when they were tried: look at ringfence host status, and doctor")
    if wrong or failed:
        raise typer.Exit(1)


def _probe_query() -> dict[str, str]:
    from ringfence.world.probing import addresses_here

    return {"probe-from": " ".join(addresses_here())}


def _probe(packets: list[dict[str, str]], *, allowed: bool) -> dict[str, Any]:
    """What packets do that an assertion means and that can be sent from here: passed, failed, or skipped and why.

    The outcome of all is the gravest of each; what was skipped says nothing beside what was sent.
    """
    tried = [_try(packet, allowed=allowed) for packet in packets]
    tried = tried or [("skipped", "no network of this machine has an address that it means")]
    outcomes = {outcome for outcome, _ in tried}
    outcome = next(one for one in ("failed", "passed", "skipped") if one in outcomes)
    return {"outcome": outcome, "packets": [f"{one}: {text}" for one, text in tried]}


def _try(packet: dict[str, str], *, allowed: bool) -> tuple[str, str]:
    from ringfence.world.probing import Answer, probe_packet

    probed = probe_packet(packet)
    text = f"{packet['source']} -> {packet['destination']} {packet['service']} {probed.sentence}"
    if probed.answer is Answer.SKIPPED:
        return "skipped", text
    return "failed" if probed.contradicts(allowed=allowed) else "passed", text


def _ask(data: Path, given: Path, file: Path | None, query: dict[str, str]) -> list[dict[str, Any]]:
    from ringfence.policy.insight.assertions import parse_assertions
    from ringfence.wire.policy_file import read_policy

    read = read_policy(read_text(given), name_of(given))
    if not read.document.assertions:
        raise Invalid("there is no assertion", field=f"{given}: assertions")
    try:
        sentences = [str(one) for one in parse_assertions(read.document.assertions)]
        answer = question(data, file, "check", query | {"assertions": "\n".join(sentences)})
    except CallerError as error:
        raise read.locate(error) if (error.field or "").startswith(_AT) else error from error
    found: list[dict[str, Any]] = answer["assertions"]
    return found


def _lines(result: dict[str, Any]) -> list[str]:
    note = " (of nobody: it means no packet)" if result["about-nobody"] else ""
    head = f"{'holds' if result['holds'] else 'fails'}  {result['assertion']}{note}"
    probe = result.get("probe")
    tried = [f"probe {one}" for one in probe["packets"]] if probe else []
    return [head, *(f"       {line}" for line in (*result["proof"], *tried))]
