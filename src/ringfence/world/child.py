"""The first moments of a child process: enter a network namespace, die with the parent, become the real program.

``python -m ringfence.world.child PARENT NETWORK_FD PROGRAM ARGUMENT...``; PARENT is the parent's process id, NETWORK_FD
is ``-`` to stay in its network. Doing this before exec, in a process of its own, needs no code between fork and exec.
"""

import ctypes
import os
import signal
import sys
from typing import Final

_PR_SET_PDEATHSIG: Final = 1
_CLONE_NEWNET: Final = 0x40000000


def main(arguments: list[str]) -> None:
    parent, network, *program = arguments
    libc = ctypes.CDLL(None, use_errno=True)
    if network != "-" and libc.setns(int(network), _CLONE_NEWNET) != 0:
        sys.exit(f"ringfence: entering a network namespace: {os.strerror(ctypes.get_errno())}")
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(parent):
        sys.exit(1)  # the parent died before it could be known
    os.execv(program[0], program)  # noqa: S606  no shell is wanted


if __name__ == "__main__":
    main(sys.argv[1:])
