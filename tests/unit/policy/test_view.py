"""Resolution: what one host needs of the whole, and what a group means as a peer."""

from dataclasses import replace
from ipaddress import ip_network

import pytest

from policies import address, group, group_id, instance, snapshot
from ringfence.policy.model import Interface
from ringfence.policy.snapshot import index_of
from ringfence.policy.values import HostName, InterfaceName
from ringfence.policy.view import PeerAddresses, resolve_view

WEB = group("web", "ingress tcp/80 from group lb", "source 192.0.2.1/24")
LB = group("lb", "egress tcp to group web", "source 198.51.100.0/24", "source 2001:db8:1::/48")
A = instance("a", "10.0.0.1", "2001:db8::1", wears=["web"])
B = instance("b", "10.0.0.2", wears=["lb"], host="h2")
WHOLE = snapshot(WEB, LB, A, B)


def members(name, **changes):
    """What the group means as a peer, after changes to the instances named."""
    instances = {id_: changes.get(box.name, box) for id_, box in WHOLE.instances.items()}
    return index_of(replace(WHOLE, instances=instances)).peer(group_id(name))


def test_a_host_sees_its_own_endpoints_their_rules_and_the_peers_those_name():
    view = resolve_view(WHOLE, HostName("h1"))
    assert [endpoint.name for endpoint in view.endpoints] == ["a"]
    assert view.rules == {WEB.id: WEB.rules}
    assert view.peers == {LB.id: PeerAddresses(frozenset(B.addresses), frozenset(s.network for s in LB.sources))}
    assert view.revision == WHOLE.revision


def test_without_a_host_the_view_is_of_everything():
    view = resolve_view(WHOLE)
    assert [endpoint.name for endpoint in view.endpoints] == ["a", "b"]
    assert view.rules.keys() == {WEB.id, LB.id}


def test_a_host_without_instances_needs_nothing():
    view = resolve_view(WHOLE, HostName("h3"))
    assert (view.endpoints, view.rules, view.peers) == ((), {}, {})


def test_a_group_means_its_members_in_both_families_and_its_sources():
    web = members("web")
    assert web.members == frozenset(A.addresses)
    assert web.sources == {ip_network("192.0.2.0/24")}


def test_sources_count_wherever_the_members_are():
    assert all(address(text) in members("lb") for text in ("10.0.0.2", "198.51.100.7", "2001:db8:1:2::3"))


def test_an_address_is_not_in_a_source_of_the_other_family():
    assert address("2001:db8:2::1") not in members("lb")


@pytest.mark.parametrize("name", ["missing", "empty"])
def test_a_missing_or_empty_group_is_nobody(name):
    with_empty = snapshot(group("empty"), A)
    found = index_of(with_empty).peer(group_id(name))
    assert found == PeerAddresses()
    assert address("10.0.0.1") not in found


def test_a_peer_that_does_not_exist_stands_in_the_view_as_nobody():
    view = resolve_view(snapshot(group("web", "ingress tcp from group missing"), A))
    assert view.peers == {group_id("missing"): PeerAddresses()}


def test_a_worn_group_that_does_not_exist_brings_no_rules():
    view = resolve_view(snapshot(A))
    assert view.endpoints[0].groups == (WEB.id,)
    assert view.rules == {}


def test_unmanaged_interfaces_are_no_endpoints_and_no_members():
    private = Interface(InterfaceName("eth1"), (address("192.168.0.9"),), managed=False)
    both = replace(A, interfaces=(*A.interfaces, private))
    assert address("192.168.0.9") not in members("web", a=both)
    assert len(resolve_view(snapshot(WEB, both)).endpoints) == 1


def test_every_managed_interface_is_an_endpoint():
    second = Interface(InterfaceName("veth-a2"), (address("10.0.9.1"),))
    both = replace(A, interfaces=(*A.interfaces, second))
    endpoints = resolve_view(snapshot(WEB, both)).endpoints
    assert [str(endpoint.interface) for endpoint in endpoints] == ["veth-a", "veth-a2"]
    assert members("web", a=both).members == frozenset(both.addresses)


def test_an_instance_that_no_host_has_still_is_a_member():
    assert members("web", a=replace(A, host=None)).members == frozenset(A.addresses)


def test_a_group_may_name_itself():
    view = resolve_view(snapshot(group("web", "ingress tcp from group web"), A))
    assert view.peers[WEB.id].members == frozenset(A.addresses)


def test_worn_groups_stand_in_one_order_however_they_were_put_on():
    one, other = (instance("a", "10.0.0.1", wears=worn) for worn in (["x", "y", "z"], ["z", "x", "y"]))
    assert resolve_view(snapshot(one)).endpoints == resolve_view(snapshot(other)).endpoints
