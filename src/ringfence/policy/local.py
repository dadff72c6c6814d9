"""What a host alone decides: which interfaces are managed, and which connections must never be cut.

It comes from the inventory and the agent, and is the second input of ``compile``, beside the server's view.
"""

from dataclasses import dataclass, field

from ringfence.policy.values import Address, Kind, Network, Protocol
from ringfence.policy.view import Endpoint


@dataclass(frozen=True, slots=True)
class Failsafe:
    """A tcp or udp port of a self host that no group can close to ``sources``."""

    protocol: Protocol
    port: int
    sources: tuple[Network, ...]


@dataclass(frozen=True, slots=True)
class Lifelines:
    """What passes at a self host before any group is asked: failsafe ports, and the agent's channel to its server.

    ``channel`` is every address and port at which the server may be: TCP, from the host itself.
    """

    failsafe: tuple[Failsafe, ...] = ()
    channel: frozenset[tuple[Address, int]] = frozenset()


@dataclass(frozen=True, slots=True)
class LocalPorts:
    """The interfaces that the inventory calls managed, by name or by prefix (``tap*``): closed until programmed.

    ``uplinks`` are those of a self host as the inventory declares them: until programmed, only ``lifelines`` and
    traffic of the link itself pass there.
    """

    patterns: tuple[str, ...] = ()
    kind: Kind = Kind.ROUTED
    uplinks: tuple[Endpoint, ...] = ()
    lifelines: Lifelines = field(default_factory=Lifelines)

    @property
    def names(self) -> frozenset[str]:
        return frozenset(pattern for pattern in self.patterns if not pattern.endswith("*"))

    @property
    def prefixes(self) -> tuple[str, ...]:
        return tuple(sorted({pattern[:-1] for pattern in self.patterns if pattern.endswith("*")}))
