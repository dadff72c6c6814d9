"""Questions in words and their answers: the texts an operator reads."""

from dataclasses import replace
from uuid import uuid4

import pytest

from policies import ORGANISATION, group, group_id, instance, instance_id, rule, snapshot
from ringfence.policy.errors import Invalid, NotFound
from ringfence.policy.insight.explain import Service, explain, parse_service
from ringfence.policy.model import Organisation
from ringfence.policy.named import find_named
from ringfence.policy.rule_words import describe_rule
from ringfence.policy.values import GroupId, Kind, OrganisationId, Protocol

DB_RULE = "ingress tcp/5432 from group app"
WHOLE = snapshot(
    group("app", "egress tcp/5432 to group db", "egress udp/53 to 0.0.0.0/0"),
    group("db", DB_RULE, "ingress icmp/8/0 from 0.0.0.0/0", "source 203.0.113.0/24"),
    group("lone"),
    instance("web", "10.0.0.1", "2001:db8::1"),
    instance("app", "10.0.0.2", "2001:db8::2", wears=["app"]),
    instance("db", "10.0.0.3", "2001:db8::3", wears=["db"]),
    instance("old", "10.0.0.4", wears=["lone"]),
)

SERVICES = [
    ("tcp/5432", Service(Protocol.TCP, port=5432)),
    ("udp/1", Service(Protocol.UDP, port=1)),
    ("tcp/65535", Service(Protocol.TCP, port=65535)),
    ("icmp", Service(Protocol.ICMP, icmp_type=8)),
    ("icmpv6", Service(Protocol.ICMPV6, icmp_type=128)),
    ("icmp/3/4", Service(Protocol.ICMP, icmp_type=3, icmp_code=4)),
    ("icmp/0", Service(Protocol.ICMP, icmp_type=0)),
    ("esp", Service(Protocol.ESP)),
    ("ipip", Service(Protocol.IPIP)),
]


@pytest.mark.parametrize(("text", "service"), SERVICES)
def test_a_service_is_understood(text, service):
    assert parse_service(text) == service


@pytest.mark.parametrize(
    "text",
    [
        "",
        "tcp",
        "tcp/",
        "tcp/0",
        "tcp/65536",
        "tcp/80/1",
        "TCP/80",
        "http",
        "all",
        "esp/1",
        "icmp/256",
        "icmp/3/256",
        "tcp/80-90",
        "6",
        "tcp/80 ",
    ],
)
def test_what_is_no_service_is_refused_with_what_would_be(text):
    with pytest.raises(Invalid, match=r"^service: expected PROTOCOL/PORT such as tcp/443"):
        parse_service(text)


@pytest.mark.parametrize("text", ["tcp/5432", "icmp/8/0", "esp"])
def test_a_service_is_said_as_it_is_asked(text):
    assert str(parse_service(text)) == text


def told(source, destination, service):
    return explain(WHOLE, source, destination, parse_service(service))


def test_an_allowed_packet_names_the_rule_of_each_side():
    found = told("app", "db", "tcp/5432")
    assert found.verdict.allowed
    egress = rule("egress tcp/5432 to group db", "app")
    ingress = rule(DB_RULE, "db")
    assert found.text.splitlines() == [
        "allowed: app (10.0.0.2) -> db (10.0.0.3) tcp/5432",
        f"  egress of app (wears app) allows it: rule {egress.id} of group app, egress tcp/5432 to group db",
        "  10.0.0.3 is in group db: instance db wears it",
        f"  ingress of db (wears db) allows it: rule {ingress.id} of group db, ingress tcp/5432 from group app",
        "  10.0.0.2 is in group app: instance app wears it",
    ]


