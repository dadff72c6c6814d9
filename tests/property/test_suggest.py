"""Rules that are suggested let pass what was seen, whatever it was, and depend on nothing but it."""

import random
from dataclasses import replace
from types import MappingProxyType
from uuid import uuid4

from hypothesis import given
from hypothesis import strategies as st

from generated import snapshots, ways
from policies import ORGANISATION, group_id
from ringfence.policy.commands import GroupReference
from ringfence.policy.insight.suggest import Seen, suggest
from ringfence.policy.model import Group, GroupPeer, Organisation, Rule
from ringfence.policy.values import Direction, GroupId, Protocol, RuleId
from ringfence.policy.verdict import Default
from ringfence.policy.view import resolve_view

DENIED = {Default.NO_INGRESS_RULE, Default.NO_EGRESS_RULE, Default.UNTRACKABLE}


def _sides(view, seed):
    """Packets that some instance's groups refuse, with the side that does."""
    for way in ways(view, seed, 60):
        verdict = way.judged(view)
        for side in (verdict.egress, verdict.ingress):
            if side is not None and side.reason in DENIED and not side.allowed:
                yield way, side


def _is_refused(verdict, side):
    said = verdict.egress if side.direction is Direction.EGRESS else verdict.ingress
    return not said.allowed


def _wearing(snapshot, instance, suggestion):
    """The snapshot in which the instance wears a group of the suggested rules besides."""
    ids = {group.name: group.id for group in snapshot.groups.values()}
    rules = tuple(
        Rule(
            RuleId(uuid4()),
            one.direction,
            one.protocol,
            GroupPeer(ids[one.peer.name]) if isinstance(one.peer, GroupReference) else one.peer,
            one.start_port,
            one.end_port,
            one.icmp,
        )
        for one in suggestion.rules
    )
    group = Group(GroupId(uuid4()), ORGANISATION, "seen", rules=rules)
    worn = replace(instance, groups=(*instance.groups, group.id))
    groups, instances = {**snapshot.groups, group.id: group}, {**snapshot.instances, worn.id: worn}
    return replace(snapshot, groups=groups, instances=instances, index=None)


@given(snapshots(), st.integers(0, 2**32))
def test_what_was_seen_passes_by_the_rules_that_are_suggested(snapshot, seed):
    owner = Organisation(ORGANISATION, "o", group_id("empty"))
    snapshot = replace(snapshot, organisations=MappingProxyType({ORGANISATION: owner}))
    view = resolve_view(snapshot)
    refused = list(_sides(view, seed))
    for id_ in {side.endpoint.instance for _, side in refused}:
        own = [(way, side) for way, side in refused if side.endpoint.instance == id_]
        seen = [Seen(side.direction, way.packet) for way, side in own]
        suggestion = suggest(snapshot, snapshot.instances[id_], seen)
        random.Random(seed).shuffle(seen)
        assert suggest(snapshot, snapshot.instances[id_], seen) == suggestion
        after = resolve_view(_wearing(snapshot, snapshot.instances[id_], suggestion))
        refused_still = [way for way, side in own if _is_refused(way.under(after).judged(after), side)]
        assert len(refused_still) == sum(packets for _, packets in suggestion.unsayable)
        assert all(rule.protocol is not Protocol.ALL for rule in suggestion.rules)
