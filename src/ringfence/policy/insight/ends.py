"""The end of a question, in words -> the classes and addresses that it means.

An end is "internet", "any", or an instance, a group, an address or a network. Unknown names are refused with the
nearest known one.
"""

import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final, TypeVar
from uuid import UUID

from ringfence.policy.errors import Invalid, NotFound
from ringfence.policy.index import index_of
from ringfence.policy.insight.address_axis import UNICAST, addresses_of, position
from ringfence.policy.insight.intervals import Intervals
from ringfence.policy.insight.population import Class, Dweller, Population, bits_of
from ringfence.policy.model import Group, Instance, Snapshot
from ringfence.policy.places import ANY, GROUP, INSTANCE, INTERNET, split_kind
from ringfence.policy.values import GroupId, InstanceId, Network, OrganisationId, Visibility, parse_cidr
from ringfence.policy.wording import shown, suggestion

_Named = TypeVar("_Named", Group, Instance)
_OTHERS: Final = (ANY, INTERNET)  # ends that are not names
_UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass(frozen=True, slots=True)
class End:
    """The classes ``bits``, of which only ``addresses`` are meant, or all (None); ``word`` is how it was named."""

    word: str
    bits: int
    addresses: Intervals | None = None

    def part_of(self, kind: Class) -> Intervals:
        """The addresses of a class that are meant."""
        return kind.addresses if self.addresses is None else kind.addresses & self.addresses

    def dwellers(self, kind: Class) -> Iterator[Dweller]:
        """The instances' addresses of a class that are meant."""
        return (one for one in kind.dwellers if self.addresses is None or position(one.address) in self.addresses)


def parse_end(
    population: Population, text: str, *, field: str, owner: OrganisationId | None = None, version: int = -1
) -> End:
    """The end that ``text`` names in the snapshot ``version``; ``group:NAME`` and ``instance:NAME`` are unambiguous.

    A group stands for its members and its external sources. With an ``owner`` only that organisation's names and those
    of public groups are known.

    Raises:
        NotFound: nobody is named so; the text suggests the nearest.
        Invalid: several are, or it is an address that no flow can have.
    """
    if text == ANY:
        return End(text, population.everybody)
    if text == INTERNET:
        return End(text, population.internet)
    if (network := parse_network(text, field=field)) is not None:
        return _within(population, text, addresses_of([network]), field)
    one = find_named(population.snapshots[version], text, field=field, owner=owner)
    if isinstance(one, Group):
        return End(text, population.peers[version].get(one.id, 0))
    places = [place for address in one.addresses if (place := position(address)) in UNICAST]
    return End(text, population.living_at(places), Intervals.union((place, place) for place in places))


def find_named(
    snapshot: Snapshot,
    text: str,
    *,
    field: str,
    owner: OrganisationId | None = None,
    others: Collection[str] = _OTHERS,
) -> Group | Instance:
    """The group or instance that ``text`` names; ``others`` are words to suggest, too. Raises as ``parse_end``."""
    found = [one for one in _named(snapshot, text) if _may_name(owner, one)]
    if not found:
        kind, name = split_kind(text)
        words = others if name == text else ()
        known = {one.name for one in _everybody(snapshot, text) if _may_name(owner, one)} | {*words}
        besides = ", and it is no address or network" if words else ""
        hint = suggestion(name, known)
        raise NotFound(f"no {kind}{of_owner(snapshot, owner)} is named {name!a}{besides}{hint}", field=field)
    if len(found) > 1:
        raise Invalid(f"{shown(text)} is ambiguous: say which by {_choices(found)}", field=field)
    return found[0]


def _within(population: Population, text: str, addresses: Intervals, field: str) -> End:
    if not (addresses := addresses & UNICAST):
        raise Invalid(f"no flow between hosts has an address of {text}", field=field)
    bits = bits_of(number for number, one in enumerate(population.classes) if _meets(one.addresses, addresses))
    return End(text, bits, addresses)


def _meets(one: Intervals, two: Intervals) -> bool:
    """Whether two sets have an address in common; for most pairs the first and last address tell."""
    if not (one and two) or one.toggles[-1] <= two.toggles[0] or two.toggles[-1] <= one.toggles[0]:
        return False
    return bool(one & two)


def parse_network(text: str, *, field: str) -> Network | None:
    """The network or address in ``text``; None when it is a name. Raises ``Invalid`` for one that no rule may name."""
    if "/" in text and text.rpartition("/")[2].isdigit() and set(text) <= set("0123456789abcdefABCDEF:./"):
        return parse_cidr(text, field=field).network
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return parse_cidr(f"{address}/{address.max_prefixlen}", field=field).network


def of_owner(snapshot: Snapshot, owner: OrganisationId | None) -> str:
    """Whose names were looked at, where there are others'."""
    organisation = snapshot.organisations.get(owner) if owner is not None else None
    return f" of organisation {shown(organisation.name)}" if organisation and len(snapshot.organisations) > 1 else ""


def _may_name(owner: OrganisationId | None, one: Group | Instance) -> bool:
    is_public = isinstance(one, Group) and one.visibility is Visibility.PUBLIC
    return is_public or owner in (None, one.organisation)


def _named(snapshot: Snapshot, text: str) -> list[Group | Instance]:
    _, name = split_kind(text)
    id_ = UUID(name) if _UUID.fullmatch(name) else None
    if snapshot.index is None:  # making one would cost more than looking at all
        groups = [one for one in snapshot.groups.values() if one.name == name or one.id == id_]
        instances = [one for one in snapshot.instances.values() if one.name == name or one.id == id_]
    else:
        index = index_of(snapshot)
        groups = _with(index.groups_named(name), None if id_ is None else snapshot.groups.get(GroupId(id_)))
        instances = _with(index.instances_named(name), None if id_ is None else snapshot.instances.get(InstanceId(id_)))
    return _of_kind(text, groups, instances)


def _with(found: list[_Named], one: _Named | None) -> list[_Named]:
    if one is not None and one not in found:
        found.append(one)
    return found


def _choices(found: list[Group | Instance]) -> str:
    kinds = [GROUP if isinstance(one, Group) else INSTANCE for one in found]
    by_name = len(set(kinds)) == len(found)
    return " or ".join(
        f"{kind}{shown(one.name) if by_name else one.id}" for kind, one in zip(kinds, found, strict=True)
    )


def _everybody(snapshot: Snapshot, text: str) -> list[Group | Instance]:
    return _of_kind(text, snapshot.groups.values(), snapshot.instances.values())


def _of_kind(text: str, groups: Iterable[Group], instances: Iterable[Instance]) -> list[Group | Instance]:
    """Those of the kind that ``text`` says it means, or all."""
    return [*(() if text.startswith(INSTANCE) else groups), *(() if text.startswith(GROUP) else instances)]
