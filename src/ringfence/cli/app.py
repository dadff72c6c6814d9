"""The tree of verbs, and the one place where an error becomes a message and an exit status.

Exit status: 0 done, 1 it failed and the message says what to do, 2 the command line is wrong, 3 this machine forbids
what the command needs, 130 ended by Ctrl-C.
"""

from collections.abc import Sequence
from typing import Annotated

import typer

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
from ringfence.policy.errors import Invalid, RingfenceError
from ringfence.world.namespaces import NamespacesForbidden

FAILED = 1
USAGE = 2
FORBIDDEN = 3
INTERRUPTED = 130

_EPILOG = (
    "Begin with: ringfence demo. Exit status: 0 done, 1 failed (the message says what to do), 2 wrong command line, "
    "3 this machine forbids network namespaces, 130 ended by Ctrl-C."
)

app = typer.Typer(
    name="ringfence",
    help="Cloud-grade security groups for your own Linux machines: the Exoscale API, enforced by kernel nftables.",
    epilog=_EPILOG,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("demo")(demo.demo)
app.add_typer(server.app, name="server")
app.add_typer(agent.app, name="agent")
app.command("boot")(boot.boot)
app.command("doctor")(doctor.doctor)
app.add_typer(organisation.app, name="organisation")
app.add_typer(key.app, name="key")
app.add_typer(history.app, name="history")
app.add_typer(host.app, name="host")
app.add_typer(instance.app, name="instance")
app.add_typer(group.app, name="group")
app.add_typer(rule.app, name="rule")
app.command("allow-me")(allow.allow_me)
app.command("confirm")(past.confirm)
app.command("diff")(past.diff)
app.command("rollback")(past.rollback)
app.add_typer(operation.app, name="operation")
app.command("explain")(explain.explain)
app.command("reach")(reach.reach)
app.command("observed")(observed.observed)
app.command("suggest")(suggest.suggest)
app.command("check")(check.check)
app.add_typer(assertion.app, name="assertion")
app.command("lint")(lint.lint)
app.command("unused")(unused.unused)
app.command("apply")(apply.apply)
app.command("plan")(plan.plan)
app.add_typer(imports.app, name="import")
app.command("export")(export.export)
app.command("env")(env.env)
app.command("guard")(guard.guard)
app.command("version")(version.version)


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
    try:
        app(args=list(arguments))
    except SystemExit as end:
        return FAILED if isinstance(end.code, str) else int(end.code or 0)
    except Invalid as error:
        complain(str(error))
        return USAGE
    except NamespacesForbidden as error:
        complain(str(error))
        return FORBIDDEN
    except RingfenceError as error:
        complain(str(error))
        return FAILED
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0
