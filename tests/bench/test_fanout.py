"""How long a change takes to be on every host, and what their connections cost. Run as a program, or by `make bench`.

The server is a process of its own, and so are its hosts: `feed_clients.c` follows all their feeds and acknowledges what
it reads at once. Measured is from sending a change's signed POST to its answer, which comes when every touched host has
acknowledged: HTTP, decision, commit and fan-out. One JSON object on stdout; plaintext on loopback. Two cores are enough
only when nothing else runs on them, so the load stands beside the figures.
"""

import asyncio
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path

import httpx
import pytest
import uvloop
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bench.fleets import fill
from feeds import ask
from ringfence.api import CONTROL_SOCKET, ApiOptions, ServeOptions, parse_listen, serve
from ringfence.api.rates import RateLimits
from ringfence.control.settings import Settings
from ringfence.policy.values import HostName
from ringfence.wire.feed import Report, encode_report
from ringfence.wire.signature import SignedRequest, sign_request

ROUNDS = 8
HOSTS_PER_GROUP = 200
BOUNDS_MS = {"1000 hosts, all touched": 100, "10000 hosts, all touched": 1000, "10000 hosts, some touched": 100}
SOURCE = Path(__file__).with_name("feed_clients.c")
APPLIED = encode_report(Report(1, None)).replace(b'"applied":1', b'"applied":%llu') + b"\n"


def measure(folder: Path) -> dict[str, object]:
    program = folder / "feed_clients"
    subprocess.run(("gcc", "-O2", "-o", program, SOURCE), check=True, timeout=60)  # noqa: S603, S607  our own
    found = {f"{hosts} hosts": _measure_hosts(folder / str(hosts), program, hosts) for hosts in (1_000, 10_000)}
    return {"bounds_ms": BOUNDS_MS, "bounds": {"connect_s": 10, "api_p99_s": 1, "kib_per_connection": 40}, **found}


def _measure_hosts(folder: Path, program: Path, count: int) -> dict[str, object]:
    keys = {HostName(f"host-{n}"): Ed25519PrivateKey.generate() for n in range(count)}
    public = {name: key.public_key().public_bytes_raw() for name, key in keys.items()}
    fill(folder / "data", hosts=public, instances=count, groups=max(1, count * 2 // HOSTS_PER_GROUP), rules=5)
    requests = folder / "requests"
    requests.write_bytes(b"".join(ask(key.private_bytes_raw(), name) + b"\0" for name, key in keys.items()))
    with _server(folder / "data") as server:
        before_kib, before_s = server.memory_kib(), server.cpu_s()
        with _clients(program, server, requests) as clients, server.asking() as waited_s:
            connected_s = float(clients.stdout.readline().split()[1])
            waited_s.append(0.0)
            after_kib = server.memory_kib()
            p99_s = sorted(waited_s)[int(len(waited_s) * 0.99)]
            figures = {
                "connect_s": connected_s,
                "connect_server_cpu_s": round(server.cpu_s() - before_s, 2),
                "api_p99_s": round(p99_s, 3),
                "api_calls": len(waited_s),
                "kib_per_connection": round((after_kib - before_kib) / count, 1),
            }
            server.stop_asking()
            changes = [_rounds(server, group) for group in (server.group("default"), server.group("group-0"))]
            figures["all touched"], figures["some touched"] = changes
    return {**figures, "load": os.getloadavg()[0]}


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


class _Server:
    """The child, and signed calls to it."""

    def __init__(self, process, port, folder):
        self.process, self.port = process, port
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
        return HTTPConnection("127.0.0.1", self.port, timeout=120)


@contextmanager
def _server(folder):
    command = (sys.executable, __file__, str(folder))
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603  our own
        try:
            yield _Server(process, int(process.stdout.readline()), folder)
        finally:
            process.terminate()


@contextmanager
def _clients(program, server, requests):
    command = (program, "127.0.0.1", str(server.port), requests, APPLIED)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603
        try:
            yield process
        finally:
            process.terminate()


async def _serve(folder):
    def ready(urls):
        print(urls[0].rsplit(":", 1)[1].split("/")[0], flush=True)  # noqa: T201  the parent reads it

    options = ServeOptions(ApiOptions(rates=RateLimits(0, 0, 0)))
    await serve(folder, [parse_listen("127.0.0.1:0")], Settings(settle_wait_s=60.0), ready, options)


@pytest.mark.timeout(900)
@pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc, which compiles the hosts, is not installed")
def test_a_change_reaches_ten_thousand_hosts(tmp_path):
    print(json.dumps(measure(tmp_path), indent=2))  # noqa: T201  what a bench is for


if __name__ == "__main__":
    if len(sys.argv) == 2:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve(Path(sys.argv[1])))
    else:
        with tempfile.TemporaryDirectory() as made_folder:
            print(json.dumps(measure(Path(made_folder)), indent=2))  # noqa: T201  as above
