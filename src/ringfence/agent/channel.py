"""The agent's channel: every address and port at which its server may be, so that no policy ever cuts it off.

Input: what ``--server`` names, and a door to the resolver. Output: the channel of ``LocalPorts``, which a self host
lets pass. An address is kept for an hour after it was last found, because an open connection may still be to it.
"""

from dataclasses import dataclass
from typing import Final

from ringfence.agent.doors.clock import Clock
from ringfence.agent.doors.names import NamesDoor
from ringfence.policy.errors import OperatorError
from ringfence.policy.values import Address

KEPT_S: Final = 3600.0


@dataclass(frozen=True, slots=True)
class ServerPlace:
    """The host (name or address) and the TCP port of a server that is reached over a network."""

    host: str
    port: int


class Channel:
    """``ends`` is what must never be cut; ``remembered`` are the ends of an earlier run of the agent.

    A server on a unix socket has no place and no ends.
    """

    def __init__(
        self, place: ServerPlace | None, names: NamesDoor, clock: Clock, *, remembered: frozenset[tuple[Address, int]]
    ) -> None:
        self._place = place
        self._names = names
        self._clock = clock
        now_s = clock.monotonic()
        self._found_s = dict.fromkeys(remembered, now_s) if place else {}
        self.problem: str | None = None

    @property
    def ends(self) -> frozenset[tuple[Address, int]]:
        return frozenset(self._found_s)

    def resolve(self) -> bool:
        """Looks the server up again, which may take seconds; returns whether its ends changed."""
        if self._place is None:
            return False
        before = self.ends
        try:
            found = self._names.addresses(self._place.host)
        except OperatorError as error:
            self.problem = f"{error}; the addresses known so far stay open to the agent"
            return False
        self.problem = None
        now_s = self._clock.monotonic()
        # Replaced, never changed: other threads read it meanwhile.
        newest = self._found_s | {(address, self._place.port): now_s for address in found}
        self._found_s = {end: at_s for end, at_s in newest.items() if now_s - at_s < KEPT_S}
        return self.ends != before
