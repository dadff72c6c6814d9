"""describe-security-groups: what each permission becomes, and what no rule can say."""

import pytest

from importing import words_of
from ringfence.policy.errors import Invalid
from ringfence.policy.values import Direction
from ringfence.wire.imports.aws import read_aws

OPEN = {"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}], "Ipv6Ranges": [{"CidrIpv6": "::/0"}]}


def _group(name, *ingress, egress=(OPEN,), id_=None):
    return {
        "GroupName": name,
        "GroupId": id_ or f"sg-{name}",
        "Description": f"the {name}",
        "OwnerId": "123456789012",
        "VpcId": "vpc-1",
        "IpPermissions": list(ingress),
        "IpPermissionsEgress": list(egress),
    }


def _read(*groups, spell_out=False):
    return read_aws({"SecurityGroups": list(groups)}, spell_out=spell_out)


def _permission(protocol, first=None, last=None, **peers):
    ports = {} if first is None else {"FromPort": first, "ToPort": last}
    return {"IpProtocol": protocol, **ports, **peers}


def _from(*cidrs, description=None):
    return {"IpRanges": [{"CidrIp": cidr, **({"Description": description} if description else {})} for cidr in cidrs]}


@pytest.mark.parametrize(
    ("permission", "wanted"),
    [
        (
            _permission("tcp", 22, 22, **_from("10.0.0.0/8", "192.0.2.0/24")),
            ["tcp/22 10.0.0.0/8", "tcp/22 192.0.2.0/24"],
        ),
        (_permission("udp", 0, 65535, **_from("10.0.0.0/8")), ["udp 10.0.0.0/8"]),
        (_permission("tcp", 0, 1024, **_from("10.0.0.0/8")), ["tcp/1-1024 10.0.0.0/8"]),
        (_permission("icmp", -1, -1, **_from("0.0.0.0/0")), ["icmp 0.0.0.0/0"]),
        (_permission("icmp", 8, -1, **_from("0.0.0.0/0")), ["icmp/8 0.0.0.0/0"]),
        (_permission("icmp", 3, 4, **_from("0.0.0.0/0")), ["icmp/3/4 0.0.0.0/0"]),
        (_permission("icmpv6", Ipv6Ranges=[{"CidrIpv6": "2001:db8::/32"}]), ["icmpv6 2001:db8::/32"]),
        (_permission("50", **_from("10.0.0.0/8")), ["esp 10.0.0.0/8"]),
        (_permission("-1", UserIdGroupPairs=[{"GroupId": "sg-web", "UserId": "123456789012"}]), ["all group web"]),
    ],
)
def test_a_permission_becomes_the_rules_that_allow_the_same(permission, wanted):
    [group] = _read(_group("web", permission)).document.groups
    assert [words_of(rule) for rule in group.rules] == wanted
    assert (group.name, group.description) == ("web", "the web")


def test_all_protocols_are_told_and_can_be_spelled_out():
    permission = _permission("-1", **_from("10.0.0.0/8"))
    assert "--offer-all-protocol" in _read(_group("web", permission)).notes[0]
    spelled = _read(_group("web", permission), spell_out=True)
    assert len(spelled.document.groups[0].rules) == 8
    assert "only those that rules can name" in spelled.notes[0]


def test_egress_that_is_open_needs_no_rule_and_egress_that_is_closed_needs_one():
    opened, closed, some = _read(
        _group("open"),
        _group("closed", egress=()),
        _group("some", egress=[_permission("udp", 53, 53, **_from("9.9.9.9/32"))]),
    ).document.groups[:3]
    assert opened.rules == ()
    assert [(rule.direction, words_of(rule)) for rule in closed.rules] == [(Direction.EGRESS, "tcp group nobody")]
    assert [(rule.direction, words_of(rule)) for rule in some.rules] == [(Direction.EGRESS, "udp/53 9.9.9.9/32")]


def test_egress_that_is_open_for_ipv4_alone_is_told():
    found = _read(_group("web", egress=[_permission("-1", **_from("0.0.0.0/0"))]))
    assert found.document.groups[0].rules == ()
    assert "no IPv6" in found.notes[0]


def test_groups_of_one_name_are_told_apart_by_their_ids():
    groups = _read(_group("default", id_="sg-1"), _group("default", id_="sg-2"), _group("web")).document.groups
    assert [group.name for group in groups] == ["default (sg-1)", "default (sg-2)", "web"]


@pytest.mark.parametrize(
    ("permission", "field"),
    [
        (_permission("132", **_from("10.0.0.0/8")), "IpPermissions[0].IpProtocol: no rule can name"),
        (_permission("tcp", 1, 1, PrefixListIds=[{"PrefixListId": "pl-1"}]), "IpPermissions[0].PrefixListIds"),
        (_permission("tcp", 1, 1, UserIdGroupPairs=[{"GroupId": "sg-9"}]), "UserIdGroupPairs[0].GroupId: group 'sg-9'"),
        (_permission("tcp", 1, 1, **_from("10.0.0.0")), "IpPermissions[0].IpRanges[0]"),
        ({"FromPort": 1}, "IpPermissions[0].IpProtocol: required"),
    ],
)
def test_what_no_rule_can_say_is_refused_by_field(permission, field):
    with pytest.raises(Invalid) as caught:
        _read(_group("web", permission))
    assert f"$.SecurityGroups[0].{'' if 'IpPerm' in field else 'IpPermissions[0].'}{field}" in str(caught.value)


def test_what_is_no_answer_of_aws_is_refused():
    with pytest.raises(Invalid, match="SecurityGroups: required"):
        read_aws({"Groups": []}, spell_out=False)
