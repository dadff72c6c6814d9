"""Waiting until no packet is on its way through rules that were just replaced."""

import ctypes
import platform
import time
from typing import Final

# membarrier(2), for which the C library has no function of its own: its number by machine (linux/unistd.h).
_MEMBARRIER: Final = {"x86_64": 324, "aarch64": 283, "riscv64": 283, "ppc64le": 365, "s390x": 356}
_GLOBAL: Final = 1  # returns after a grace period of RCU, and a packet passes all its hooks within one reader of it
_INSTEAD_S: Final = 0.05  # where the kernel does not offer it

_libc = ctypes.CDLL(None, use_errno=True)


def wait_grace() -> None:
    """Return when every packet that was under way at the call has passed. Some 10 ms; 50 ms on an odd machine."""
    number = _MEMBARRIER.get(platform.machine())
    if number is None or _libc.syscall(number, _GLOBAL, 0, 0) != 0:
        time.sleep(_INSTEAD_S)