def test_a_refused_packet_names_the_rule_that_misses_only_the_peer():
    lines = told("web", "db", "tcp/5432").text.splitlines()
    assert lines[0] == "denied: web (10.0.0.1) -> db (10.0.0.3) tcp/5432"
    assert lines[1] == (
        "  egress of web (wears no group) allows it: none of its groups has an egress rule, so everything may leave"
    )
    assert lines[2].startswith("  ingress of db (wears db) denies it: no rule of its groups allows it in")
    assert lines[3] == (
        f"  nearest is rule {rule(DB_RULE, 'db').id} of group db, ingress tcp/5432 from group app;"
        " but 10.0.0.1 is not in group app (10.0.0.2, 2001:db8::2)"
    )
    assert lines[4] == "  missing: ringfence rule add db tcp/5432 --from 10.0.0.1"


def test_a_refused_way_out_names_its_side():
    lines = told("app", "internet", "tcp/443").text.splitlines()
    assert lines[0] == "denied: app (10.0.0.2) -> 192.0.2.1 (unmanaged) tcp/443"
    assert lines[1].startswith("  egress of app (wears app) denies it: its groups have egress rules, and none of them")
    assert lines[2:] == ["  missing: ringfence rule add app tcp/443 --to 0.0.0.0/0"]


def test_nothing_is_near_when_no_rule_is_of_that_protocol():
    assert "nearest" not in told("web", "db", "udp/5432").text


def test_ends_may_be_addresses_ids_and_the_internet():
    by_name = told("web", "db", "tcp/5432")
    assert told("10.0.0.1", "db", "tcp/5432").text == by_name.text
    assert told(str(instance_id("web")), "db", "tcp/5432").text == by_name.text
    assert told("internet", "db", "icmp").verdict.allowed


def test_between_strangers_nobody_judges():
    assert "neither end is an instance" in told("192.0.2.7", "198.51.100.7", "tcp/80").text


def test_the_family_follows_from_the_service_and_the_addresses():
    assert told("app", "db", "icmpv6").packet.source.version == 6
    assert told("app", "2001:db8::3", "tcp/5432").packet.source.version == 6


def test_ends_without_a_common_family_are_refused():
    with pytest.raises(Invalid, match="old and db have no addresses of one family that icmpv6/128/0 could use"):
        told("old", "db", "icmpv6")


def test_a_misspelt_name_is_answered_with_the_nearest():
    unknown = r"source: no instance or group is named 'wbe', and it is no address or network; did you mean web\?"
    with pytest.raises(NotFound, match=unknown):
        told("wbe", "db", "tcp/5432")


@pytest.mark.parametrize("text", ["any", "10.0.0.0/8", "::/0"])
def test_more_than_one_address_is_no_packet_and_another_command_is_named(text):
    with pytest.raises(Invalid, match=r"source: .* is more than one address.*ringfence reach"):
        told(text, "db", "tcp/5432")


def test_a_group_that_is_misspelt_is_answered_with_the_nearest_though_it_was_said_to_be_a_group():
    with pytest.raises(NotFound, match=r"source: no group is named 'loen'; did you mean lone\?"):
        told("group:loen", "db", "tcp/5432")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("group:web", r"no group is named 'web'; known are app, db, lone$"),
        ("instance:lone", r"no instance is named 'lone'; known are app, db, old, web$"),
    ],
)
@pytest.mark.parametrize(
    "find", [lambda text: told(text, "db", "esp"), lambda text: find_named(WHOLE, text, field="x")]
)
def test_who_says_which_kind_is_meant_is_told_the_names_of_that_kind_alone(find, text, said):
    with pytest.raises(NotFound, match=said):
        find(text)


def test_an_instance_may_be_said_to_be_one():
    assert told("instance:web", "db", "tcp/5432") == told("web", "db", "tcp/5432")


def test_a_strange_name_is_answered_with_the_known_ones():
    with pytest.raises(NotFound, match=r"known are app, db, internet, lone, old, web$"):
        told("web", "zzzzzz", "tcp/5432")


def test_a_name_that_several_have_asks_for_an_id():
    twins = snapshot(instance("web", "10.0.0.1"), *_renamed("web", "twin"))
    with pytest.raises(Invalid, match=rf"several instances are named web: .*{instance_id('twin')}"):
        explain(twins, "web", "internet", parse_service("tcp/80"))


def _renamed(name, born):

    return [replace(instance(born, "10.0.0.9"), name=name)]


