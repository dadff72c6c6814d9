"""A question in words ("app db tcp/5432") -> the verdict in words: what each side says, by which rule, what is missing.

Pure: reads a snapshot, sends nothing. The exit of every sentence is an operator's next step.
"""

import re
from dataclasses import dataclass
from typing import Final

from ringfence.policy.errors import Invalid, NotFound
from ringfence.policy.model import GroupPeer, Instance, Rule, Snapshot
from ringfence.policy.packet import TCP, UDP, Packet
from ringfence.policy.values import PROTOCOL_NUMBER, Address, Direction, GroupId, Kind, Protocol, parse_address
from ringfence.policy.verdict import (
    Allowance,
    SideVerdict,
    Verdict,
    find_endpoint,
    judge,
    protocol_matches,
)
from ringfence.policy.view import Endpoint, HostView, resolve_view
from ringfence.policy.wording import shown, suggestion

INTERNET: Final = "internet"
_INTERNET_ADDRESSES: Final = ("192.0.2.1", "2001:db8::1")  # documentation addresses: members of nothing by accident
_SERVICE: Final = re.compile(r"(?P<protocol>[a-z0-9]+)(?:/(?P<first>\d{1,5})(?:/(?P<second>\d{1,3}))?)?")
_ECHO: Final = {Protocol.ICMP: 8, Protocol.ICMPV6: 128}
_SOURCE_PORT: Final = 49152  # the first of the ephemeral ports (RFC 6335)


@dataclass(frozen=True, slots=True)
class Service:
    """What the packet is: a protocol and its destination port, or its ICMP type and code."""

    protocol: Protocol
    port: int = 0
    icmp_type: int = 0
    icmp_code: int = 0

    def __str__(self) -> str:
        if self.protocol.has_ports:
            return f"{self.protocol.value}/{self.port}"
        if self.protocol.has_types:
            return f"{self.protocol.value}/{self.icmp_type}/{self.icmp_code}"
        return self.protocol.value


@dataclass(frozen=True, slots=True)
class Explanation:
    """``text`` is for a person, one line per side after the first; ``verdict`` is what it is about."""

    packet: Packet
    verdict: Verdict
    text: str


def parse_service(text: str, *, field: str = "service") -> Service:
    """``tcp/5432``, ``udp/53``, ``icmp`` (an echo), ``icmp/3/4`` (type, code), ``esp`` …; raises ``Invalid``."""
    expected = f"expected PROTOCOL/PORT such as tcp/443, icmp/TYPE/CODE, or one of esp, ah, gre, ipip; got {text!a}"
    found = _SERVICE.fullmatch(text)
    names = {protocol.value: protocol for protocol in PROTOCOL_NUMBER}
    if not found or found["protocol"] not in names:
        raise Invalid(expected, field=field)
    protocol = names[found["protocol"]]
    first, second = (int(found[key]) if found[key] else None for key in ("first", "second"))
    if protocol.has_ports and first is not None and second is None and 1 <= first <= 65535:  # noqa: PLR2004  ports
        return Service(protocol, port=first)
    if protocol.has_types and max(first or 0, second or 0) <= 255:  # noqa: PLR2004  one octet each
        return Service(protocol, icmp_type=_ECHO[protocol] if first is None else first, icmp_code=second or 0)
    if not protocol.has_ports and not protocol.has_types and first is None:
        return Service(protocol)
    raise Invalid(expected, field=field)


def explain(snapshot: Snapshot, source: str, destination: str, service: Service) -> Explanation:
    """Why a first packet from ``source`` to ``destination`` passes or not.

    Both ends are an instance's name or id, an address, or "internet" (a documentation address that belongs to nobody).

    Raises:
        NotFound: no instance of that name; the text suggests the nearest.
        Invalid: the ends have no address of one family, or a name is ambiguous.
    """
    view = resolve_view(snapshot)
    source_address, destination_address = _addresses(snapshot, source, destination, service)
    packet = Packet(
        source_address,
        destination_address,
        PROTOCOL_NUMBER[service.protocol],
        source_port=_SOURCE_PORT,
        destination_port=service.port,
        icmp_type=service.icmp_type,
        icmp_code=service.icmp_code,
    )
    ends = find_endpoint(view, source_address), find_endpoint(view, destination_address)
    verdict = Verdict(None, None)
    if not _is_loopback(*ends):
        is_host = ends[0] is not None and ends[0].kind is Kind.SELF
        verdict = judge(view, packet, source=ends[0], destination=ends[1], from_host=is_host)
    return Explanation(packet, verdict, "\n".join(_sentences(snapshot, view, packet, verdict, service)))


def _is_loopback(source: Endpoint | None, destination: Endpoint | None) -> bool:
    """Whether a host that is its own instance talks to itself, which no uplink sees."""
    if source is None or destination is None:
        return False
    return source.kind is Kind.SELF and source.instance == destination.instance


def _addresses(snapshot: Snapshot, source: str, destination: str, service: Service) -> tuple[Address, Address]:
    sources, destinations = _ends(snapshot, source, "source"), _ends(snapshot, destination, "destination")
    wanted = {Protocol.ICMP: (4,), Protocol.ICMPV6: (6,)}.get(service.protocol, (4, 6))
    for family in wanted:
        one = [address for address in sources if address.version == family]
        other = [address for address in destinations if address.version == family]
        if one and other:
            return one[0], other[0]
    raise Invalid(
        f"{shown(source)} and {shown(destination)} have no addresses of one family that {service} could use",
        field="destination",
    )


