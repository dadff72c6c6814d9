"""A policy file: what it may say, and what its reader says of what it may not."""

import pytest

from ringfence.policy.desired import snapshot_of
from ringfence.policy.errors import CallerError, Invalid
from ringfence.policy.values import Direction, Icmp, Ports, Protocol, Visibility
from ringfence.wire.policy_file import read_policy, write_policy

WHOLE = """\
version: 1
groups:
  web:
    description: the public site
    sources: [203.0.113.0/24]
    ingress:
    - {protocol: tcp, ports: 443, from: 0.0.0.0/0, description: everybody}
    - {protocol: tcp, ports: 8000-8100, from: group app}
    - {protocol: icmp, type: 8, code: 0, from: 0.0.0.0/0}
    egress:
    - {protocol: udp, ports: 53, to: public group resolvers}
  app: {}
public-groups:
  app: {description: of one name with a private group}
  resolvers:
    sources: [9.9.9.9/32]
instances:
  web-1:
    groups: [web]
    public-groups: [app]
    addresses: [192.0.2.10, '2001:db8::10']
    host: h1
    observe: true
assertions: [internet -> web tcp/443 allow]
"""


def _read(text):
    return read_policy(text, "policy.yaml")


def _rule(text):
    return f"version: 1\ngroups:\n  web:\n    ingress:\n      - {text}\n"


def test_everything_that_a_file_can_say_is_read_and_written_the_same():
    document = _read(WHOLE).document
    web, _, _, resolvers = document.groups
    assert [rule.direction for rule in web.rules] == [Direction.INGRESS] * 3 + [Direction.EGRESS]
    assert web.rules[1].peer.name == "app"
    assert (web.rules[1].start_port, web.rules[1].end_port) == (8000, 8100)
    assert web.rules[2].icmp == Icmp(8, 0)
    assert resolvers.visibility is Visibility.PUBLIC
    assert document.instances[0].observe
    assert write_policy(document) == WHOLE


def test_a_person_may_write_comments():
    commented = "# who may what\n" + WHOLE.replace("groups:\n", "groups:  # all of them\n", 1)
    assert _read(commented).document == _read(WHOLE).document


def test_a_file_is_a_policy_of_its_own():
    snapshot = snapshot_of(_read(WHOLE).document)
    groups = {group.name: group for group in snapshot.groups.values() if group.name != "app"}
    app, public = (one for one in snapshot.groups.values() if one.name == "app")
    [instance] = snapshot.instances.values()
    assert set(groups) == {"default", "web", "resolvers"}
    assert groups["web"].rules[1].peer.group == app.id
    assert groups["web"].rules[1].ports == Ports(8000, 8100)
    assert groups["web"].rules[3].peer.group == groups["resolvers"].id
    assert instance.groups == (groups["web"].id, public.id)
    assert snapshot_of(_read(WHOLE).document) == snapshot


def test_words_that_yaml_makes_something_else_of_are_what_they_look_like():
    text = (
        "version: 1\ngroups:\n  no: {description: 12:30}\n  on: {description: 2026-01-31}\n  1.5: {description: 0x10}\n"
    )
    groups = _read(text).document.groups
    assert [group.name for group in groups] == ["no", "on", "1.5"]
    assert [group.description for group in groups] == ["12:30", "2026-01-31", "0x10"]
    assert _read(write_policy(_read(text).document)).document.groups == groups


