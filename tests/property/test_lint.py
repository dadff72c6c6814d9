"""What lint calls needless can go, all at once, and nothing changes."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from generated import changed, snapshots, ways
from policies import group, instance, snapshot
from ringfence.policy.insight.grants import Grants
from ringfence.policy.insight.lint import Code
from ringfence.policy.insight.lint_change import new_findings
from ringfence.policy.insight.lint_reach import lint
from ringfence.policy.insight.population import Population
from ringfence.policy.insight.reach import Reachability
from ringfence.policy.rule_words import describe_rule
from ringfence.policy.view import resolve_view

_NEEDLESS = (Code.SHADOWED, Code.REDUNDANT, Code.EMPTY_PEER, Code.FAMILY, Code.NO_EFFECT)


@given(snapshots(), st.integers(0, 2**32))
def test_without_the_needless_rules_every_packet_meets_the_same_verdict(policy, seed):
    needless = {one.rule for one in lint(Reachability(policy)) if one.code in _NEEDLESS[:2]}
    groups = {
        id_: replace(group, rules=tuple(rule for rule in group.rules if rule.id not in needless))
        for id_, group in policy.groups.items()
    }
    old, new = resolve_view(policy), resolve_view(replace(policy, groups=groups))
    for way in ways(old, seed):
        assert way.under(new).judged(new).allowed is way.judged(old).allowed, way


@given(snapshots(), st.integers(0, 2**32))
def test_what_has_no_effect_is_never_the_reason_of_a_verdict(policy, seed):
    idle = {one.rule for one in lint(Reachability(policy)) if one.code in _NEEDLESS[2:]}
    view = resolve_view(policy)
    for way in ways(view, seed):
        verdict = way.judged(view)
        reasons = [getattr(side.reason, "rule", None) for side in (verdict.egress, verdict.ingress) if side]
        assert not {rule.id for rule in reasons if rule} & idle, way


_LINES = (
    *(f"ingress {what} from {who}" for what in ("tcp", "tcp/80") for who in ("0.0.0.0/0", "10.0.0.0/8", "group c")),
    *("egress tcp/80 to 0.0.0.0/0", "egress udp/53 to group d", "source 10.1.0.0/16"),
)
_NAMES = "abcdef"


@st.composite
def _likes(draw):
    """Groups whose rules often make each other needless, and one change of a group or of what an instance wears."""
    lines = st.lists(st.sampled_from(_LINES), max_size=3, unique=True)
    worn = st.lists(st.sampled_from(_NAMES), max_size=3, unique=True)
    groups = {name: group(name, *draw(lines)) for name in _NAMES}
    instances = {n: instance(f"i{n}", f"10.0.0.{n + 1}", wears=draw(worn)) for n in range(4)}
    before = snapshot(*groups.values(), *instances.values())
    if draw(st.booleans()):
        name = draw(st.sampled_from(_NAMES))
        groups[name] = group(name, *draw(lines))
    else:
        number = draw(st.sampled_from([*instances]))
        instances[number] = instance(f"i{number}", f"10.0.0.{number + 1}", wears=draw(worn))
    return before, snapshot(*groups.values(), *instances.values())


@given(st.one_of(_likes(), _likes(), snapshots().flatmap(lambda one: st.tuples(st.just(one), changed(one)))))
def test_a_change_is_linted_as_if_everything_had_been_linted_before_it_and_after_it(pair):
    before, after = pair
    population = Population(before, after)
    found = new_findings(Grants(population, 0), Grants(population, 1))
    known = {_said(before, one) for one in lint(Reachability(before))}
    assert found == [one for one in lint(Reachability(after)) if _said(after, one) not in known]


def _said(snapshot, finding):
    rules = {rule.id: describe_rule(snapshot, rule) for rule in snapshot.groups[finding.group].rules}
    return finding.code, finding.group, rules.get(finding.rule, finding.what)
