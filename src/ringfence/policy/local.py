"""What a host says of itself and no server knows: which interfaces are under our care, and how packets reach them.

It comes from the inventory and the agent, and reaches ``compile`` beside the server's view.
"""

from dataclasses import dataclass

from ringfence.policy.values import Kind


@dataclass(frozen=True, slots=True)
class LocalPorts:
    """Interfaces that the inventory puts under our care: names, and prefixes with ``*``; closed until programmed."""

    patterns: tuple[str, ...] = ()
    kind: Kind = Kind.ROUTED

    @property
    def names(self) -> frozenset[str]:
        return frozenset(pattern for pattern in self.patterns if not pattern.endswith("*"))

    @property
    def prefixes(self) -> tuple[str, ...]:
        return tuple(sorted({pattern[:-1] for pattern in self.patterns if pattern.endswith("*")}))