def test_an_instance_of_which_nothing_is_said_keeps_its_groups_and_offline_wears_the_default():
    document = _read("version: 1\ninstances:\n  a: {addresses: [192.0.2.1]}\n  b: {groups: []}\n").document
    assert [one.groups for one in document.instances] == [None, ()]
    snapshot = snapshot_of(document)
    [default] = snapshot.groups
    assert [one.groups for one in snapshot.instances.values()] == [(default,), ()]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "policy.yaml, line 1: expected a policy, and the file is empty"),
        ("groups: {}", "line 1: version: required, but not given"),
        ("version: 2", "line 1: version: expected 1, got 2"),
        ("- a", "line 1: expected an object"),
        ("version: 1\ngroups:\n  web: {ingress: [a\n", "no YAML: "),
        ("version: 1\ngroup: {}", "line 1: object contains unknown field group"),
        ("version: 1\ngroups:\n  web: {}\n  web: {}\n", "line 4: groups.web: is there twice"),
        ("version: 1\ngroups: &a\n  web: *a\n", "alias"),
        ("version: 1\ngroups:\n  web: {description: !x a}\n", "line 3: groups.web.description: expected plain text"),
        ("version: 1\ngroups:\n  web: {sources: [10.0.0.0]}\n", "line 3: groups.web.sources[0]: expected an IPv4"),
        ("version: 1\npublic-groups:\n  web: {rules: []}\n", "line 3: public-groups.web"),
        ("version: 1\npublic_groups: {}\n", "did you mean public-groups"),
        (
            "version: 1\ngroups:\n\tweb: {}\n",
            "line 3: no YAML: found character that cannot start any token; write blanks",
        ),
        (_rule("{protocol: tcp, from: ::/0}"), "; put what begins with colons into quotes, as '::/0'"),
        ("version: 1\ngroups:\n  '': {}\n", "line 3: groups.: expected a name"),
        ("version: 1\ninstances:\n  a:\n    addresses:\n    - 1.2.3\n", "line 5: instances.a.addresses[0]: expected"),
        (
            _rule("{protocol: tcp, port: 1, from: 0.0.0.0/0}"),
            "line 5: groups.web.ingress[0]: object contains unknown field port; did you mean ports?",
        ),
        (_rule("{protocol: tpc, from: 0.0.0.0/0}"), "line 5: groups.web.ingress[0].protocol: expected one of"),
        (_rule("{protocol: tcp, ports: 0, from: 0.0.0.0/0}"), "ingress[0].ports: expected a port"),
        (_rule("{protocol: tcp, ports: 9-8, from: 0.0.0.0/0}"), "ingress[0].ports: expected a port"),
        (_rule("{protocol: esp, ports: 1, from: 0.0.0.0/0}"), "ingress[0].ports: expected only with protocol tcp"),
        (_rule("{protocol: tcp, type: 8, from: 0.0.0.0/0}"), "ingress[0].type: expected only with protocol icmp"),
        (_rule("{protocol: icmp, code: 3, from: 0.0.0.0/0}"), "ingress[0].code: a code (3) needs a type"),
        (_rule("{protocol: tcp, to: 0.0.0.0/0}"), "ingress[0].to: expected from, because this is ingress"),
        (_rule("{protocol: tcp}"), "ingress[0]: expected from: a network, or group NAME"),
        (
            _rule("{protocol: tcp, from: web}"),
            "expected an IPv4 or IPv6 network in CIDR form such as 192.0.2.0/24, got 'web', or group NAME",
        ),
        (_rule('{protocol: tcp, from: 0.0.0.0/0, description: "a\\0b"}'), "without NUL"),
    ],
)
def test_what_no_policy_can_say_is_refused_by_file_line_and_field(text, said):
    with pytest.raises(Invalid) as caught:
        _read(text)
    assert str(caught.value).startswith("policy.yaml")
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            _rule("{protocol: tcp, from: group wbe}"),
            "line 5: groups.web.ingress[0].from: there is no group wbe; did you mean web?",
        ),
        (_rule("{protocol: tcp, from: public group web}"), "there is no public group web"),
        (
            "version: 1\ninstances:\n  a: {groups: [defalt]}\n",
            "line 3: instances.a.groups[0]: there is no group defalt; did you mean default?",
        ),
        (
            "version: 1\ninstances:\n  a: {addresses: [192.0.2.1]}\n  b: {addresses: [192.0.2.1]}\n",
            "line 4: instances.b.addresses[0]: 192.0.2.1 is instance a's already",
        ),
    ],
)
def test_names_that_lead_nowhere_are_told_with_their_line(text, said):
    file = _read(text)
    with pytest.raises(CallerError) as caught:
        snapshot_of(file.document)
    assert said in str(file.locate(caught.value))


def test_a_protocol_with_all_of_its_ports_is_written_without_ports():
    [group] = _read(_rule("{protocol: tcp, from: 10.0.0.1/8}")).document.groups
    assert group.rules[0].protocol is Protocol.TCP
    assert "{protocol: tcp, from: 10.0.0.1/8}" in write_policy(
        _read(_rule("{protocol: tcp, from: 10.0.0.1/8}")).document
    )
