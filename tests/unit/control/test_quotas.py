"""What quotas leave room for: the row says the limit, the command that fills it up, and what is refused after."""

from dataclasses import replace
from types import MappingProxyType

import pytest

from desk import H1, OPERATOR, ORGANISATION, STRANGER, STRANGERS, Desk, cidr, instance, tcp
from ringfence.control.hosts import decide_add_host
from ringfence.control.quotas import require_room_for_key, usage_of
from ringfence.policy.commands import AddSource, Attach
from ringfence.policy.errors import QuotaReached
from ringfence.policy.facts import LimitSet
from ringfence.policy.model import Host
from ringfence.policy.quota import DEFAULT_LIMITS, UNLIMITED, Quota
from ringfence.policy.values import HostName


def limited(quota, limit):
    desk = Desk()
    desk.apply(LimitSet(ORGANISATION, quota, limit))
    return desk


def fill_groups(desk, n):
    desk.create(f"g{n}")


def fill_rules(desk, n):
    desk.add_rule(desk.default, tcp("10.0.0.0/8", port=n + 1))


def fill_sources(desk, n):
    desk.do(AddSource(desk.default, cidr(f"10.0.{n}.0/24")))


def fill_instances(desk, n):
    desk.add_instance(f"i{n}", actor=OPERATOR)


def fill_hosts(desk, n):
    host = Host(HostName(f"host{n}"), ORGANISATION, bytes(32))
    desk.apply(*decide_add_host(desk.snapshot, host))


def fill_members(desk, n):
    if n == 0:
        desk.create("web")
    web = next(id_ for id_, group in desk.snapshot.groups.items() if group.name == "web")
    desk.do(Attach(web, desk.add_instance(f"i{n}", actor=OPERATOR)))


def fill_worn(desk, n):
    if n == 0:
        desk.add_instance("i", actor=OPERATOR)
    desk.do(Attach(desk.create(f"g{n}"), desk.instance("i").id))


FILLS = [  # what is there already when the desk begins: a group, two hosts; an instance is born wearing one group
    (Quota.GROUPS, fill_groups, 1),
    (Quota.RULES, fill_rules, 0),
    (Quota.SOURCES, fill_sources, 0),
    (Quota.INSTANCES, fill_instances, 0),
    (Quota.HOSTS, fill_hosts, 2),
    (Quota.MEMBERS, fill_members, 0),
    (Quota.WORN, fill_worn, 1),
]


@pytest.mark.parametrize(("quota", "fill", "there"), FILLS)
def test_a_limit_is_reached_exactly_and_named_with_its_value(quota, fill, there):
    desk = limited(quota, there + 2)
    fill(desk, 0)
    fill(desk, 1)
    with pytest.raises(QuotaReached, match=rf"quota {quota.value} of .* is reached: {there + 2} of {there + 2}"):
        fill(desk, 2)
    used = {one.quota: one for one in usage_of(desk.snapshot, desk.snapshot.organisations[ORGANISATION], 0)}
    assert used[quota].limit == there + 2
    assert used[quota].used >= there + 2  # births are not asked for room among members
    desk.apply(LimitSet(ORGANISATION, quota, UNLIMITED))
    fill(desk, 3)


def test_what_others_have_does_not_count():
    desk = limited(Quota.GROUPS, 2)
    for n in range(3):
        desk.create(f"theirs{n}", STRANGER)
    desk.create("ours")
    with pytest.raises(QuotaReached):
        desk.create("more")
    assert desk.snapshot.organisations[STRANGERS].limit(Quota.GROUPS) == DEFAULT_LIMITS[Quota.GROUPS]


def test_what_is_there_already_needs_no_room():
    desk = limited(Quota.RULES, 1)
    fill_rules(desk, 0)
    desk.do(AddSource(desk.default, cidr("10.0.0.0/8")))
    assert desk.do(AddSource(desk.default, cidr("10.0.0.0/8"))) == ()


def test_of_an_inventory_only_what_is_beyond_the_limit_is_refused():
    desk = limited(Quota.INSTANCES, 2)
    claims = [instance(name, f"10.0.0.{n}", interface=f"veth{n}") for n, name in enumerate("abc", start=1)]
    decided = desk.claim(H1, *claims)
    assert [name for name, _ in decided.accepted] == ["a", "b"]
    [(name, reason)] = decided.refused
    assert (name, "quota instance" in reason) == ("c", True)
    assert [name for name, _ in desk.claim(H1, *claims).accepted] == ["a", "b"]


def test_keys_are_limited_too():
    organisation = replace(Desk().snapshot.organisations[ORGANISATION], limits=MappingProxyType({Quota.KEYS: 1}))
    require_room_for_key(organisation, 0)
    with pytest.raises(QuotaReached):
        require_room_for_key(organisation, 1)


def test_a_default_can_be_had_again():
    desk = limited(Quota.GROUPS, 1)
    desk.apply(LimitSet(ORGANISATION, Quota.GROUPS, None))
    assert desk.snapshot.organisations[ORGANISATION].limits == {}
