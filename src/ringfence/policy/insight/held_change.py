"""Whether a change breaks an assertion, at the cost of what the change touches.

Input: the snapshots before and after, an assertion. Output: a packet that proves it wrong after the change and did not
before, or None. One end of such a packet is an instance that the change touches: the instance itself, its rules, or the
groups that these name. For the other end it is enough to look at members of groups that such rules name, instances
whose rules name a group of such an instance, and those the assertion names; of many that are treated alike, at two.
All others are treated as addresses of no instance, which may send and receive anything. That hides no proof; and if a
proof has an address that an instance has after all, the search is repeated with that instance.
"""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final

from ringfence.policy.errors import CallerError
from ringfence.policy.evolving import differing
from ringfence.policy.index import Index
from ringfence.policy.insight.address_axis import address_at, position, span_of
from ringfence.policy.insight.assertions import Assertion, Witness, find_worse
from ringfence.policy.insight.meant import Meant, ends_of, is_another, means, named_by, sources_of
from ringfence.policy.insight.part import concerns, part_of
from ringfence.policy.model import Group, GroupPeer, Instance, Peer, Rule
from ringfence.policy.named import INTERNET
from ringfence.policy.snapshot import Snapshot, index_of
from ringfence.policy.values import Address, Cidr, Direction, GroupId, InstanceId, Kind, Network, OrganisationId

_Few = set[InstanceId]
_FEW: Final = 32  # with more instances, those that are treated alike are reduced to two
_MOST: Final = 256  # with more even so, the whole snapshots are compared
_ROUNDS: Final = 8
_NEAR: Final = 64  # how many of the next addresses are checked, too, when one turns out to be an instance's


class _Anybody(Exception):
    """Only the whole snapshots can tell."""


@dataclass(frozen=True)
class Change:
    """Two snapshots, and what differs between them."""

    before: Snapshot
    after: Snapshot

    @cached_property
    def indexes(self) -> tuple[Index, Index]:
        return index_of(self.before), index_of(self.after)

    @cached_property
    def groups(self) -> list[tuple[GroupId, Group | None, Group | None]]:
        """The groups that differ: id, before, after."""
        found = differing(self.before.groups, self.after.groups)
        return [(id_, self.before.groups.get(id_), self.after.groups.get(id_)) for id_ in sorted(found)]

    @cached_property
    def moved(self) -> _Few:
        """The instances that differ, and those that share an address with one of them."""
        found = differing(self.before.instances, self.after.instances)
        known = [one for index in self.indexes for id_ in found if (one := index.instances.get(id_)) is not None]
        addresses = {address for one in known for address in one.addresses}
        return found | {one.id for index in self.indexes for address in addresses for one in index.holding(address)}

    @cached_property
    def turns_names(self) -> bool:
        """Whether a name may mean other addresses than before."""
        known = ((old, new) for _, old, new in self.groups)
        alike = (old and new and (old.name, old.sources) == (new.name, new.sources) for old, new in known)
        return bool(self.moved) or not all(alike)

    @cached_property
    def joined(self) -> set[GroupId]:
        """The groups whose addresses as a peer differ."""
        worn = {group for id_ in self.moved for index in self.indexes for group in _worn(index, id_)}
        old, new = self.indexes
        return {group for group in worn if old.peer(group) != new.peer(group)}

    def wearers_of(self, group: GroupId) -> _Few:
        """The instances that wear the group before or after."""
        old, new = self.indexes
        return {*old.wearers_of(group), *new.wearers_of(group)}


def find_worse_by(change: Change, assertion: Assertion, owner: OrganisationId) -> Witness | None:
    """As ``find_worse``, for an assertion in the names of ``owner``; mostly O(what the change touches).

    Raises:
        NotFound, Invalid: as ``find_worse``.
    """
    try:
        return _Case(change, assertion, owner).find_worse()
    except _Anybody:
        return find_worse(change.before, change.after, assertion, owner=owner)


@dataclass(frozen=True, slots=True)
class _Side:
    """The instances that a change touches at one end of an assertion, and what the other end means."""

    way: Direction  # of the rules that decide at this end
    touched: _Few
    newly: _Few  # of these, those that this end did not mean before
    opposite: tuple[Meant, Meant]  # before, after


