"""What ``doctor`` makes of a server's certificate and clock."""

import pytest

from ringfence.agent.credential import HostCredential
from ringfence.agent.doctor import State
from ringfence.agent.doctor_server import examine_server
from ringfence.agent.doors.server import Answered
from ringfence.policy.values import HostName

CREDENTIAL = HostCredential(HostName("h1"), bytes(32), "https://rf.example:8443")


def _found(ahead_s=0.0, days_left=300.0, *, takes_host=True):
    answered = Answered(ahead_s, days_left, takes_host)
    return {one.about: one for one in examine_server(CREDENTIAL, lambda _url, _credential: answered)}


@pytest.mark.parametrize(
    ("ahead_s", "state", "said"),
    [
        (2.0, State.OK, "agrees"),
        (-9.0, State.OK, "agrees"),
        (15.0, State.WARNING, "15 s behind the server's"),
        (-15.0, State.WARNING, "15 s ahead of the server's"),
        (90.0, State.PROBLEM, "90 s behind the server's"),
    ],
)
def test_a_clock_that_differs_is_told_before_it_shuts_the_host_out(ahead_s, state, said):
    clock = _found(ahead_s=ahead_s)["clock"]
    assert clock.state is state
    assert said in clock.text


@pytest.mark.parametrize(("days", "state"), [(90.0, State.OK), (10.0, State.WARNING)])
def test_a_certificate_that_ends_soon_is_told(days, state):
    found = _found(days_left=days)["certificate"]
    assert found.state is state
    assert f"{days:.0f} more days" in found.text


def test_a_server_without_certificate_or_date_is_told_to_answer():
    assert set(_found(ahead_s=None, days_left=None)) == {"server", "host"}


def test_a_host_that_the_server_does_not_know_is_told_how_to_join_again():
    assert _found()["host"].state is State.OK
    refused = _found(takes_host=False)["host"]
    assert refused.state is State.PROBLEM
    assert "ringfence host token h1" in refused.advice
