"""Where the agent's server is: what must stay open when it moves, and when nobody knows any more."""

from ipaddress import ip_address

import pytest

from fake_doors import FakeClock, FakeNames
from ringfence.agent.channel import KEPT_S, Channel, ServerPlace
from ringfence.agent.http import place_of

ONE, TWO = ip_address("192.0.2.1"), ip_address("2001:db8::2")
PLACE = ServerPlace("rf.example", 8443)


@pytest.fixture
def names():
    return FakeNames()


@pytest.fixture
def clock():
    return FakeClock()


def _channel(names, clock, place=PLACE, remembered=()):
    return Channel(place, names, clock, remembered=frozenset(remembered))


def test_every_address_of_the_server_is_kept_open(names, clock):
    names.known["rf.example"] = frozenset({ONE, TWO})
    channel = _channel(names, clock)
    assert channel.resolve()
    assert channel.ends == {(ONE, 8443), (TWO, 8443)}
    assert not channel.resolve()


def test_a_server_that_moved_is_open_at_both_places_for_an_hour(names, clock):
    names.known["rf.example"] = frozenset({ONE})
    channel = _channel(names, clock)
    channel.resolve()
    names.known["rf.example"] = frozenset({TWO})
    clock.advance(KEPT_S - 1)
    assert channel.resolve()
    assert channel.ends == {(ONE, 8443), (TWO, 8443)}
    clock.advance(1)
    assert channel.resolve()
    assert channel.ends == {(TWO, 8443)}


def test_without_a_name_server_what_was_known_stays_open_and_it_is_said(names, clock):
    channel = _channel(names, clock, remembered={(ONE, 8443)})
    clock.advance(KEPT_S * 2)
    assert not channel.resolve()
    assert channel.ends == {(ONE, 8443)}
    assert "rf.example" in channel.problem
    names.known["rf.example"] = frozenset({ONE})
    assert not channel.resolve()
    assert channel.problem is None


def test_a_server_on_a_unix_socket_has_no_place_on_the_network(names, clock):
    channel = _channel(names, clock, place=None, remembered={(ONE, 8443)})
    assert not channel.resolve()
    assert channel.ends == frozenset()


@pytest.mark.parametrize(
    ("address", "place"),
    [
        ("unix:/run/rf.sock", None),
        ("https://rf.example", ServerPlace("rf.example", 443)),
        ("https://rf.example:8443/v2", ServerPlace("rf.example", 8443)),
        ("http://[2001:db8::2]", ServerPlace("2001:db8::2", 80)),
        ("http://192.0.2.1:1", ServerPlace("192.0.2.1", 1)),
        ("rf.example:8443", None),
        ("https://h:x", None),
    ],
)
def test_the_place_of_a_server_is_read_from_its_address(address, place):
    assert place_of(address) == place
