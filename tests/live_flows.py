"""A live flow between two nodes of a mute lab, packet by packet: whatever either end says next is a packet of it."""

from dataclasses import replace

from lab import Lab, Way
from ringfence.policy.packet import TCP, UDP
from segments import Connection, Echo

ALLOWED = True
_PORTS = {TCP: 5432, UDP: 99}


class LiveFlow:
    """TCP, UDP or an echo from a client to a server; ``source_port`` is the identifier of an echo."""

    def __init__(self, lab: Lab, client: str, protocol: int, family: int, *, server: str = "db", **fields: int) -> None:
        self._lab = lab
        self._opening = lab.way(client, server, protocol, family, destination_port=_PORTS.get(protocol, 0), **fields)
        self._connection = Connection(self._opening.packet) if protocol == TCP else None

    @property
    def from_client(self) -> Way:
        return self._encoded(self._opening, 8, 128, "from_client")

    @property
    def from_server(self) -> Way:
        return self._encoded(self._opening.back(), 0, 129, "from_server")

    def opening(self) -> list[Way]:
        """The packets after which the flow lives, one after another; the last two are one of each end."""
        handshake = []
        if self._connection:
            ways = (self._opening, self._opening.back(), self._opening)
            segments = self._connection.handshake()
            handshake = [replace(way, encode=segment) for way, segment in zip(ways, segments, strict=True)]
        return [*handshake, self.from_client, self.from_server]

    def open(self) -> None:
        for way in self.opening():
            self._lab.expect_fate(ALLOWED, way)

    def _encoded(self, way: Way, type4: int, type6: int, says: str) -> Way:
        if self._connection:
            return replace(way, encode=getattr(self._connection, says)())
        if way.packet.protocol == UDP:
            return way
        echo = way.again(icmp_type=type4 if way.packet.family == 4 else type6)
        return replace(echo, encode=Echo(echo.packet, self._opening.packet.source_port))
