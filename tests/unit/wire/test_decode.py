"""Requests into commands: what official clients send is understood, everything else is refused naming the field."""

import json
from base64 import b64encode
from ipaddress import IPv6Address
from uuid import UUID

import pytest

from ringfence.policy.commands import CreateGroup, GroupReference, RuleDraft
from ringfence.policy.errors import Invalid, NotFound
from ringfence.policy.values import Direction, Icmp, Protocol, Visibility, parse_cidr
from ringfence.wire.decode import (
    InstanceFilter,
    decode_group,
    decode_instance_filter,
    decode_rule,
    decode_source,
    decode_visibility,
    decode_worn,
    parse_path_id,
)
from ringfence.wire.join import decode_join

ID = "5a3ca769-0fdb-4c4a-bc3b-b13b7b687cf3"
TCP = {"flow-direction": "ingress", "protocol": "tcp", "network": "10.0.0.1/8", "start-port": 22, "end-port": 22}
ICMP = {"flow-direction": "ingress", "protocol": "icmp", "network": "0.0.0.0/0"}


def rule(**changes):
    """The body of an add-rule call: ``TCP`` with changes; ``...`` leaves a field out."""
    body = {**TCP, **{name.replace("_", "-"): value for name, value in changes.items()}}
    return json.dumps({name: value for name, value in body.items() if value is not ...}).encode()


def icmp(value, protocol="icmp"):
    return json.dumps({**ICMP, "protocol": protocol, "icmp": value}).encode()


def network(text):
    return parse_cidr(text, field="$.network")


ACCEPTED = [
    (
        rule(description="ssh"),
        RuleDraft(Direction.INGRESS, Protocol.TCP, network("10.0.0.1/8"), 22, 22, description="ssh"),
    ),
    (rule(end_port=..., start_port=1), RuleDraft(Direction.INGRESS, Protocol.TCP, network("10.0.0.1/8"), 1)),
    (rule(start_port=...), RuleDraft(Direction.INGRESS, Protocol.TCP, network("10.0.0.1/8"), None, 22)),
    (rule(description=""), RuleDraft(Direction.INGRESS, Protocol.TCP, network("10.0.0.1/8"), 22, 22, description="")),
    (rule(later=1), RuleDraft(Direction.INGRESS, Protocol.TCP, network("10.0.0.1/8"), 22, 22)),
    (
        icmp({"type": 8, "code": 0}),
        RuleDraft(Direction.INGRESS, Protocol.ICMP, network("0.0.0.0/0"), icmp=Icmp(8, 0)),
    ),
    (
        icmp({"type": 0, "code": 0}),
        RuleDraft(Direction.INGRESS, Protocol.ICMP, network("0.0.0.0/0"), icmp=Icmp(0, 0)),
    ),
    (
        icmp({"type": -1, "code": -1}),
        RuleDraft(Direction.INGRESS, Protocol.ICMP, network("0.0.0.0/0"), icmp=Icmp(-1, -1)),
    ),
    (
        icmp({"type": 3, "code": -1}),
        RuleDraft(Direction.INGRESS, Protocol.ICMP, network("0.0.0.0/0"), icmp=Icmp(3, -1)),
    ),
    (icmp({"type": 3}), RuleDraft(Direction.INGRESS, Protocol.ICMP, network("0.0.0.0/0"), icmp=Icmp(3, None))),
    (
        icmp({"type": None, "code": None}),
        RuleDraft(Direction.INGRESS, Protocol.ICMP, network("0.0.0.0/0"), icmp=Icmp(None, None)),
    ),
    (icmp(None), RuleDraft(Direction.INGRESS, Protocol.ICMP, network("0.0.0.0/0"))),
    (
        rule(network=..., security_group={"id": ID, "visibility": "private"}),
        RuleDraft(Direction.INGRESS, Protocol.TCP, GroupReference(UUID(ID), None), 22, 22),
    ),
    (
        rule(network=..., security_group={"name": "sks", "visibility": "public"}),
        RuleDraft(Direction.INGRESS, Protocol.TCP, GroupReference(None, "sks", Visibility.PUBLIC), 22, 22),
    ),
]


@pytest.mark.parametrize(("body", "expected"), ACCEPTED)
def test_a_rule_is_taken_as_it_is_given(body, expected):
    assert decode_rule(body) == expected


