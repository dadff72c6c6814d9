"""Doubtful rules and groups of a policy: findings with a stable code, a proof, and advice.

This module finds what can be seen in the rules of one group; ``lint_reach`` finds what depends on who wears what.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from itertools import combinations
from typing import TYPE_CHECKING, Final, cast

from ringfence.policy.addresses import FAMILIES, Family
from ringfence.policy.insight.intervals import EMPTY
from ringfence.policy.insight.services import describe_services, service_span, services_of
from ringfence.policy.model import Group, GroupPeer, Rule
from ringfence.policy.packet import TCP, UDP
from ringfence.policy.rule_words import describe_rule
from ringfence.policy.snapshot import Snapshot, index_of
from ringfence.policy.values import Cidr, Direction, GroupId, Network, Protocol, RuleId
from ringfence.policy.wording import shown

if TYPE_CHECKING:
    from ipaddress import IPv4Network


class Severity(Enum):
    """ERROR: open to all. WARNING: it does not do what it says. NOTE: it does nothing, or is oddly written."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


class Code(Enum):
    """The kind of a finding. The values never change: scripts name them, and the option to ignore some."""

    OPEN_MANAGEMENT = "open-management"
    SHADOWED = "shadowed"
    REDUNDANT = "redundant"
    OVERLAPPING = "overlapping"
    EMPTY_PEER = "empty-peer"
    UNWORN = "unworn"
    NO_DNS = "no-dns"
    NO_PMTU = "no-pmtu"
    HOST_BITS = "host-bits"
    FAMILY = "family"
    NO_EFFECT = "no-effect"


@dataclass(frozen=True, slots=True)
class Finding:
    """``what`` it is about, ``proof`` why, ``advice`` what to do; ``rule`` is None when it is about a whole group."""

    severity: Severity
    code: Code
    group: GroupId
    rule: RuleId | None
    what: str
    proof: str
    advice: str


_ORDER: Final = {severity: place for place, severity in enumerate(Severity)}
_SHOWN_AT_MOST: Final = 3
_WIDE: Final = 8  # a network with a shorter prefix counts as the whole internet: no organisation has as much
# Ports of administration and of databases, which strangers have no business with.
_MANAGEMENT: Final[dict[tuple[int, int], str]] = {
    (TCP, 22): "ssh", (TCP, 23): "telnet", (TCP, 111): "rpcbind", (TCP, 135): "rpc", (TCP, 139): "netbios",
    (TCP, 445): "smb", (TCP, 873): "rsync", (TCP, 1433): "sql server", (TCP, 1521): "oracle", (TCP, 2049): "nfs",
    (TCP, 2375): "docker", (TCP, 2376): "docker", (TCP, 2379): "etcd", (TCP, 3306): "mysql", (TCP, 3389): "rdp",
    (TCP, 5432): "postgresql", (TCP, 5900): "vnc", (TCP, 5984): "couchdb", (TCP, 5985): "winrm", (TCP, 5986): "winrm",
    (TCP, 6379): "redis", (TCP, 6443): "kubernetes", (TCP, 9042): "cassandra", (TCP, 9200): "elasticsearch",
    (TCP, 10250): "kubelet", (TCP, 11211): "memcached", (TCP, 27017): "mongodb", (UDP, 111): "rpcbind",
    (UDP, 161): "snmp", (UDP, 623): "ipmi", (UDP, 2049): "nfs", (UDP, 3389): "rdp", (UDP, 11211): "memcached",
}  # fmt: skip


def in_order(findings: Iterable[Finding], snapshot: Snapshot) -> list[Finding]:
    """The findings by severity, then by code, group and place of the rule."""
    found = [*findings]
    groups = {one.group: snapshot.groups[one.group] for one in found}
    places = {rule.id: n for group in groups.values() for n, rule in enumerate(group.rules)}

    def key(one: Finding) -> tuple[int, str, str, int, str]:
        return (
            _ORDER[one.severity],
            one.code.value,
            groups[one.group].name,
            places.get(one.rule or RuleId(one.group), -1),
            one.what,
        )

    return sorted(found, key=key)


