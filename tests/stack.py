"""The whole of ringfence around a mute world: a real server process, a real agent process, a signed client."""

import json
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from ipaddress import ip_network
from pathlib import Path
from uuid import UUID

from ringfence.agent.credential import HOST_VARIABLE, KEY_VARIABLE
from ringfence.policy.model import Group, GroupPeer, Instance, Interface, Rule
from ringfence.policy.snapshot import Snapshot
from ringfence.policy.values import (
    Cidr,
    Direction,
    GroupId,
    HostName,
    Icmp,
    InstanceId,
    InterfaceName,
    Kind,
    OrganisationId,
    Protocol,
    Revision,
    RuleId,
)
from ringfence.world.client import ApiClient
from ringfence.world.operator import Operator
from ringfence.world.processes import Child, Workshop, open_workshop
from ringfence.world.topology import World

HOST = "h1"
_NOBODY = OrganisationId(UUID(int=0))


@dataclass(frozen=True, slots=True)
class Stack:
    workshop: Workshop
    server: Child
    agent: Child
    start_agent: Callable[[], None]
    operator: Operator
    api: ApiClient
    world: World
    observed: set[str] = field(default_factory=set)

    def call(self, method: str, path: str, body: dict | None = None) -> dict:
        """A changing call, until its operation is settled."""
        return self.api._change(method, path, body)

    def read(self, path: str) -> dict:
        return self.api._send("GET", path)

    def observe(self, name: str, *, observe: bool) -> None:
        self.operator.observe(name, observe=observe)
        (self.observed.add if observe else self.observed.discard)(name)

    def close(self) -> None:
        for child in (self.agent, self.server):
            child.stop()
        self.api.close()
        self.operator.close()
        self.workshop.close()


def start_stack(world: World, *server_options: str, agent_folder: Path | None = None) -> Stack:
    """Server on a unix socket and loopback; agent in the world's router namespace, all managed nodes as instances."""
    workshop = open_workshop()
    folder = workshop.folder
    data, socket = str(folder / "server"), str(folder / "api.sock")
    listens = ("--listen", "127.0.0.1:0", "--listen", f"unix:{socket}")
    server = Child(workshop, "server", ("server", "--data", data, *listens, *server_options))
    server.start()
    endpoint = next(word for word in server.read_line(20).split() if word.startswith("http"))
    operator = Operator(folder / "server")
    credential = operator.add_host(HOST)
    api = ApiClient(operator.create_key("tests"), endpoint)
    inventory = folder / "inventory.toml"
    inventory.write_text(_inventory(world))
    own = agent_folder or folder / "agent"
    arguments = ("agent", "--server", f"unix:{socket}", "--data", str(own), "--inventory", str(inventory))
    own.mkdir(mode=0o700)
    secret = {HOST_VARIABLE: credential.host, KEY_VARIABLE: b64encode(credential.private_key).decode()}
    agent = Child(workshop, "agent", arguments)
    start_agent = partial(agent.start, namespace=world.router, environment=secret)
    start_agent()
    stack = Stack(workshop, server, agent, start_agent, operator, api, world)
    managed = [placed for placed in world.placed.values() if placed.node.managed]
    operator.wait_applied(HOST, instances=len(managed), timeout_s=20)
    return stack


def _inventory(world: World) -> str:
    lines = [f'host = "{HOST}"', "version = 1", 'managed = ["veth*"]']
    lines += ['kind = "bridged"'] if any(placed.node.bridged for placed in world.placed.values()) else []
    for placed in world.placed.values():
        if placed.node.managed:
            addresses = json.dumps([str(address) for address in placed.node.addresses])
            lines += ["[[instance]]", f'name = "{placed.node.name}"', f'interface = "{placed.port}"']
            lines += [f"addresses = {addresses}", f'mac = "{placed.mac}"']
    return "\n".join(lines) + "\n"


def model_of(stack: Stack) -> Snapshot:
    """What the API says there is, read by this file's own few lines: an opinion independent of the server's view."""
    groups = {}
    for document in stack.read("/security-group")["security-groups"]:
        group = _group(document)
        groups[group.id] = group
    instances = {}
    for document in stack.read("/instance")["instances"]:
        worn = tuple(GroupId(UUID(entry["id"])) for entry in document.get("security-groups", []))
        name = document["name"]
        placed = stack.world.placed[name]
        kind = Kind.BRIDGED if placed.node.bridged else Kind.ROUTED
        interface = Interface(InterfaceName(placed.port), placed.node.addresses, placed.mac, kind=kind)
        id_ = InstanceId(UUID(document["id"]))
        instances[id_] = Instance(
            id_, _NOBODY, name, HostName(HOST), (interface,), worn, observe=name in stack.observed
        )
    return Snapshot(Revision(0), {}, groups, instances, {})


def _group(document: dict) -> Group:
    rules = tuple(_rule(rule) for rule in document.get("rules", []))
    sources = tuple(Cidr(text, ip_network(text, strict=False)) for text in document.get("external-sources", []))
    return Group(GroupId(UUID(document["id"])), _NOBODY, document["name"], rules=rules, sources=sources)


def _rule(document: dict) -> Rule:
    if "network" in document:
        text = document["network"]
        peer: Cidr | GroupPeer = Cidr(text, ip_network(text, strict=False))
    else:
        peer = GroupPeer(GroupId(UUID(document["security-group"]["id"])))
    icmp = document.get("icmp")
    return Rule(
        RuleId(UUID(document["id"])),
        Direction(document["flow-direction"]),
        Protocol(document["protocol"]),
        peer,
        document.get("start-port"),
        document.get("end-port"),
        Icmp(icmp.get("type"), icmp.get("code")) if icmp else None,
    )
