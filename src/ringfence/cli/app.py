"""The tree of verbs, and the one place where an error becomes a message and an exit status.

Exit status: 0 done, 1 it failed and the message says what to do, 2 the command line is wrong, 3 this machine forbids
what the command needs, 130 ended by Ctrl-C; plan and apply have two more of their own.
"""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Final

import typer
import typer.main

from ringfence.cli import (
    agent,
    allow,
    apply,
    assertion,
    boot,
    check,
    demo,
    doctor,
    env,
    explain,
    export,
    group,
    guard,
    history,
    host,
    imports,
    instance,
    key,
    lint,
    metrics,
    observed,
    operation,
    organisation,
    past,
    plan,
    reach,
    rule,
    server,
    suggest,
    unused,
    version,
)
from ringfence.cli.output import complain
from ringfence.cli.usage import HELP_OPTIONS, dress, wrong_line
from ringfence.policy.errors import Invalid, RingfenceError
from ringfence.world.namespaces import NamespacesForbidden

FAILED = 1
USAGE = 2
FORBIDDEN = 3
INTERRUPTED = 130
_STATUS: Final = {Invalid: USAGE, NamespacesForbidden: FORBIDDEN, RingfenceError: FAILED}  # the first that fits

_EPILOG = (
    "Begin with: ringfence demo. Exit status: 0 done, 1 failed (the message says what to do), 2 wrong command line, "
    "3 this machine forbids network namespaces, 4 something opens, closes or is left out (plan --exit-code), "
    "5 an assertion would fail (plan, apply), 130 ended by Ctrl-C."
)

app = typer.Typer(
    name="ringfence",
    help="Cloud-grade security groups for your own Linux machines: the Exoscale API, enforced by kernel nftables.",
    epilog=_EPILOG,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": HELP_OPTIONS},
)
# As the help groups them: a function is one verb, an app has verbs of its own.
_VERBS: Final[Mapping[str, Mapping[str, typer.Typer | Callable[..., None]]]] = {
    "Begin": {"demo": demo.demo, "env": env.env, "guard": guard.guard, "version": version.version},
    "Change the policy, and take it back": {
        "allow-me": allow.allow_me,
        "confirm": past.confirm,
        "diff": past.diff,
        "rollback": past.rollback,
        "group": group.app,
        "rule": rule.app,
        "history": history.app,
        "operation": operation.app,
    },
    "Ask what a policy means": {
        "explain": explain.explain,
        "reach": reach.reach,
        "check": check.check,
        "lint": lint.lint,
        "assertion": assertion.app,
    },
    "What was seen": {"observed": observed.observed, "suggest": suggest.suggest, "unused": unused.unused},
    "Policies as files": {"plan": plan.plan, "apply": apply.apply, "export": export.export, "import": imports.app},
    "Servers and hosts": {
        "doctor": doctor.doctor,
        "boot": boot.boot,
        "metrics": metrics.metrics,
        "server": server.app,
        "agent": agent.app,
        "host": host.app,
        "instance": instance.app,
        "organisation": organisation.app,
        "key": key.app,
    },
}
for _panel, _verbs in _VERBS.items():
    for _name, _verb in _verbs.items():
        if isinstance(_verb, typer.Typer):
            app.add_typer(_verb, name=_name, rich_help_panel=_panel)
        else:
            app.command(_name, rich_help_panel=_panel)(_verb)


@app.callback()
def options(
    *,
    asked: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=version.at_once)
    ] = False,
) -> None:
    """What is said before any verb."""


def run(arguments: Sequence[str]) -> int:
    """Run one command line; the exit status comes back."""
    if any("\ud800" <= letter <= "\udfff" for argument in arguments for letter in argument):
        complain("the line has letters that are not UTF-8: no name and no text can have them")
        return USAGE
    try:
        return _call(arguments)
    except typer.TyperException as error:
        message, status = wrong_line(error), USAGE
    except RingfenceError as error:
        message, status = str(error), next(status for kind, status in _STATUS.items() if isinstance(error, kind))
    except typer.Abort:
        message, status = "not confirmed: nothing was changed", FAILED
    except BrokenPipeError:
        _end_output()
        return FAILED
    except OSError as error:  # a file that a verb was given, say
        if _is_full():
            _end_output()
        message, status = f"{error.filename or 'the system refuses'}: {error.strerror or error}", FAILED
    except KeyboardInterrupt:
        return INTERRUPTED
    if message:
        complain(message)
    return status


def _is_full() -> bool:
    """Whether stdout takes no more."""
    try:
        sys.stdout.flush()
    except OSError:
        return True
    return False


def _end_output() -> None:
    """Gives up what is left for a stdout that takes no more: else Python complains of it at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _call(arguments: Sequence[str]) -> int:
    command = dress(typer.main.get_command(app))
    try:
        return int(command.main(list(arguments), prog_name="ringfence", standalone_mode=False) or 0)
    except SystemExit as end:
        return FAILED if isinstance(end.code, str) else int(end.code or 0)
