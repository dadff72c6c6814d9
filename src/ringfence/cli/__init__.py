"""The ``ringfence`` command: one module per verb, no logic. Reads arguments, calls another package, prints the result.

Results go to stdout, everything else to stderr. A verb imports what it needs only when it runs, so that ``--help`` and
completion answer at once.
"""

import io
import sys

from ringfence.cli.app import run

__all__ = ["main"]


def main() -> None:
    """The entry point of the ``ringfence`` program."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # what is done is told, in whatever letters the terminal has
        sys.stdout.reconfigure(errors="backslashreplace")
    sys.exit(run(sys.argv[1:]))
