"""PURE: which of the connections that people or agents depend on a change would cut at a self host.

A host's failsafe ports and its own agent's channel pass whatever its groups say, so no change can cut those. Where a
host's failsafe ports are not known, its connections are judged by its groups alone.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import IPv6Address, ip_address

from ringfence.policy.local import Failsafe, Lifelines
from ringfence.policy.model import Instance
from ringfence.policy.packet import TCP, Packet
from ringfence.policy.snapshot import Snapshot, index_of
from ringfence.policy.values import Address, HostName, Kind
from ringfence.policy.verdict import SideVerdict, judge
from ringfence.policy.view import Endpoint, HostView, endpoints_of, resolve_view

FailsafeOf = Callable[[HostName], tuple[Failsafe, ...] | None]


@dataclass(frozen=True, slots=True)
class Connection:
    """An open TCP connection. ``whose`` begins a sentence about it; ``agent`` is the host whose agent it belongs to."""

    whose: str
    client: Address
    client_port: int
    server: Address
    server_port: int
    agent: HostName | None = None


@dataclass(frozen=True, slots=True)
class Cut:
    """A connection that a change would cut, the host that would refuse it, and why.

    ``failsafe`` are the ports of that host that no change closes; None if its agent has not reported them.
    """

    connection: Connection
    host: HostName
    refused: SideVerdict
    failsafe: tuple[Failsafe, ...] | None

    @property
    def text(self) -> str:
        one = self.connection
        way = f"from {one.client} to {one.server} tcp/{one.server_port}"
        why = getattr(self.refused.reason, "value", "")
        return f"{one.whose} {way} would be cut at {self.refused.endpoint.name}: {why}; {self._failsafe_words()}"

    def _failsafe_words(self) -> str:
        if self.failsafe is None:
            return f"the failsafe ports of host {self.host} are not known here: its agent has not told them"
        shown = ", ".join(
            f"{one.protocol.value}/{one.port} from {' '.join(map(str, one.sources))}" for one in self.failsafe
        )
        return f"it is not by a failsafe port of host {self.host} ({shown or 'it has none'})"


def parse_connection(whose: str, client: object, server: object, *, agent: HostName | None = None) -> Connection | None:
    """The connection between two socket addresses, each (address, port, …); None if either is not of that form."""
    ends = [end[:2] for end in (client, server) if isinstance(end, tuple | list) and isinstance(end[1], int)]
    try:
        [(client_address, client_port), (server_address, server_port)] = ends
        return Connection(whose, _address(client_address), client_port, _address(server_address), server_port, agent)
    except ValueError:
        return None


def parse_session(text: str) -> Connection | None:
    """The connection that ``SSH_CONNECTION`` names: address and port of the client, then of the server."""
    words = text.split()
    if len(words) != 4 or not (words[1] + words[3]).isdigit():  # noqa: PLR2004  two ends, an address and a port each
        return None
    return parse_connection("your session", (words[0], int(words[1])), (words[2], int(words[3])))


def find_cuts(
    before: Snapshot, after: Snapshot, connections: Iterable[Connection], failsafe_of: FailsafeOf
) -> Iterator[Cut]:
    """The connections that pass before the change and would not after it.

    O(rules of the self hosts among their ends), and for each connection the cost of ``judge``.
    """
    now, then = _Bench(before, failsafe_of), _Bench(after, failsafe_of)
    for connection in connections:
        cut = then.cut_of(connection)
        if cut is not None and now.cut_of(connection) is None:
            yield cut


def guards_itself(snapshot: Snapshot, address: Address) -> bool:
    """Whether the address belongs to a self host."""
    return bool(_hosts(snapshot, address))


def _hosts(snapshot: Snapshot, address: Address) -> list[tuple[HostName, Instance]]:
    holders = index_of(snapshot).holding(address)
    return [(one.host, one) for one in holders if one.host is not None and _is_self(one)]


def _is_self(instance: Instance) -> bool:
    return any(interface.managed and interface.kind is Kind.SELF for interface in instance.interfaces)


@dataclass(slots=True)
class _Bench:
    """Judges connections by one snapshot; each host's view is resolved once."""

    snapshot: Snapshot
    failsafe_of: FailsafeOf
    views: dict[HostName, HostView] = field(default_factory=dict)

    def cut_of(self, connection: Connection) -> Cut | None:
        """The end that refuses the connection's first packet; None when it passes both, or never leaves its host."""
        if connection.client == connection.server:
            return None
        for address in (connection.server, connection.client):
            for host, instance in _hosts(self.snapshot, address):
                endpoint = next(one for one in endpoints_of(instance) if address in one.addresses)
                refused = self._refusal(connection, host, endpoint)
                if refused is not None:
                    return Cut(connection, host, refused, self.failsafe_of(host))
        return None

    def _refusal(self, connection: Connection, host: HostName, endpoint: Endpoint) -> SideVerdict | None:
        if host not in self.views:
            self.views[host] = resolve_view(self.snapshot, host)
        is_server = connection.server in endpoint.addresses
        to_server = {(connection.server, connection.server_port)} if connection.agent == host else ()
        lifelines = Lifelines(self.failsafe_of(host) or (), frozenset(to_server))
        verdict = judge(
            self.views[host],
            _first_packet(connection),
            source=None if is_server else endpoint,
            destination=endpoint if is_server else None,
            from_host=not is_server,
            lifelines=lifelines,
        )
        return verdict.refusing


def _first_packet(connection: Connection) -> Packet:
    return Packet(
        connection.client,
        connection.server,
        TCP,
        source_port=connection.client_port,
        destination_port=connection.server_port,
    )


@lru_cache(maxsize=1024)
def _address(text: object) -> Address:
    """Cached: requests come from few addresses, and go to few."""
    address = ip_address(str(text).partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address
