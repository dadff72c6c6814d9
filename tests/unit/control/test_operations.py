"""How operations end, played with reports and a clock that only moves when told."""

from uuid import UUID

import pytest

from ringfence.control.operations import NO_HOST, UNCHANGED, PendingOperations, open_operation
from ringfence.policy.model import Operation, OperationReason, OperationState
from ringfence.store import StoredOperation

PENDING, SUCCESS = OperationState.PENDING, OperationState.SUCCESS
FAILURE, TIMEOUT = OperationState.FAILURE, OperationState.TIMEOUT
DEADLINE_S = 30.0


def operation(*hosts, revision=5, number=1):
    return Operation(UUID(int=number), UUID(int=2), UUID(int=3), revision, PENDING, hosts=frozenset(hosts))


class Played:
    """One operation that waits for `awaited`; every other host of `offline` was not live at its commit."""

    def __init__(self, *awaited, offline=(), said=None):
        self.pending = PendingOperations()
        opened = open_operation(operation(*awaited, *offline), frozenset(offline))
        self.errors = dict.fromkeys(awaited, said) if said else {}
        stored = StoredOperation(opened, frozenset(offline))
        self.pending.track(stored, opened_s=1.0, deadline_s=DEADLINE_S)

    def report(self, host, applied, error=None, offered=5):
        before = dict(self.errors)
        self.errors.pop(host, None)
        if error:
            self.errors[host] = error
        return self.outcome(self.pending.report([host], (applied, error), before, offered=offered, now_s=1.25))

    def expire(self, now_s):
        return self.outcome(self.pending.expire(now_s, lambda _: self.errors))

    @staticmethod
    def outcome(ended):
        return [(end.state, end.reason, end.message) for end in ended]


@pytest.mark.parametrize(
    ("opened", "offline", "state", "message"),
    [
        (operation(revision=None), set(), SUCCESS, UNCHANGED),
        (operation(), set(), SUCCESS, NO_HOST),
        (operation("h1"), set(), PENDING, None),
        (operation("h1", "h2"), {"h2"}, PENDING, "offline, to enforce it on return: h2"),
        (operation("h1", "h2"), {"h1", "h2"}, SUCCESS, "stored; offline, to enforce it on return: h1, h2"),
    ],
)
def test_what_an_operation_is_right_after_its_commit(opened, offline, state, message):
    found = open_operation(opened, frozenset(offline))
    assert (found.state, found.message) == (state, message)


def test_the_words_for_no_host_are_those_of_the_reference():
    assert NO_HOST == "stored; no host enforces it yet"


def test_it_succeeds_when_the_last_awaited_host_has_applied_it():
    played = Played("h1", "h2")
    assert played.report("h1", 5) == []
    assert played.report("h2", 6) == [(SUCCESS, None, None)]


def test_an_older_revision_is_not_enough():
    played = Played("h1")
    assert played.report("h1", 4) == []
    assert played.report("h1", None) == []


def test_reports_of_other_hosts_do_not_count():
    assert Played("h1").report("h9", 5) == []


def test_an_offline_host_does_not_block_and_is_named():
    assert Played("h1", offline=["h2"]).report("h1", 5) == [
        (SUCCESS, None, "enforced; offline, to enforce it on return: h2")
    ]


def test_a_host_that_reports_an_error_fails_it_with_the_hosts_own_words():
    assert Played("h1").report("h1", 4, "netlink: no memory") == [
        (FAILURE, OperationReason.FAULT, "h1: netlink: no memory")
    ]


def test_an_error_from_before_the_revision_was_offered_says_nothing_of_it():
    played = Played("h1")
    assert played.report("h1", 4, "an old trouble", offered=4) == []
    assert played.report("h1", 5) == [(SUCCESS, None, None)]


def test_an_error_that_stood_before_does_not_fail_what_the_host_is_still_working_on():
    played = Played("h1", said="instance spy is refused")
    assert played.report("h1", 4, "instance spy is refused") == []
    assert played.report("h1", 5, "instance spy is refused") == [(SUCCESS, None, None)]


def test_an_old_error_that_is_all_a_host_keeps_saying_fails_it():
    played = Played("h1", said="no nftables")
    assert [played.report("h1", 4, "no nftables") for _ in range(2)] == [[], []]
    assert played.report("h1", 4, "no nftables") == [(FAILURE, OperationReason.FAULT, "h1: no nftables")]


def test_an_error_that_was_gone_and_comes_back_fails_it():
    played = Played("h1", said="no memory")
    assert played.report("h1", 4) == []
    assert played.report("h1", 4, "no memory") == [(FAILURE, OperationReason.FAULT, "h1: no memory")]


