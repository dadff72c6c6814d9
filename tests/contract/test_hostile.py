"""What no client sends: broken, huge, slow and endless requests. Never a 500, and the server lives on."""

import json
import re
import resource
import shutil
import socket
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from contract.conftest import VM_A
from contract.openapi import check_error
from contract.replay import load_client
from contract.running import running_server
from ringfence.api import ApiOptions, ServeOptions
from ringfence.api.exchange import BodyLimits
from waiting import wait_until

_STATUS = re.compile(rb"HTTP/1\.1 ([0-9]{3}) ")
GROUPS = "/v2/security-group"
JAVA = next(exchange.headers for exchange in load_client("java") if exchange.method == "POST")
UPGRADE = "".join(f"{name}: {JAVA[name]}\r\n" for name in ("Connection", "Upgrade", "HTTP2-Settings")).encode()


def request(server, method="GET", target="/v2/zone", body=b"", extra=b"", *, signed=True):
    """The bytes of a request."""
    head = f"{method} {target} HTTP/1.1\r\nHost: h\r\nContent-Length: {len(body)}\r\n".encode() + extra
    if signed:
        head += f"Authorization: {server.sign(method, target, body)}\r\n".encode()
    return head + b"\r\n" + body


def statuses(answer):
    return [int(status) for status in _STATUS.findall(answer)]


def alive(server):
    return server.call("GET", "/security-group").status == 200