def lint_rules(snapshot: Snapshot, groups: Iterable[Group]) -> Iterator[Finding]:
    """Findings about single rules, peers and sources, and about the rules of one group among themselves."""
    for group in groups:
        for rule in group.rules:
            yield from _of_rule(snapshot, group, rule)
        yield from _among(snapshot, group)
        yield from _of_sources(group)
        yield from _of_nobody(snapshot, group)


def covers(one: Rule, other: Rule) -> bool:
    """Whether ``one`` allows all that ``other`` does, whoever the members are, and for as long."""
    if one.direction is not other.direction or not lasts_as_long(one, other) or not _peer_covers(one, other):
        return False
    families = _families(other)
    return bool(families) and all(services_of(other, family) <= services_of(one, family) for family in families)


def shadowed_by(group: Group) -> dict[Rule, Rule]:
    """Each rule of a group that another rule of it covers, with that rule; of two equal ones, the later is covered."""
    found = {}
    for number, rule in enumerate(group.rules):
        covering = [n for n, one in enumerate(group.rules) if n != number and covers(one, rule)]
        over = next((group.rules[n] for n in covering if n < number or not covers(rule, group.rules[n])), None)
        if over is not None:
            found[rule] = over
    return found


def lasts_as_long(one: Rule, other: Rule) -> bool:
    """Whether ``one`` does not expire before ``other``."""
    return one.expires_at is None or (other.expires_at is not None and other.expires_at <= one.expires_at)


def some(names: list[str]) -> str:
    """The first few names, and how many more there are."""
    first = ", ".join(names[:_SHOWN_AT_MOST])
    return f"{first} and {len(names) - _SHOWN_AT_MOST} more" if len(names) > _SHOWN_AT_MOST else first


def named(snapshot: Snapshot, rule: Rule) -> str:
    """A rule by its id and in words."""
    return f"rule {rule.id}, {describe_rule(snapshot, rule)}"


def _of_rule(snapshot: Snapshot, group: Group, rule: Rule) -> Iterator[Finding]:
    what = named(snapshot, rule)

    def found(severity: Severity, code: Code, proof: str, advice: str) -> Finding:
        return Finding(severity, code, group.id, rule.id, what, proof, advice)

    if not _families(rule):
        family = "IPv4" if rule.protocol is Protocol.ICMP else "IPv6"
        why = f"{rule.protocol.value} is of {family} and the network is not, so that no packet matches"
        yield found(Severity.WARNING, Code.FAMILY, why, "name the other protocol, icmp or icmpv6, or another network")
    if isinstance(rule.peer, Cidr) and (bits := _host_bits(rule.peer)):
        advice = "write what is meant: the network, or the address with /32 or /128"
        yield found(Severity.NOTE, Code.HOST_BITS, bits, advice)
    if isinstance(rule.peer, GroupPeer) and _is_empty(snapshot, rule.peer.group):
        why = "the group has no members and no external sources, so that no packet matches"
        yield found(Severity.WARNING, Code.EMPTY_PEER, why, "attach instances to that group, or delete the rule")
    if rule.direction is Direction.INGRESS and (wide := _world(snapshot, rule)) and (ports := _management(rule)):
        wearers = sorted(shown(snapshot.instances[one].name) for one in index_of(snapshot).wearers_of(group.id))
        whom = f"of {some(wearers)}" if wearers else "of whoever will wear the group"
        why = f"whoever is in {wide} may ask for {ports} {whom}"
        severity = Severity.ERROR if wearers else Severity.WARNING
        yield found(severity, Code.OPEN_MANAGEMENT, why, "name the networks or the group of those who administer")


def _is_empty(snapshot: Snapshot, group: GroupId) -> bool:
    peer = index_of(snapshot).peer(group)
    return not (peer.members or peer.sources)


