"""``ringfence plan``: what a policy file would change, exactly, and nothing of it done."""

import json
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from ringfence.cli.options import DataOption, OrganisationOption, query_of
from ringfence.cli.outlook import outlook_lines
from ringfence.cli.output import Format, FormatOption, complain, show
from ringfence.cli.questions import FileOption, name_of, read_file, read_snapshot, read_text
from ringfence.policy.errors import CallerError, Invalid

CHANGES: Final = 4
FAILS: Final = 5


def plan(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The policy file; - is standard input.")],
    data: DataOption,
    old: FileOption = None,
    organisation: OrganisationOption = None,
    output: FormatOption = Format.TABLE,
    *,
    prune: Annotated[bool, typer.Option("--prune", help="As if what the file does not have were deleted.")] = False,
    terraform: Annotated[
        bool, typer.Option("--terraform", help="FILE is what terraform show -json prints of a plan.")
    ] = False,
    exit_code: Annotated[
        bool, typer.Option("--exit-code", help="End with 4 when something opens, closes or is left out.")
    ] = False,
) -> None:
    """Say what the policy file would open and close, exactly, on which hosts, and which of its assertions would fail.

    It is compared with the server's policy, or with the policy file that --file names; nothing is changed.
    Exit status: 0 planned, 5 an assertion would fail, and with --exit-code 4 something opens, closes or is left out.
    Example: [bold]ringfence plan policy.yaml[/bold]
    """
    query = query_of(organisation)
    if terraform:
        found = _ask_of_terraform(data, file, query, old)
    else:
        found = _ask(data, file, prune=prune, query=query) if old is None else _compare(old, file)
    if output is Format.JSON:
        show(json.dumps(found, indent=2))
    else:
        for line in (*found.get("kept", ()), *(f"left out: {line}" for line in found.get("left-out", ()))):
            complain(line)
        show("\n".join(outlook_lines(found)))
    if found["plan"]["fails"]:
        raise typer.Exit(FAILS)
    if exit_code and (found["plan"]["opens"] or found["plan"]["closes"] or found.get("left-out")):
        raise typer.Exit(CHANGES)


def _ask(data: Path, file: Path, *, prune: bool, query: dict[str, str]) -> dict[str, Any]:
    from ringfence.cli.admin_client import Ask, ask

    read = read_file(file)
    body = {"policy": read.value, "prune": prune, "dry-run": True}
    try:
        return ask(data, Ask("POST", "/apply", body, query, asks_only=True))
    except CallerError as error:
        raise read.locate_answer(error) from error


def _ask_of_terraform(data: Path, file: Path, query: dict[str, str], old: Path | None) -> dict[str, Any]:
    """``left-out`` says what of the plan could not be judged."""
    from ringfence.cli.admin_client import Ask, ask
    from ringfence.control.planning import NOTHING
    from ringfence.wire.terraform_plan import read_terraform

    if old is not None:
        raise Invalid("a Terraform plan names groups by the ids of a server: ask that one", field="--file")
    change = read_terraform(read_text(file), name_of(file))
    if not change.edits:
        return {"plan": NOTHING, "left-out": change.left_out}
    try:
        found = ask(data, Ask("POST", "/change", {"edits": change.edits, "dry-run": True}, query, asks_only=True))
    except CallerError as error:
        raise change.locate(error) from error
    return {**found, "left-out": change.left_out}


def _compare(old: Path, new: Path) -> dict[str, Any]:
    """As a server would answer that holds the one file when it is given the other."""
    import msgspec

    from ringfence.control.planning import look_ahead, show_outlook
    from ringfence.policy.desired import snapshot_of

    before, read = read_snapshot(old), read_file(new)
    try:
        outlook = look_ahead(before, snapshot_of(read.document), read.document.assertions)
    except CallerError as error:
        raise read.locate(error) from error
    plan: dict[str, Any] = msgspec.to_builtins(show_outlook(outlook))
    return {"plan": plan}
