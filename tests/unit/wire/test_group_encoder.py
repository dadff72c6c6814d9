"""Groups that are written out once: never older than what they are asked for, and never more than may be kept."""

import json
from dataclasses import replace
from uuid import UUID
from weakref import ref

import pytest

from ringfence.policy.evolving import Evolving
from ringfence.policy.model import Group
from ringfence.policy.values import GroupId, OrganisationId
from ringfence.wire import group_encoder
from ringfence.wire.encode import encode_group
from ringfence.wire.group_encoder import GroupEncoder

ORGANISATION = OrganisationId(UUID(int=1))
WEB, DB = (Group(GroupId(UUID(int=n)), ORGANISATION, name) for n, name in ((2, "web"), (3, "db")))
BOTH = Evolving({WEB.id: WEB, DB.id: DB})


@pytest.fixture
def encoder():
    return GroupEncoder()


def names(encoded):
    return [group["name"] for group in json.loads(encoded)["security-groups"]]


def test_a_group_that_is_asked_for_again_is_the_same_octets(encoder):
    first = encoder.one(WEB, BOTH)
    assert first == encode_group(WEB, BOTH)
    assert encoder.one(WEB, BOTH) is first


def test_a_group_that_changed_is_written_anew_alone_and_in_a_list(encoder):
    encoder.many(BOTH.values(), BOTH, name="all")
    changed = replace(WEB, description="the public site")
    after = BOTH.evolve({WEB.id: changed})
    assert json.loads(encoder.one(changed, after))["description"] == "the public site"
    listed = json.loads(encoder.many(after.values(), after, name="all"))["security-groups"]
    assert [group.get("description") for group in listed] == ["the public site", None]


def test_lists_of_other_names_are_other_lists(encoder):
    assert names(encoder.many([WEB], BOTH, name="one")) == ["web"]
    assert names(encoder.many([DB], BOTH, name="other")) == ["db"]
    assert names(encoder.many([], BOTH, name="none")) == []


def test_the_same_list_of_the_same_groups_is_not_made_again(encoder):
    first = encoder.many(BOTH.values(), BOTH, name="all")
    assert encoder.many(iter(()), BOTH, name="all") is first


def test_no_more_is_kept_than_may_be(encoder, monkeypatch):
    monkeypatch.setattr(group_encoder, "MOST_KEPT_BYTES", len(encode_group(WEB, BOTH)))
    first, other = encoder.one(WEB, BOTH), encoder.one(DB, BOTH)
    again = encoder.one(WEB, BOTH)
    assert (again, other) == (first, encode_group(DB, BOTH))
    assert again is not first
    encoder.many([WEB, DB], BOTH, name="all")
    assert names(encoder.many([WEB], BOTH, name="all")) == ["web"], "a list that is too large was kept"


LISTS = [[], [WEB], [WEB, DB], [DB, WEB], [replace(WEB, description="new"), DB], [WEB, replace(DB, description="new")]]


@pytest.mark.parametrize("before", LISTS)
@pytest.mark.parametrize("after", LISTS)
def test_a_list_is_whole_and_in_order_whatever_it_was_before(encoder, before, after):
    for listed in (before, after, before):
        groups = Evolving({group.id: group for group in listed})
        found = json.loads(encoder.many(listed, groups, name="all"))["security-groups"]
        assert found == [json.loads(encode_group(group, groups)) for group in listed]


def test_of_a_list_that_grew_only_what_came_is_written(encoder, monkeypatch):
    before = Evolving({WEB.id: WEB})
    encoder.many([WEB], before, name="all")
    asked = []
    monkeypatch.setattr(group_encoder.GroupEncoder, "one", lambda _, group, __: asked.append(group) or b"{}")
    encoder.many([WEB, DB], before.evolve({DB.id: DB}), name="all")
    assert asked == [DB]


def test_groups_that_nothing_else_knows_are_not_kept_for_a_list(encoder):
    groups = Evolving({WEB.id: WEB})
    encoder.many([WEB], groups, name="all")
    kept = ref(groups)
    del groups
    assert kept() is None