class _Case:
    """One assertion about a change."""

    def __init__(self, change: Change, assertion: Assertion, owner: OrganisationId) -> None:
        self._change = change
        self._assertion = assertion
        self._owner = owner
        self._states = tuple(zip((change.before, change.after), change.indexes, strict=True))

    def find_worse(self) -> Witness | None:
        receivers, senders = self._touched()
        if not (receivers or senders or self._change.turns_names):
            return None
        sides = [side if self._assertion.allow else self._pared(side) for side in self._sides(receivers, senders)]
        if not any(side.touched for side in sides):
            return None
        kept = {id_ for side in sides for id_ in (*side.touched, *self._others(side))}
        for _ in range(_ROUNDS):
            few = self._alike(kept) if len(kept) > _FEW else kept
            if len(few) > _MOST:
                break
            before, after = (self._part(few, state) for state, _ in self._states)
            witness = find_worse(before, after, self._assertion, owner=self._owner, is_taken=self._is_taken)
            left_out = self._left_out(witness) - kept if witness else set()
            if not left_out:
                return witness
            kept |= left_out
        raise _Anybody

    def _part(self, ids: _Few, snapshot: Snapshot) -> Snapshot:
        return part_of(snapshot, self._assertion, ids & snapshot.instances.keys(), self._owner)

    def _touched(self) -> tuple[_Few, _Few]:
        """The instances for which the change may alter what they let in, and those for which what they may send."""
        receivers, senders = set(self._change.moved), set(self._change.moved)
        for id_, old, new in self._change.groups:
            for rule in _rules(old) ^ _rules(new):
                if rule.direction is Direction.EGRESS:  # the first of them closes everything else, whatever it allows
                    senders |= self._change.wearers_of(id_)
                elif self._counts(rule):
                    receivers |= self._change.wearers_of(id_)
            if sources_of(old) != sources_of(new):
                receivers |= self._naming(id_, Direction.INGRESS)
                senders |= self._naming(id_, Direction.EGRESS)
        return receivers, senders

    def _counts(self, rule: Rule) -> bool:
        return concerns(rule, self._assertion)

    def _naming(self, group: GroupId, way: Direction) -> _Few:
        """The instances with a rule in that direction that names the group, before or after."""
        return {
            wearer
            for _, index in self._states
            for other in index.naming_of(group)
            if group in self._named(index.groups[other].rules, way)
            for wearer in index.wearers_of(other)
        }

    def _named(self, rules: Iterable[Rule], way: Direction) -> set[GroupId]:
        """The groups that the rules concerned by the assertion name in that direction."""
        found = ((rule, rule.peer) for rule in rules if rule.direction is way)
        return {peer.group for rule, peer in found if isinstance(peer, GroupPeer) and self._counts(rule)}

    def _sides(self, receivers: _Few, senders: _Few) -> tuple[_Side, _Side]:
        """Raises as ``find_named`` for ``after``."""
        ends = ends_of(self._change.after, self._assertion, self._owner)
        try:
            known = ends_of(self._change.before, self._assertion, self._owner)
        except CallerError as error:
            raise _Anybody from error  # ``find_worse`` treats a name that was unknown before
        if any(is_another(*pair) for pair in zip(known, ends, strict=True)):
            raise _Anybody
        source, destination = zip(known, ends, strict=True)
        return (
            self._side(Direction.INGRESS, receivers, destination, source),
            self._side(Direction.EGRESS, senders, source, destination),
        )

    def _side(self, way: Direction, found: _Few, own: tuple[Meant, Meant], opposite: tuple[Meant, Meant]) -> _Side:
        were, are = (_meant_of(found, end, index) for end, (_, index) in zip(own, self._states, strict=True))
        return _Side(way, were | are, are - were, opposite)

    def _pared(self, side: _Side) -> _Side:
        """The side without instances that no packet of a ``deny`` can reach, or leave, because nobody lets it in."""
        if side.way is Direction.INGRESS:
            return replace(side, touched={*filter(self._lets_in, side.touched)})
        (_, end), (_, (_, index)) = side.opposite, self._states
        is_let_in = not _is_narrow(end) or any(map(self._lets_in, named_by(end, index)))
        return side if is_let_in else replace(side, touched=set())

    def _lets_in(self, id_: InstanceId) -> bool:
        """Whether an instance, or one that shares an address with it, may let the services in after the change."""
        _, (_, index) = self._states
        addresses = index.instances[id_].addresses if id_ in index.instances else ()
        near = {one.id: one for address in addresses for one in index.holding(address)}
        rules = (rule for group in _worn_by(index, near) for rule in index.groups[group].rules)
        is_open = any(rule.direction is Direction.INGRESS and self._counts(rule) for rule in rules)
        return is_open or any(one.observe for one in near.values())

    def _others(self, side: _Side) -> _Few:
        """The instances at the other end that have to be looked at one by one."""
        if not side.touched:
            return set()
        joined = self._change.joined if side.touched & self._change.moved else ()
        near = {id_ for group in joined for id_ in self._naming(group, _OTHER_WAY[side.way])}
        found: _Few = set()
        for end, (_, index) in zip(side.opposite, self._states, strict=True):
            rules = [rule for group in _worn_by(index, side.touched) for rule in index.groups[group].rules]
            members = {id_ for group in self._named(rules, side.way) for id_ in index.wearers_of(group)}
            found |= _meant_of(near | members, end, index) | named_by(end, index)
        return found | self._refusing(side) if self._assertion.allow and side.newly else found

    def _refusing(self, side: _Side) -> _Few:
        """The instances that may refuse one that the assertion did not mean before."""
        if all(end == INTERNET or _is_narrow(end) for end in side.opposite):
            return set()
        if side.way is Direction.EGRESS:
            raise _Anybody
        (_, end), (_, (_, index)) = side.opposite, self._states
        restricting = (id_ for id_, group in index.groups.items() if any(map(_is_egress, group.rules)))
        return _meant_of({id_ for group in restricting for id_ in index.wearers_of(group)}, end, index)

    def _alike(self, ids: _Few) -> _Few:
        """At most two of all instances that no rule and no end tells apart."""
        borders = self._borders(ids)
        found: dict[object, list[InstanceId]] = defaultdict(list)
        for id_ in sorted(ids):
            roles = tuple(_role(index.instances.get(id_), index, borders) or id_ for _, index in self._states)
            found[roles].append(id_)
        named = (
            end.id for end in ends_of(self._change.after, self._assertion, self._owner) if isinstance(end, Instance)
        )
        return {id_ for same in found.values() for id_ in same[:2]}.union(named)

    def _borders(self, ids: _Few) -> list[int]:
        """The positions at which a network of their rules, or of an end, begins or has ended, ascending."""
        networks: set[Network] = set()
        for snapshot, index in self._states:
            rules = (rule for group in _worn_by(index, ids) for rule in index.groups[group].rules)
            peers = {rule.peer for rule in rules if self._counts(rule)}
            for one in (*peers, *ends_of(snapshot, self._assertion, self._owner)):
                networks.update(_networks_of(one, index))
        return sorted({border for first, last in map(span_of, networks) for border in (first, last + 1)})

    def _is_taken(self, address: Address) -> bool:
        return any(address in index.holders for _, index in self._states)

    def _left_out(self, witness: Witness) -> _Few:
        """The instances that have an address which the witness takes for nobody's, or one of the next addresses."""
        ends = ((witness.source, witness.packet.source), (witness.destination, witness.packet.destination))
        return {
            one.id
            for end, address in ends
            if end is None and self._is_taken(address)
            for place in range(position(address), position(address) + _NEAR)
            for _, index in self._states
            for one in index.holding(address_at(place))
        }