REFUSED_RULES = [
    (rule(protocol="TCP"), "$.protocol", "ah, all, esp, gre, icmp, icmpv6, ipip, tcp, udp"),
    (rule(protocol=...), "$.protocol", "required"),
    (rule(protocol=None), "$.protocol", "null"),
    (rule(protocol=6), "$.protocol", "int"),
    (rule(protocol="all"), "$.start-port", "tcp or udp"),
    (rule(flow_direction="in"), "$.flow-direction", "egress, ingress"),
    (rule(flow_direction="INGRESS"), "$.flow-direction", "egress, ingress"),
    (rule(flow_direction=...), "$.flow-direction", "required"),
    (rule(start_port="22"), "$.start-port", "str"),
    (rule(start_port=22.0), "$.start-port", "float"),
    (rule(start_port=True), "$.start-port", "bool"),
    (rule(start_port=None), "$.start-port", "null"),
    (rule(start_port=[22]), "$.start-port", "array"),
    (rule(start_port=0), "$.start-port", ">= 1"),
    (rule(start_port=-1), "$.start-port", ">= 1"),
    (rule(end_port=65536), "$.end-port", "<= 65535"),
    (rule(end_port=10**30), "$.end-port", "<= 65535"),
    (rule(start_port=23), "$.end-port", "at least start-port 23"),
    (rule(protocol="esp"), "$.start-port", "tcp or udp"),
    (rule(protocol="icmp", start_port=...), "$.end-port", "tcp or udp"),
    (rule(icmp={"type": 8, "code": 0}), "$.icmp", "icmp or icmpv6"),
    (icmp({"type": 255}), "$.icmp.type", "<= 254"),
    (icmp({"type": -2}), "$.icmp.type", ">= -1"),
    (icmp({"type": 8, "code": 255}), "$.icmp.code", "<= 254"),
    (icmp({"type": 8, "code": "0"}), "$.icmp.code", "str"),
    (icmp({"type": True}), "$.icmp.type", "bool"),
    (icmp({"code": 0}), "$.icmp.type", "needs a type"),
    (icmp({"type": -1, "code": 3}), "$.icmp.type", "needs a type"),
    (icmp([8, 0]), "$.icmp", "array"),
    (rule(network=...), "$", "neither"),
    (rule(security_group={"id": ID}), "$", "both"),
    (rule(network=None), "$.network", "null"),
    (rule(network=10), "$.network", "int"),
    (rule(network="300.0.0.0/8"), "$.network", "CIDR"),
    (rule(network="10.0.0.0"), "$.network", "CIDR"),
    (rule(network="10.0.0.0/33"), "$.network", "CIDR"),
    (rule(network="10.0.0.0/255.0.0.0"), "$.network", "CIDR"),
    (rule(network="10.0.0.0-10.0.0.9"), "$.network", "CIDR"),
    (rule(network="example.org"), "$.network", "CIDR"),
    (rule(network=""), "$.network", "CIDR"),
    (rule(network="fe80::1%eth0/64"), "$.network", "CIDR"),
    (rule(network="::ffff:10.0.0.0/104"), "$.network", "IPv4"),
    (rule(network="10.0.0.0/8; flush ruleset"), "$.network", "CIDR"),
    (rule(network=..., security_group={"id": "nope"}), "$.security-group.id", "UUID"),
    (rule(network=..., security_group={"id": 1}), "$.security-group.id", "int"),
    (rule(network=..., security_group={}), "$.security-group.id", "id of a group"),
    (rule(network=..., security_group={"name": "web"}), "$.security-group.id", "id of a group"),
    (rule(network=..., security_group={"visibility": "public"}), "$.security-group.name", "name"),
    (rule(network=..., security_group={"id": ID, "visibility": "public"}), "$.security-group.name", "name"),
    (
        rule(network=..., security_group={"id": ID, "visibility": "Public"}),
        "$.security-group.visibility",
        "private, public",
    ),
    (rule(network=..., security_group=ID), "$.security-group", "str"),
    (rule(network=..., security_group=None), "$.security-group", "null"),
    (rule(description="x" * 256), "$.description", "at most 255"),
    (rule(description=5), "$.description", "int"),
    (rule(description="a\0b"), "$.description", "NUL"),
    (b"[]", "$", "object"),
    (b"null", "$", "object"),
    (b'"tcp"', "$", "object"),
]


@pytest.mark.parametrize(("body", "field", "says"), REFUSED_RULES)
def test_a_bad_rule_is_refused_at_its_field(body, field, says):
    with pytest.raises(Invalid) as caught:
        decode_rule(body)
    assert caught.value.field == field
    assert says in str(caught.value)


def test_protocol_all_is_understood_whether_or_not_a_server_offers_it():
    assert decode_rule(rule(protocol="all", start_port=..., end_port=...)).protocol is Protocol.ALL


def test_a_group_needs_a_name_and_may_have_a_description():
    assert decode_group(b'{"name": "web"}') == CreateGroup("web")
    assert decode_group(b'{"name": "w", "description": "", "id": "mine"}') == CreateGroup("w", "")
    assert decode_group(json.dumps({"name": "ü" * 255}).encode()).name == "ü" * 255


