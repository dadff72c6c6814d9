"""Assertions: what the sentences mean, and what is said of those that are none."""

import re
from ipaddress import ip_address

import pytest

from policies import ORGANISATION, group, instance, snapshot
from ringfence.policy.errors import Invalid, NotFound
from ringfence.policy.insight.assertions import check, examples, parse_assertion, parse_assertions
from ringfence.policy.insight.portray import portray_witness
from ringfence.policy.insight.reach import Reachability
from ringfence.policy.values import OrganisationId

POLICY = snapshot(
    group("web", "ingress tcp/443 from 0.0.0.0/0", "ingress icmp from 0.0.0.0/0"),
    group(
        "db", "ingress tcp/5432-5433 from group web", "ingress tcp/22 from 10.0.0.0/8", "egress udp/53 to 9.9.9.9/32"
    ),
    group("office", "source 203.0.113.0/24"),
    group("my group", "ingress tcp/80 from group office", "ingress tcp/80 from group web"),
    group("empty"),
    instance("web-1", "192.0.2.1", wears=("web",)),
    instance("web-2", "192.0.2.2", "2001:db8::2", wears=("web",)),
    instance("db-1", "192.0.2.3", wears=("db",)),
    instance("own-1", "192.0.2.4", wears=("my group",)),
)
MADE = Reachability(POLICY)


def _check(text, owner=None):
    return check(MADE, parse_assertion(text, field="it"), owner=owner)


@pytest.mark.parametrize(
    "text",
    [
        "198.51.100.0/24 -> web tcp/443 allow",
        "any -> db tcp/23-5431,tcp/5434-65535,udp deny",
        "web -> db tcp/5432-5433 allow",
        "office -> my group tcp/80 allow",
        "db -> internet tcp deny",
        "web -> internet any allow",  # nothing restricts it, and what opens no connection is not meant
        "web -> 192.0.2.1 icmp allow",
        "internet -> 192.0.2.0/25 udp deny",
        "  any   ->  db   gre   deny ",
    ],
)
def test_what_holds_of_every_packet_holds(text):
    result = _check(text)
    assert (result.witness, result.about_nobody) == (None, False)


@pytest.mark.parametrize(
    ("text", "packet"),
    [
        ("web -> db tcp/5432-5434 allow", r"192.0.2.[12] -> 192.0.2.3 tcp/5434"),
        ("any -> web tcp/443 allow", r"192.0.2.3 -> 192.0.2.[12] tcp/443"),  # the database may not leave
        ("any -> db tcp/22 deny", r"10.0.0.0 -> 192.0.2.3 tcp/22"),
        ("0.0.0.0/0 -> web any deny", r"\S+ -> 192.0.2.[12] \S+"),
        ("2001:db8:1::/64 -> web tcp/443 allow", r"2001:db8:1:: -> 2001:db8::2 tcp/443"),
        ("db -> internet icmp/3 allow", r"192.0.2.3 -> \S+ icmp/3/0"),
        ("db -> 9.9.9.9 udp/53 deny", r"192.0.2.3 -> 9.9.9.9 udp/53"),
        ("web -> web tcp deny", r"192.0.2.1 -> 192.0.2.2 tcp/443"),
    ],
)
def test_what_does_not_is_proved_by_a_packet(text, packet):
    witness = _check(text).witness
    assert re.fullmatch(packet, f"{witness.packet.source} -> {witness.packet.destination} {witness.service}")
    assert witness.verdict.allowed == text.endswith("deny")


@pytest.mark.parametrize(
    "text",
    ["any -> empty any deny", "web-1 -> web-1 tcp deny", "9.9.9.9 -> internet any deny", "any -> db icmpv6 allow"],
)
def test_an_assertion_that_means_no_packet_holds_and_is_told_apart(text):
    result = _check(text)
    assert (result.witness, result.about_nobody) == (None, True)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("web db tcp/22 deny", "expected SOURCE -> DESTINATION SERVICE allow, or deny"),
        ("web -> db deny", "expected SOURCE"),
        ("web -> db tcp/22 alow", "did you mean allow"),
        ("web -> db tpc/22 deny", "expected a service such as tcp/443"),
        ("web -> db tcp/99999 deny", "expected a service such as tcp/443"),
    ],
)
def test_a_sentence_that_is_no_assertion_is_refused_by_its_place(text, said):
    with pytest.raises(Invalid, match=re.escape(said)) as error:
        parse_assertions(["any -> db tcp/22 deny", text])
    assert error.value.field == "$.assertions[1]"


def test_an_unknown_name_is_told_by_place_with_the_nearest():
    with pytest.raises(NotFound, match="did you mean db") as error:
        _check("any -> dbb tcp/22 deny")
    assert error.value.field == "it"


def test_another_organisation_knows_no_names_of_this_one():
    with pytest.raises(NotFound):
        _check("any -> db tcp/22 deny", owner=OrganisationId(POLICY.instances[next(iter(POLICY.instances))].id))
    assert _check("any -> db tcp/22 deny", owner=ORGANISATION).witness is not None


def test_a_proof_names_the_ends_the_rule_and_nothing_of_others():
    witness = _check("web -> db tcp deny").witness
    first, *sides = portray_witness(POLICY, witness)
    assert re.fullmatch(r"web-\d \(192.0.2.\d\) -> db-1 \(192.0.2.3\) tcp/5432 passes", first)
    assert "ingress tcp/5432-5433 from group web" in sides[1]
    strange = OrganisationId(POLICY.instances[next(iter(POLICY.instances))].id)
    assert portray_witness(POLICY, witness, owner=strange) == [
        f"{witness.packet.source} (another's) -> 192.0.2.3 (another's) tcp/5432 passes"
    ]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("web -> db tcp/22 deny", ["192.0.2.1 -> 192.0.2.3 tcp/22"]),
        ("any -> db tcp deny", ["192.0.2.1 -> 192.0.2.3 tcp/1", "198.51.100.7 -> 192.0.2.3 tcp/1"]),
        ("any -> internet tcp/443 allow", ["192.0.2.1 -> 9.9.9.9 tcp/443"]),  # the one that a rule names
        ("any -> 9.9.9.9 udp/53 allow", ["192.0.2.1 -> 9.9.9.9 udp/53"]),
        ("office -> db udp/53 deny", []),  # neither address is of the office
    ],
)
def test_packets_to_be_tried_begin_at_the_addresses_given_and_go_to_somebody(text, wanted):
    here = [ip_address("192.0.2.1"), ip_address("198.51.100.7")]
    found = examples(MADE, parse_assertion(text, field="it"), here)
    assert [f"{one.packet.source} -> {one.packet.destination} {one.service}" for one in found] == wanted
