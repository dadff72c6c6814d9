"""The changes between two views of a host, and a digest by which server and agent know that theirs are equal.

Pure. The digest is a sum of hashes of the view's elements (endpoints, rules with their predecessors, members, sources),
so that updating it costs what a change is about, whatever the size of the view. It detects damage and defects, not
forgery: the connection proves who sends a view.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from ipaddress import IPv4Network, IPv6Network
from typing import Final, NewType, assert_never, cast

from ringfence.policy.evolving import Draft, EvolvingSet, differing, differing_members, evolving
from ringfence.policy.model import NOBODY, PeerAddresses, Rule
from ringfence.policy.values import (
    Address,
    Cidr,
    GroupId,
    HostName,
    InstanceId,
    InterfaceName,
    Network,
    Revision,
    RuleId,
)
from ringfence.policy.view import Endpoint, HostView

Digest = NewType("Digest", int)

DIGEST_SIZE_BYTES: Final = 16
_MODULUS: Final = 1 << (8 * DIGEST_SIZE_BYTES)
_NO_RULE: Final = bytes(16)


@dataclass(frozen=True, slots=True)
class EndpointPut:
    """A new or changed endpoint, which replaces any of the same instance on the same interface."""

    endpoint: Endpoint


@dataclass(frozen=True, slots=True)
class EndpointGone:
    instance: InstanceId
    interface: InterfaceName


@dataclass(frozen=True, slots=True)
class RulesChanged:
    """A worn group loses the rules ``gone``, then gets ``added`` as its last. A group not worn before had none."""

    group: GroupId
    gone: tuple[RuleId, ...] = ()
    added: tuple[Rule, ...] = ()


@dataclass(frozen=True, slots=True)
class RulesGone:
    """The group is worn no more."""

    group: GroupId


@dataclass(frozen=True, slots=True)
class PeerChanged:
    """A group that a rule names gains and loses members and sources. One not named before had none."""

    group: GroupId
    added: frozenset[Address | Network] = frozenset()
    removed: frozenset[Address | Network] = frozenset()


@dataclass(frozen=True, slots=True)
class PeerGone:
    """No rule names the group any more."""

    group: GroupId


ViewChange = EndpointPut | EndpointGone | RulesChanged | RulesGone | PeerChanged | PeerGone


def apply_changes(view: HostView, changes: Iterable[ViewChange], revision: Revision) -> HostView:
    """The next view, which shares all that no change is about. O(changes), and O(endpoints) if one of those changes.

    Taking away what is not there is no error.
    """
    endpoints = {(one.interface, one.instance): one for one in view.endpoints}
    rules, peers = Draft(evolving(view.rules)), Draft(evolving(view.peers))
    for change in changes:
        match change:
            case EndpointPut(endpoint):
                endpoints[(endpoint.interface, endpoint.instance)] = endpoint
            case EndpointGone(instance, interface):
                endpoints.pop((interface, instance), None)
            case RulesChanged(group, gone, added):
                kept = tuple(rule for rule in rules.find(group) or () if rule.id not in gone)
                rules[group] = (*kept, *added)
            case RulesGone(group):
                del rules[group]
            case PeerChanged(group):
                peers[group] = _changed_peer(peers.find(group) or NOBODY, change)
            case PeerGone(group):
                del peers[group]
            case _:
                assert_never(change)
    ordered = tuple(endpoints[key] for key in sorted(endpoints))
    kept_endpoints = view.endpoints if ordered == view.endpoints else ordered
    return HostView(revision, kept_endpoints, rules.finish(), peers.finish())


def diff_views(before: HostView, after: HostView) -> tuple[ViewChange, ...]:
    """The changes that turn ``before`` into ``after``. O(both), where comparing shared objects costs very little."""
    changes: list[ViewChange | None] = []
    if before.endpoints != after.endpoints:
        known, wanted = set(before.endpoints), set(after.endpoints)
        kept = {(one.instance, one.interface) for one in after.endpoints}
        changes += [
            EndpointGone(one.instance, one.interface)
            for one in before.endpoints
            if one not in wanted and (one.instance, one.interface) not in kept
        ]
        changes += [EndpointPut(one) for one in after.endpoints if one not in known]
    for group in sorted(differing(before.rules, after.rules)):
        changes.append(diff_rules(group, before.rules.get(group), after.rules.get(group)))
    for group in sorted(differing(before.peers, after.peers)):
        changes.append(diff_peer(group, before.peers.get(group), after.peers.get(group)))
    return tuple(change for change in changes if change is not None)


def diff_rules(group: GroupId, before: tuple[Rule, ...] | None, after: tuple[Rule, ...] | None) -> ViewChange | None:
    """The change from ``before`` to ``after``, or None; rules None: the group is not worn."""
    if after is None:
        return None if before is None else RulesGone(group)
    old, new = before or (), after
    first = _common(old, new)
    wanted = {rule.id: rule for rule in new[first:]}
    kept = tuple(rule for rule in old[first:] if wanted.get(rule.id) == rule)
    if new[first : first + len(kept)] != kept:  # in another order: all of them anew
        kept = ()
    staying = {rule.id for rule in kept}
    gone = tuple(rule.id for rule in old[first:] if rule.id not in staying)
    added = new[first + len(kept) :]
    return RulesChanged(group, gone, added) if gone or added or before is None else None


def diff_peer(group: GroupId, before: PeerAddresses | None, after: PeerAddresses | None) -> ViewChange | None:
    """The change from ``before`` to ``after``, or None; a peer None: no rule names the group."""
    if after is None:
        return None if before is None else PeerGone(group)
    old, new = before or NOBODY, after
    members = differing_members(old.members, new.members)
    added = {one for one in members if one in new.members}
    moved = PeerChanged(
        group, frozenset(added | (new.sources - old.sources)), frozenset(members - added | (old.sources - new.sources))
    )
    return moved if moved.added or moved.removed or before is None else None


def digest_view(view: HostView) -> Digest:
    """The digest of a whole view, whatever its revision. O(size of the view), a microsecond for each element."""
    parts = [digest_endpoint(endpoint) for endpoint in view.endpoints]
    parts += [digest_rules(group, rules) for group, rules in view.rules.items()]
    parts += [digest_peer(group, peer) for group, peer in view.peers.items()]
    return add_digests(parts)


def digest_difference(before: HostView, after: HostView) -> Digest:
    """The digest of ``after`` minus that of ``before``. O(what differs) if made from each other, else O(both)."""
    parts: list[int] = []
    if before.endpoints is not after.endpoints:
        gone, come = Counter(before.endpoints), Counter(after.endpoints)
        parts += [-digest_endpoint(one) for one in (gone - come).elements()]
        parts += [digest_endpoint(one) for one in (come - gone).elements()]
    for group in differing(before.rules, after.rules):
        parts.append(digest_rules_difference(group, before.rules.get(group), after.rules.get(group)))
    for group in differing(before.peers, after.peers):
        parts.append(digest_peer_difference(group, before.peers.get(group), after.peers.get(group)))
    return add_digests(parts)


def add_digests(parts: Iterable[int]) -> Digest:
    return Digest(sum(parts) % _MODULUS)


def move_digests(digests: Mapping[HostName, Digest], by: Digest) -> dict[HostName, Digest]:
    """Each of ``digests`` with ``by`` added."""
    mask = _MODULUS - 1  # hosts are many: a remainder, and a call for the type, would take twice the time
    return cast("dict[HostName, Digest]", {host: digest + by & mask for host, digest in digests.items()})


def digest_endpoint(endpoint: Endpoint) -> Digest:
    said = (endpoint.interface, *map(str, endpoint.addresses), endpoint.mac or "", endpoint.kind.value)
    groups = b"".join(group.bytes for group in endpoint.groups)
    observe = b"observe" if endpoint.observe else b""
    return _hash(b"endpoint", endpoint.instance.bytes, groups, observe, " ".join(said).encode(), _text(endpoint.name))


def digest_rules(group: GroupId, rules: tuple[Rule, ...]) -> Digest:
    """The share of a worn group: that it is worn, and its rules in their order."""
    return digest_rules_difference(group, None, rules)


def digest_peer(group: GroupId, peer: PeerAddresses) -> Digest:
    """The share of a group that a rule names: that it is named, its members and its sources."""
    return digest_peer_difference(group, None, peer)


def digest_rules_difference(group: GroupId, before: tuple[Rule, ...] | None, after: tuple[Rule, ...] | None) -> Digest:
    """What a change of a group's rules adds to the digest; None: not worn. Hashes what differs and the rule behind."""
    old, new = before or (), after or ()
    first = _common(old, new)
    last = _common(old[first:][::-1], new[first:][::-1])
    worn = _hash(b"worn", group.bytes) * ((after is not None) - (before is not None))
    gone = _sum_of_rules(group, old, first, len(old) - last + 1)
    come = _sum_of_rules(group, new, first, len(new) - last + 1)
    return Digest((worn + come - gone) % _MODULUS)


