"""The ``ringfence`` command: one module per verb, no logic. Reads arguments, calls another package, prints the result.

Results go to stdout, everything else to stderr. A verb imports what it needs only when it runs, so that ``--help`` and
completion answer at once.
"""

import sys

from ringfence.cli.app import run

__all__ = ["main"]


def main() -> None:
    """The entry point of the ``ringfence`` program."""
    sys.exit(run(sys.argv[1:]))
