"""The agents' protocol as it stands on the wire, and what of it is refused with which words."""

import json
from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from ringfence.nft.foreign import ForeignChain
from ringfence.policy.errors import Invalid
from ringfence.policy.local import Failsafe
from ringfence.policy.values import Protocol
from ringfence.policy.view import PeerAddresses
from ringfence.wire.feed import (
    HEARTBEAT,
    FeedReader,
    Heartbeat,
    Report,
    decode_claim,
    decode_report,
    decode_whole,
    encode_report,
    encode_whole,
)
from views import GROUPS, endpoint, ingress, view

SOURCES = (ip_network("192.0.2.0/24"), ip_network("2001:db8::/64"))

WEB, PEERS = GROUPS[:2]
VIEW = view(
    7,
    endpoint("web", WEB),
    rules={WEB: (ingress(80, PEERS),)},
    peers={PEERS: PeerAddresses(frozenset({ip_address("10.0.0.1")}), frozenset({ip_network("10.1.0.0/16")}))},
)
CLAIM = {
    "format": 3,
    "instances": [
        {
            "name": "web",
            "id": None,
            "realm": "default",
            "interfaces": [
                {"name": "veth-web", "addresses": ["10.0.0.2"], "mac": None, "managed": True, "kind": "routed"}
            ],
        }
    ],
}


def _changed(document, *path, value):
    copy = json.loads(json.dumps(document))
    place = copy
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    return json.dumps(copy).encode()


def _line():
    return json.loads(encode_whole("e1", VIEW))


def test_a_view_looks_like_this_on_the_wire():
    assert _line()["view"] == {
        "endpoints": [
            {
                "instance": str(VIEW.endpoints[0].instance),
                "name": "web",
                "interface": "veth-web",
                "addresses": ["10.77.0.119", "fd77::77"],
                "mac": None,
                "kind": "routed",
                "observe": False,
                "groups": [str(WEB)],
            }
        ],
        "rules": {
            str(WEB): [
                {
                    "id": "00000000-0000-0000-0000-000000000001",
                    "direction": "ingress",
                    "protocol": "tcp",
                    "network": None,
                    "group": str(PEERS),
                    "start-port": 80,
                    "end-port": None,
                    "icmp": None,
                    "description": None,
                }
            ]
        },
        "peers": {str(PEERS): {"members": ["10.0.0.1"], "sources": ["10.1.0.0/16"]}},
    }


def test_a_heartbeat_is_told_from_a_view():
    assert FeedReader().decode_line(HEARTBEAT) == Heartbeat()


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (("format",), 2, "the server speaks format 2, this agent 3: upgrade the server"),
        (("format",), 4, "the server speaks format 4, this agent 3: upgrade the agent"),
        (("format",), None, "expected the format"),
        (("view", "rules", str(WEB), 0, "only-on"), "mondays", "unknown field"),
        (("epoch",), "E1;", "epoch"),
        (("epoch",), "e1\n", "epoch"),
        (("hash",), "0" * 32, "not the one that it is to make"),
        (("hash",), "0", "hash"),
        (("revision",), -1, "revision"),
        (("extra",), 1, "unknown field"),
        (("view", "endpoints", 0, "addresses"), None, "addresses"),
        (("view", "endpoints", 0, "addresses"), ["10.0.0.300"], "addresses[0]"),
        (("view", "endpoints", 0, "addresses"), ["127.0.0.1"], "address of one host"),
        (("view", "endpoints", 0, "interface"), 'a"; drop', "interface name"),
        (("view", "endpoints", 0, "mac"), "zz", "MAC"),
        (("view", "endpoints", 0, "kind"), "magic", "Invalid enum value"),
        (("view", "rules", str(WEB), 0, "network"), "0.0.0.0/0", "exactly one"),
        (("view", "rules", str(WEB), 0, "group"), None, "exactly one"),
        (("view", "rules", str(WEB), 0, "protocol"), "TCP", "Invalid enum value"),
        (("view", "rules", str(WEB), 0, "start-port"), 65536, "start-port"),
        (("view", "rules", str(WEB), 0, "start-port"), True, "start-port"),
        (("view", "peers"), {}, "not the one that it is to make"),
        (("view", "endpoints", 0, "observe"), True, "not the one that it is to make"),
        (("view", "peers", str(PEERS), "sources"), ["10.0.0.0/33"], "sources[0]"),
    ],
)
def test_a_line_that_says_something_wrong_is_refused_by_its_place(path, value, words):
    with pytest.raises(Invalid, match=words.replace("[", r"\[")):
        decode_whole(_changed(_line(), *path, value=value))


