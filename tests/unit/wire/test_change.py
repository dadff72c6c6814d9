"""A change as an operator sends it, into edits; a fault is named by its place."""

import json
from itertools import count
from uuid import UUID

import pytest

from ringfence.policy.commands import AddRule, AddSource, Attach, CreateGroup, DeleteRule, GroupReference, Observe
from ringfence.policy.errors import Invalid, NotFound
from ringfence.policy.values import Direction, GroupId, Icmp, InstanceId, Protocol
from ringfence.wire.change import Directory, decode_change

WEB, VM = GroupId(UUID(int=1)), InstanceId(UUID(int=2))
RULE = UUID(int=3)


def _find(known):
    def find(text, field):
        if text not in known:
            raise NotFound("nobody", field=field)
        return known[text]

    return find


DIRECTORY = Directory(
    _find({"web": WEB}), _find({"web": GroupReference(WEB, None)}), _find({"vm": VM}), {WEB: (VM,)}.get
)


def _decode(*edits, **options):
    ids = map(UUID, (f"{n:032x}" for n in count(16)))
    return decode_change(json.dumps({"edits": edits, **options}).encode(), DIRECTORY, lambda: next(ids))


def _rule(**given):
    return _decode({"edit": "add-rule", "group": "web", "service": "tcp", "from": "0.0.0.0/0", **given}).edits[0]


def test_every_edit_names_what_it_is_about():
    made = _decode(
        {"edit": "create-group", "name": "new"},
        {"edit": "add-source", "group": "new", "source": "192.0.2.1"},
        {"edit": "add-rule", "group": "web", "service": "tcp/80-90", "to": "new", "description": "all"},
        {"edit": "delete-rule", "group": "web", "rule": str(RULE)},
        {"edit": "attach", "group": "web", "instance": "vm"},
        {"edit": "observe", "instance": "vm", "observe": True},
        {"edit": "observe", "group": "web", "observe": False},
        **{"dry-run": True},
    )
    created, source, rule, deleted, attached, *observed = (edit.command for edit in made.edits)
    new = GroupId(made.edits[0].new_id)
    assert created == CreateGroup("new")
    assert (source, source.source.text) == (AddSource(new, source.source), "192.0.2.1/32")
    assert isinstance(rule, AddRule)
    assert (rule.rule.direction, rule.rule.peer) == (Direction.EGRESS, GroupReference(new, None))
    assert (rule.rule.start_port, rule.rule.end_port, rule.rule.description) == (80, 90, "all")
    assert (deleted, attached) == (DeleteRule(WEB, RULE), Attach(WEB, VM))
    assert observed == [Observe((VM,), observe=True), Observe((VM,), observe=False)]
    assert made.dry_run


@pytest.mark.parametrize(
    ("service", "protocol", "ports", "icmp"),
    [
        ("tcp", Protocol.TCP, (None, None), None),
        ("udp/53", Protocol.UDP, (53, 53), None),
        ("icmp", Protocol.ICMP, (None, None), None),
        ("icmp/8", Protocol.ICMP, (None, None), Icmp(8, -1)),
        ("icmp/0/0", Protocol.ICMP, (None, None), Icmp(0, 0)),
        ("icmpv6/128", Protocol.ICMPV6, (None, None), Icmp(128, -1)),
        ("esp", Protocol.ESP, (None, None), None),
    ],
)
def test_a_service_is_a_protocol_with_ports_or_types(service, protocol, ports, icmp):
    draft = _rule(service=service).command.rule
    assert (draft.protocol, (draft.start_port, draft.end_port), draft.icmp) == (protocol, ports, icmp)


@pytest.mark.parametrize(
    "service", ["", "tcp/", "tcp/0", "tcp/90-80", "tcp/65536", "icmp/255", "esp/1", "tcp/1/2", "x"]
)
def test_a_wrong_service_is_refused_with_its_place(service):
    with pytest.raises(Invalid, match=r"^\$\.edits\[0\]\.service: "):
        _rule(service=service)


@pytest.mark.parametrize(
    ("edit", "place"),
    [
        ({"edit": "attach", "group": "web", "instance": "vn"}, "$.edits[1].instance: "),
        ({"edit": "attach", "group": "wep", "instance": "vm"}, "$.edits[1].group: "),
        ({"edit": "attach", "group": "web"}, "$.edits[1].instance: "),
        ({"edit": "attach", "group": "web", "instance": "vm", "force": True}, "$.edits[1]: "),
        ({"edit": "delete-rule", "group": "web", "rule": "ssh"}, "$.edits[1].rule: expected the id of a rule, as"),
        ({"edit": "fly"}, "$.edits[1].edit: "),
        ({"edit": "observe", "observe": True}, "$.edits[1]: "),
        ({"edit": "observe", "observe": True, "instance": "vm", "group": "web"}, "$.edits[1]: "),
        ({"edit": "add-source", "group": "web", "source": "192.0.2.0/33"}, "$.edits[1].source: "),
        ({"edit": "add-rule", "group": "web", "service": "tcp", "from": "x", "to": "web"}, "$.edits[1]: "),
        ({"edit": "add-rule", "group": "web", "service": "tcp", "from": "x"}, "$.edits[1].from: "),
    ],
)
def test_a_fault_is_named_by_its_place(edit, place):
    with pytest.raises((Invalid, NotFound)) as raised:
        _decode({"edit": "delete-group", "group": "web"}, edit)
    assert str(raised.value).startswith(place)


def test_a_peer_with_a_prefix_is_a_group_whatever_it_looks_like():
    [_, edit] = _decode(
        {"edit": "create-group", "name": "192.0.2.1"},
        {"edit": "add-rule", "group": "web", "service": "udp", "from": "group:192.0.2.1"},
    ).edits
    assert isinstance(edit.command.rule.peer, GroupReference)


def test_a_change_has_at_least_one_edit():
    with pytest.raises(Invalid):
        _decode()
