"""One policy of any size, as the server would send it to a host.

Groups of ten rules: half of them tcp and half udp, half for a peer group of ten members and half for a network.
Instances wear two groups. What is allowed is allowed by the last rule that is asked: the worst place.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from ipaddress import IPv4Address
from types import MappingProxyType
from uuid import UUID

from ringfence.policy.model import GroupPeer, Peer, Rule
from ringfence.policy.program.compile import LocalPorts
from ringfence.policy.values import Direction, GroupId, InstanceId, InterfaceName, Mac, Protocol, RuleId, parse_cidr
from ringfence.policy.view import Endpoint, HostView, PeerAddresses
from ringfence.world.topology import Node, World

RULES_OF_A_GROUP = 10
ALLOWED_PORT, OTHER_PORT, DENIED_PORT = 9000, 8000, 7
SENDER = Node("from", (IPv4Address("10.77.0.1"),))
RECEIVER = Node("to", (IPv4Address("10.77.0.2"),))
OUTSIDE = Node("outside", (IPv4Address("10.77.0.3"),), managed=False)
NODES = (SENDER, RECEIVER, OUTSIDE)
PORTS = LocalPorts(("veth*",))
_PROTOCOLS = (Protocol.TCP, Protocol.UDP)
_SENDERS = parse_cidr("10.77.0.0/28", field="bench")
_FIRST_MEMBER, _FIRST_NETWORK = IPv4Address("10.128.0.0"), IPv4Address("16.0.0.0")
_BETWEEN_NETWORKS = 32  # every second /28, so that no two of them merge


@dataclass(frozen=True)
class Workload:
    """``networks``: further rules for a network each in the receiver's last group; ``members`` of its peer group."""

    rules: int
    networks: int = 0
    members: int = 10

    @property
    def groups(self) -> int:
        return max(1, self.rules // RULES_OF_A_GROUP)

    @property
    def receiver(self) -> int:
        """Which of the instances it is: the middle one, which is kind to whoever searches them in order."""
        return self.groups // 2

    def worn(self, instance: int) -> list[int]:
        return sorted({instance, (instance + 1) % self.groups})

    def port_of(self, instance: int) -> str:
        return RECEIVER.port if instance == self.receiver else f"veth{instance}"

    def peer_of(self, group: int) -> int:
        """The group that the group's rules name."""
        return (group + 7) % self.groups

    def members_of(self, group: int) -> list[IPv4Address]:
        """Members on other hosts, but for the senders, which the receiver's last rules let in."""
        if group != self.peer_of(self._last_asked):
            return [_FIRST_MEMBER + group * 10 + number for number in range(10)]
        others = [_FIRST_MEMBER + (1 << 20) + number for number in range(self.members - 2)]
        return [*others, *SENDER.addresses, *OUTSIDE.addresses]

    def rules_of(self, group: int) -> Iterator[Rule]:
        port = ALLOWED_PORT if group == self._last_asked else OTHER_PORT
        for number in range(RULES_OF_A_GROUP):
            is_last = number >= RULES_OF_A_GROUP - 2
            peer = self._peer(group, number, is_last=is_last)
            yield _rule(group, number, peer, port if is_last and not self._by_network(group) else 1000 + number)
        if self._by_network(group):
            for number in range(self.networks):
                yield _rule(group, 100 + number, _network(1 << 20 | number), ALLOWED_PORT)
            for number in range(2):
                yield _rule(group, 10 + number, _SENDERS, ALLOWED_PORT)

    @property
    def _last_asked(self) -> int:
        return self.worn(self.receiver)[-1]

    def _by_network(self, group: int) -> bool:
        return bool(self.networks) and group == self._last_asked

    def _peer(self, group: int, number: int, *, is_last: bool) -> Peer:
        if is_last or number % 4 < 2:
            return GroupPeer(group_id(self.peer_of(group)))
        return _network(group * RULES_OF_A_GROUP + number)


def view_of(load: Workload, world: World) -> HostView:
    """What the server would send. The sender wears what the receiver wears; both declare their MAC addresses."""
    endpoints = [_endpoint(load, number) for number in range(load.groups)]
    receiver = replace(endpoints[load.receiver], addresses=RECEIVER.addresses, mac=world.placed[RECEIVER.name].mac)
    endpoints[load.receiver] = receiver
    sender = Endpoint(
        InstanceId(UUID(int=1 << 80)),
        SENDER.name,
        InterfaceName(SENDER.port),
        SENDER.addresses,
        world.placed[SENDER.name].mac,
        receiver.groups,
    )
    rules = {group_id(group): tuple(load.rules_of(group)) for group in range(load.groups)}
    peers = {group_id(group): PeerAddresses(frozenset(load.members_of(group))) for group in range(load.groups)}
    return HostView(1, (*endpoints, sender), MappingProxyType(rules), MappingProxyType(peers))


def group_id(group: int) -> GroupId:
    return GroupId(UUID(int=group + 1))


def _endpoint(load: Workload, number: int) -> Endpoint:
    mac = Mac(f"06:00:00:{number >> 16:02x}:{number >> 8 & 0xFF:02x}:{number & 0xFF:02x}")
    address = IPv4Address("10.64.0.0") + number
    groups = tuple(group_id(group) for group in load.worn(number))
    name = load.port_of(number)
    return Endpoint(InstanceId(UUID(int=number + 1)), name, InterfaceName(name), (address,), mac, groups)


def _rule(group: int, number: int, peer: Peer, port: int) -> Rule:
    return Rule(RuleId(UUID(int=group << 32 | number)), Direction.INGRESS, _PROTOCOLS[number % 2], peer, port)


def _network(number: int):
    return parse_cidr(f"{_FIRST_NETWORK + number * _BETWEEN_NETWORKS}/28", field="bench")
