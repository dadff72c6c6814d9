"""Which hosts a change touches, and that a view is only resolved anew where it must be."""

import pytest

from desk import H1, H2, OPERATOR, OWNER, Desk, cidr, instance, tcp
from ringfence.control.decide import Given, decide
from ringfence.control.views import ViewCache, change_views, resolve_views
from ringfence.policy.commands import AddRule, AddSource, Attach, CreateGroup, RemoveInstance
from ringfence.policy.facts import apply_facts
from ringfence.store import next_revision


@pytest.fixture
def desk():
    """web-1 on h1 wears web, db-1 on h2 wears db, whose rule lets web in."""
    desk = Desk()
    for host, name, number in ((H1, "web-1", 1), (H2, "db-1", 2)):
        desk.claim(host, instance(name, f"10.0.0.{number}"))
    for name in ("web", "db"):
        desk.do(Attach(desk.create(name), desk.instance(f"{name}-1").id))
    desk.add_rule(group(desk, "db"), tcp(group(desk, "web")))
    return desk


def group(desk, name):
    return next(found.id for found in desk.snapshot.groups.values() if found.name == name)


def step(desk, command, actor=OWNER):
    before = desk.snapshot
    facts = desk.do(command, actor)
    views = resolve_views(before, dict.fromkeys(before.hosts, before.revision))
    return change_views(views, before, desk.snapshot, facts)


def test_a_rule_touches_the_wearers_hosts_only(desk):
    assert step(desk, AddRule(group(desk, "web"), tcp("0.0.0.0/0"))).touched.keys() == {H1}


def test_a_source_touches_the_hosts_whose_rules_name_the_group(desk):
    assert step(desk, AddSource(group(desk, "web"), cidr("192.0.2.0/24"))).touched.keys() == {H2}


def test_a_new_member_touches_its_own_host_and_those_whose_rules_name_the_group(desk):
    desk.claim(H1, instance("web-1", "10.0.0.1"), instance("web-2", "10.0.0.3", interface="veth1"))
    assert step(desk, Attach(group(desk, "web"), desk.instance("web-2").id)).touched.keys() == {H1, H2}


def test_a_new_group_touches_nobody(desk):
    assert step(desk, CreateGroup("cache")).touched.keys() == set()


def test_an_untouched_host_keeps_its_view_and_its_revision(desk):
    before = resolve_views(desk.snapshot, dict.fromkeys(desk.snapshot.hosts, desk.snapshot.revision))
    change = step(desk, AddRule(group(desk, "web"), tcp("0.0.0.0/0")))
    assert change.views[H2] == before[H2]
    assert change.views[H1].revision == desk.snapshot.revision


def test_an_instance_that_leaves_touches_its_host_and_those_whose_rules_named_its_groups(desk):
    before = desk.snapshot
    views = resolve_views(before, dict.fromkeys(before.hosts, before.revision))
    decided = desk.claim(H1)
    assert change_views(views, before, desk.snapshot, decided.facts).touched.keys() == {H1, H2}


def test_an_instance_that_is_removed_touches_the_hosts_whose_rules_named_its_groups(desk):
    free = desk.add_instance("free", "10.0.0.9")
    desk.do(Attach(group(desk, "web"), free))
    change = step(desk, RemoveInstance(free), OPERATOR)
    assert change.touched.keys() == {H2}
    after = desk.snapshot
    whole = resolve_views(after, dict.fromkeys(after.hosts, after.revision))
    assert {host: change.views[host].digest for host in (H1, H2)} == {host: whole[host].digest for host in (H1, H2)}


def test_the_cache_knows_the_published_snapshot_after_a_batch_that_was_thrown_away(desk):
    published = desk.snapshot
    cache = ViewCache(lambda: published, resolve_views(published, dict.fromkeys(published.hosts, published.revision)))
    working = published
    for _ in range(5):
        given = Given(desk.new_id(), 0)
        facts = decide(working, CreateGroup(str(given.new_id)), OWNER, given)
        after = apply_facts(working, facts, revision=next_revision(working))
        cache.change(working, after, facts)
        working = after
    assert cache.views_of(published)[H1].revision == published.revision
