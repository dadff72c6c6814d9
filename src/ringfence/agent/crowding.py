"""Whether conntrack is nearly full: without room for its flow the kernel drops a first packet, whatever the rules say.

Input: the machine's settings. Output: how many flows there are, and how many there may be.
"""

from dataclasses import dataclass
from typing import Final

from ringfence.agent.doors.machine import MachineDoor

_FLOWS: Final = "net/netfilter/nf_conntrack_count"
_MOST_FLOWS: Final = "net/netfilter/nf_conntrack_max"
_FULL_SHARE: Final = 0.9


@dataclass(frozen=True, slots=True)
class Crowding:
    flows: int
    most: int

    @property
    def text(self) -> str:
        """What it is, in words that do not change with every flow."""
        share = f"{_FULL_SHARE:.0%} or more of the {self.most} flows that it may hold"
        return f"conntrack is nearly full, with {share}: when it is full, what begins is dropped"

    @property
    def advice(self) -> str:
        return f"sysctl -w net.netfilter.nf_conntrack_max={2 * self.most}"


def find_crowding(machine: MachineDoor) -> Crowding | None:
    """None while there is room, and where nothing can be seen or the kernel sets no bound (0). Constant cost."""
    flows, most = machine.setting(_FLOWS), machine.setting(_MOST_FLOWS)
    if flows is None or most is None or int(most) == 0 or int(flows) < _FULL_SHARE * int(most):
        return None
    return Crowding(int(flows), int(most))
