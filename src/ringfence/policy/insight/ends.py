"""The end of a question, in words -> the classes and addresses that it means.

An end is "internet", "any", or an instance, a group, an address or a network. Unknown names are refused with the
nearest known one.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address

from ringfence.policy.errors import Invalid
from ringfence.policy.insight.address_axis import UNICAST, addresses_of, position
from ringfence.policy.insight.intervals import Intervals
from ringfence.policy.insight.population import Class, Dweller, Population, bits_of
from ringfence.policy.model import Group
from ringfence.policy.named import ANY, INTERNET, find_named
from ringfence.policy.values import Network, OrganisationId, parse_cidr


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
