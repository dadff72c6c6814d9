"""What one server tells the others of its hosts: of each the newest, of those that said the same in one."""

from ringfence.control.replicas import TOLD_EVERY_S, Telling
from ringfence.store import HostSaid, HostsSeen

DONE, FAILED = HostSaid(7, None, None, 7), HostSaid(6, "boom", None, 7)


def test_hosts_that_said_the_same_are_told_of_at_once():
    telling = Telling()
    telling.reported("a", FAILED, 5.0)
    for number, host in enumerate("abc"):
        telling.reported(host, HostSaid(7, None, None, 7), 5.25 + number / 4)
    telling.reported("d", FAILED, 5.5)
    assert telling.take(6.0) == (HostsSeen(("a", "b", "c"), 0.75, DONE), HostsSeen(("d",), 0.5, FAILED))
    assert telling.take(6.0) == ()


def test_what_could_not_be_told_is_told_later_unless_something_newer_came():
    telling = Telling()
    telling.reported("a", DONE, 5.0)
    telling.reported("b", DONE, 5.0)
    due = telling.take(5.5)
    telling.reported("b", FAILED, 6.0)
    telling.put_back(due, 6.5)
    assert set(telling.take(7.0)) == {HostsSeen(("a",), 1.0, DONE), HostsSeen(("b",), 1.0, FAILED)}


def test_that_a_host_is_alive_is_told_now_and_then_with_what_it_said_last():
    telling = Telling()
    telling.alive("a", 5.0)
    assert telling.take(5.0) == (HostsSeen(("a",), 0.0, HostSaid()),)
    telling.reported("a", DONE, 6.0)
    telling.take(6.0)
    telling.alive("a", 5.0 + TOLD_EVERY_S)
    assert telling.take(20.0) == ()
    telling.alive("a", 6.0 + TOLD_EVERY_S)
    assert telling.take(6.0 + TOLD_EVERY_S) == (HostsSeen(("a",), 0.0, DONE),)
