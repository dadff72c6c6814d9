"""How long a change takes to be on every host, and what their connections cost. Run as a program, or by `make bench`.

The server is a process of its own, and so are its hosts: `feed_clients.c` follows all their feeds and acknowledges what
it reads at once. Measured is from sending a change's signed POST to its answer, which comes when every touched host has
acknowledged: HTTP, decision, commit and fan-out. Then the same over TLS, and how 1,000 hosts return to a server that
was killed and started again. With `--small` 1,000 hosts are all. One JSON object on stdout. Two cores are enough only
when nothing else runs on them, so the load stands beside the figures.
"""

import asyncio
import json
import os
import shutil
import ssl
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from datetime import UTC, datetime
from http.client import HTTPConnection, HTTPSConnection
from pathlib import Path
from secrets import token_bytes

import httpx
import pytest
import uvloop

from bench.fleets import fill
from feeds import ask
from ringfence.api import CONTROL_SOCKET, ApiOptions, ServeOptions, parse_listen, serve
from ringfence.api.authority import authority_of
from ringfence.api.rates import RateLimits
from ringfence.control.settings import Settings
from ringfence.policy.values import HostName
from ringfence.wire.feed import Report, encode_report
from ringfence.wire.hostauth import KEY_SIZE_BYTES, derive_public_key
from ringfence.wire.signature import SignedRequest, sign_request

ROUNDS = 8
HOSTS_PER_GROUP = 200
BOUNDS_MS = {"1000 hosts, all touched": 100, "10000 hosts, all touched": 1000, "10000 hosts, some touched": 100}
SOURCE = Path(__file__).with_name("feed_clients.c")
APPLIED = encode_report(Report(1, None)).replace(b'"applied":1', b'"applied":%llu') + b"\n"


def measure(folder: Path, *, small: bool = False) -> dict[str, object]:
    program = compiled(folder)
    counts = (1_000,) if small else (1_000, 10_000)
    found = {
        f"{count} hosts, {way}": _measure_hosts(folder / f"{way}{count}", program, count, way)
        for count in counts
        for way in ("plain", "tls")
    }
    returned = {way: _measure_return(folder / f"return-{way}", program, 1_000, way) for way in ("plain", "tls")}
    bounds = {"connect_s": 10, "api_p99_s": 1, "kib_per_connection": 40}
    return {"bounds_ms": BOUNDS_MS, "bounds": bounds, **found, "1000 hosts return": returned}


def compiled(folder: Path) -> Path:
    """The program that plays the hosts."""
    program = folder / "feed_clients"
    command = ("gcc", "-O2", "-o", program, SOURCE, "-lssl", "-lcrypto")
    subprocess.run(command, check=True, timeout=60)  # noqa: S603  our own
    return program


