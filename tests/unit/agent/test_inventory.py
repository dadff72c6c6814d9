"""The inventory's file: its two forms, every refusal by file, instance and field, and what it lets be enforced."""

import random
from dataclasses import replace
from ipaddress import ip_address, ip_network
from uuid import UUID

import pytest

from ringfence.agent.inventory import declared_endpoints, parse_inventory
from ringfence.agent.own_view import OwnPart
from ringfence.policy.commands import InstanceClaim
from ringfence.policy.errors import OperatorError
from ringfence.policy.local import Failsafe
from ringfence.policy.model import Interface
from ringfence.policy.values import Kind, Protocol
from ringfence.policy.view import PeerAddresses
from views import GROUPS, endpoint, ingress, instance, view

SIMPLE = """
host = "h1"
[[instance]]
name = "web"
interface = "veth-web"
addresses = ["10.77.0.119", "fd77::77"]
"""
FULL = """
version = 1
host = "h1"
kind = "routed"
realm = "blue"
managed = ["veth*", "tap7"]
[[instance]]
name = "web"
id = "12345678-1234-4234-8234-123456789abc"
[[instance.interface]]
name = "veth-web"
addresses = ["10.0.0.2"]
mac = "02:00:00:00:00:0A"
[[instance.interface]]
name = "private0"
addresses = []
managed = false
"""


def _parse(text):
    return parse_inventory(text.encode(), file="/etc/inv.toml")


def test_the_simple_form_has_one_managed_interface_per_instance():
    inventory = _parse(SIMPLE)
    interface = Interface("veth-web", (ip_address("10.77.0.119"), ip_address("fd77::77")))
    assert inventory.host == "h1"
    assert inventory.managed == ()
    assert inventory.instances == (InstanceClaim("web", None, (interface,)),)
    assert inventory.ports == {"veth-web"}


def test_the_full_form_has_several_interfaces_each_managed_or_not():
    inventory = _parse(FULL)
    (claim,) = inventory.claim.instances
    assert inventory.managed == ("veth*", "tap7")
    assert (claim.id, claim.realm) == (UUID("12345678-1234-4234-8234-123456789abc"), "blue")
    assert claim.interfaces == (
        Interface("veth-web", (ip_address("10.0.0.2"),), "02:00:00:00:00:0a"),
        Interface("private0", (), managed=False),
    )
    assert inventory.ports == {"veth-web"}