_OTHER_WAY: Final = {Direction.INGRESS: Direction.EGRESS, Direction.EGRESS: Direction.INGRESS}
_NOT_THERE: Final = "not there"


def _rules(group: Group | None) -> frozenset[Rule]:
    return frozenset(group.rules) if group else frozenset()


def _is_egress(rule: Rule) -> bool:
    return rule.direction is Direction.EGRESS


def _is_narrow(end: Meant) -> bool:
    """Whether it means only instances, without external sources."""
    return isinstance(end, Group | Instance) and not sources_of(end)


def _worn(index: Index, id_: InstanceId) -> tuple[GroupId, ...]:
    instance = index.instances.get(id_)
    return instance.groups if instance else ()


def _worn_by(index: Index, ids: Iterable[InstanceId]) -> set[GroupId]:
    return {group for id_ in ids for group in _worn(index, id_) if group in index.groups}


def _meant_of(ids: Iterable[InstanceId], end: Meant, index: Index) -> _Few:
    return {id_ for id_ in ids if (one := index.instances.get(id_)) is not None and means(end, index, one)}


def _networks_of(one: Peer | Meant, index: Index) -> Iterable[Network]:
    """The networks that a peer or an end consists of."""
    match one:
        case GroupPeer(id_) | Group(id_):
            return index.peer(id_).sources
        case Cidr():
            return (one.network,)
        case Instance() | str():
            return ()
        case _:
            return (one,)


def _role(instance: Instance | None, index: Index, borders: list[int]) -> object:
    """A key equal for instances that are treated alike; None for one that shares an address: it is like no other."""
    if instance is None:
        return _NOT_THERE
    if any(len(index.holders.get(address, ())) > 1 for address in instance.addresses):
        return None
    kinds = tuple(
        (one.kind is Kind.SELF, address.version, bisect_right(borders, position(address)))
        for one in instance.interfaces
        if one.managed
        for address in one.addresses
    )
    return instance.groups, instance.observe, kinds