def digest_peer_difference(group: GroupId, before: PeerAddresses | None, after: PeerAddresses | None) -> Digest:
    old, new = before or NOBODY, after or NOBODY
    named = _hash(b"named", group.bytes) * ((after is not None) - (before is not None))
    members = differing_members(old.members, new.members)
    moved = sum(_member_hash(group, one) * (1 if one in new.members else -1) for one in members)
    moved += sum(_source_hash(group, one) for one in new.sources - old.sources)
    moved -= sum(_source_hash(group, one) for one in old.sources - new.sources)
    return Digest((named + moved) % _MODULUS)


def _common(one: tuple[Rule, ...], other: tuple[Rule, ...]) -> int:
    """The length of the common prefix."""
    return next(
        (n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a is not b and a != b),
        min(len(one), len(other)),
    )


def _changed_peer(peer: PeerAddresses, change: PeerChanged) -> PeerAddresses:
    members = peer.members if isinstance(peer.members, EvolvingSet) else EvolvingSet.of(peer.members)
    networks = (IPv4Network, IPv6Network)
    put = {one for one in change.added if not isinstance(one, networks)}
    gone = {one for one in change.removed if not isinstance(one, networks)}
    sources = peer.sources.difference(change.removed).union(one for one in change.added if isinstance(one, networks))
    return PeerAddresses(members.evolve(put, gone), peer.sources if sources == peer.sources else sources)


