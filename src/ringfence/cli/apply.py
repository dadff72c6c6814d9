"""``ringfence apply``: makes true what a policy file says, in one change."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from ringfence.cli.change import ConfirmOption, DryRunOption, ForceOption, confirm_s, tell_operation
from ringfence.cli.options import DataOption, OrganisationOption, query_of
from ringfence.cli.outlook import outlook_lines
from ringfence.cli.output import Format, FormatOption, complain, show
from ringfence.cli.plan import FAILS
from ringfence.cli.questions import read_file
from ringfence.policy.errors import CallerError


def apply(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The policy file; - is standard input.")],
    data: DataOption,
    organisation: OrganisationOption = None,
    output: FormatOption = Format.TABLE,
    *,
    prune: Annotated[bool, typer.Option("--prune", help="Delete what the file does not have.")] = False,
    dry_run: DryRunOption = False,
    confirm: ConfirmOption = None,
    force: ForceOption = False,
    accept_failing: Annotated[
        bool, typer.Option("--accept-failing", help="Even if assertions of the file do not hold after it.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask, on a terminal.")] = False,
) -> None:
    """Show what must change for the policy file to be true, and change it: at once and in one revision.

    Said again there is nothing to do. Without --prune nothing is deleted; what stays is told.
    Exit status 5, and nothing is done: an assertion of the file would not hold after it.
    Example: [bold]ringfence apply policy.yaml --dry-run[/bold]
    """
    read = read_file(file)
    body = {"policy": read.value, "prune": prune, "confirm-s": confirm_s(confirm)}
    body |= {"force": force, "accept-failing": accept_failing}

    def send(**options: object) -> dict[str, Any]:
        from ringfence.cli.admin_client import Ask, ask

        try:
            return ask(data, Ask("POST", "/apply", {**body, **options}, query_of(organisation)))
        except CallerError as error:
            raise read.locate_answer(error) from error

    found = send(**{"dry-run": True})
    if output is Format.TABLE:
        _tell(found, dry_run=dry_run)
    if is_refused := bool(found["plan"]["fails"]) and not accept_failing:
        complain("refused: an assertion of the file would not hold after it; --accept-failing applies it all the same")
    if is_refused or dry_run or not found["would"]:
        done = found
    elif not yes and output is Format.TABLE and sys.stdin.isatty() and not typer.confirm("Do this?", err=True):
        raise typer.Abort
    else:
        done = send(revision=found["revision"])
        if output is Format.TABLE:
            tell_operation(done)
    if output is Format.JSON:
        show(json.dumps(done, indent=2))
    if is_refused:
        raise typer.Exit(FAILS)


def _tell(found: dict[str, Any], *, dry_run: bool) -> None:
    """What would be done, on stdout, and what is about it, on stderr."""
    for line in found["kept"]:
        complain(line)
    if found["would"] or found["plan"]["fails"]:
        show("\n".join([*found["would"], *outlook_lines(found)]))
    if not found["would"]:
        complain("nothing to do: it is so already")
    elif dry_run:
        complain("nothing was changed, this is what it would do")
