"""Who is meant by a word: "internet", "any", an instance, a group, an address or a network.

Input: the word and a population. Output: an ``End``; or who of that name there is instead.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final
from uuid import UUID

from ringfence.policy.address_axis import UNICAST, addresses_of, position
from ringfence.policy.errors import Invalid, NotFound
from ringfence.policy.intervals import Intervals
from ringfence.policy.model import Group, Instance, Snapshot
from ringfence.policy.population import Class, Dweller, Population, bits_of
from ringfence.policy.values import Network, OrganisationId, Visibility, parse_cidr
from ringfence.policy.wording import shown, suggestion

ANY: Final = "any"
INTERNET_END: Final = "internet"
_UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_GROUP: Final = "group:"
_INSTANCE: Final = "instance:"


@dataclass(frozen=True, slots=True)
class End:
    """``bits`` are the classes concerned, of each of which only ``addresses`` are meant, or all (None)."""

    word: str
    bits: int
    addresses: Intervals | None = None

    def part_of(self, kind: Class) -> Intervals:
        """What of a class's addresses is meant."""
        return kind.addresses if self.addresses is None else kind.addresses & self.addresses

    def dwellers(self, kind: Class) -> Iterator[Dweller]:
        """Who of a class is meant."""
        return (one for one in kind.dwellers if self.addresses is None or position(one.address) in self.addresses)


def parse_end(population: Population, text: str, *, field: str, owner: OrganisationId | None = None) -> End:
    """The end that ``text`` names in the last snapshot; ``group:NAME`` and ``instance:NAME`` leave no doubt.

    A group stands for its members and its external sources. With an ``owner`` only its own names and those of public
    groups are known.

    Raises:
        NotFound: nobody is named so; the text suggests the nearest.
        Invalid: several are, or it is an address that no flow can have.
    """
    if text == ANY:
        return End(text, population.everybody)
    if text == INTERNET_END:
        return End(text, population.internet)
    if (network := _network(text, field)) is not None:
        return _within(population, text, addresses_of([network]), field)
    known = _known(population.snapshots[-1], owner)
    found = _named(known, text)
    if not found:
        raise _unknown(known, text, field)
    if len(found) > 1:
        raise Invalid(f"{shown(text)} is ambiguous: say which by {_choices(found)}", field=field)
    [one] = found
    if isinstance(one, Group):
        return End(text, population.peers[-1].get(one.id, 0))
    places = [place for address in one.addresses if (place := position(address)) in UNICAST]
    return End(text, population.living_at(places), Intervals.union((place, place) for place in places))


def _within(population: Population, text: str, addresses: Intervals, field: str) -> End:
    if not (addresses := addresses & UNICAST):
        raise Invalid(f"no flow between hosts has an address of {text}", field=field)
    bits = bits_of(number for number, one in enumerate(population.classes) if _meets(one.addresses, addresses))
    return End(text, bits, addresses)


def _meets(one: Intervals, two: Intervals) -> bool:
    """Whether two sets have an address in common; most lie apart, which their ends tell."""
    if not (one and two) or one.toggles[-1] <= two.toggles[0] or two.toggles[-1] <= one.toggles[0]:
        return False
    return bool(one & two)


def _network(text: str, field: str) -> Network | None:
    """The network or address that ``text`` is; None when it is a name."""
    if "/" in text and text.rpartition("/")[2].isdigit() and set(text) <= set("0123456789abcdefABCDEF:./"):
        return parse_cidr(text, field=field).network
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return parse_cidr(f"{address}/{address.max_prefixlen}", field=field).network


def _known(snapshot: Snapshot, owner: OrganisationId | None) -> list[Group | Instance]:
    """Whom the owner may name; without one, everybody."""
    everyone: list[Group | Instance] = [*snapshot.groups.values(), *snapshot.instances.values()]
    return [one for one in everyone if owner in (None, one.organisation) or _is_public(one)]


def _is_public(one: Group | Instance) -> bool:
    return isinstance(one, Group) and one.visibility is Visibility.PUBLIC


def _named(known: list[Group | Instance], text: str) -> list[Group | Instance]:
    name = text.removeprefix(_GROUP).removeprefix(_INSTANCE)
    kinds = (Instance,) if text.startswith(_INSTANCE) else (Group,) if text.startswith(_GROUP) else (Group, Instance)
    id_ = UUID(name) if _UUID.fullmatch(name) else None
    return [one for one in known if isinstance(one, kinds) and (one.name == name or one.id == id_)]


def _choices(found: list[Group | Instance]) -> str:
    kinds = [_GROUP if isinstance(one, Group) else _INSTANCE for one in found]
    by_name = len(set(kinds)) == len(found)
    return " or ".join(
        f"{kind}{shown(one.name) if by_name else one.id}" for kind, one in zip(kinds, found, strict=True)
    )


def _unknown(known: list[Group | Instance], text: str, field: str) -> NotFound:
    hint = suggestion(text, {one.name for one in known} | {ANY, INTERNET_END})
    return NotFound(f"no instance or group is named {text!a}, and it is no address or network{hint}", field=field)