def test_a_host_without_instances_is_an_inventory():
    assert _parse('host = "h1"').instances == ()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("version = 1", "version = 2"), "version: expected 1, got 2"),
        (('"routed"', '"magic"'), "kind: expected 'routed', 'bridged', 'self', got 'magic'"),
        (("[[instance]]", "[[failsafe]]\n[[instance]]"), "failsafe: only for kind = 'self'"),
        (('host = "h1"\n', ""), "toml: host: missing"),
        (('host = "h1"', 'host = "h 1"'), "host: expected a host name"),
        (('"veth*"', '"*"'), "managed[0]: expected an interface name"),
        (('"veth*"', "7"), "managed[0]: expected a text in quotes"),
        (('name = "web"\n', ""), "instance number 1: name: missing"),
        (("realm =", "reams ="), "toml: unknown key 'reams'"),
        (('id = "1', 'id = "z'), "instance 'web': id: expected a UUID"),
        (
            ('["10.0.0.2"]', '["10.0.0.2", "10.0.0.0/8"]'),
            "instance 'web': interface 'veth-web': addresses[1]: expected",
        ),
        (('["10.0.0.2"]', '"10.0.0.2"'), "instance 'web': interface[0].addresses: expected a list of addresses"),
        (('["10.0.0.2"]', "[]"), "instance 'web': interface 'veth-web': addresses: expected at least one"),
        (('"02:00:00:00:00:0A"', '"03:00:00:00:00:0A"'), "instance 'web': interface 'veth-web': mac: expected"),
        (('"private0"', '"veth-web"'), "instance 'web': interface: veth-web occurs twice"),
        (('"private0"', '"a name too long"'), "instance 'web': interface 'a name too long': interface: expected"),
        (('realm = "blue"', 'realm = ""'), "realm: expected 1 to 255 printable characters"),
        (('name = "web"', 'name = "w\\u0007b"'), "name: expected 1 to 255 printable characters"),
        (("version = 1", 'version = "1"'), "version: expected a whole number"),
        (('managed = ["veth*", "tap7"]', 'managed = "veth*"'), "managed: expected a list of interface names"),
        (("managed = false", "managed = 0"), "instance 'web': interface[1].managed: expected true or false"),
        (("managed = false", '"a\\n`" = 0'), "instance 'web': interface[1]: unknown key 'a\\n`'"),
        (("addresses = []\n", ""), "instance 'web': interface[1].addresses: missing"),
        (("[[instance]]", "[[instance]"), "not TOML"),
        (("version = 1", f"version = {'9' * 5000}"), "not TOML: Exceeds the limit"),
        (("version = 1", f"version = {'[' * 5000}"), "not TOML: maximum recursion depth"),
    ],
)
def test_what_is_wrong_is_said_by_file_instance_and_field(change, words):
    assert change[0] in FULL
    with pytest.raises(OperatorError) as refused:
        _parse(FULL.replace(*change))
    assert str(refused.value).startswith("inventory /etc/inv.toml: ")
    assert words in str(refused.value)


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ('name = "web"\ninterface = "b"\naddresses = ["10.0.0.9"]', "instance 'web': name: web occurs twice"),
        ('name = "b"\ninterface = "veth-web"\naddresses = ["10.0.0.9"]', "'b': interface: veth-web occurs twice"),
        ('name = "b"\ninterface = "b"\naddresses = ["fd77:0::77"]', "'b': addresses: fd77::77 occurs twice"),
        ('name = "b"\ninterface = "b"', "instance 'b': addresses: missing"),
        ('name = "b"\ninterface = "b"\naddresses = "10.0.0.9"', "'b': addresses: expected a list of addresses"),
        ('name = "b"\ninterface = 7', "'b': interface: expected the name of an interface, or [[instance.interface]]"),
        ('name = "b"\ninterface = []', "instance 'b': interface: expected at least one"),
        ('name = "b"\ninterface = [{name="b", addresses=["10.0.0.9"]}]\nmac = "02:00:00:00:00:01"', "stand there"),
        (
            'name = "b"\ninterface = "b"\naddresses = ["10.0.0.9"]\nmanaged = false',
            "instance 'b': unknown key 'managed'",
        ),
    ],
)
def test_two_instances_cannot_be_the_same_and_forms_cannot_be_mixed(other, words):
    with pytest.raises(OperatorError) as refused:
        _parse(f"{SIMPLE}[[instance]]\n{other}\n")
    assert words in str(refused.value)


WEB, APP = GROUPS[:2]
WANTED = view(
    4,
    endpoint("web", WEB),
    endpoint("app", APP),
    rules={WEB: (ingress(80, APP),), APP: (ingress(81, WEB, number=2),)},
    peers={WEB: PeerAddresses(), APP: PeerAddresses()},
)


def test_only_instances_of_the_present_inventory_are_enforced_and_what_only_others_need_is_left_out():
    own = OwnPart().keep(WANTED, _parse(SIMPLE))
    assert own == view(4, endpoint("web", WEB), rules={WEB: WANTED.rules[WEB]}, peers={APP: PeerAddresses()})


@pytest.mark.parametrize(
    "change",
    [
        ('"veth-web"', '"veth-app"'),  # another's port
        ('name = "web"', 'name = "web2"'),  # another instance on the port does not inherit its groups
        ('name = "web"', f'name = "web"\nid = "{instance("app")}"'),
    ],
)
def test_an_instance_that_the_inventory_has_changed_is_not_enforced(change):
    assert OwnPart().keep(WANTED, _parse(SIMPLE.replace(*change))).endpoints == ()


def test_an_instance_keeps_only_the_addresses_that_are_still_declared_and_the_declared_mac():
    changed = SIMPLE.replace('"10.77.0.119"', '"10.77.0.120"') + 'mac = "02:00:00:00:00:01"\n'
    (own,) = OwnPart().keep(WANTED, _parse(changed)).endpoints
    assert (own.addresses, own.mac) == ((ip_address("fd77::77"),), "02:00:00:00:00:01")