def _sum_of_rules(group: GroupId, rules: tuple[Rule, ...], first: int, end: int) -> int:
    """The sum of the hashes of ``rules[first:end]``; each also covers the rule before it, so that order counts."""
    its = group.bytes
    before = rules[first - 1].id.bytes if first else _NO_RULE
    total = 0
    for rule in rules[first:end]:
        id_ = rule.id.bytes
        peer = rule.peer.text if isinstance(rule.peer, Cidr) else str(rule.peer.group)
        icmp = "" if rule.icmp is None else f"{rule.icmp.type}/{rule.icmp.code}"
        said = f"{rule.direction.value} {rule.protocol.value} {peer} {rule.start_port} {rule.end_port} {icmp}"
        described = b"" if rule.description is None else b"described " + _text(rule.description)
        total += _hash(b"rule", its, before, id_, said.encode(), described)
        before = id_
    return total


def _member_hash(group: GroupId, address: Address) -> int:
    return _hash(b"member", group.bytes, address.packed)


def _source_hash(group: GroupId, network: Network) -> int:
    return _hash(b"source", group.bytes, network.network_address.packed, bytes([network.prefixlen]))


def _text(text: str) -> bytes:
    return text.encode(errors="surrogatepass")


def _hash(*parts: bytes) -> Digest:
    return Digest(int.from_bytes(blake2b(b"\0".join(parts), digest_size=DIGEST_SIZE_BYTES).digest()))
