"""The real agent on a host that filters itself, its server across the uplink: nobody who matters is shut out."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path

import pytest

from contract.running import Running, admin_client
from counts import FULL
from ringfence.agent.doors.netlink import NetlinkSocket
from ringfence.agent.doors.nftables import KernelNftables
from ringfence.nft import encode_removal
from ringfence.policy.program.model import Within
from ringfence.world.stream import Stream, heard_since
from ringfence.world.topology import GATEWAY_MAC, Node, Placed, World, build_world
from waiting import wait_until

pytestmark = pytest.mark.netns

OUTSIDE = Node("outside", (ip_address("198.51.100.10"), ip_address("2001:db8::10")), link="eth0")
HOST = Node("h1", (ip_address("10.77.255.1"), ip_address("fd77:ffff::1")), link="lo")
ID = "33333333-3333-4333-8333-333333333333"
SERVER = f"{OUTSIDE.addresses[0]}:8443"
INVENTORY = f"""
host = "h1"
kind = "self"
[[instance]]
name = "h1"
id = "{ID}"
interface = "eth0"
addresses = ["{HOST.addresses[0]}", "{HOST.addresses[1]}"]
[[failsafe]]
port = 22
protocol = "tcp"
sources = ["198.51.100.0/24", "2001:db8::/64"]
"""
SHUT = {"flow-direction": "egress", "protocol": "tcp", "network": "192.0.2.1/32", "start-port": 1, "end-port": 1}
QUICK_S = 20.0


@dataclass
class Scene:
    """A host with one uplink, its server behind it, and the agent's process in the host's network."""

    world: World
    server: Running
    folder: Path
    key: str
    processes: list = field(default_factory=list)

    @property
    def outside(self) -> Placed:
        return self.world.placed["outside"]

    @property
    def host(self) -> Placed:
        return Placed(HOST, self.world.router, GATEWAY_MAC)

    def start(self) -> subprocess.Popen:
        command = [sys.executable, "-m", "ringfence", "agent", "--server", f"http://{SERVER}", "--insecure"]
        command += ["--data", str(self.folder / "agent"), "--inventory", str(self.folder / "inventory.toml")]
        environment = os.environ | {"RINGFENCE_HOST": "h1", "RINGFENCE_HOST_KEY": self.key}
        with (self.folder / "agent.log").open("ab") as log:
            process = self.world.router.run(lambda: subprocess.Popen(command, env=environment, stderr=log))  # noqa: S603
        self.processes.append(process)
        return process

    def boot(self) -> None:
        command = [sys.executable, "-m", "ringfence", "boot", "--data", str(self.folder / "agent")]
        command += ["--inventory", str(self.folder / "inventory.toml")]
        environment = os.environ | {"RINGFENCE_HOST": "h1", "RINGFENCE_HOST_KEY": self.key}
        self.world.router.run(lambda: subprocess.run(command, env=environment, check=True))  # noqa: S603  our own

    def kill(self, process: subprocess.Popen) -> None:
        process.send_signal(signal.SIGKILL)
        process.wait()

    def call(self, method: str, path: str, body: object = None) -> dict:
        octets = b"" if body is None else json.dumps(body).encode()
        answer = self.outside.namespace.run(lambda: self.server.call(method, path, octets))
        assert answer.status == 200, answer.body
        return answer.json

    @property
    def status(self) -> dict:
        (host,) = self.server.admin.get("/admin/v1/hosts").json()["hosts"]
        return host

    def until_applied(self) -> None:
        try:
            wait_until(lambda: self.status["applied"] == self.status["wanted"] and not self.status["error"], QUICK_S)
        except AssertionError as error:
            raise AssertionError(f"{self.status}\n{(self.folder / 'agent.log').read_text()}") from error

    def enforce(self) -> None:
        """A host is born observed."""
        answer = self.server.admin.put(f"/admin/v1/instances/{ID}", json={"observe": False})
        assert answer.json()["state"] == "success"

    def group(self, name: str, *rules: dict) -> str:
        group = self.call("POST", "/security-group", {"name": name})["reference"]["id"]
        for rule in rules:
            self.call("POST", f"/security-group/{group}/rules", rule)
        return group

    def wear(self, group: str, how: str = "attach") -> dict:
        return self.call("PUT", f"/security-group/{group}:{how}", {"instance": {"id": ID}})

    def reaches(self, port: int) -> bool:
        """Whether the host gets through to a listener outside."""
        address = (str(OUTSIDE.addresses[0]), port)
        with self.outside.namespace.run(lambda: socket.create_server(address)):
            try:
                self.world.router.run(lambda: socket.create_connection(address, timeout=0.4)).close()
            except OSError:
                return False
            return True


@contextmanager
def _server(namespace, folder):
    unix = folder / "api.sock"
    command = [sys.executable, "-m", "ringfence", "server", "--data", str(folder), "--insecure"]
    command += ["--listen", SERVER, "--listen", f"unix:{unix}"]
    with (folder / "log").open("ab") as log:
        process = namespace.run(lambda: subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log))  # noqa: S603  our own
    try:
        assert process.stdout.readline(), (folder / "log").read_text()
        admin = admin_client(folder)
        key = admin.post("/admin/v1/keys", json={"name": "tests"}).json()
        yield Running(folder, f"http://{SERVER}", unix, admin, key["id"], key["secret"])
    finally:
        process.kill()
        process.wait(10)
        process.stdout.close()


@contextmanager
def _world(folder):
    (folder / "inventory.toml").write_text(INVENTORY)
    with closing(build_world((OUTSIDE,), router_addresses=HOST.addresses)) as world:
        yield world


@contextmanager
def _scene(world, folder, name):
    """A new server in the folder's ``name``; agents that were started go on when it ends."""
    (folder / name).mkdir()
    with _server(world.placed["outside"].namespace, folder / name) as server:
        key = server.admin.post("/admin/v1/hosts", json={"name": "h1"}).json()["private-key"]
        yield Scene(world, server, folder, key)


