"""What lint calls needless can go, all at once, and nothing changes."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from generated import snapshots, ways
from ringfence.policy.insight.lint import Code
from ringfence.policy.insight.lint_reach import lint
from ringfence.policy.insight.reach import Reachability
from ringfence.policy.view import resolve_view

_NEEDLESS = (Code.SHADOWED, Code.REDUNDANT, Code.EMPTY_PEER, Code.FAMILY, Code.NO_EFFECT)


@given(snapshots(), st.integers(0, 2**32))
def test_without_the_needless_rules_every_packet_meets_the_same_verdict(snapshot, seed):
    needless = {one.rule for one in lint(Reachability(snapshot)) if one.code in _NEEDLESS[:2]}
    groups = {
        id_: replace(group, rules=tuple(rule for rule in group.rules if rule.id not in needless))
        for id_, group in snapshot.groups.items()
    }
    old, new = resolve_view(snapshot), resolve_view(replace(snapshot, groups=groups))
    for way in ways(old, seed):
        assert way.under(new).judged(new).allowed is way.judged(old).allowed, way


@given(snapshots(), st.integers(0, 2**32))
def test_what_has_no_effect_is_never_the_reason_of_a_verdict(snapshot, seed):
    idle = {one.rule for one in lint(Reachability(snapshot)) if one.code in _NEEDLESS[2:]}
    view = resolve_view(snapshot)
    for way in ways(view, seed):
        verdict = way.judged(view)
        reasons = [getattr(side.reason, "rule", None) for side in (verdict.egress, verdict.ingress) if side]
        assert not {rule.id for rule in reasons if rule} & idle, way