def filled(data: Path, count: int) -> dict[HostName, bytes]:
    """A data folder with so many hosts, of which these are the private keys."""
    keys = {HostName(f"host-{n}"): token_bytes(KEY_SIZE_BYTES) for n in range(count)}
    public = {name: derive_public_key(key) for name, key in keys.items()}
    fill(data, hosts=public, instances=count, groups=max(1, count * 2 // HOSTS_PER_GROUP), rules=5)
    return keys


def written(requests: Path, keys: dict[HostName, bytes]) -> Path:
    """What the hosts of ``keys`` send first, for the program that plays them."""
    requests.write_bytes(b"".join(ask(key, name) + b"\0" for name, key in keys.items()))
    return requests


def _prepared(folder: Path, count: int, way: str) -> tuple[Path, Path]:
    """A filled data folder, and the requests of all its hosts."""
    keys = filled(folder / "data", count)
    if way == "tls":
        authority_of(folder / "data").make(["127.0.0.1"], datetime.now(UTC))
    return folder / "data", written(folder / "requests", keys)


def _measure_hosts(folder: Path, program: Path, count: int, way: str) -> dict[str, object]:
    data, requests = _prepared(folder, count, way)
    with serving(data, way) as server:
        before_kib, before_s = server.memory_kib(), server.cpu_s()
        with following(program, server, requests) as clients, server.asking() as waited_s:
            connected_s = float(clients.stdout.readline().split()[1])
            figures = {
                "connect_s": connected_s,
                "connect_server_cpu_s": round(server.cpu_s() - before_s, 2),
                **_waits(waited_s),
                "kib_per_connection": round((server.memory_kib() - before_kib) / count, 1),
            }
            server.stop_asking()
            changes = [_rounds(server, group) for group in (server.group("default"), server.group("group-0"))]
            figures["all touched"], figures["some touched"] = changes
    return {**figures, "load": os.getloadavg()[0]}


def _measure_return(folder: Path, program: Path, count: int, way: str) -> dict[str, object]:
    """From kill -9 on: when the server serves again, and when all hosts have their views from it."""
    data, requests = _prepared(folder, count, way)
    with serving(data, way) as killed, following(program, killed, requests, "return") as clients:
        clients.stdout.readline()
        killed.process.kill()
        killed_s = time.perf_counter()
        killed.process.wait()
        with serving(data, way, port=killed.port) as server:
            ready_s, before_s = time.perf_counter(), server.cpu_s()
            with server.asking() as waited_s:
                assert clients.stdout.readline().startswith("connected")
                return {
                    "server_ready_s": round(ready_s - killed_s, 2),
                    "all_back_after_ready_s": round(time.perf_counter() - ready_s, 2),
                    "server_cpu_s": round(server.cpu_s() - before_s, 2),
                    **_waits(waited_s),
                    "load": os.getloadavg()[0],
                }


def _waits(waited_s):
    """What callers waited so far."""
    waited = sorted([*waited_s, 0.0])
    return {"api_p99_s": round(waited[int(len(waited) * 0.99)], 3), "api_calls": len(waited) - 1}


def _rounds(server, group):
    took_ms, cpu_s = [], server.cpu_s()
    for port in range(1, ROUNDS + 1):
        began = time.perf_counter()
        state = server.add_rule(group, port)["state"]
        took_ms.append((time.perf_counter() - began) * 1000)
        assert state == "success", state
    return {
        "median_ms": round(statistics.median(took_ms), 1),
        "worst_ms": round(max(took_ms), 1),
        "server_cpu_ms": round((server.cpu_s() - cpu_s) * 1000 / ROUNDS, 1),
    }


class Server:
    """The child, and signed calls to it."""

    def __init__(self, process, folder, way):
        self.process, self.way = process, way
        self.port = int(process.stdout.readline())
        with httpx.Client(
            transport=httpx.HTTPTransport(uds=str(folder / CONTROL_SOCKET)), base_url="http://x"
        ) as admin:
            made = admin.post("/admin/v1/keys", json={"name": "bench"}).raise_for_status().json()
        self.key, self.secret = made["id"], made["secret"]
        self.asks = threading.Event()

    def call(self, connection, method, target, body=b""):
        signed = SignedRequest(method, target.encode(), body)
        header = sign_request(self.key, self.secret, signed, int(time.time()) + 600)
        connection.request(method, target, body or None, {"Authorization": header, "Content-Type": "application/json"})
        answer = connection.getresponse()
        assert answer.status == 200, answer.read()
        return json.loads(answer.read())

    def group(self, name):
        found = self.call(self._connection(), "GET", "/v2/security-group")["security-groups"]
        return next(one["id"] for one in found if one["name"] == name)

    def add_rule(self, group, port):
        rule = {"flow-direction": "ingress", "protocol": "udp", "network": "192.0.2.0/24", "start-port": port}
        target = f"/v2/security-group/{group}/rules"
        return self.call(self._connection(), "POST", target, json.dumps({**rule, "end-port": port}).encode())

    def cpu_s(self):
        """What the server's process has used: neighbours on the same cores hardly change it."""
        used = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(used[11]) + int(used[12])) / os.sysconf("SC_CLK_TCK")

    def memory_kib(self):
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS")))

    @contextmanager
    def asking(self):
        """Somebody who reads one group again and again, and how long each answer took."""
        waited_s, group = [], self.group("group-0")
        self.asks.set()

        def ask_on():
            connection = self._connection()
            while self.asks.is_set():
                began = time.perf_counter()
                self.call(connection, "GET", f"/v2/security-group/{group}")
                waited_s.append(time.perf_counter() - began)
                time.sleep(0.005)

        thread = threading.Thread(target=ask_on)
        thread.start()
        try:
            yield waited_s
        finally:
            self.stop_asking()
            thread.join()

    def stop_asking(self):
        self.asks.clear()

    def _connection(self):
        if self.way == "tls":
            return HTTPSConnection("127.0.0.1", self.port, timeout=120, context=ssl._create_unverified_context())  # noqa: S323
        return HTTPConnection("127.0.0.1", self.port, timeout=120)


@contextmanager
def serving(folder, way, *, port=0):
    address = "0.0.0.0" if way == "tls" else "127.0.0.1"  # noqa: S104  loopback alone would be plaintext
    command = (sys.executable, __file__, str(folder), f"{address}:{port}")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603  our own
        try:
            yield Server(process, folder, way)
        finally:
            process.terminate()


@contextmanager
def following(program, server, requests, *more):
    command = (program, "127.0.0.1", str(server.port), requests, APPLIED, server.way, *more)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603
        try:
            yield process
        finally:
            process.terminate()


async def _serve(folder, listen):
    def ready(urls):
        print(urls[0].rsplit(":", 1)[1].split("/")[0], flush=True)  # noqa: T201  the parent reads it

    options = ServeOptions(ApiOptions(rates=RateLimits(0, 0, 0, 0)))
    await serve(folder, [parse_listen(listen)], Settings(settle_wait_s=60.0), ready, options)


@pytest.mark.timeout(900)
@pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc, which compiles the hosts, is not installed")
@pytest.mark.skipif(not Path("/usr/include/openssl/ssl.h").exists(), reason="libssl-dev is not installed")
def test_a_change_reaches_ten_thousand_hosts(tmp_path):
    print(json.dumps(measure(tmp_path), indent=2))  # noqa: T201  what a bench is for


if __name__ == "__main__":
    if len(sys.argv) == 3:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve(Path(sys.argv[1]), sys.argv[2]))
    else:
        with tempfile.TemporaryDirectory() as made_folder:
            print(json.dumps(measure(Path(made_folder), small="--small" in sys.argv), indent=2))  # noqa: T201  as above
