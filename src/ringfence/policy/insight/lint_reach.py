"""Lint findings that depend on who wears what: redundant rules, rules without effect, missing DNS and path MTU.

They are exact over all packets: if a rule is called redundant, every packet that it allows is allowed without it.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Final

from ringfence.policy.insight.grants import Grants
from ringfence.policy.insight.intervals import Intervals
from ringfence.policy.insight.lint import Code, Finding, Severity, in_order, lint_rules, named, some
from ringfence.policy.insight.population import NOBODY
from ringfence.policy.insight.reach import Reachability
from ringfence.policy.insight.redundancy import Redundancy
from ringfence.policy.insight.services import service_span
from ringfence.policy.model import Group
from ringfence.policy.packet import AH, ICMPV6, UDP
from ringfence.policy.snapshot import Snapshot, index_of
from ringfence.policy.values import Direction, GroupId
from ringfence.policy.wording import shown

_DNS: Final = Intervals.of(service_span(UDP, 53, 53))
_AH: Final = Intervals.of(service_span(AH))
_TOO_BIG: Final = Intervals.of(service_span(ICMPV6, 2 * 256, 2 * 256))


def lint(reachability: Reachability) -> list[Finding]:
    """All findings about a policy, the gravest first. O(rules * rules that the same instances wear)."""
    return lint_groups(Redundancy(reachability.grants), [*reachability.snapshot.groups])


def lint_groups(redundancy: Redundancy, about: Iterable[GroupId], around: Iterable[GroupId] = ()) -> list[Finding]:
    """The findings about the groups ``about``; for the groups ``around`` only those about their wearers.

    O(those groups, and the groups that are worn together with them).
    """
    snapshot = replace(redundancy.snapshot, index=index_of(redundancy.snapshot))
    known = [snapshot.groups[one] for one in about if one in snapshot.groups]
    seen = [*lint_rules(snapshot, known)]
    wearers = frozenset(around) | {group.id for group in known}
    near = frozenset[GroupId]().union(*map(redundancy.companions.of, wearers))
    return in_order([*seen, *_Exact(redundancy, snapshot, known, wearers, near, seen).findings()], snapshot)


@dataclass(slots=True)
class _Exact:
    """``about`` are the groups to lint, ``around`` those whose wearers are, ``near`` all groups that these wear."""

    redundancy: Redundancy
    snapshot: Snapshot
    about: Sequence[Group]
    around: frozenset[GroupId]
    near: frozenset[GroupId]
    seen: Sequence[Finding]

    @property
    def grants(self) -> Grants:
        return self.redundancy.grants

    def findings(self) -> Iterator[Finding]:
        yield from self._without_effect()
        for direction in Direction:
            yield from self._redundant(direction)
        yield from self._without_dns()
        yield from self._without_pmtu()

    def _worn(self, group: GroupId) -> int:
        return self.grants.population.worn[self.grants.version].get(group, NOBODY)

    def _without_effect(self) -> Iterator[Finding]:
        told = {one.rule for one in self.seen if one.code in (Code.FAMILY, Code.EMPTY_PEER)}
        for group in self.about:
            effective = {one.rule.id for way in Direction for one, _ in self.grants.of_rules(way, group.id)}
            for rule in group.rules if self._worn(group.id) else ():
                if rule.id not in effective and rule.id not in told:
                    proof = "none of its wearers and its peers have addresses of one family that a flow can have"
                    closes = rule.direction is Direction.EGRESS
                    advice = (
                        "it only closes egress; if that is meant, leave it"
                        if closes
                        else "name another peer, or delete it"
                    )
                    what = named(self.snapshot, rule)
                    yield Finding(Severity.NOTE, Code.NO_EFFECT, group.id, rule.id, what, proof, advice)

    def _redundant(self, direction: Direction) -> Iterator[Finding]:
        for one, by in self.redundancy.needless((group.id for group in self.about), direction):
            instead = some([named(self.snapshot, rule) for rule in by])
            proof = f"all that it allows those who wear it now is allowed by {instead}"
            advice = "delete it, unless others are to come into the groups: for who is there nothing changes"
            what = named(self.snapshot, one.rule)
            yield Finding(Severity.NOTE, Code.REDUNDANT, one.group, one.rule.id, what, proof, advice)

    def _without_dns(self) -> Iterator[Finding]:
        able, told = self._allowed_by(Direction.EGRESS, _DNS), NOBODY
        for id_, group in self.snapshot.groups.items():
            restricts = id_ in self.near and any(rule.direction is Direction.EGRESS for rule in group.rules)
            unable = self._worn(id_) & ~able & ~told if restricts else NOBODY
            told |= unable
            if unable and id_ in self.around:
                proof = f"{self._names(unable)} may send, but nothing to udp/53, so that no name can be looked up"
                advice = "allow udp/53, and tcp/53 for long answers, to the resolvers"
                what = f"egress of group {shown(group.name)}"
                yield Finding(Severity.WARNING, Code.NO_DNS, id_, None, what, proof, advice)

    def _without_pmtu(self) -> Iterator[Finding]:
        """Senders of AH over IPv6: conntrack has no flow for it, so errors do not pass as part of one."""
        deaf = self.grants.population.family[6] & ~self._allowed_by(Direction.INGRESS, _TOO_BIG)
        for id_ in sorted(self.around):
            for allowance, box in self.grants.of_rules(Direction.EGRESS, id_):
                if box.services & _AH and (senders := box.sources & deaf):
                    proof = f"{self._names(senders)} may send AH over IPv6, and hears of no packet that was too big"
                    advice = "allow icmpv6 type 2 code 0 in, from ::/0"
                    what = named(self.snapshot, allowance.rule)
                    yield Finding(Severity.WARNING, Code.NO_PMTU, id_, allowance.rule.id, what, proof, advice)

    def _allowed_by(self, direction: Direction, services: Intervals) -> int:
        """The wearers of ``near`` groups that a rule allows some of ``services``, or that are observed."""
        bits, concerns = self.grants.observed, cache(lambda one: bool(one & services))
        for group in self.near:
            for _, box in self.grants.of_rules(direction, group):
                if concerns(box.services):
                    bits |= box.sources
        return bits

    def _names(self, bits: int) -> str:
        chosen = self.grants.population.chosen(bits)
        return some(sorted({shown(one.name) for kind in chosen for one in kind.dwellers}))
