"""``ringfence lint``: what is doubtful in a policy, why, and what to do."""

import json
from enum import StrEnum
from typing import Annotated, Any

import typer

from ringfence.cli.options import DataOption, query_of
from ringfence.cli.output import Format, FormatOption, complain, show
from ringfence.cli.questions import FileOption, question


class FailOn(StrEnum):
    """From which severity on the exit status is 1."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"
    NEVER = "never"


_REACHED = {
    FailOn.ERROR: ("error",),
    FailOn.WARNING: ("error", "warning"),
    FailOn.NOTE: ("error", "warning", "note"),
    FailOn.NEVER: (),
}


def lint(
    data: DataOption,
    fail_on: Annotated[FailOn, typer.Option(help="The exit status is 1 from this severity on.")] = FailOn.WARNING,
    file: FileOption = None,
    organisation: Annotated[str | None, typer.Option(help="Whose groups; without it those of all.")] = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """Say what is doubtful in a policy, with the proof and what to do: open ports, rules without effect or need.

    Exit status: 0 nothing of that severity, 1 something.
    Example: [bold]ringfence lint --file policy.yaml --fail-on error[/bold]
    """
    findings = question(data, file, "lint", query_of(organisation))["findings"]
    if output is Format.JSON:
        show(json.dumps(findings, indent=2))
    elif findings:
        show("\n".join(line for finding in findings for line in _lines(finding)))
    else:
        complain("nothing is doubtful")
    if any(finding["severity"] in _REACHED[fail_on] for finding in findings):
        raise typer.Exit(1)


def _lines(finding: dict[str, Any]) -> list[str]:
    head = f"{finding['severity']:8}{finding['code']}: {finding['what']}"
    if finding["rule"]:
        head += f", of group {finding['group']}"
    return [head, f"        {finding['proof']}", f"        {finding['advice']}"]
