"""PURE: whether a change would cut a connection on which people or agents depend, at a host that is its own instance.

A host's failsafe ports and its own agent's channel pass whatever its groups say, so no change can cut those; a server
knows nothing of failsafe ports, and takes a connection to one for what the groups make of it.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address

from ringfence.policy.errors import Conflict
from ringfence.policy.index import index_of
from ringfence.policy.model import Instance, Snapshot
from ringfence.policy.packet import TCP, Packet
from ringfence.policy.values import Address, Kind
from ringfence.policy.verdict import SideVerdict, judge
from ringfence.policy.view import endpoints_of, resolve_view


@dataclass(frozen=True, slots=True)
class Connection:
    """A TCP connection that is open; ``whose`` begins a sentence about it."""

    whose: str
    client: Address
    client_port: int
    server: Address
    server_port: int


def parse_connection(whose: str, client: object, server: object) -> Connection | None:
    """The connection between two ends as sockets tell of them (address, port, …); None for any that is not TCP."""
    ends = [end[:2] for end in (client, server) if isinstance(end, tuple | list) and isinstance(end[1], int)]
    try:
        [(client_address, client_port), (server_address, server_port)] = ends
        return Connection(whose, _address(client_address), client_port, _address(server_address), server_port)
    except ValueError:
        return None


def require_uncut(before: Snapshot, after: Snapshot, connections: Iterable[Connection]) -> None:
    """Raises ``Conflict`` for the first connection that passes by now, and would not after the change.

    O(rules of the hosts at whose addresses a connection ends), for each connection.
    """
    for connection in connections:
        refused = _refusal(after, connection)
        if refused is not None and _refusal(before, connection) is None:
            way = f"from {connection.client} to {connection.server} tcp/{connection.server_port}"
            raise Conflict(
                f"{connection.whose} {way} would be cut at {refused.endpoint.name}: {_why(refused)}; nothing was "
                "changed. If that is meant, or it is a failsafe port of that host, say --force"
            )


def guards_itself(snapshot: Snapshot, address: Address) -> bool:
    """Whether the address is of a host that is its own instance."""
    return bool(_hosts(snapshot, address))


def _hosts(snapshot: Snapshot, address: Address) -> list[Instance]:
    holders = index_of(snapshot).holding(address)
    return [one for one in holders if one.host is not None and _is_self(one)]


def _is_self(instance: Instance) -> bool:
    return any(interface.managed and interface.kind is Kind.SELF for interface in instance.interfaces)


def _refusal(snapshot: Snapshot, connection: Connection) -> SideVerdict | None:
    """The side that refuses its first packet, at either end; None when none does, or it stays on its host."""
    if connection.client == connection.server:
        return None
    packet = Packet(
        connection.client,
        connection.server,
        TCP,
        source_port=connection.client_port,
        destination_port=connection.server_port,
    )
    for address in (connection.server, connection.client):
        for instance in _hosts(snapshot, address):
            view = resolve_view(snapshot, instance.host)
            endpoint = next(one for one in endpoints_of(instance) if address in one.addresses)
            ends = (None, endpoint) if address == connection.server else (endpoint, None)
            verdict = judge(view, packet, source=ends[0], destination=ends[1], from_host=ends[0] is not None)
            if verdict.refusing is not None:
                return verdict.refusing
    return None


def _why(refused: SideVerdict) -> str:
    return str(getattr(refused.reason, "value", ""))


def _address(text: object) -> Address:
    address = ip_address(str(text).partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address