def test_a_new_error_in_place_of_an_old_one_fails_it():
    played = Played("h1", said="instance spy is refused")
    assert played.report("h1", 4, "instance spy is refused; no memory") == [
        (FAILURE, OperationReason.FAULT, "h1: instance spy is refused; no memory")
    ]


def test_what_a_silent_host_last_said_is_told_when_time_is_up():
    ((_, _, message),) = Played("h1", said="no nftables").expire(DEADLINE_S)
    assert message == "not enforced in time on h1 (no nftables): see ringfence host status"


def test_an_error_beside_the_applied_revision_does_not_fail_it():
    assert Played("h1").report("h1", 5, "inventory unreadable") == [(SUCCESS, None, None)]


@pytest.mark.parametrize("order", ["good first", "bad first"])
def test_it_is_partial_when_some_hosts_applied_it_and_one_failed(order):
    played = Played("h1", "h2")
    reports = [("h1", 5, None), ("h2", 4, "boom")]
    first, second = reports if order == "good first" else reports[::-1]
    assert played.report(*first) == []
    assert played.report(*second) == [(FAILURE, OperationReason.PARTIAL, "h2: boom (enforced on h1)")]


def test_a_failed_host_may_still_succeed_while_others_are_waited_for():
    played = Played("h1", "h2")
    played.report("h1", 4, "boom")
    played.report("h1", 5)
    assert played.report("h2", 5) == [(SUCCESS, None, None)]


def test_a_silent_host_lets_it_time_out_at_the_deadline_and_not_before():
    played = Played("h1", "h2")
    played.report("h2", 5)
    assert played.expire(DEADLINE_S - 0.001) == []
    assert played.expire(DEADLINE_S) == [
        (
            TIMEOUT,
            OperationReason.PARTIAL,
            "enforced on h2; not enforced in time on h1: see ringfence host status",
        )
    ]


def test_when_no_host_answers_it_times_out_as_unavailable():
    ((state, reason, message),) = Played("h1").expire(DEADLINE_S)
    assert (state, reason) == (TIMEOUT, OperationReason.UNAVAILABLE)
    assert "not enforced in time on h1" in message


def test_at_the_deadline_a_failure_outweighs_silence_and_both_are_named():
    played = Played("h1", "h2")
    played.report("h1", 4, "boom")
    assert played.expire(DEADLINE_S) == [(FAILURE, OperationReason.FAULT, "h1: boom; not enforced in time on h2")]


def test_an_end_is_final():
    played = Played("h1")
    played.expire(DEADLINE_S)
    assert played.report("h1", 5) == []


def test_a_long_error_text_is_cut():
    ((_, _, message),) = Played("h1").report("h1", 4, "x" * 10_000)
    assert len(message) < 600


def test_one_report_ends_every_operation_that_it_covers():
    pending = PendingOperations()
    for number, revision in ((1, 5), (2, 6), (3, 7)):
        stored = StoredOperation(operation("h1", revision=revision, number=number), frozenset())
        pending.track(stored, opened_s=1.0, deadline_s=DEADLINE_S)
    assert [end.revision for end in pending.report(["h1"], (6, None), {}, offered=7, now_s=1.5)] == [5, 6]
    assert [end.revision for end in pending.report(["h1"], (7, None), {}, offered=7, now_s=1.5)] == [7]


def test_hosts_that_say_the_same_are_heard_at_once():
    pending = PendingOperations()
    for number, (hosts, revision) in enumerate([(("h1", "h2", "h3"), 5), (("h2", "h3"), 6), (("h4",), 6)]):
        stored = StoredOperation(operation(*hosts, revision=revision, number=number), frozenset())
        pending.track(stored, opened_s=1.0, deadline_s=DEADLINE_S)

    def said(hosts, applied, error=None):
        ended = pending.report(hosts, (applied, error), {}, offered=6, now_s=1.5)
        return [(end.id.int, end.state, end.message) for end in ended]

    assert said(["h1", "h4"], 4, "boom") == [(2, FAILURE, "h4: boom")]
    assert said(["h2", "h1", "h3"], 5) == [(0, SUCCESS, None)], "a later success outweighs a failure"
    assert said(["h2", "h3"], 5, "no room") == [(1, FAILURE, "h2: no room; h3: no room")]


def test_hosts_of_which_different_operations_wait_may_end_one_together():
    pending = PendingOperations()
    for number, hosts in enumerate([("h1", "h2"), ("h1",)]):
        stored = StoredOperation(operation(*hosts, revision=5 + number, number=number), frozenset())
        pending.track(stored, opened_s=1.0, deadline_s=DEADLINE_S)
    assert [end.id.int for end in pending.report(["h1", "h2"], (6, None), {}, offered=6, now_s=1.5)] == [0, 1]
    assert pending.expire(DEADLINE_S, lambda _: {}) == []