def _ends(snapshot: Snapshot, text: str, field: str) -> tuple[Address, ...]:
    if text == INTERNET:
        return tuple(parse_address(address, field=field) for address in _INTERNET_ADDRESSES)
    if found := _instances(snapshot, text):
        return _only(found, text, field).addresses
    if re.fullmatch(r"[0-9a-fA-F:.]*[:.][0-9a-fA-F:.]*", text):
        return (parse_address(text, field=field),)
    raise _not_found(snapshot, text, field, INTERNET)


def find_instance_named(snapshot: Snapshot, text: str, *, field: str = "instance") -> Instance:
    """The one instance of that name or id.

    Raises:
        NotFound: there is none; the text suggests the nearest.
        Invalid: several have the name.
    """
    if not (found := _instances(snapshot, text)):
        raise _not_found(snapshot, text, field)
    return _only(found, text, field)


def _only(found: list[Instance], text: str, field: str) -> Instance:
    if len(found) > 1:
        ids = ", ".join(str(instance.id) for instance in found)
        raise Invalid(f"several instances are named {shown(text)}: say which by its id ({ids})", field=field)
    return found[0]


def _not_found(snapshot: Snapshot, text: str, field: str, *others: str) -> NotFound:
    known = (*(instance.name for instance in snapshot.instances.values()), *others)
    return NotFound(f"no instance is named {text!a}{suggestion(text, known)}", field=field)


def _instances(snapshot: Snapshot, text: str) -> list[Instance]:
    return [instance for instance in snapshot.instances.values() if text in (instance.name, str(instance.id))]


def _sentences(snapshot: Snapshot, view: HostView, packet: Packet, verdict: Verdict, service: Service) -> list[str]:
    names = [
        f"{shown(endpoint.name)} ({address})"
        if (endpoint := find_endpoint(view, address))
        else f"{address} (unmanaged)"
        for address in (packet.source, packet.destination)
    ]
    found = "allowed" if verdict.allowed else "denied"
    sentences = [f"{found}: {names[0]} -> {names[1]} {service}"]
    for side in (verdict.egress, verdict.ingress):
        if side is not None:
            sentences.append(f"  {describe_side(snapshot, side)}")
            if not side.allowed:
                sentences += [*_nearest(snapshot, view, packet, side), *_lifelines(packet, side)]
    if verdict.egress is None and verdict.ingress is None:
        is_known = find_endpoint(view, packet.source) is not None
        whose = "it stays on the host, and loopback is free" if is_known else "neither end is an instance"
        sentences.append(f"  {whose}, so no group judges it")
    return sentences


def _lifelines(packet: Packet, side: SideVerdict) -> list[str]:
    """What the server does not know of a host that protects itself."""
    if side.endpoint.kind is not Kind.SELF or packet.protocol not in (TCP, UDP):
        return []
    return ["  the host's failsafe ports, which only its inventory knows, and its agent's channel pass all the same"]


def describe_side(snapshot: Snapshot, side: SideVerdict) -> str:
    """What a side says and why, e.g. "ingress of db-1 (wears db) denies it: no rule of its groups allows it in …"."""
    worn = ", ".join(_group_name(snapshot, group) for group in side.endpoint.groups) or "no group"
    said = "allows it" if side.allowed else "would deny it, but is only observed" if side.passes else "denies it"
    head = f"{side.direction.value} of {shown(side.endpoint.name)} (wears {worn}) {said}"
    if isinstance(side.reason, Allowance):
        group = _group_name(snapshot, side.reason.group)
        return f"{head}: rule {side.reason.rule.id} of group {group}, {describe_rule(snapshot, side.reason.rule)}"
    return f"{head}: {side.reason.value}"


def describe_rule(snapshot: Snapshot, rule: Rule) -> str:
    """A rule in words, e.g. "ingress tcp/5432 from group app (reads)"."""
    what = rule.protocol.value
    if rule.protocol.has_ports and rule.start_port is not None:
        what += (
            f"/{rule.ports.first}" if rule.ports.first == rule.ports.last else f"/{rule.ports.first}-{rule.ports.last}"
        )
    if rule.icmp is not None and not rule.icmp.any_type:
        what += f"/{rule.icmp.type}" if rule.icmp.any_code else f"/{rule.icmp.type}/{rule.icmp.code}"
    way = "from" if rule.direction is Direction.INGRESS else "to"
    peer = f"group {_group_name(snapshot, rule.peer.group)}" if isinstance(rule.peer, GroupPeer) else rule.peer.text
    note = f" ({shown(rule.description)})" if rule.description else ""
    return f"{rule.direction.value} {what} {way} {peer}{note}"


def _nearest(snapshot: Snapshot, view: HostView, packet: Packet, side: SideVerdict) -> list[str]:
    """The rule that would match but for its peer: usually the one somebody meant."""
    peer = packet.source if side.direction is Direction.INGRESS else packet.destination
    for group in side.endpoint.groups:
        for rule in view.rules.get(group, ()):
            if rule.direction is not side.direction:
                continue
            described = (
                f"nearest is rule {rule.id} of group {_group_name(snapshot, group)}, {describe_rule(snapshot, rule)}"
            )
            if protocol_matches(rule, packet):
                return [f"  {described}; but {peer} is not in {_peer_words(snapshot, view, rule)}"]
    return []


def _peer_words(snapshot: Snapshot, view: HostView, rule: Rule) -> str:
    if not isinstance(rule.peer, GroupPeer):
        return rule.peer.text
    addresses = view.peers.get(rule.peer.group)
    count = len(addresses.members) + len(addresses.sources) if addresses else 0
    return f"group {_group_name(snapshot, rule.peer.group)} ({count} addresses and sources)"


def _group_name(snapshot: Snapshot, group: GroupId) -> str:
    return shown(snapshot.groups[group].name) if group in snapshot.groups else str(group)