@pytest.mark.parametrize("text", ["10.0.0.999", "::1", "fe80:::1"])
def test_what_looks_like_an_address_and_is_none_is_refused(text):
    with pytest.raises(Invalid, match=r"^source: expected"):
        told(text, "db", "tcp/5432")


@pytest.mark.parametrize(
    "text",
    [
        "ingress tcp/5432 from group app",
        "ingress tcp/80-90 from 10.0.0.1/8",
        "ingress tcp from 0.0.0.0/0",
        "egress icmp/8/0 to 0.0.0.0/0",
        "egress icmp/8 to 0.0.0.0/0",
        "ingress icmpv6 from ::/0",
        "ingress all from group db",
    ],
)
def test_a_rule_in_words_is_the_rule_in_words(text):
    assert describe_rule(WHOLE, rule(text)) == text


def test_a_description_stands_behind_its_rule():

    assert describe_rule(WHOLE, replace(rule(DB_RULE), description="reads")) == f"{DB_RULE} (reads)"


def test_what_a_person_named_moves_no_terminal_and_breaks_no_line():
    evil = "e\x1b]0;pwned\x07\nallowed\u202e"
    named = {id_: replace(one, name=f"{evil}{one.name}") for id_, one in WHOLE.groups.items()}
    rules = {
        id_: replace(one, rules=tuple(replace(rule, description=evil) for rule in one.rules))
        for id_, one in named.items()
    }
    instances = {id_: replace(one, name=f"{evil}{one.name}") for id_, one in WHOLE.instances.items()}
    nasty = replace(WHOLE, groups=rules, instances=instances)
    for source, service in (("app", "tcp/5432"), ("web", "tcp/5432"), ("old", "icmp")):
        text = explain(nasty, f"{evil}{source}", f"{evil}db", parse_service(service)).text
        assert all(line.isprintable() for line in text.split("\n"))
        assert len(text.split("\n")) == len(explain(WHOLE, source, "db", parse_service(service)).text.split("\n"))
        assert "e\\x1b]0;pwned\\x07\\nallowed\\u202e" in text


def _self_host():
    found = instance("h1", "10.77.0.9", "fd77::9", wears=("shut",))
    interface = replace(found.interfaces[0], kind=Kind.SELF, mac=None)
    return snapshot(group("shut", "egress tcp/443 to 0.0.0.0/0"), replace(found, interfaces=(interface,)))


def test_a_host_that_is_refused_is_told_of_what_the_server_does_not_know():
    text = explain(_self_host(), "internet", "h1", parse_service("tcp/22")).text
    assert text.startswith("denied")
    assert "failsafe ports, which its inventory names" in text
    assert "failsafe" not in explain(_self_host(), "internet", "h1", parse_service("icmp")).text
    assert "failsafe" not in explain(_self_host(), "h1", "internet", parse_service("tcp/443")).text


def test_a_host_that_talks_to_itself_is_judged_by_nobody():
    found = explain(_self_host(), "h1", "h1", parse_service("tcp/80"))
    assert found.verdict.allowed
    assert "loopback is free" in found.text


def test_an_observed_instance_is_said_to_let_pass_what_its_rules_deny():
    observed = replace(instance("old", "10.0.0.4", wears=["lone"]), observe=True)
    told = explain(snapshot(group("lone"), observed), "internet", "old", Service(Protocol.TCP, port=80))
    assert told.verdict.allowed
    head, side, missing = told.text.splitlines()
    assert head.startswith("allowed: ")
    assert side.startswith("  ingress of old (wears lone) would deny it, but is only observed: no rule of its groups")
    assert missing == "  missing: ringfence rule add lone tcp/80 --from 0.0.0.0/0"


def test_a_rule_that_names_the_senders_group_is_what_is_missing():
    assert "  missing: ringfence rule add lone tcp/80 --from db" in told("db", "old", "tcp/80").text


