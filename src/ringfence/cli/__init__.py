"""The ``ringfence`` command: one module per verb, no logic. Reads arguments, calls another package, prints the result.

Results go to stdout, everything else to stderr. A verb imports what it needs only when it runs, so that ``--help`` and
completion answer at once.
"""

import io
import os
import sys

from ringfence.cli.app import run

__all__ = ["main"]


def main() -> None:
    """The entry point of the ``ringfence`` program."""
    _replace_closed()
    if isinstance(sys.stdout, io.TextIOWrapper):  # what is done is told, in whatever letters the terminal has
        sys.stdout.reconfigure(errors="backslashreplace")
    sys.exit(run(sys.argv[1:]))


def _replace_closed() -> None:
    """Whoever closed an input or output (``>&-``) wants none, but the next file to be opened would take its place."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # which takes the lowest number that is free
    sys.stdout = sys.stdout or os.fdopen(1, "w")
    sys.stderr = sys.stderr or os.fdopen(2, "w")
