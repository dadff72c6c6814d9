"""Letting an address in for a time: which edits that takes."""

from itertools import count
from uuid import UUID

import pytest

from desk import ORGANISATION, OWNER, Desk, cidr, tcp
from ringfence.control.allow import allow_edits
from ringfence.control.decide import decide_edits
from ringfence.policy.commands import Attach
from ringfence.policy.errors import Conflict, Invalid, NotFound
from ringfence.policy.fact_words import describe_facts
from ringfence.policy.facts import apply_facts
from ringfence.wire.change import Allowance


@pytest.fixture
def desk():
    desk = Desk()
    desk.create("web")
    desk.add_instance("db-1", "10.0.0.1")
    return desk


def allow(desk, target, lasts_s=3600):
    """What it did, in words."""
    ids = count(0x9000)
    allowance = Allowance(target, tcp(cidr("192.0.2.7/32")), lasts_s)
    edits = allow_edits(desk.snapshot, ORGANISATION, allowance, lambda: UUID(int=next(ids)))
    facts = decide_edits(desk.snapshot, edits, OWNER, now_s=1000, offer_all=False)
    before = desk.snapshot
    desk.snapshot = apply_facts(before, facts, revision=before.revision + 1)
    return list(describe_facts(before, desk.snapshot, facts))


def test_a_group_gets_a_rule_for_the_address_that_expires(desk):
    [line] = allow(desk, "web")
    assert line.startswith("group web: rule ")
    assert line.endswith(" added, until 1970-01-01 01:16:40 UTC: ingress tcp/22 from 192.0.2.7/32")


def test_an_instance_gets_a_group_of_its_own_once(desk):
    assert [line.split(": ")[0] for line in allow(desk, "db-1")] == [
        "group allow-me-db-1 created",
        "instance db-1 wears group allow-me-db-1",
        "group allow-me-db-1",
    ]
    [extended] = allow(desk, "db-1", 7200)
    assert "lasts until 1970-01-01 02:16:40 UTC" in extended
    assert allow(desk, "db-1", 60) == []


def test_an_instances_own_group_is_not_opened_while_others_wear_it(desk):
    allow(desk, "db-1")
    [group] = (group.id for group in desk.snapshot.groups.values() if group.name == "allow-me-db-1")
    desk.do(Attach(group, desk.add_instance("db-2", "10.0.0.2")))
    with pytest.raises(Conflict, match="worn by others"):
        allow(desk, "db-1")


def test_who_is_meant_is_unknown_or_ambiguous(desk):
    with pytest.raises(NotFound, match="did you mean db-1"):
        allow(desk, "db-l")
    desk.create("db-1")
    with pytest.raises(Invalid, match="ambiguous"):
        allow(desk, "db-1")
    assert len(allow(desk, "group:db-1")) == 1
    assert len(allow(desk, "instance:db-1")) == 3
