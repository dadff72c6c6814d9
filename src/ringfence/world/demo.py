"""The demo: a real server, a real agent, a throw-away world, API calls, real packets, and proof that all agree."""

import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Final, NoReturn

from rich.console import Console

from ringfence.policy.errors import OperatorError
from ringfence.world.client import export_lines, render_exports
from ringfence.world.demo_acts import play_cut, play_explanation, play_matrix, play_policy, restore_rule
from ringfence.world.demo_stage import Stage, open_stage

AGREED: Final = 0
DISAGREED: Final = 1
_TERMINATED: Final = 143  # as a shell shows a program that SIGTERM ended
_PAUSE_S: Final = 0.2
_QUESTIONS: Final = (
    "group list",
    "explain app db tcp/5432",
    "reach --to group:db",
    "rule add db tcp/22 --from 0.0.0.0/0 --dry-run",
)


def run_demo(*, stay: bool, env_file: Path | None) -> int:
    """Play all acts; 0 when model, probe and kernel agreed everywhere and the cut was exact, else 1.

    With ``stay`` the world lives on until Ctrl-C. Call it while the process has one thread.

    Raises:
        OperatorError: something did not start; nothing is left behind.
    """
    if env_file is not None and (env_file.is_dir() or not os.access(env_file.absolute().parent, os.W_OK)):
        raise OperatorError(f"writing {env_file}", "it is a folder, or its folder cannot be written")
    _listen_to_signals()
    if isinstance(sys.stdout.encoding, str) and not sys.stdout.encoding.lower().startswith("utf"):
        sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]
    console = Console(soft_wrap=True)
    started_s = time.monotonic()
    with open_stage(console) as stage:
        groups = play_policy(stage)
        agreed = play_matrix(stage)
        cut = play_cut(stage, groups)
        play_explanation(stage)
        _print_end(console, passed=agreed and cut, took_s=time.monotonic() - started_s)
        if stay or env_file is not None:
            restore_rule(stage, groups)
            with _offered(stage, env_file):
                if stay:
                    _stay(stage)
    return AGREED if agreed and cut else DISAGREED


def _print_end(console: Console, *, passed: bool, took_s: float) -> None:
    if passed:
        console.print(f"\n[bold green]All agree.[/bold green] {took_s:.1f} s", highlight=False)
    else:
        console.print(f"\n[bold red]Not all agree: see ✗ above.[/bold red] {took_s:.1f} s", highlight=False)


@contextmanager
def _offered(stage: Stage, env_file: Path | None) -> Iterator[None]:
    """The export lines are shown, and in ``env_file`` for as long as what they name lives."""
    found = render_exports({"RINGFENCE_DATA": str(stage.data)})  # by which ringfence's own commands find the server
    lines = f"{export_lines(stage.credentials, stage.endpoint)}\n{found}"
    stage.console.print(f"\n{lines}", highlight=False, markup=False)
    if env_file is None:
        yield
        return
    _write_whole(env_file, lines + "\n")
    try:
        yield
    finally:
        env_file.unlink(missing_ok=True)


def _write_whole(path: Path, text: str) -> None:
    """At once and only for its owner: whoever waits for the file finds it complete."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as opened:
        opened.write(text)
    draft.replace(path)


def program() -> str:
    """What to type for ``ringfence``: the one of a clone lies in its .venv, on nobody's path."""
    own = Path(sys.argv[0]).absolute()
    return str(own) if own.name == "ringfence" and shutil.which("ringfence") is None else "ringfence"


def _stay(stage: Stage) -> None:
    questions = "".join(f"\n  {program()} {one}" for one in _QUESTIONS)
    stage.console.print(f"\nWith these lines set, ask it from another shell:{questions}", highlight=False, markup=False)
    stage.console.print("\n[bold]Ctrl-C ends it.[/bold]")
    try:
        while True:
            stage.check_alive()
            time.sleep(_PAUSE_S)
    except KeyboardInterrupt:
        return


def _listen_to_signals() -> None:
    """End cleanly by Ctrl-C, SIGTERM and a closed terminal; a script's background job starts with SIGINT ignored."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, _end)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup
        signal.signal(signal.SIGHUP, _end)


def _end(_number: int, _frame: FrameType | None) -> NoReturn:
    """SIGTERM ends the demo like Ctrl-C: through every clean-up on the way out."""
    sys.exit(_TERMINATED)
