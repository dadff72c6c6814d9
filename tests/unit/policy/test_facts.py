"""One fact at a time: what of the snapshot it changes, and that the snapshot it came from stays."""

from dataclasses import replace

import pytest

from policies import ORGANISATION, cidr, group, group_id, instance, instance_id, rule, snapshot
from ringfence.policy.facts import (
    GroupCreated,
    GroupDeleted,
    GroupTakenOff,
    GroupWorn,
    HostAdded,
    HostRemoved,
    InstanceCreated,
    InstancePlaced,
    InstanceReleased,
    InstanceRemoved,
    OrganisationCreated,
    RuleAdded,
    RuleDeleted,
    SourceAdded,
    SourceRemoved,
    apply_facts,
)
from ringfence.policy.model import Host, Organisation
from ringfence.policy.values import HostName, Revision

SSH = rule("ingress tcp/22 from 10.0.0.0/8", "web")
HTTP = rule("ingress tcp/80 from 0.0.0.0/0", "web")
WEB = group("web", "ingress tcp/80 from 0.0.0.0/0", "source 192.0.2.0/24")
BOX = instance("box", "10.0.0.1", wears=["web"])
BEFORE = snapshot(WEB, BOX)
HOST = Host(HostName("h9"), ORGANISATION, b"\0" * 32)


def after(*facts):
    return apply_facts(BEFORE, facts, revision=Revision(2))


def web(*facts):
    return after(*facts).groups[WEB.id]


def box(*facts):
    return after(*facts).instances[BOX.id]


def test_the_given_snapshot_stays_as_it_was():
    held = (dict(BEFORE.groups), dict(BEFORE.instances))
    after(RuleAdded(WEB.id, SSH), GroupDeleted(WEB.id), GroupTakenOff(BOX.id, WEB.id))
    assert (dict(BEFORE.groups), dict(BEFORE.instances), BEFORE.revision) == (*held, 1)


def test_the_new_snapshot_has_the_new_revision_and_cannot_be_changed():
    changed = after()
    assert changed.revision == 2
    with pytest.raises(TypeError):
        changed.groups[WEB.id] = WEB


def test_rules_keep_the_order_in_which_they_came():
    assert web(RuleAdded(WEB.id, SSH)).rules == (HTTP, SSH)


def test_a_deleted_rule_is_gone_and_no_other():
    assert web(RuleAdded(WEB.id, SSH), RuleDeleted(WEB.id, HTTP.id)).rules == (SSH,)


def test_sources_come_and_go_as_they_were_written():
    there = SourceAdded(WEB.id, cidr("198.51.100.1/24"))
    assert [source.text for source in web(there).sources] == ["192.0.2.0/24", "198.51.100.1/24"]
    assert web(there, SourceRemoved(WEB.id, cidr("192.0.2.0/24"))).sources == (cidr("198.51.100.1/24"),)


def test_groups_are_made_and_deleted():
    assert set(after(GroupCreated(group("db"))).groups) == {WEB.id, group_id("db")}
    assert not after(GroupDeleted(WEB.id)).groups


def test_groups_are_worn_and_taken_off():
    assert box(GroupWorn(BOX.id, group_id("db"))).groups == (WEB.id, group_id("db"))
    assert box(GroupTakenOff(BOX.id, WEB.id)).groups == ()


def test_an_instance_is_made():
    assert instance_id("new") in after(InstanceCreated(instance("new"))).instances


def test_a_placed_instance_has_its_new_host_and_interfaces_and_keeps_its_groups():
    moved = InstancePlaced(BOX.id, "renamed", HostName("h2"), (), "realm-2")
    placed = box(moved)
    assert (placed.name, placed.host, placed.interfaces, placed.realm) == ("renamed", "h2", (), "realm-2")
    assert placed.groups == BOX.groups


def test_the_first_host_that_claims_an_instance_binds_it():
    first, second = (InstancePlaced(BOX.id, "box", HostName(name), (), "default") for name in ("h1", "h2"))
    assert box(first, second).bound_to == "h1"
    assert box(replace(first, host=None), second).bound_to == "h2"


def test_a_released_instance_is_bound_by_the_next_host_and_a_removed_one_is_gone():
    first, second = (InstancePlaced(BOX.id, "box", HostName(name), (), "default") for name in ("h1", "h2"))
    assert box(first, InstanceReleased(BOX.id), second).bound_to == "h2"
    assert not after(InstanceRemoved(BOX.id)).instances


def test_organisations_and_hosts_come_and_hosts_go():
    organisation = Organisation(ORGANISATION, "us", WEB.id)
    changed = after(OrganisationCreated(organisation), HostAdded(HOST))
    assert changed.organisations == {ORGANISATION: organisation}
    assert changed.hosts == {"h9": HOST}
    assert not apply_facts(changed, [HostRemoved(HOST.name)], revision=Revision(3)).hosts