def _families(rule: Rule) -> list[Family]:
    """The families in which a packet can match a rule."""
    possible = [family for family in FAMILIES if services_of(rule, family)]
    if isinstance(rule.peer, GroupPeer):
        return possible
    return [family for family in possible if family == rule.peer.network.version]


def _host_bits(cidr: Cidr) -> str | None:
    address, _, _ = cidr.text.partition("/")
    network = cidr.network
    is_same = type(network.network_address)(address) == network.network_address
    return None if is_same else f"{cidr.text} has bits beyond its prefix and means {network}"


def _management(rule: Rule) -> str:
    asked = [services_of(rule, family) for family in FAMILIES]
    ports = {
        f"{name} ({port})"
        for (protocol, port), name in _MANAGEMENT.items()
        if any(service_span(protocol, port, port)[0] in services for services in asked)
    }
    return some(sorted(ports))


def _world(snapshot: Snapshot, rule: Rule) -> str | None:
    """A network of the rule's peer that is as wide as the internet, if there is one."""
    if isinstance(rule.peer, GroupPeer):
        networks = sorted(index_of(snapshot).peer(rule.peer.group).sources, key=str)
    else:
        networks = [rule.peer.network]
    return next((str(network) for network in networks if network.prefixlen < _WIDE), None)


def _among(snapshot: Snapshot, group: Group) -> Iterator[Finding]:
    """Each rule of the group against the others."""
    for rule, over in shadowed_by(group).items():
        proof = f"all that it allows is allowed, whoever there is, by {named(snapshot, over)}"
        advice = "delete it: nothing changes"
        yield Finding(Severity.WARNING, Code.SHADOWED, group.id, rule.id, named(snapshot, rule), proof, advice)
    for one, two in combinations(group.rules, 2):
        if (both := _overlap(one, two)) and not covers(one, two) and not covers(two, one):
            proof = f"both it and {named(snapshot, one)} allow {both}"
            advice = "no harm; a packet that both allow is counted for the first"
            yield Finding(Severity.NOTE, Code.OVERLAPPING, group.id, two.id, named(snapshot, two), proof, advice)


def _overlap(one: Rule, two: Rule) -> str:
    """The services that both allow for the same peers, in words; empty if none."""
    if one.direction is not two.direction or not _peer_meets(one, two):
        return ""
    both = EMPTY
    for family in set(_families(one)) & set(_families(two)):
        both |= services_of(one, family) & services_of(two, family)
    return describe_services(both) if both else ""


def _peer_covers(one: Rule, other: Rule) -> bool:
    if isinstance(one.peer, GroupPeer) or isinstance(other.peer, GroupPeer):
        return one.peer == other.peer
    return _holds(one.peer.network, other.peer.network)


def _peer_meets(one: Rule, other: Rule) -> bool:
    if isinstance(one.peer, GroupPeer) or isinstance(other.peer, GroupPeer):
        return one.peer == other.peer
    return one.peer.network.overlaps(other.peer.network)


def _holds(one: Network, other: Network) -> bool:
    return one.version == other.version and cast("IPv4Network", other).subnet_of(cast("IPv4Network", one))


def _of_sources(group: Group) -> Iterator[Finding]:
    for source in group.sources:
        if proof := _host_bits(source):
            what, advice = f"external source {source.text}", "write the network that is meant"
            yield Finding(Severity.NOTE, Code.HOST_BITS, group.id, None, what, proof, advice)


def _of_nobody(snapshot: Snapshot, group: Group) -> Iterator[Finding]:
    index = index_of(snapshot)
    if index.wearers_of(group.id):
        return
    if group.rules:
        proof = f"no instance wears it, so that its rules ({len(group.rules)}) apply to nobody"
    elif group.sources and not index.naming_of(group.id):
        proof = "no instance wears it, and no rule names its external sources"
    else:
        return
    advice = "attach it to an instance, or delete it"
    yield Finding(Severity.NOTE, Code.UNWORN, group.id, None, f"group {shown(group.name)}", proof, advice)
