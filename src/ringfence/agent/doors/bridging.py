"""br_netfilter: whether the kernel passes bridged packets to the rules for IP, without which nothing judges them.

The settings belong to the network namespace of the caller and can be changed by anybody (sysctl.d of other programs).
"""

from pathlib import Path
from typing import Final, Protocol

from ringfence.policy.errors import OperatorError

_FOLDER: Final = Path("/proc/sys/net/bridge")
SETTINGS: Final = ("bridge-nf-call-iptables", "bridge-nf-call-ip6tables")


class BridgingDoor(Protocol):
    def is_on(self) -> bool:
        """Whether it is on for both IP families. Constant cost."""
        ...

    def switch_on(self) -> None:
        """Switches it on for both families; raises ``OperatorError`` when that fails."""
        ...


class KernelBridging:
    def is_on(self) -> bool:
        try:
            return all((_FOLDER / name).read_text(encoding="ascii").strip() == "1" for name in SETTINGS)
        except OSError:
            return False

    def switch_on(self) -> None:
        step = "filter what bridges carry"
        if not _FOLDER.exists():
            raise OperatorError(step, "this kernel has no br_netfilter here (run: modprobe br_netfilter)")
        for name in SETTINGS:
            try:
                (_FOLDER / name).write_text("1", encoding="ascii")
            except OSError as error:
                reason = f"net.bridge.{name} cannot be set to 1: {error.strerror}; needs root in this network namespace"
                raise OperatorError(step, reason) from error
        if not self.is_on():
            raise OperatorError(step, "net.bridge.bridge-nf-call-* do not stay 1: does another program set them?")
