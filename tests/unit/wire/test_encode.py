"""Answers: what is shown, what is absent, and that nothing is invented."""

import json
from http import HTTPStatus
from ipaddress import ip_address
from uuid import UUID

import pytest

from ringfence.policy.model import (
    Group,
    GroupPeer,
    Instance,
    Interface,
    Operation,
    OperationReason,
    OperationState,
    Rule,
)
from ringfence.policy.values import Direction, Icmp, Protocol, Visibility, parse_cidr
from ringfence.wire.answers import encode_problem
from ringfence.wire.encode import encode_group, encode_instance, encode_operation, encode_zones

ORGANISATION = UUID(int=1)
WEB, SKS, RULE, INSTANCE = (UUID(int=n) for n in range(2, 6))


def cidr(text):
    return parse_cidr(text, field="$")


def shown(group, *others):
    return json.loads(encode_group(group, {one.id: one for one in (group, *others)}))


def test_an_empty_group_shows_only_what_it_has():
    assert shown(Group(WEB, ORGANISATION, "web")) == {"id": str(WEB), "name": "web", "visibility": "private"}


def test_an_empty_description_is_a_description():
    assert shown(Group(WEB, ORGANISATION, "web", ""))["description"] == ""


def test_a_public_group_has_no_id():
    public = Group(SKS, ORGANISATION, "sks", visibility=Visibility.PUBLIC, sources=(cidr("198.51.100.0/24"),))
    assert shown(public) == {"name": "sks", "visibility": "public", "external-sources": ["198.51.100.0/24"]}


SKS_GROUP = Group(SKS, ORGANISATION, "sks", visibility=Visibility.PUBLIC)
RULES = [
    (
        Rule(RULE, Direction.INGRESS, Protocol.TCP, cidr("10.0.0.1/8"), 22, 22, description="ssh"),
        {"protocol": "tcp", "network": "10.0.0.1/8", "start-port": 22, "end-port": 22, "description": "ssh"},
    ),
    (
        Rule(RULE, Direction.INGRESS, Protocol.UDP, cidr("2001:DB8::/32"), 53),
        {"protocol": "udp", "network": "2001:DB8::/32", "start-port": 53},
    ),
    (
        Rule(RULE, Direction.INGRESS, Protocol.ICMP, cidr("0.0.0.0/0"), icmp=Icmp(0, 0)),
        {"protocol": "icmp", "network": "0.0.0.0/0", "icmp": {"type": 0, "code": 0}},
    ),
    (
        Rule(RULE, Direction.INGRESS, Protocol.ICMP, cidr("0.0.0.0/0"), icmp=Icmp(None, None)),
        {"protocol": "icmp", "network": "0.0.0.0/0", "icmp": {}},
    ),
    (
        Rule(RULE, Direction.INGRESS, Protocol.ESP, GroupPeer(WEB)),
        {"protocol": "esp", "security-group": {"id": str(WEB), "name": "web"}},
    ),
    (
        Rule(RULE, Direction.INGRESS, Protocol.GRE, GroupPeer(SKS)),
        {"protocol": "gre", "security-group": {"name": "sks", "visibility": "public"}},
    ),
]


@pytest.mark.parametrize(("rule", "expected"), RULES)
def test_a_rule_is_echoed_and_nothing_invented(rule, expected):
    group = Group(WEB, ORGANISATION, "web", rules=(rule,))
    assert shown(group, SKS_GROUP)["rules"] == [{"id": str(RULE), "flow-direction": "ingress", **expected}]


def test_rules_and_sources_keep_their_order():
    rules = tuple(Rule(UUID(int=n), Direction.EGRESS, Protocol.ESP, cidr("0.0.0.0/0")) for n in (9, 7, 8))
    group = Group(WEB, ORGANISATION, "web", rules=rules, sources=(cidr("10.0.0.0/8"), cidr("1.0.0.0/8")))
    answer = shown(group)
    assert [rule["id"] for rule in answer["rules"]] == [str(rule.id) for rule in rules]
    assert answer["external-sources"] == ["10.0.0.0/8", "1.0.0.0/8"]


def test_an_operation_refers_to_its_group_and_shows_a_reason_only_when_it_has_one():
    settled = Operation(RULE, ORGANISATION, WEB, None, OperationState.SUCCESS)
    reference = {"id": str(WEB), "link": f"/v2/security-group/{WEB}", "command": "get-security-group"}
    assert json.loads(encode_operation(settled)) == {"id": str(RULE), "state": "success", "reference": reference}
    failed = Operation(RULE, ORGANISATION, WEB, None, OperationState.FAILURE, OperationReason.PARTIAL, "h1: no space")
    answer = json.loads(encode_operation(failed))
    assert (answer["state"], answer["reason"], answer["message"]) == ("failure", "partial", "h1: no space")


def test_an_operation_that_failed_always_has_a_reason_because_the_python_sdk_reads_it_unseen():
    for state in (OperationState.FAILURE, OperationState.TIMEOUT):
        answer = json.loads(encode_operation(Operation(RULE, ORGANISATION, WEB, None, state)))
        assert answer["reason"] == "unknown"


def test_an_instance_carries_what_exo_reads_without_looking():
    interface = Interface("tap0", (ip_address("10.0.0.2"), ip_address("fd00::2")), "02:00:00:00:00:01")
    unmanaged = Interface("lo", (ip_address("192.0.2.1"),), managed=False)
    instance = Instance(INSTANCE, ORGANISATION, "vm", None, (unmanaged, interface), (WEB,), created_at=1700000000)
    answer = json.loads(encode_instance(instance))
    assert answer["secureboot-enabled"] is False
    assert answer["tpm-enabled"] is False
    assert answer["security-groups"] == [{"id": str(WEB)}]
    assert answer["created-at"] == "2023-11-14T22:13:20Z"
    assert (answer["public-ip"], answer["ipv6-address"], answer["mac-address"]) == (
        "10.0.0.2",
        "fd00::2",
        "02:00:00:00:00:01",
    )


def test_an_instance_without_addresses_shows_none():
    answer = json.loads(encode_instance(Instance(INSTANCE, ORGANISATION, "vm", None, ())))
    assert answer["security-groups"] == []
    assert answer["public-ip-assignment"] == "none"
    assert not {"public-ip", "ipv6-address", "mac-address"} & answer.keys()


def test_the_zone_points_at_us():
    assert json.loads(encode_zones("ch-dk-2", "http://h:1/v2")) == {
        "zones": [{"name": "ch-dk-2", "api-endpoint": "http://h:1/v2", "sos-endpoint": "http://h:1"}]
    }


def test_an_error_answers_every_client_in_its_own_words():
    answer = json.loads(encode_problem(HTTPStatus.CONFLICT, "taken"))
    assert answer == {
        "message": "taken",
        "type": "urn:ringfence:error:conflict",
        "title": "Conflict",
        "status": 409,
        "detail": "taken",
    }
    assert json.loads(encode_problem(HTTPStatus.CONFLICT, "taken", "$.name"))["field"] == "$.name"