RAW = {
    "nothing but a line end": (b"\r\n\r\n", None),
    "a TLS hello": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64), 400),
    "the HTTP/2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    "an unknown method": (b"BREW /v2/zone HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    "a lower case method": (b"get /v2/zone HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    "a proxy's CONNECT": (b"CONNECT h:443 HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    "OPTIONS for the whole server": (b"OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n", 404),
    "an absolute target": (b"GET http://h/v2/zone HTTP/1.1\r\nHost: h\r\n\r\n", 200),
    "bytes beyond ASCII in the path": ("GET /v2/zoné HTTP/1.1\r\nHost: h\r\n\r\n".encode(), 400),
    "a NUL in a header": (b"GET /v2/zone HTTP/1.1\r\nHost: h\r\nX: a\0b\r\n\r\n", 400),
    "a header without a colon": (b"GET /v2/zone HTTP/1.1\r\nHost h\r\n\r\n", 400),
    "a space before a header's colon": (b"GET /v2/zone HTTP/1.1\r\nHost : h\r\n\r\n", 400),
    "a folded header": (b"GET /v2/zone HTTP/1.1\r\nHost: h\r\nX: a\r\n b\r\n\r\n", None),
    "two lengths": (b"POST /v2/zone HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", 400),
    "a length and chunks": (
        b"POST /v2/zone HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    "a negative length": (b"POST /v2/zone HTTP/1.1\r\nHost: h\r\nContent-Length: -1\r\n\r\n", 400),
    "a length beyond all": (b"POST /v2/zone HTTP/1.1\r\nHost: h\r\nContent-Length: 99999999999999\r\n\r\n", 413),
    "a bad chunk": (b"POST /v2/zone HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
    "one huge header": (b"GET /v2/zone HTTP/1.1\r\nHost: h\r\nX: " + b"a" * 100_000 + b"\r\n\r\n", 431),
    "a huge header without an end": (b"GET /v2/zone HTTP/1.1\r\nX: " + b"a" * 300_000, 431),
    "ten thousand headers": (b"GET /v2/zone HTTP/1.1\r\nHost: h\r\n" + b"A: b\r\n" * 10_000 + b"\r\n", 431),
    "a huge target": (b"GET /v2/" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: h\r\n\r\n", 431),
    "HTTP/1.0 without a host": (b"GET /v2/zone HTTP/1.0\r\n\r\n", 200),
    "HTTP/1.1 without a host": (b"GET /v2/zone HTTP/1.1\r\n\r\n", 400),
    "two hosts": (b"GET /v2/zone HTTP/1.1\r\nHost: h\r\nHost: h\r\n\r\n", 400),
    "chunks of something coded": (
        b"POST /v2/zone HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    "HTTP/0.9": (b"GET /v2/zone\r\n\r\n", 400),
    "HTTP/3.0": (b"GET /v2/zone HTTP/3.0\r\nHost: h\r\n\r\n", None),
    "a host that is none": (b'GET /v2/zone HTTP/1.1\r\nHost: <script>"\r\n\r\n', 200),
    "a websocket": (
        b"GET /v2/zone HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: \r\n\r\n",
        200,
    ),
    "a body that waits for permission": (
        b"POST /v2/zone HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 9999999\r\n\r\n",
        413,
    ),
}


@pytest.mark.parametrize("name", RAW)
def test_raw_bytes_get_an_answer_in_our_shape_or_none_and_never_a_5xx(server, name):
    data, expected = RAW[name]
    answer = server.talk(data, timeout_s=0.3)
    found = statuses(answer)
    assert all(status < 500 for status in found), answer
    if expected is not None:
        assert found[-1] == expected, answer
    if found and found[-1] >= 400:
        assert b"x-request-id: " in answer
        check_error(found[-1], json.loads(answer.partition(b"\r\n\r\n")[2]))
    assert alive(server)


METHODS = ("GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "TRACE", "PROPFIND", "MKCOL", "SEARCH", "LOCK")
TARGETS = (
    "/", "/v2", "/v2/zone", GROUPS, f"{GROUPS}/{VM_A}", f"{GROUPS}/{VM_A}:attach", f"{GROUPS}/{VM_A}/rules",
    f"{GROUPS}/{VM_A}/rules/{VM_A}", "/v2/operation/x", "/v2/instance", "/v2/sks-cluster", "/agent/v1/feed",
    "/agent/v1/inventory", "/admin/v1/keys", "/v2//security-group", "/v2/../admin/v1/keys",
)  # fmt: skip
BODIES = (b"", b"{}", b"\xff" * 100, b"[" * 5000)


def test_every_method_on_every_path_with_every_body_is_answered_below_500(server):
    for method in METHODS:
        for target in TARGETS:
            for body in BODIES:
                for signed in (True, False):
                    data = request(server, method, target, body, b"Connection: close\r\n", signed=signed)
                    [status] = statuses(server.talk(data))
                    assert status < 500, (method, target, body)
                    assert status != 200 or method in {"GET", "HEAD", "POST"}, (method, target, body)
    assert alive(server)


def test_the_operators_paths_do_not_exist_on_public_listeners(server):
    for path in ("/admin/v1/keys", "/admin/v1/hosts", "/admin/v1/instances", "/admin/v1/groups"):
        for method in ("GET", "POST"):
            assert statuses(server.talk(request(server, method, path, b"{}", b"Connection: close\r\n"))) == [404]


@pytest.mark.parametrize("target", ["/v2/zone", GROUPS, f"{GROUPS}/nope"])
def test_head_is_answered_as_get_is_without_its_body(server, target):
    def asked(method):
        signed = target != "/v2/zone"
        data = server.talk(request(server, method, target, extra=b"Connection: close\r\n", signed=signed))
        head, _, body = data.partition(b"\r\n\r\n")
        kept = [line for line in head.split(b"\r\n") if not line.startswith((b"x-request-id", b"date"))]
        return kept, body

    head, body = asked("GET")
    assert body
    assert asked("HEAD") == (head, b"")


def test_the_methods_of_what_needs_no_signature_are_told_without_one(server):
    close = b"Connection: close\r\n"
    answer = server.talk(request(server, "OPTIONS", "/v2/zone", extra=close, signed=False))
    assert statuses(answer) == [204]
    assert b"allow: GET, HEAD, OPTIONS\r\n" in answer
    assert statuses(server.talk(request(server, "OPTIONS", GROUPS, extra=close, signed=False))) == [403]
    assert statuses(server.talk(request(server, "OPTIONS", GROUPS, extra=close))) == [204]


def test_forwarded_headers_count_for_nothing_when_no_proxy_is_trusted(server):
    forged = {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "evil.example", "X-Forwarded-For": "192.0.2.66"}
    [zone] = server.call("GET", "/zone", headers=forged).json["zones"]
    assert zone["api-endpoint"] == server.url


def test_requests_in_one_piece_are_answered_in_order(server):
    targets = ["/v2/zone", GROUPS, "/v2/instance/nope", "/v2/nothing"]
    last = request(server, target="/v2/zone", extra=b"Connection: close\r\n")
    data = b"".join(request(server, target=target) for target in targets) + last
    assert statuses(server.talk(data)) == [200, 200, 404, 404, 200]


@pytest.mark.parametrize("pieces", [1, 7, 200])
def test_javas_wish_for_http2_is_ignored_and_the_body_read(server, pieces):
    body = json.dumps({"name": f"java-{pieces}"}).encode()
    twice = request(server, "POST", GROUPS, body, UPGRADE) + request(server, "GET", GROUPS, b"", UPGRADE)
    closing = request(server, "POST", GROUPS, body, b"Connection: close\r\n")
    answer = server.talk(twice + closing, pieces=pieces)
    assert statuses(answer) == [200, 200, 409]
    assert f'"java-{pieces}"'.encode() in answer


def test_a_body_in_chunks_is_read_as_one(server):
    body = b'{"name": "chunked"}'
    head = f"POST {GROUPS} HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n"
    head += f"Authorization: {server.sign('POST', GROUPS, body)}\r\n\r\n"
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in (body[:5], body[5:])) + b"0\r\n\r\n"
    assert statuses(server.talk(head.encode() + chunks, pieces=20)) == [200]


def test_a_body_over_the_limit_is_refused_without_being_kept_and_the_connection_goes_on(server):
    big = request(server, "POST", GROUPS, b" " * (2**20 + 1))
    after = request(server, target="/v2/zone", extra=b"Connection: close\r\n")
    assert statuses(server.talk(big + after)) == [413, 200]
    chunked = f"POST {GROUPS} HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    chunked += b"10000\r\n" + b"x" * 65536 + b"\r\n"
    assert statuses(server.talk(chunked + b"10000\r\n" + (b"x" * 65536 + b"\r\n10000\r\n") * 20, timeout_s=0.5)) == [
        413
    ]


def test_a_body_at_the_limit_is_read(server):
    body = b'{"name": "padded"}'
    assert server.call("POST", "/security-group", body + b" " * (2**20 - len(body))).status == 200


def test_ten_thousand_unknown_paths_leave_nothing_behind(server):
    connection = b"".join(request(server, target=f"/v2/unknown-{n}", signed=False) for n in range(100))
    warm = [server.talk(connection + _closing(server)) for _ in range(20)]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for start in range(0, 10_000, 100):
        data = b"".join(request(server, target=f"/v2/{start}/{n}", signed=n % 2 == 0) for n in range(100))
        found = statuses(server.talk(data + _closing(server)))
        assert set(found) <= {404, 403, 200}
        assert len(found) == 101
    grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown_kib < 8 * 1024, grown_kib
    assert warm


def _closing(server):
    return request(server, extra=b"Connection: close\r\n", signed=False)


def test_half_a_request_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr("ringfence.api.connection.HEAD_TIME_S", 0.2)
    with running_server(tmp_path) as server:
        for half in (b"", b"GET /v2/zone HTT", b"GET /v2/zone HTTP/1.1\r\nHost: h\r\n"):
            started = time.monotonic()
            assert statuses(server.talk(half, timeout_s=5)) == [408]
            assert time.monotonic() - started < 4
        assert alive(server)


def test_half_a_body_is_given_up(tmp_path):
    options = ServeOptions(api=ApiOptions(body=BodyLimits(time_s=0.2)))
    with running_server(tmp_path, options=options) as server:
        data = f"POST {GROUPS} HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\nhalf".encode()
        assert statuses(server.talk(data, timeout_s=5)) == [408]
        assert alive(server)


def test_large_bodies_that_do_not_end_leave_room_for_small_ones_and_for_unix_sockets(server, monkeypatch):
    monkeypatch.setattr("ringfence.api.connection.MOST_LARGE_BYTES", 300_000)
    body = b'{"name": "large"}'.ljust(100_000)
    large = request(server, "POST", GROUPS, body, b"Connection: close\r\n")
    with ExitStack() as stack:
        for _ in range(2):
            half = stack.enter_context(socket.create_connection(server.address))
            half.sendall(request(server, "POST", GROUPS, bytes(200_000), signed=False)[:-50_000])
        wait_until(lambda: statuses(server.talk(large)) == [503])
        assert server.call("POST", "/security-group", b'{"name": "small"}').status == 200
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(server.unix)), base_url="http://server") as near:
            signed = {"Authorization": server.sign("POST", GROUPS, body)}
            assert near.post(GROUPS, content=body, headers=signed).status_code in {200, 409}
    wait_until(lambda: statuses(server.talk(large)) == [409])
    with ExitStack() as stack:
        for _ in range(4):
            kept = stack.enter_context(socket.create_connection(server.address))
            kept.sendall(request(server, "POST", GROUPS, body))
            assert statuses(kept.recv(100)) == [409]


def test_a_hundred_connections_that_say_nothing_do_not_keep_others_waiting(server):
    idle = [socket.create_connection(server.address) for _ in range(100)]
    try:
        for connection in idle[:50]:
            connection.sendall(b"POST /v2/security-group HTTP/1.1\r\nContent-Length: 5\r\n")
        started = time.monotonic()
        assert alive(server)
        assert time.monotonic() - started < 1
    finally:
        for connection in idle:
            connection.close()
    wait_until(lambda: alive(server))


JAVA_CLIENT = Path(__file__).parent / "Post.java"


@pytest.mark.skipif(shutil.which("java") is None, reason="no java here: the JDK's own HTTP client is not tried")
def test_the_http_client_of_a_real_jdk_gets_through_with_its_upgrade_header(server):
    body = '{"name": "from-a-jdk"}'
    authorization = server.sign("POST", GROUPS, body.encode())
    found = subprocess.run(  # noqa: S603  our own source file
        ["java", str(JAVA_CLIENT), f"{server.url}/security-group", authorization, body],  # noqa: S607  any JDK will do
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if "jdk.compiler" in found.stderr:
        pytest.skip("this java is only a JRE: it cannot run a source file")
    assert found.stdout.startswith("200 "), found.stderr
