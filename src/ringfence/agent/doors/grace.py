"""Waits until no packet is under way through rules that were just replaced."""

import ctypes
import platform
import time
from typing import Final

# The number of membarrier(2) by machine (linux/unistd.h): the C library has no function for it.
_MEMBARRIER: Final = {"x86_64": 324, "aarch64": 283, "riscv64": 283, "ppc64le": 365, "s390x": 356}
_GLOBAL: Final = 1  # returns after an RCU grace period; a packet passes a hook within one RCU read-side section
_INSTEAD_S: Final = 0.05  # where the kernel does not offer it

_libc = ctypes.CDLL(None, use_errno=True)


def wait_grace() -> None:
    """Returns when every packet that was under way at the call has passed: some 10 ms, or 50 ms without membarrier."""
    number = _MEMBARRIER.get(platform.machine())
    if number is None or _libc.syscall(number, _GLOBAL, 0, 0) != 0:
        time.sleep(_INSTEAD_S)
