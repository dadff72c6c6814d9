"""Services in words and as intervals."""

import pytest

from policies import rule
from ringfence.policy.errors import Invalid
from ringfence.policy.insight.services import (
    ALL_SERVICES,
    FLOWS,
    REDIRECTS,
    describe_services,
    parse_services,
    services_of,
)


@pytest.mark.parametrize(
    "text", ["tcp/22", "tcp/80-90", "tcp", "udp/53", "icmp/8", "icmp/3/4", "icmpv6/128", "esp", "ah", "tcp/22, udp/53"]
)
def test_what_is_parsed_is_described_in_the_same_words(text):
    assert describe_services(parse_services(text)) == text


@pytest.mark.parametrize(
    "text", ["", "tcp/", "tcp/70000", "tcp/9-8", "icmp/256", "icmp/3-4", "esp/1", "sctp/1", "tcp/1/2"]
)
def test_anything_else_is_refused_with_its_field(text):
    with pytest.raises(Invalid, match=r"^service: expected"):
        parse_services(text)


@pytest.mark.parametrize(
    ("line", "family", "wanted"),
    [
        ("ingress tcp/443 from 10.0.0.0/8", 4, "tcp/443"),
        ("ingress icmp/8/0 from 10.0.0.0/8", 4, "icmp/8/0"),
        ("ingress icmp/8 from 10.0.0.0/8", 6, "nothing"),
        ("ingress icmpv6/135 from ::/0", 6, "nothing"),
        ("ingress ah from ::/0", 6, "ah"),
        ("ingress all from ::/0", 6, "any"),
    ],
)
def test_a_rule_allows_its_services_in_the_families_that_have_them(line, family, wanted):
    assert describe_services(services_of(rule(line), family)) == wanted


def test_what_opens_no_flow_is_no_part_of_everything():
    for family in (4, 6):
        assert FLOWS[family] <= ALL_SERVICES[family]
    assert not REDIRECTS & FLOWS[4]
    assert not parse_services("ah") & FLOWS[6]
