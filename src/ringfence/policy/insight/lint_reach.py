"""What is doubtful in a policy for who there is: rules that others make needless, and what cannot work.

Exact, over all packets: what is said to remain without a rule remains for every one of them.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Final

from ringfence.policy.index import index_of
from ringfence.policy.insight.boxes import Box, left_of
from ringfence.policy.insight.intervals import Intervals
from ringfence.policy.insight.lint import Code, Finding, Severity, in_order, lasts_as_long, lint_rules, named, some
from ringfence.policy.insight.population import NOBODY
from ringfence.policy.insight.reach import Reachability
from ringfence.policy.insight.services import service_span
from ringfence.policy.model import Rule
from ringfence.policy.packet import AH, ICMPV6, UDP
from ringfence.policy.values import Direction, GroupId, RuleId
from ringfence.policy.verdict import Allowance
from ringfence.policy.wording import shown

_DNS: Final = Intervals.of(service_span(UDP, 53, 53))
_AH: Final = Intervals.of(service_span(AH))
_TOO_BIG: Final = Intervals.of(service_span(ICMPV6, 2 * 256, 2 * 256))


def lint(reachability: Reachability) -> list[Finding]:
    """Everything that is doubtful, the gravest first. O(rules x rules that the same instances wear)."""
    snapshot = reachability.snapshot
    indexed = replace(snapshot, index=index_of(snapshot))
    seen = [*lint_rules(indexed)]
    return in_order([*seen, *_Exact(reachability, seen).findings()], indexed)


@dataclass(slots=True)
class _Exact:
    """``needless`` are rules of which it was said already that they can go, so that all that are named can together."""

    reachability: Reachability
    seen: Iterable[Finding]
    allowed: dict[Direction, dict[GroupId, list[tuple[Allowance, Box]]]] = field(default_factory=dict)

    def findings(self) -> Iterator[Finding]:
        for direction in Direction:
            by_group: dict[GroupId, list[tuple[Allowance, Box]]] = defaultdict(list)
            for allowance, box in self.reachability.grants.of_rules(direction):
                by_group[allowance.group].append((allowance, box))
            self.allowed[direction] = by_group
        yield from self._without_effect()
        for direction in Direction:
            yield from self._redundant(direction)
        yield from self._without_dns()
        yield from self._without_pmtu()

    def _without_effect(self) -> Iterator[Finding]:
        snapshot, population = self.reachability.snapshot, self.reachability.population
        told = {one.rule for one in self.seen if one.code in (Code.FAMILY, Code.EMPTY_PEER)}
        effective = {
            allowance.rule.id for one in self.allowed.values() for found in one.values() for allowance, _ in found
        }
        for id_, group in snapshot.groups.items():
            for rule in group.rules if population.worn[0].get(id_) else ():
                if rule.id not in effective and rule.id not in told:
                    proof = "none of its wearers and its peers have addresses of one family that a flow can have"
                    closes = rule.direction is Direction.EGRESS
                    advice = (
                        "it only closes egress; if that is meant, leave it"
                        if closes
                        else "name another peer, or delete it"
                    )
                    yield Finding(Severity.NOTE, Code.NO_EFFECT, id_, rule.id, named(snapshot, rule), proof, advice)

    def _redundant(self, direction: Direction) -> Iterator[Finding]:
        snapshot = self.reachability.snapshot
        by_group, companions = self.allowed[direction], self._companions()
        needless = {one.rule for one in self.seen if one.code is Code.SHADOWED}
        for group, found in reversed(by_group.items()):
            near = [one for other in sorted(companions[group]) for one in by_group.get(other, ())]
            own: dict[RuleId, list[tuple[Allowance, Box]]] = defaultdict(list)
            for allowance, box in found:
                own[allowance.rule.id].append((allowance, box))
            for id_, grants in reversed(own.items()):
                if id_ in needless:
                    continue
                others = [one for one in near if one[0].rule.id not in needless and one[0].rule.id != id_]
                if (by := _covering(grants, others)) is not None:
                    needless.add(id_)
                    rule = grants[0][0].rule
                    instead = some([named(snapshot, one) for one in by])
                    proof = f"all that it allows those who wear it now is allowed by {instead}"
                    advice = "delete it, unless others are to come into the groups: for who is there nothing changes"
                    yield Finding(Severity.NOTE, Code.REDUNDANT, group, id_, named(snapshot, rule), proof, advice)

    def _companions(self) -> dict[GroupId, set[GroupId]]:
        """For each group the groups that some instance wears together with it."""
        found: dict[GroupId, set[GroupId]] = defaultdict(set)
        for worn in {one.roles[0].groups for one in self.reachability.population.classes if one.roles and one.roles[0]}:
            for group in worn:
                found[group].update(worn)
        return found

    def _without_dns(self) -> Iterator[Finding]:
        population, snapshot = self.reachability.population, self.reachability.snapshot
        able = self._allowed_by(Direction.EGRESS, _DNS)
        told = NOBODY
        for id_, group in snapshot.groups.items():
            restricts = any(rule.direction is Direction.EGRESS for rule in group.rules)
            unable = population.worn[0].get(id_, NOBODY) & ~able & ~told if restricts else NOBODY
            if unable:
                told |= unable
                proof = f"{self._names(unable)} may send, but nothing to udp/53, so that no name can be looked up"
                advice = "allow udp/53, and tcp/53 for long answers, to the resolvers"
                what = f"egress of group {shown(group.name)}"
                yield Finding(Severity.WARNING, Code.NO_DNS, id_, None, what, proof, advice)

    def _without_pmtu(self) -> Iterator[Finding]:
        """AH over IPv6 is no flow to the kernel, so that no error is part of it."""
        population, snapshot = self.reachability.population, self.reachability.snapshot
        deaf = population.family[6] & ~self._allowed_by(Direction.INGRESS, _TOO_BIG)
        for id_, found in self.allowed[Direction.EGRESS].items():
            for allowance, box in found:
                if box.services & _AH and (senders := box.sources & deaf):
                    proof = f"{self._names(senders)} may send AH over IPv6, and hears of no packet that was too big"
                    advice = "allow icmpv6 type 2 code 0 in, from ::/0"
                    what = named(snapshot, allowance.rule)
                    yield Finding(Severity.WARNING, Code.NO_PMTU, id_, allowance.rule.id, what, proof, advice)

    def _allowed_by(self, direction: Direction, services: Intervals) -> int:
        """Who wears a rule that allows some of ``services``, or is observed."""
        population = self.reachability.population
        bits = NOBODY
        for found in self.allowed[direction].values():
            for _, box in found:
                if box.services & services:
                    bits |= box.sources
        observed = [
            n for n, one in enumerate(population.classes) if one.roles and one.roles[0] and one.roles[0].observe
        ]
        for number in observed:
            bits |= 1 << number
        return bits

    def _names(self, bits: int) -> str:
        population = self.reachability.population
        return some(sorted({shown(one.name) for kind in population.chosen(bits) for one in kind.dwellers}))


def _covering(grants: list[tuple[Allowance, Box]], others: list[tuple[Allowance, Box]]) -> list[Rule] | None:
    """The rules that allow all that a rule does, for as long; None when they do not."""
    rule = grants[0][0].rule
    near: dict[RuleId, Rule] = {}
    for _, box in grants:
        parts = [(one, other) for one, other in others if _meets(box, other) and lasts_as_long(one.rule, rule)]
        if next(left_of(box, [other for _, other in parts]), None) is not None:
            return None
        near |= {one.rule.id: one.rule for one, _ in parts}
    return [*near.values()]


def _meets(one: Box, two: Box) -> bool:
    return bool(one.sources & two.sources and one.destinations & two.destinations and one.services & two.services)
