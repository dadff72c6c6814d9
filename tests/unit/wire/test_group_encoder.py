"""Groups that are written out once: never older than what they are asked for, and never more than may be kept."""

import json
from dataclasses import replace
from uuid import UUID

import pytest

from ringfence.policy.model import Group
from ringfence.policy.values import GroupId, OrganisationId
from ringfence.wire import group_encoder
from ringfence.wire.encode import encode_group
from ringfence.wire.group_encoder import GroupEncoder

ORGANISATION = OrganisationId(UUID(int=1))
WEB, DB = (Group(GroupId(UUID(int=n)), ORGANISATION, name) for n, name in ((2, "web"), (3, "db")))
BOTH = {WEB.id: WEB, DB.id: DB}


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
    after = {WEB.id: changed, DB.id: DB}
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
