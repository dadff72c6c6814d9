"""A host that filters itself, the real agent on it, and its server across the uplink, each a process of its own."""

import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path

from contract.running import Running, admin_client
from ringfence.world.topology import GATEWAY_MAC, Node, Placed, World, build_world
from waiting import wait_until

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

    def boot(self) -> str:
        """What it says."""
        command = [sys.executable, "-m", "ringfence", "boot", "--data", str(self.folder / "agent")]
        command += ["--inventory", str(self.folder / "inventory.toml")]
        environment = os.environ | {"RINGFENCE_HOST": "h1", "RINGFENCE_HOST_KEY": self.key}
        done = self.world.router.run(
            lambda: subprocess.run(command, env=environment, check=True, stderr=subprocess.PIPE, text=True)  # noqa: S603  our own
        )
        return done.stderr

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
def serving(namespace, folder):
    """The server of a folder, killed with SIGKILL in the end."""
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
def open_world(folder):
    (folder / "inventory.toml").write_text(INVENTORY)
    with closing(build_world((OUTSIDE,), router_addresses=HOST.addresses)) as world:
        yield world


@contextmanager
def open_scene(world, folder, name):
    """A new server in the folder's ``name``; agents that were started go on when it ends."""
    (folder / name).mkdir()
    with serving(world.placed["outside"].namespace, folder / name) as server:
        key = server.admin.post("/admin/v1/hosts", json={"name": "h1"}).json()["private-key"]
        yield Scene(world, server, folder, key)