@pytest.fixture
def scene(tmp_path):
    with _world(tmp_path) as world, _scene(world, tmp_path, "server") as made:
        yield made
        for process in made.processes:
            process.kill()
            process.wait()


@pytest.mark.full
@pytest.mark.skipif(not FULL, reason="only with the stated counts")
def test_a_restored_server_is_followed_back_to_its_lower_revisions(tmp_path):
    """The agent has applied what the backup does not know; a restored store is another epoch, and is believed."""
    backup = tmp_path / "backup"
    with _world(tmp_path) as world:
        outside = world.placed["outside"].namespace
        with _scene(world, tmp_path, "server") as scene:
            scene.start()
            scene.until_applied()
            scene.enforce()
            shut = scene.group("shut", SHUT)
            scene.wear(shut)
            assert not scene.reaches(9000)
            _ringfence("server", "backup", backup, "--data", tmp_path / "server")
            scene.wear(shut, "detach")
            scene.until_applied()
            assert scene.reaches(9001)
            newest = scene.status["applied"]
            processes, key = scene.processes, scene.key
        _ringfence("server", "restore", backup, "--data", tmp_path / "again")
        with _server(outside, tmp_path / "again") as server:
            restored = Scene(world, server, tmp_path, key, processes)
            wait_until(lambda: restored.status["applied"] is not None, QUICK_S)
            restored.until_applied()
            assert restored.status["applied"] < newest
            assert not restored.reaches(9002)
            for process in processes:
                restored.kill(process)


def _ringfence(*arguments):
    command = (sys.executable, "-m", "ringfence", *map(str, arguments))
    subprocess.run(command, check=True, timeout=30, capture_output=True)  # noqa: S603  our own


def test_the_agent_reaches_its_server_when_no_group_lets_the_host_out(scene):
    process = scene.start()
    scene.until_applied()
    shut = scene.group("shut", SHUT)
    assert scene.wear(shut)["state"] == "success"
    assert scene.reaches(9000), "a host is born observed"
    scene.enforce()
    assert not scene.reaches(9001)
    for number in range(3):
        more = scene.group(f"more{number}", SHUT)
        assert scene.wear(more)["state"] == "success"
    scene.kill(process)
    scene.start()
    age_s = scene.status["age_s"]
    wait_until(lambda: scene.status["age_s"] < age_s, QUICK_S)
    assert scene.wear(shut, "detach")["state"] == "success"
    assert not scene.reaches(9002)


@pytest.mark.parametrize(
    ("address", "loose"),
    [(HOST.addresses[0], 1), (HOST.addresses[1], 1), (HOST.addresses[0], 0)],
    ids=["4", "6", "4-strict"],
)
def test_a_session_at_a_failsafe_port_survives_everything(scene, address, loose):
    """It is older than the agent, and than conntrack in this network: its first packet that is seen is in mid-stream.

    Such a one is taken up as a flow, in whatever direction it goes, or with ``loose`` 0 is one of no flow.
    """
    scene.world.router.write_sysctl("netfilter/nf_conntrack_tcp_loose", loose)
    with closing(Stream(scene.outside, scene.host, address, 22)) as session:

        def goes_on() -> None:
            now_s = time.monotonic()
            wait_until(lambda: heard_since(session, now_s), 5.0)

        goes_on()
        process = scene.start()
        door = scene.world.router.run(KernelNftables)
        with closing(door):
            wait_until(lambda: door.read_about() is not None, QUICK_S)
            goes_on()
            scene.until_applied()
            scene.enforce()
            goes_on()
            shut = scene.group("shut", SHUT)
            for how in ("attach", "detach", "attach"):
                scene.wear(shut, how)
                goes_on()
            scene.kill(process)
            goes_on()
            scene.start()
            wait_until(lambda: (scene.folder / "agent.log").read_text().count("agent runs") == 2, QUICK_S)
            scene.until_applied()
            goes_on()
            assert not scene.reaches(9003)
            with closing(Stream(scene.outside, scene.host, address, 22)) as another:
                wait_until(lambda: min(heard.count for heard in another.heard()) > 10, 5.0)


def test_the_table_at_boot_has_the_lifelines_with_a_kept_policy_and_without(scene):
    process = scene.start()
    scene.until_applied()
    scene.enforce()
    scene.until_applied()
    for name, kept in (("memory.json", b'"observed":false'), ("view.json", b'"observe":false')):
        file = scene.folder / "agent" / name
        wait_until(lambda file=file, kept=kept: file.exists() and kept in file.read_bytes(), QUICK_S)
    scene.kill(process)
    kernel = scene.world.router.run(NetlinkSocket)
    with closing(kernel):
        for lost in ((), ("view.json",)):
            for name in lost:
                (scene.folder / "agent" / name).unlink()
            assert not kernel.request(encode_removal().data).refusals
            scene.boot()
            with closing(Stream(scene.outside, scene.host, HOST.addresses[0], 22)) as session:
                wait_until(lambda session=session: min(heard.count for heard in session.heard()) > 10, 5.0)
            with pytest.raises(TimeoutError):
                scene.outside.namespace.run(lambda: socket.create_connection((str(HOST.addresses[0]), 23), 0.5))
            assert OUTSIDE.addresses[0] in _addresses_let_out(scene)


def _addresses_let_out(scene):
    with closing(scene.world.router.run(KernelNftables)) as door:
        lines = door.read().program.chains["lifeline_out"].lines
    return {part.network.network_address for line in lines for part in line.parts if isinstance(part, Within)}