def test_of_one_view_after_another_as_much_is_kept_as_of_each_alone_and_what_is_known_is_the_same_object():
    declared = "".join(
        f'[[instance]]\nname = "{name}"\ninterface = "veth-{name}"\naddresses = ["10.77.0.{ord(name)}"]\n'
        for name in "acdegh"  # b and f are not
    )
    inventory = _parse(f'host = "h1"\n{declared}')
    kept, ends, rng = OwnPart(), [endpoint(name, WEB) for name in "abcdefgh"], random.Random(7)
    before = {}
    for _ in range(100):
        changed = rng.randrange(len(ends))
        ends[changed] = replace(ends[changed])
        wanted = view(4, *(end for end in ends if rng.random() < 0.8), rules={WEB: WANTED.rules[WEB]})
        own = kept.keep(wanted, inventory)
        assert own.endpoints == OwnPart().keep(wanted, inventory).endpoints
        parts = {one.interface: one for one in own.endpoints}
        known = {id(end): (end, parts.get(end.interface)) for end in wanted.endpoints}
        assert all(known[one][1] is before[one][1] for one in known.keys() & before.keys())
        before = known


def test_an_unmanaged_interface_is_not_enforced():
    unmanaged = """
host = "h1"
[[instance]]
name = "web"
[[instance.interface]]
name = "veth-web"
addresses = ["10.77.0.119"]
managed = false
"""
    assert OwnPart().keep(WANTED, _parse(unmanaged)).endpoints == ()


SELF = """
host = "h1"
kind = "self"
[[instance]]
name = "h1"
interface = "eth0"
addresses = ["192.0.2.1", "2001:db8::1"]
[[failsafe]]
port = 22
protocol = "tcp"
sources = ["192.0.2.77/24", "2001:db8::/64"]
"""


def test_a_host_may_be_its_own_instance_with_ports_that_no_group_closes():
    inventory = _parse(SELF)
    (claim,) = inventory.instances
    assert inventory.kind is claim.interfaces[0].kind is Kind.SELF
    assert claim.is_host
    sources = (ip_network("192.0.2.0/24"), ip_network("2001:db8::/64"))
    assert inventory.failsafe == (Failsafe(Protocol.TCP, 22, sources),)
    assert {end.kind for end in declared_endpoints(inventory)} == {Kind.SELF}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("port = 22", "port = 0"), "failsafe number 1: port: expected 1 to 65535, got 0"),
        (("port = 22", "port = 65536"), "failsafe number 1: port: expected 1 to 65535, got 65536"),
        (("port = 22", 'port = "ssh"'), "failsafe number 1: port: expected a whole number"),
        (("port = 22\n", ""), "failsafe number 1: port: missing"),
        (('"tcp"', '"icmp"'), "failsafe number 1: protocol: expected 'tcp' or 'udp', got 'icmp'"),
        (('["192.0.2.77/24", "2001:db8::/64"]', "[]"), "failsafe number 1: sources: expected at least one network"),
        (('["192.0.2.77/24", "2001:db8::/64"]', '"any"'), "failsafe number 1: sources: expected a list of networks"),
        (('"2001:db8::/64"', '"home"'), "failsafe number 1: sources[1]: expected an IPv4 or IPv6 network"),
        (("sources =", "source ="), "failsafe number 1: unknown key 'source'"),
        (("[[failsafe]]", "[failsafe]"), "failsafe: expected [[failsafe]] tables"),
        (
            ("[[failsafe]]", '[[instance]]\nname="b"\ninterface="e"\naddresses=["10.0.0.1"]\n[[failsafe]]'),
            "one instance",
        ),
    ],
)
def test_what_is_wrong_with_a_self_host_is_said_too(change, words):
    assert change[0] in SELF
    with pytest.raises(OperatorError) as refused:
        _parse(SELF.replace(*change))
    assert words in str(refused.value)


def test_behind_a_bridge_every_managed_interface_declares_its_mac_address():
    bridged = FULL.replace('"routed"', '"bridged"')
    assert _parse(bridged).kind is Kind.BRIDGED
    with pytest.raises(OperatorError, match="instance 'web': interface 'veth-name': mac: missing; behind a bridge"):
        _parse(bridged.replace('mac = "02:00:00:00:00:0A"\n', "").replace("veth-web", "veth-name"))
