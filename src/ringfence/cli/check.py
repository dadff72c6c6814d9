"""``ringfence check``: whether assertions hold, exactly, and the packet that proves it when one does not."""

from pathlib import Path
from typing import Annotated, Any

import typer

from ringfence.cli.options import DataOption, query_of
from ringfence.cli.output import Format, FormatOption, complain, show, show_rows
from ringfence.cli.questions import FileOption, question, read_text
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
    output: FormatOption = Format.TABLE,
) -> None:
    """Say which assertions hold, over all the packets they mean, and show a packet for each that does not.

    Exit status: 0 all hold, 1 some do not.
    Example: [bold]ringfence check --file policy.yaml[/bold]
    """
    given, query = assertions or file, query_of(organisation)
    results = question(data, None, "check", query)["assertions"] if given is None else _ask(data, given, file, query)
    if output is Format.JSON:
        show_rows(results, (), output)
    elif not results:
        complain("no assertion is held: ringfence assertion set FILE")
    else:
        show("\n".join(line for result in results for line in _lines(result)))
    if wrong := sum(not result["holds"] for result in results):
        complain(f"{wrong} of {len(results)} assertions {'does' if wrong == 1 else 'do'} not hold")
        raise typer.Exit(1)


def _ask(data: Path, given: Path, file: Path | None, query: dict[str, str]) -> list[dict[str, Any]]:
    from ringfence.policy.assertions import parse_assertions
    from ringfence.wire.policy_file import read_policy

    read = read_policy(read_text(given), str(given))
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
    return [head, *(f"       {line}" for line in result["proof"])]
