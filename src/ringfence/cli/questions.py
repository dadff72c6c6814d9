"""A question about a policy: asked of a server, or of a policy file and no server."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ringfence.policy.errors import CallerError, OperatorError

if TYPE_CHECKING:
    from ringfence.policy.snapshot import Snapshot
    from ringfence.wire.policy_file import PolicyFile

FileOption = Annotated[
    Path | None, typer.Option("--file", "-f", help="Ask this policy file; no server is needed, and none is asked.")
]


def question(data: Path, file: Path | None, name: str, query: dict[str, str]) -> dict[str, Any]:
    """The answer, a JSON object; the same of a file as of a server that holds what the file says.

    Raises:
        CallerError: nobody is named so, or the file says what no policy can; ``OperatorError``: nobody answers.
    """
    if file is not None:
        import msgspec

        from ringfence.control.questions import ANSWERS, Questions

        answer: dict[str, Any] = msgspec.to_builtins(ANSWERS[name](Questions(), read_snapshot(file), query))
        return answer
    from ringfence.cli.admin_client import Ask, ask

    return ask(data, Ask("POST", f"/{name}", query, asks_only=True))


def read_snapshot(file: Path) -> "Snapshot":
    """The policy that a file describes.

    Raises:
        Invalid: the message begins with file and line; ``OperatorError``: the file cannot be read.
    """
    from ringfence.policy.desired import snapshot_of

    read = read_file(file)
    try:
        return snapshot_of(read.document)
    except CallerError as error:
        raise read.locate(error) from error


def read_file(file: Path) -> "PolicyFile":
    """A policy file, with the lines of its fields; raises as ``read_snapshot``."""
    from ringfence.wire.policy_file import read_policy

    return read_policy(read_text(file), name_of(file))


def name_of(file: Path) -> str:
    """What a file is called in messages; ``-`` is standard input."""
    return "standard input" if str(file) == "-" else str(file)


def read_text(file: Path) -> str:
    """What a file says; ``-`` is standard input."""
    try:
        return sys.stdin.read() if str(file) == "-" else file.read_text()
    except OSError as error:
        raise OperatorError(f"reading {file}", error.strerror or str(error)) from error
    except UnicodeDecodeError as error:
        raise OperatorError(f"reading {file}", str(error)) from error
