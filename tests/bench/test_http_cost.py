"""What calls over HTTP cost the server, beside a bare "hello" on the same server. Run as a program, or by `make bench`.

Processor time of the server's process for a call, medians of interleaved rounds; 64 clients that ask again as soon as
they are answered. There are two hellos: without our frame (request id, limits, log line), and with it. Beside it moto's
server with its nearest operations, where the extra ``bench`` is installed. One JSON object on stdout.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path

import pytest

from bench.fleets import fill
from bench.http_load import cpu_s, drive
from bench.moto_server import measure_moto
from ringfence.wire.signature import SignedRequest, sign_request
from ringfence.world.client import Credentials
from ringfence.world.operator import Operator

ROUNDS = 9
CALLS, WRITES, LISTS = 1000, 500, 64
CLIENTS, PAUSE_S = 64, 0.002
GROUPS, RULES = 1000, 20
BOUNDS = {
    "get / hello": 1.6,
    "list / its bytes": 1.3,
    "post / hello": 3,
    "rate of posts / of bare durable posts": 0.8,
    "get p99 among mixed, ms": 20,
}


def measure(folder: Path, rounds: int = ROUNDS) -> dict[str, object]:
    fill(folder, hosts={}, instances=0, groups=GROUPS - 2, rules=2)  # and the default group, and the one that is read
    with _server(folder) as server:
        group = server.create_group("read", RULES)
        figures = [_round(server, group, number) for number in range(rounds)]
    ratios = [_ratios(one) for one in figures]
    return {
        "bounds": BOUNDS,
        "rounds": rounds,
        "ratios": _medians(ratios, 2),
        "figures": _medians(figures, 1),
        "moto": measure_moto(GROUPS, RULES),
        "load": os.getloadavg()[0],
    }


def _round(server, group, number):
    """CPU of a call; for writes their rate, too; and how long reads wait among writes."""
    hello, get = _bare("GET", "/hello"), server.signed("GET", f"/v2/security-group/{group}")
    reads = {
        "hello": (server.bare, hello, CALLS),
        "framed hello": (server.framed, hello, CALLS),
        "get": (server.api, get, CALLS),
        "its bytes": (server.bare, _bare("GET", "/bytes"), LISTS),
        "list": (server.api, server.signed("GET", "/v2/security-group"), LISTS),
    }
    found = {f"{name}, us": server.spent_us(port, [(name, ask)] * count) for name, (port, ask, count) in reads.items()}
    for times in ("us", "a second"):
        bodies = [json.dumps({"name": f"made {number} {times} {n}"}).encode() for n in range(WRITES)]
        bare = [_bare("POST", "/durable", body) for body in bodies]
        signed = [server.signed("POST", "/v2/security-group", body) for body in bodies]
        writes = {"bare durable post": (server.bare, bare), "framed durable post": (server.framed, bare)}
        for name, (port, asks) in (writes | {"post": (server.api, signed)}).items():
            spend = server.spent_us if times == "us" else server.rate
            found[f"{name}, {times}"] = spend(port, [(name, ask) for ask in asks])
    server.delete_groups("made ")
    waits = drive(server.api, list(_mixed(server, get, number)), CLIENTS)["get"]
    server.delete_groups("mixed ")
    for part in (50, 99):
        found[f"get p{part} among mixed, ms"] = sorted(waits)[len(waits) * part // 100] * 1000
    return found


def _mixed(server, get, number):
    """Three reads for each write."""
    for n in range(WRITES):
        yield from [("get", get)] * 3
        yield "post", server.signed("POST", "/v2/security-group", json.dumps({"name": f"mixed {number} {n}"}).encode())


def _ratios(one):
    return {
        "get / hello": one["get, us"] / one["hello, us"],
        "get / framed hello": one["get, us"] / one["framed hello, us"],
        "list / its bytes": one["list, us"] / one["its bytes, us"],
        "post / hello": one["post, us"] / one["hello, us"],
        "post / framed hello": one["post, us"] / one["framed hello, us"],
        "bare durable post / hello": one["bare durable post, us"] / one["hello, us"],
        "rate of posts / of bare durable posts": one["post, a second"] / one["bare durable post, a second"],
        "rate of posts / of framed durable posts": one["post, a second"] / one["framed durable post, a second"],
    }


def _medians(rounds, digits):
    return {name: round(statistics.median(one[name] for one in rounds), digits) for name in rounds[0]}


def _bare(method, target, body=b"", *headers):
    """A request as it goes over the wire."""
    lines = (f"{method} {target} HTTP/1.1", "Host: bench", f"Content-Length: {len(body)}", *headers)
    return "\r\n".join((*lines, "", "")).encode() + body


@dataclass(frozen=True, slots=True)
class _Server:
    """The child's process, its three ports, and a key to its API."""

    pid: int
    api: int
    framed: int
    bare: int
    key: Credentials

    def signed(self, method, target, body=b""):
        return _bare(method, target, body, f"Authorization: {self._sign(method, target, body)}")

    def spent_us(self, port, asks):
        """CPU of a call."""
        before_s = cpu_s(self.pid)
        drive(port, asks, min(CLIENTS, len(asks) // 8), pause_s=PAUSE_S)
        return (cpu_s(self.pid) - before_s) / len(asks) * 1e6

    def rate(self, port, asks):
        """Calls a second."""
        began_s = time.perf_counter()
        drive(port, asks, CLIENTS)
        return len(asks) / (time.perf_counter() - began_s)

    def create_group(self, name, rules):
        made = self._call("POST", "/v2/security-group", {"name": name})["reference"]["id"]
        for port in range(1, rules + 1):
            rule = {"flow-direction": "ingress", "protocol": "tcp", "network": f"192.0.{port}.0/24"}
            self._call("POST", f"/v2/security-group/{made}/rules", rule | {"start-port": port, "end-port": port})
        return made

    def delete_groups(self, beginning):
        """Those of that name, so that every round begins alike."""
        groups = self._call("GET", "/v2/security-group")["security-groups"]
        gone = [group["id"] for group in groups if group["name"].startswith(beginning)]
        drive(self.api, [("delete", self.signed("DELETE", f"/v2/security-group/{id_}")) for id_ in gone], CLIENTS)

    def _call(self, method, target, shown=None):
        body = b"" if shown is None else json.dumps(shown).encode()
        connection = HTTPConnection("127.0.0.1", self.api, timeout=60)
        connection.request(method, target, body or None, {"Authorization": self._sign(method, target, body)})
        answer = connection.getresponse()
        found = json.loads(answer.read())
        connection.close()
        assert answer.status == 200, found
        return found

    def _sign(self, method, target, body):
        signed = SignedRequest(method, target.encode(), body)
        return sign_request(self.key.key, self.key.secret, signed, int(time.time()) + 600)


@contextmanager
def _server(folder):
    command = (sys.executable, Path(__file__).with_name("http_child.py"), folder)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:  # noqa: S603  ours
        try:
            ports = map(int, process.stdout.readline().split())
            yield _Server(process.pid, *ports, Operator(folder).create_key("bench"))
        finally:
            process.terminate()


@pytest.mark.timeout(900)
def test_calls_cost_little_more_than_a_hello(tmp_path):
    print(json.dumps(measure(tmp_path), indent=2))  # noqa: T201  what a bench is for


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made_folder:
        print(json.dumps(measure(Path(made_folder)), indent=2))  # noqa: T201  as above
