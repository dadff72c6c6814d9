"""Where to listen: what can be written, and what is refused before anything is opened."""

import socket
import stat
from pathlib import Path

import pytest

from ringfence.api.listen import (
    TcpListen,
    UnixListen,
    check_plaintext,
    open_socket,
    parse_listen,
    render_listen,
    render_url,
)
from ringfence.policy.errors import Invalid, OperatorError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:8443", TcpListen("127.0.0.1", 8443)),
        ("[::1]:0", TcpListen("::1", 0)),
        ("localhost:1", TcpListen("localhost", 1)),
        ("unix:/run/r.sock", UnixListen(Path("/run/r.sock"))),
    ],
)
def test_an_address_is_read_and_written_back(text, expected):
    assert parse_listen(text) == expected
    assert render_listen(expected) == text


@pytest.mark.parametrize("text", ["", "8443", ":8443", "h:", "h:x", "h:65536", "h:-1", "h:٣", "http://h:1/"])
def test_what_is_no_address_is_refused(text):
    with pytest.raises(Invalid):
        parse_listen(text)


@pytest.mark.parametrize("text", ["127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "localhost:1", "unix:/x"])
def test_plain_http_is_served_on_this_machine(text):
    check_plaintext([parse_listen(text)], insecure=False)


@pytest.mark.parametrize("text", ["0.0.0.0:1", "192.0.2.1:1", "[::]:1", "example.org:1"])
def test_plain_http_beyond_this_machine_needs_a_word(text):
    with pytest.raises(OperatorError, match="--insecure"):
        check_plaintext([parse_listen("127.0.0.1:1"), parse_listen(text)], insecure=False)
    check_plaintext([parse_listen(text)], insecure=True)


def test_port_zero_becomes_the_real_port_in_the_url():
    with open_socket(TcpListen("127.0.0.1", 0)) as opened:
        port = opened.getsockname()[1]
        assert render_url(TcpListen("127.0.0.1", 0), opened) == f"http://127.0.0.1:{port}/v2"
        with pytest.raises(OperatorError, match="in use"):
            open_socket(TcpListen("127.0.0.1", port))


def test_a_unix_socket_is_private_replaces_a_dead_one_and_no_living_one(tmp_path):
    listen = UnixListen(tmp_path / "s")
    with open_socket(listen):
        assert stat.S_IMODE(listen.path.stat().st_mode) == 0o600
        with pytest.raises(OperatorError, match="another server"):
            open_socket(listen)
    with open_socket(listen):
        assert listen.path.is_socket()


def test_a_file_that_is_no_socket_is_left_alone(tmp_path):
    path = tmp_path / "precious"
    path.write_text("x")
    with pytest.raises(OperatorError, match="not a socket"):
        open_socket(UnixListen(path))
    assert path.read_text() == "x"


def test_a_path_that_is_too_long_for_a_socket_is_told(tmp_path):
    with pytest.raises(OperatorError, match="too long"):
        open_socket(UnixListen(tmp_path / ("x" * 200)))


def test_a_name_that_cannot_be_resolved_is_told(monkeypatch):
    def fail(*_, **__):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with pytest.raises(OperatorError, match="Name or service"):
        open_socket(TcpListen("nowhere.invalid", 1))
