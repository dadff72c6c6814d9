"""Exact answers as rows of words, for a table or JSON: sources, destinations, services, rules.

A network stands for its addresses that no instance has and that are in no narrower network of the policy; "internet"
for all such public addresses, "private networks" for all others, "any" for everything of one family or both.
"""

from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from itertools import starmap
from typing import Final

from ringfence.policy.insight.address_axis import WHOLE, networks_of
from ringfence.policy.insight.assertions import Witness
from ringfence.policy.insight.ends import End
from ringfence.policy.insight.grant import Because, Standing
from ringfence.policy.insight.intervals import EMPTY, Intervals
from ringfence.policy.insight.matrix import INTERNET_ROW, Matrix
from ringfence.policy.insight.plan import Plan
from ringfence.policy.insight.population import Population, numbers_of, union_of
from ringfence.policy.insight.reach import Part, Reach, Reachability, Reasons
from ringfence.policy.insight.services import describe_services
from ringfence.policy.named import ANY, INTERNET
from ringfence.policy.rule_words import describe_rule, describe_side, group_name
from ringfence.policy.snapshot import Snapshot
from ringfence.policy.values import Address, OrganisationId, RuleId
from ringfence.policy.view import Endpoint
from ringfence.policy.wording import shown

_PRIVATE: Final = "private networks"
_NONE: Final[frozenset[RuleId]] = frozenset()


@dataclass(frozen=True, slots=True)
class Row:
    """One line of an answer; ``rules`` are those that let it out of the sources and into the destinations."""

    sources: tuple[str, ...]
    destinations: tuple[str, ...]
    services: str
    rules: tuple[str, ...]


def portray_reach(reachability: Reachability, reach: Reach) -> list[Row]:
    """The parts of an answer as rows; what is the same for both families appears once."""
    rows: dict[Row, None] = {}
    for part in reach.parts:
        rows[_row(reachability.population, part, (reach.source, reach.destination))] = None
    return sorted(rows, key=_in_order)


def portray_plan(plan: Plan) -> tuple[list[Row], list[Row]]:
    """What a change opens, in the names after it, and what it closes, in the names before it."""
    population = plan.population
    ends = (End(ANY, population.everybody), End(ANY, population.everybody))
    rows = []
    for version, parts in ((1, plan.opens), (0, plan.closes)):
        other = population.snapshots[1 - version]
        lasting = {rule.id for group in other.groups.values() for rule in group.rules}
        found = {_row(population, part, ends, version=version, lasting=lasting) for part in parts}
        rows.append(sorted(found, key=_in_order))
    return rows[0], rows[1]


def _row(
    population: Population,
    part: Part,
    ends: tuple[End, End],
    *,
    version: int = -1,
    lasting: AbstractSet[RuleId] = _NONE,
) -> Row:
    sources = _names(population, part.sources, ends[0], version, beside=part.destinations)
    destinations = _names(population, part.destinations, ends[1], version, beside=part.sources)
    reasons = _reasons(population.snapshots[version], part.reasons, lasting)
    return Row(sources, destinations, describe_services(part.services), reasons)


def _in_order(row: Row) -> tuple[object, ...]:
    return row.destinations, row.sources, row.services


def portray_matrix(snapshot: Snapshot, matrix: Matrix, services: Intervals | None = None) -> Iterator[Row]:
    """Every cell that is not empty, restricted to ``services`` if given."""
    names = {INTERNET_ROW: INTERNET}
    names |= {row: group_name(snapshot, group) for row, group in enumerate(matrix.groups, start=1)}
    for row, column, cell in matrix.cells():
        if wanted := cell.services if services is None else cell.services & services:
            words = describe_services(wanted)
            reasons = cell.reasons if services is None else cell.reasons_of(services)
            yield Row((names[row],), (names[column],), words, _reasons(snapshot, reasons))


def portray_witness(snapshot: Snapshot, witness: Witness, *, owner: OrganisationId | None = None) -> list[str]:
    """The fate of a packet that proves an assertion wrong, then the verdict of each side, a line each.

    With an ``owner``, of other organisations' instances only the address is shown.
    """
    packet, verdict = witness.packet, witness.verdict
    ends = ((packet.source, witness.source), (packet.destination, witness.destination))
    source, destination = (_end_name(snapshot, *end, owner) for end in ends)
    said = "passes" if verdict.allowed else "is denied"
    sides = [side for side in (verdict.egress, verdict.ingress) if side and _is_owned(snapshot, side.endpoint, owner)]
    return [f"{source} -> {destination} {witness.service} {said}", *(describe_side(snapshot, side) for side in sides)]


