"""The first inventory of a machine that protects itself: what is an uplink, and that the agent takes the text."""

from ipaddress import ip_address

import pytest

from ringfence.agent.draft import Link, draft_inventory
from ringfence.agent.inventory import parse_inventory
from ringfence.policy.errors import OperatorError
from ringfence.policy.lockout import parse_session
from ringfence.policy.values import HostName, Kind

SESSION = parse_session("2001:db8:1::9 50000 2001:db8::1 2222")


def link(name, *addresses, kind=None, is_way_out=False):
    return Link(name, kind, tuple(map(ip_address, addresses)), is_way_out=is_way_out)


ETH0 = link("eth0", "192.0.2.1", "2001:db8::1", is_way_out=True)


def drafted(*links, session=SESSION):
    text = draft_inventory(HostName("h1"), links, session)
    return text, parse_inventory(text.encode(), file="draft")


def test_the_machine_is_its_own_instance_and_its_way_in_is_that_of_the_session():
    _, inventory = drafted(ETH0)
    [instance], [failsafe] = inventory.instances, inventory.failsafe
    assert (inventory.host, inventory.kind, instance.name, instance.addresses) == (
        "h1",
        Kind.SELF,
        "h1",
        ETH0.addresses,
    )
    assert (failsafe.port, failsafe.protocol.value, [*map(str, failsafe.sources)]) == (
        2222,
        "tcp",
        ["2001:db8:1::9/128"],
    )


@pytest.mark.parametrize(
    ("other", "is_in"),
    [
        (link("eth1", "10.0.0.1"), True),  # a private network has no default route, and is as much a way in
        (link("bond0.7", "10.0.0.1", kind="vlan"), True),
        (link("eth1"), False),
        (link("docker0", "172.17.0.1", kind="bridge"), False),
        (link("vmbr0", "10.0.0.1", kind="bridge", is_way_out=True), True),
        (link("wg0", "10.0.0.1", kind="wireguard"), False),
    ],
)
def test_an_uplink_has_addresses_and_does_not_only_lead_inside(other, is_in):
    text, inventory = drafted(ETH0, other)
    assert inventory.ports == ({"eth0", other.name} if is_in else {"eth0"})
    assert (f"{other.name} (" in text.splitlines()[0]) is (bool(other.addresses) and not is_in)


def test_where_all_links_are_inner_ones_they_are_the_uplinks():
    assert drafted(link("eth0", "192.0.2.1", kind="veth"))[1].ports == {"eth0"}


def test_without_a_session_nothing_is_failsafe_and_the_text_says_how():
    text, inventory = drafted(ETH0, session=None)
    assert inventory.failsafe == ()
    assert "# [[failsafe]]" in text


def test_a_machine_without_addresses_is_told_so():
    with pytest.raises(OperatorError, match="no interface here has an address"):
        drafted(link("eth0"))
