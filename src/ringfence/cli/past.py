"""``ringfence confirm``, ``diff`` and ``rollback``: what is to stay, what was changed, and the way back."""

from typing import Annotated

import typer

from ringfence.cli.change import ConfirmOption, DryRunOption, ForceOption, confirm_s, tell
from ringfence.cli.options import DataOption, OrganisationOption, query_of
from ringfence.cli.output import Format, FormatOption, complain, show, show_rows

RevisionArgument = Annotated[int, typer.Argument(metavar="REVISION", help="A number that ringfence history shows.")]


def confirm(
    data: DataOption,
    revision: Annotated[
        int | None,
        typer.Argument(metavar="REVISION", help="The revision that was made; without it, what waits is shown."),
    ] = None,
    organisation: OrganisationOption = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """Have a change stay that was made with --confirm TIME; without REVISION, show which one waits, and until when.

    Example: [bold]ringfence confirm 17[/bold]
    """
    from ringfence.cli.admin_client import Ask, ask

    query = query_of(organisation)
    if revision is None:
        trials = ask(data, Ask("GET", "/trials", query=query))["trials"]
        show_rows(trials, ("revision", "ends-at"), output, nothing="no change waits to be confirmed")
        return
    ask(data, Ask("POST", "/trials", {"revision": revision}, query))
    complain(f"revision {revision} is confirmed: it stays")


def diff(
    data: DataOption,
    old: RevisionArgument,
    new: Annotated[
        int | None, typer.Argument(metavar="REVISION", help="The other one; the newest if not given.")
    ] = None,
    organisation: OrganisationOption = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """Say how the policy differs between two revisions: groups, rules, sources, who wears what, who is observed.

    Example: [bold]ringfence diff 12 17[/bold]
    """
    import json

    from ringfence.cli.admin_client import Ask, ask

    query = query_of(organisation) | {"from": str(old)} | ({} if new is None else {"to": str(new)})
    found = ask(data, Ask("GET", "/diff", query=query))
    if output is Format.JSON:
        show(json.dumps(found, indent=2))
    elif found["changes"]:
        show("\n".join(found["changes"]))
    else:
        complain("the policy is the same in both")


def rollback(
    data: DataOption,
    revision: RevisionArgument,
    organisation: OrganisationOption = None,
    *,
    dry_run: DryRunOption = False,
    confirm: ConfirmOption = None,
    force: ForceOption = False,
    output: FormatOption = Format.TABLE,
) -> None:
    """Make the policy what it was at a revision, as a new revision: rules with their ids, sources, who wears what.

    Example: [bold]ringfence rollback 12[/bold]
    """
    from ringfence.cli.admin_client import Ask, ask

    body = {"revision": revision, "dry-run": dry_run, "confirm-s": confirm_s(confirm), "force": force}
    tell(ask(data, Ask("POST", "/rollback", body, query_of(organisation))), output)