def _end_name(snapshot: Snapshot, address: Address, end: Endpoint | None, owner: OrganisationId | None) -> str:
    if end is None:
        return f"{address} (unmanaged)"
    return f"{shown(end.name)} ({address})" if _is_owned(snapshot, end, owner) else f"{address} (another's)"


def _is_owned(snapshot: Snapshot, end: Endpoint, owner: OrganisationId | None) -> bool:
    return owner in (None, snapshot.instances[end.instance].organisation)


def _reasons(snapshot: Snapshot, reasons: Reasons, lasting: AbstractSet[RuleId] = _NONE) -> tuple[str, ...]:
    """The reasons in words; rules that are not ``lasting`` come first, for they are what a change is about."""
    found = {side for pair in reasons for side in pair if side is not Standing.OUTSIDE}

    def order(side: Because) -> tuple[bool, bool, str]:
        if isinstance(side, Standing):
            return True, True, side.value
        return side.rule.id in lasting, False, _because(snapshot, side).partition(" of group ")[2]

    return tuple(_because(snapshot, side) for side in sorted(found, key=order))


def _because(snapshot: Snapshot, side: Because) -> str:
    if isinstance(side, Standing):
        return side.value
    group = group_name(snapshot, side.group)
    return f"rule {side.rule.id} of group {group}, {describe_rule(snapshot, side.rule)}"


def _names(population: Population, bits: int, end: End, version: int, *, beside: int) -> tuple[str, ...]:
    """The names at one end, without an instance that is alone at the other end: it does not reach itself."""
    if end.addresses is None and _is_everybody(population, bits, version):
        return (ANY,)
    if _is_alone(population, beside):
        bits = bits & ~beside or bits
    inside, outside = bits & ~population.outside, bits & population.outside
    return (*_outside_names(population, outside, end), *_inside_names(population, inside, end, version))


def _is_alone(population: Population, bits: int) -> bool:
    """Whether it is one class of one instance."""
    return (
        bits.bit_count() == 1 and len({one.instance for kind in population.chosen(bits) for one in kind.dwellers}) == 1
    )


def _is_everybody(population: Population, bits: int, version: int) -> bool:
    """Whether it is everything of each family that it has anything of, the internet included."""
    missing = population.present[version] & ~bits
    return bool(bits & population.internet) and not any(
        here & missing for here in population.family.values() if here & bits
    )


def _inside_names(population: Population, bits: int, end: End, version: int) -> Iterator[str]:
    """Whole groups, the largest first, as far as they add somebody; then the remaining instances by name."""
    rest = bits
    if end.addresses is None:
        families = [here for here in population.family.values() if here & bits]
        named = population.worn[version].items()
        concerned, snapshot = union_of(families), population.snapshots[version]
        worn = [(members & concerned, group_name(snapshot, one)) for one, members in named]
        for members, name in sorted(worn, key=lambda one: (-one[0].bit_count(), one[1])):
            if members & rest and not members & ~bits:
                yield f"group {name}"
                rest &= ~members
    yield from sorted({shown(one.name) for kind in population.chosen(rest) for one in end.dwellers(kind)})


def _outside_names(population: Population, bits: int, end: End) -> Iterator[str]:
    if end.addresses is not None:
        part = EMPTY
        for kind in population.chosen(bits):
            part |= end.part_of(kind)
        yield from map(str, networks_of(part))
        return
    families = union_of(here for here in population.family.values() if bits & here)
    internet, private = population.internet & families, population.outside & ~population.internet & families
    if bits & internet and _is_most(population, bits & internet):
        missing = [*_networks(population, internet & ~bits)]
        yield f"{INTERNET} except {', '.join(missing)}" if missing else INTERNET
        bits &= ~internet
    if private and not private & ~bits:
        yield _PRIVATE
        bits &= ~private
    yield from _networks(population, bits)


def _is_most(population: Population, bits: int) -> bool:
    """Whether it has, in each of its families, the addresses that are in no network of the policy."""
    spans = {next(iter(population.regions_around(number))) for number in numbers_of(bits)}
    return all(WHOLE[family] in spans for family, here in population.family.items() if here & bits)


def _networks(population: Population, bits: int) -> Iterator[str]:
    spans = {next(iter(population.regions_around(number))) for number in numbers_of(bits)}
    return map(str, starmap(_network, sorted(spans)))


def _network(first: int, last: int) -> str:
    [network] = networks_of(Intervals.of((first, last)))
    return str(network)
