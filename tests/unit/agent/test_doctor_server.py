"""What ``doctor`` makes of a server's certificate and clock."""

import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from ringfence.agent.credential import HostCredential
from ringfence.agent.doctor import State
from ringfence.agent.doctor_server import examine_server
from ringfence.agent.doors.server import Answered, ask_server
from ringfence.policy.values import HostName

CREDENTIAL = HostCredential(HostName("h1"), bytes(32), "https://rf.example:8443")


def _found(ahead_s=0.0, days_left=300.0, refusal=None):
    answered = Answered(ahead_s, days_left, refusal)
    return {one.about: one for one in examine_server(CREDENTIAL, lambda _url, _credential: answered)}


@pytest.mark.parametrize(
    ("ahead_s", "state", "said"),
    [
        (2.0, State.OK, "agrees"),
        (-9.0, State.OK, "agrees"),
        (15.0, State.WARNING, "15 s behind the server's"),
        (-15.0, State.WARNING, "15 s ahead of the server's"),
        (90.0, State.WARNING, "90 s behind the server's"),
        (400.0, State.PROBLEM, "400 s behind the server's"),
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
    refused = _found(refusal="the signature expired 86400 s ago")["host"]
    assert refused.state is State.PROBLEM
    assert "the signature expired 86400 s ago" in refused.text
    assert "ringfence host token h1" in refused.advice


class _Stranger(BaseHTTPRequestHandler):
    """Some other web server."""

    answer = (404, b"no such page")

    def do_GET(self):
        status, content = self.answer
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((404, b"no such page"), "to what an agent asks it answered 404: no such page"),
        ((503, b'{"message":"the database is away"}'), "it answered 503: the database is away"),
        ((200, bytes(2 << 20)), "an answer of more than 1048576 bytes"),
    ],
)
def test_whoever_answers_and_is_no_server_for_this_host_is_not_called_one(monkeypatch, answer, said):
    monkeypatch.setattr(_Stranger, "answer", answer)
    with HTTPServer(("127.0.0.1", 0), _Stranger) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        credential = replace(CREDENTIAL, server=f"http://127.0.0.1:{server.server_port}")
        (found,) = examine_server(credential, ask_server)
        server.shutdown()
    assert (found.about, found.state) == ("server", State.PROBLEM)
    assert said in found.text
