"""What every verb that changes the policy shares: its options, and the one request that it sends."""

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any, Final, ParamSpec

import typer

from ringfence.cli.options import DataOption, OrganisationOption, query_of
from ringfence.cli.outlook import outlook_lines
from ringfence.cli.output import Format, FormatOption, complain, show
from ringfence.policy.values import parse_duration
from ringfence.policy.wording import moment_words

P = ParamSpec("P")
Edit = dict[str, object]

LONGEST_RULE: Final = "3650d"  # as long as the server takes them to last
_LONGEST_TRIAL: Final = "24h"

DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Only say what it would do.")]

ConfirmOption = Annotated[
    str | None,
    typer.Option("--confirm", metavar="TIME", help="Undo it after so long, e.g. 60s, unless ringfence confirm comes."),
]

ForceOption = Annotated[
    bool, typer.Option("--force", help="Even if it cuts your own session, or agents from this server.")
]


def changing(verb: Callable[P, list[Edit]]) -> Callable[..., None]:
    """A verb that answers edits, as one that sends them as one change, with the options that all changes share."""

    def options(
        *,
        data: DataOption,
        organisation: OrganisationOption = None,
        dry_run: DryRunOption = False,
        confirm: ConfirmOption = None,
        force: ForceOption = False,
        output: FormatOption = Format.TABLE,
    ) -> None: ...

    shared = inspect.signature(options).parameters

    @wraps(verb)
    def run(*args: P.args, **given: P.kwargs) -> None:
        chosen = {name: given.pop(name) for name in shared}
        _change(verb(*args, **given), chosen)

    own = inspect.signature(verb).parameters
    run.__signature__ = inspect.Signature([*own.values(), *shared.values()])  # type: ignore[attr-defined]  # what typer reads
    run.__annotations__ = {**verb.__annotations__, **options.__annotations__}
    return run


def _change(edits: list[Edit], chosen: dict[str, Any]) -> None:
    """Fields of an edit that are None are left out."""
    from ringfence.cli.admin_client import Ask, ask

    given = [{name: value for name, value in edit.items() if value is not None} for edit in edits]
    options = {"dry-run": chosen["dry_run"], "confirm-s": confirm_s(chosen["confirm"]), "force": chosen["force"]}
    body = {"edits": given, **options}
    tell(ask(chosen["data"], Ask("POST", "/change", body, query_of(chosen["organisation"]))), chosen["output"])


def tell(answer: dict[str, Any], output: Format) -> None:
    """What a change did, or would do: a line each on stdout, and on stderr its operation."""
    import json

    if output is Format.JSON:
        show(json.dumps(answer, indent=2))
        return
    operation = answer.get("operation")
    lines = answer["would"] if operation is None else answer["did"]
    if lines and "plan" in answer:
        lines = [*lines, *outlook_lines(answer)]
    if lines:
        show("\n".join(lines))
    if operation is None:
        complain("nothing was changed, this is what it would do" if lines else "nothing would be changed")
    else:
        tell_operation(answer)


def confirm_s(text: str | None) -> int | None:
    """The value of ``--confirm``."""
    return None if text is None else parse_duration(text, field="--confirm", most=_LONGEST_TRIAL)


def tell_operation(answer: dict[str, Any]) -> None:
    """How far a change is, and until when it must be confirmed if it must, on stderr."""
    operation = answer["operation"]
    note = f" ({operation['message']})" if operation["message"] else ""
    complain(f"operation {operation['id']} {operation['state']}{note}")
    if trial := answer.get("trial"):
        complain(
            f"revision {trial['revision']} is undone at {moment_words(trial['ends-at'])}, unless you say: "
            f"ringfence confirm {trial['revision']}"
        )