def test_what_is_missing_is_said_so_that_the_command_finds_the_group_of_another_organisation():
    theirs = OrganisationId(uuid4())
    first, second = (
        Organisation(id_, name, GroupId(uuid4())) for id_, name in ((ORGANISATION, "us"), (theirs, "acme"))
    )
    strangers = snapshot(group("app"), group("db"), instance("app", "10.0.0.2", wears=["app"]))
    box = replace(instance("db", "10.0.0.3", wears=["db"]), organisation=theirs)
    groups = {**strangers.groups, group_id("db"): replace(strangers.groups[group_id("db")], organisation=theirs)}
    both = replace(
        strangers,
        organisations={ORGANISATION: first, theirs: second},
        groups=groups,
        instances={**strangers.instances, box.id: box},
        index=None,
    )
    said = explain(both, "app", "db", parse_service("tcp/80")).text
    assert "  missing: ringfence rule add db tcp/80 --from 10.0.0.2 --organisation acme" in said
    back = explain(both, "db", "app", parse_service("tcp/80")).text
    assert "  missing: ringfence rule add app tcp/80 --from 10.0.0.3" in back.splitlines()


def test_who_wears_no_group_is_told_to_attach_one():
    assert "  missing: web wears no group but default: attach one, then add a rule" in told("db", "web", "tcp/80").text


def test_a_source_says_why_an_address_is_in_a_group():
    found = explain(
        snapshot(
            group("office", "source 203.0.113.0/24"),
            group("web", "ingress tcp/80 from group office"),
            instance("w", "10.0.0.1", wears=["web"]),
        ),
        "203.0.113.7",
        "w",
        parse_service("tcp/80"),
    )
    assert "  203.0.113.7 is in group office: its external source 203.0.113.0/24 holds it" in found.text


def test_an_address_of_nobody_may_be_a_member_behind_nat():
    text = told("198.51.100.9", "db", "tcp/5432").text
    assert (
        "no instance has 198.51.100.9: of members behind NAT the group needs that address as an external source" in text
    )


def test_an_address_that_another_group_has_as_a_source_is_said_to_be_of_that_group():
    text = told("203.0.113.7", "db", "tcp/5432").text
    assert "no instance has 203.0.113.7: it is an external source of db, so one of theirs came through NAT?" in text


def test_of_a_group_the_first_member_stands_for_all_and_the_others_are_counted():
    whole = snapshot(
        group("web"),
        group("db", "ingress tcp/5432 from 10.0.0.1/32"),
        instance("a", "10.0.0.1", wears=["web"]),
        instance("b", "10.0.0.2", wears=["web"]),
        instance("d", "10.0.0.9", wears=["db"]),
    )
    lines = explain(whole, "web", "d", parse_service("tcp/5432")).text.splitlines()
    assert lines[0] == "allowed: a (10.0.0.1) -> d (10.0.0.9) tcp/5432"
    assert lines[-1] == "  of 2 pairs of addresses 1 are denied, e.g. b (10.0.0.2) -> d (10.0.0.9)"
    assert explain(whole, "web", "d", parse_service("tcp/1")).text.endswith(
        "the same holds for all 2 pairs of addresses"
    )
    assert "e.g." not in explain(whole, "group:db", "a", parse_service("tcp/1")).text


def test_an_instance_goes_before_a_group_of_its_name():
    assert told("app", "db", "tcp/5432").text.startswith("allowed: app (10.0.0.2) -> db (10.0.0.3)")
    assert "203.0.113.0 (unmanaged)" not in told("group:db", "web", "tcp/1").text.splitlines()[0]


def test_an_address_that_several_have_asks_for_an_id():
    twins = snapshot(instance("web", "10.0.0.9"), *_renamed("web", "twin"))
    with pytest.raises(
        Invalid, match=rf"destination: several instances have the address 10.0.0.9: .*{instance_id('twin')}"
    ):
        explain(twins, "internet", "10.0.0.9", parse_service("tcp/80"))


def test_a_group_of_nobody_cannot_be_asked_about():
    with pytest.raises(Invalid, match="source: group empty has no members and no external sources"):
        explain(snapshot(group("empty"), instance("web", "10.0.0.1")), "empty", "web", parse_service("tcp/80"))
