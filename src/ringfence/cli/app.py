"""The tree of verbs, and the one place where an error becomes a message and an exit status.

Exit status: 0 done, 1 it failed and the message says what to do, 2 the command line is wrong, 3 this machine forbids
what the command needs, 130 ended by Ctrl-C; plan and apply have two more of their own.
"""

import os
import sys
from collections.abc import Sequence
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
_BEGIN = "Begin"
_CHANGE = "Change the policy, and take it back"
_ASK = "Ask what a policy means"
_SEEN = "What was seen"
_FILES = "Policies as files"
_RUN = "Servers and hosts"

app.command("demo", rich_help_panel=_BEGIN)(demo.demo)
app.command("env", rich_help_panel=_BEGIN)(env.env)
app.command("guard", rich_help_panel=_BEGIN)(guard.guard)
app.command("version", rich_help_panel=_BEGIN)(version.version)
app.command("allow-me", rich_help_panel=_CHANGE)(allow.allow_me)
app.command("confirm", rich_help_panel=_CHANGE)(past.confirm)
app.command("diff", rich_help_panel=_CHANGE)(past.diff)
app.command("rollback", rich_help_panel=_CHANGE)(past.rollback)
app.add_typer(group.app, name="group", rich_help_panel=_CHANGE)
app.add_typer(rule.app, name="rule", rich_help_panel=_CHANGE)
app.add_typer(history.app, name="history", rich_help_panel=_CHANGE)
app.add_typer(operation.app, name="operation", rich_help_panel=_CHANGE)
app.command("explain", rich_help_panel=_ASK)(explain.explain)
app.command("reach", rich_help_panel=_ASK)(reach.reach)
app.command("check", rich_help_panel=_ASK)(check.check)
app.command("lint", rich_help_panel=_ASK)(lint.lint)
app.add_typer(assertion.app, name="assertion", rich_help_panel=_ASK)
app.command("observed", rich_help_panel=_SEEN)(observed.observed)
app.command("suggest", rich_help_panel=_SEEN)(suggest.suggest)
app.command("unused", rich_help_panel=_SEEN)(unused.unused)
app.command("plan", rich_help_panel=_FILES)(plan.plan)
app.command("apply", rich_help_panel=_FILES)(apply.apply)
app.command("export", rich_help_panel=_FILES)(export.export)
app.add_typer(imports.app, name="import", rich_help_panel=_FILES)
app.command("doctor", rich_help_panel=_RUN)(doctor.doctor)
app.command("boot", rich_help_panel=_RUN)(boot.boot)
app.command("metrics", rich_help_panel=_RUN)(metrics.metrics)
app.add_typer(server.app, name="server", rich_help_panel=_RUN)
app.add_typer(agent.app, name="agent", rich_help_panel=_RUN)
app.add_typer(host.app, name="host", rich_help_panel=_RUN)
app.add_typer(instance.app, name="instance", rich_help_panel=_RUN)
app.add_typer(organisation.app, name="organisation", rich_help_panel=_RUN)
app.add_typer(key.app, name="key", rich_help_panel=_RUN)


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
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python complains of it at its end
        return FAILED
    except OSError as error:  # a file that a verb was given, say
        message, status = f"{error.filename or 'the system refuses'}: {error.strerror or error}", FAILED
    except KeyboardInterrupt:
        return INTERRUPTED
    if message:
        complain(message)
    return status


def _call(arguments: Sequence[str]) -> int:
    command = dress(typer.main.get_command(app))
    try:
        return int(command.main(list(arguments), prog_name="ringfence", standalone_mode=False) or 0)
    except SystemExit as end:
        return FAILED if isinstance(end.code, str) else int(end.code or 0)