REFUSED_GROUPS = [
    (b"{}", "$.name", "required"),
    (b'{"name": ""}', "$.name", "at least 1"),
    (b'{"name": null}', "$.name", "null"),
    (b'{"name": ["web"]}', "$.name", "array"),
    (json.dumps({"name": "x" * 256}).encode(), "$.name", "at most 255"),
    (b'{"name": "web", "description": null}', "$.description", "null"),
    (b'{"name": "\\ud800"}', "$.name", "surrogate"),
]


@pytest.mark.parametrize(("body", "field", "says"), REFUSED_GROUPS)
def test_a_bad_group_is_refused_at_its_field(body, field, says):
    with pytest.raises(Invalid) as caught:
        decode_group(body)
    assert caught.value.field == field
    assert says in str(caught.value)


@pytest.mark.parametrize(
    "body",
    [
        {"instance": {"id": ID}},
        {"instance": {"created-at": "0001-01-01T00:00:00Z", "id": ID}},  # Go
        {"instance": {"labels": {}, "id": ID}},  # Java
    ],
)
def test_attach_ignores_what_clients_send_besides_the_id(body):
    assert decode_worn(json.dumps(body).encode()) == UUID(ID)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "$.instance"),
        ({"instance": ID}, "$.instance"),
        ({"instance": {}}, "$.instance.id"),
        ({"instance": {"id": "nope"}}, "$.instance.id"),
        ({"instance": {"id": None}}, "$.instance.id"),
        ({"instance": {"id": ID + "0"}}, "$.instance.id"),
    ],
)
def test_attach_without_an_instance_is_refused_at_the_field(body, field):
    with pytest.raises(Invalid) as caught:
        decode_worn(json.dumps(body).encode())
    assert caught.value.field == field


def test_a_source_is_kept_as_written():
    assert decode_source(b'{"cidr": "2001:DB8::1/32"}').text == "2001:DB8::1/32"
    with pytest.raises(Invalid) as caught:
        decode_source(b'{"cidr": "203.0.113.9"}')
    assert caught.value.field == "$.cidr"


def test_visibility_is_the_only_query_argument_once_and_spelled_exactly():
    assert decode_visibility(()) is Visibility.PRIVATE
    assert decode_visibility((("visibility", "public"),)) is Visibility.PUBLIC
    for arguments in (
        (("visibility", "Public"),),
        (("visibility", ""),),
        (("visibility", "public"), ("visibility", "public")),
        (("name", "web"),),
    ):
        with pytest.raises(Invalid) as caught:
            decode_visibility(arguments)
        assert caught.value.field.startswith("?")


def test_instances_are_chosen_by_address_and_none_has_a_manager_or_labels():
    address = IPv6Address("2001:db8::7")
    assert decode_instance_filter((("ip-address", "2001:DB8:0::7"),)) == InstanceFilter(address)
    for name, value in (("labels", "a=b"), ("manager-id", ID), ("manager-type", "instance-pool")):
        assert decode_instance_filter(((name, value), ("ip-address", "2001:db8::7"))).nothing
    for arguments in (
        (("ip-address", "web"),),
        (("manager-id", "1"),),
        (("manager-type", "hand"),),
        (("ip", "192.0.2.1"),),
        (("labels", "a"), ("labels", "a")),
    ):
        with pytest.raises(Invalid) as caught:
            decode_instance_filter(arguments)
        assert caught.value.field.startswith("?")


def test_a_text_of_a_wrong_length_is_refused_in_words():
    with pytest.raises(Invalid, match=r"\$\.name: expected at least 1 character$"):
        decode_group(b'{"name": ""}')
    with pytest.raises(Invalid, match=r"\$\.description: expected at most 255 characters$"):
        decode_rule(rule(description="x" * 256))


@pytest.mark.parametrize(
    "text", ["nope", "", ID + "0", ID.replace("-", ""), "{" + ID + "}", "urn:uuid:" + ID, "é" * 36, "../.."]
)
def test_a_path_segment_that_is_no_uuid_names_nothing(text):
    with pytest.raises(NotFound):
        parse_path_id(text, what="security group")


def test_a_path_segment_may_spell_a_uuid_in_either_case():
    assert parse_path_id(ID.upper(), what="rule") == UUID(ID)


def test_an_unknown_field_is_named_in_a_line_however_long_and_strange_it_is():
    for name in ("q" * 1_000_000, "\x1b[31m\n"):
        with pytest.raises(Invalid) as caught:
            decode_join(
                json.dumps({"host": "h", "secret": "s", "public-key": b64encode(bytes(32)).decode(), name: 1}).encode()
            )
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 200