def test_a_rule_id_that_occurs_twice_is_refused():
    rules = _line()["view"]["rules"][str(WEB)]
    with pytest.raises(Invalid, match="twice"):
        decode_whole(_changed(_line(), "view", "rules", str(WEB), value=rules * 2))


def test_an_empty_group_stays_an_empty_group_on_the_wire():
    empty = view(1, endpoint("web", WEB), rules={WEB: (ingress(80, PEERS),)}, peers={PEERS: PeerAddresses()})
    assert decode_whole(encode_whole("e1", empty)).view.peers[PEERS] == PeerAddresses()


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("instances", 0, "name"), ""),
        (("instances", 0, "name"), "x" * 256),
        (("instances", 0, "name"), "we\nb"),
        (("instances", 0, "id"), "not-a-uuid"),
        (("instances", 0, "interfaces", 0, "managed"), 1),
        (("instances", 0, "interfaces", 0, "addresses"), ["10.0.0.0/8"]),
        (("instances",), CLAIM["instances"] * 2),
        (("format",), None),
    ],
)
def test_a_wrong_claim_is_refused(path, value):
    decode_claim(json.dumps(CLAIM).encode())
    with pytest.raises(Invalid):
        decode_claim(_changed(CLAIM, *path, value=value))


def test_two_instances_cannot_claim_one_interface():
    other = CLAIM["instances"][0] | {"name": "other"}
    with pytest.raises(Invalid, match="'veth-web' occurs twice"):
        decode_claim(_changed(CLAIM, "instances", value=[*CLAIM["instances"], other]))


def test_a_report_is_cut_to_a_bounded_length_and_to_text_that_can_be_written():
    report = decode_report(encode_report(Report(None, "\udcff" + "x" * 10_000, "\udcff")))
    assert (report.error, report.notice) == ("?" + "x" * 4095, "?")


def test_a_report_carries_foreign_chains_and_one_of_before_says_nothing_of_them():
    chain = ForeignChain("ip", "filter", "x" * 300, "input", -10, policy_drops=True, drops=False)
    for foreign in (None, (), (chain,) * 70):
        found = decode_report(encode_report(Report(4, None, foreign=foreign))).foreign
        assert found == (foreign and (replace(chain, chain="x" * 255),) * 64)
    assert decode_report(b'{"format":3,"applied":4,"error":null,"notice":null}').foreign is None


def test_a_report_carries_failsafe_ports_and_one_of_before_says_nothing_of_them():
    ports = tuple(Failsafe(Protocol.TCP, port, SOURCES) for port in range(1, 40))
    for failsafe in (None, (), ports[:2]):
        assert decode_report(encode_report(Report(4, None, failsafe=failsafe))).failsafe == failsafe
    assert len(decode_report(encode_report(Report(4, None, failsafe=ports))).failsafe) == 32
    assert decode_report(b'{"format":3,"applied":4,"error":null,"notice":null}').failsafe is None
    for wrong in ('"esp","port":22', '"tcp","port":0', '"tcp","port":22,"sources":["192.0.2.1"]'):
        text = f'{{"format":3,"applied":4,"error":null,"notice":null,"failsafe":[{{"protocol":{wrong}}}]}}'
        with pytest.raises(Invalid, match=r"\$\.failsafe"):
            decode_report(text.encode())


def test_what_a_newer_agent_tells_besides_is_passed_over():
    """But not what it claims: there a field might narrow what is claimed."""
    chain = ForeignChain("ip", "filter", "c", "input", -10, policy_drops=True, drops=False)
    report = Report(4, "e", "n", foreign=(chain,))
    told = json.loads(encode_report(report))
    newer = told | {"mood": "good", "foreign": [told["foreign"][0] | {"mood": "bad"}]}
    assert decode_report(json.dumps(newer).encode()) == report
    with pytest.raises(Invalid, match="unknown field"):
        decode_claim(_changed(CLAIM, "instances", 0, "only-on", value="mondays"))


def test_deep_nesting_is_refused():
    with pytest.raises(Invalid):
        decode_claim(b'{"format":3,"instances":' + b"[" * 100_000)


def test_a_hosts_longer_error_is_cut_whoever_wrote_the_report():
    body = json.dumps({"format": 3, "applied": None, "error": "x" * 10_000, "notice": "y" * 10_000}).encode()
    report = decode_report(body)
    assert (report.error, report.notice) == ("x" * 4096, "y" * 4096)
