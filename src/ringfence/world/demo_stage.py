"""The demo's stage: everything that must run before the first act, started in order and ended in reverse.

The server runs in the caller's network, on loopback, so that other clients can reach it; the agent runs in the router
of a world that this process makes in a user namespace of its own. Both are ordinary ``ringfence`` commands.
"""

import time
from base64 import b64encode
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rich.console import Console

from ringfence.agent.credential import HOST_VARIABLE, KEY_VARIABLE, HostCredential
from ringfence.policy.errors import OperatorError
from ringfence.world.client import ApiClient, Credentials
from ringfence.world.demo_scene import CAST, HOST, ROUTER_ADDRESSES, render_inventory
from ringfence.world.namespaces import enter_user_namespace
from ringfence.world.operator import Operator
from ringfence.world.processes import Child, Workshop, open_workshop
from ringfence.world.topology import World, build_world

READY_LINE: Final = "ringfence server ready: "
_START_S: Final = 15.0
_MANAGED: Final = sum(node.managed for node in CAST)


@dataclass(frozen=True, slots=True)
class Stage:
    """What the acts play with. ``socket`` is the server's as agents name it, ``endpoint`` the API's URL.

    ``data`` is the server's folder, by which the command line finds it.
    """

    console: Console
    world: World
    operator: Operator
    client: ApiClient
    credentials: Credentials
    host: HostCredential
    endpoint: str
    socket: str
    data: Path
    children: tuple[Child, ...]

    def check_alive(self) -> None:
        """OperatorError with the end of its log when a child has died."""
        for child in self.children:
            if not child.alive:
                raise OperatorError(f"running ringfence {child.name}", f"it ended by itself:\n{child.log_end()}")


@contextmanager
def open_stage(console: Console) -> Iterator[Stage]:
    """The whole stage; on the way out everything is ended and removed.

    Raises:
        OperatorError: this machine forbids namespaces, or a part did not start; the text says which and why.
    """
    with ExitStack() as left:
        workshop = open_workshop()
        left.callback(workshop.close)
        enter_user_namespace()
        yield _set_up(console, workshop, left)


@contextmanager
def step(console: Console, doing: str) -> Iterator[list[str]]:
    """Show what is being done while it lasts, and then what was done (the line left in the list) with its time."""
    said: list[str] = []
    started_s = time.monotonic()
    with console.status(f"{doing} …"):
        yield said
    took = f"[dim]{time.monotonic() - started_s:.1f} s[/dim]"
    console.print(f"[green]✓[/green] {said[-1] if said else doing}  {took}", highlight=False)


def _set_up(console: Console, workshop: Workshop, left: ExitStack) -> Stage:
    data, socket = workshop.folder / "server", f"unix:{workshop.folder / 'api.sock'}"
    listens = ("--listen", "127.0.0.1:0", "--listen", socket)
    with step(console, "starting ringfence server") as said:
        server = _start(workshop, left, "server", ("server", "--data", str(data), *listens))
        endpoint = _endpoint(server.read_line(_START_S))
        operator = Operator(data)
        left.callback(operator.close)
        host, credentials = operator.add_host(HOST), operator.create_key("demo")
        said.append(f"server: SQLite in a private folder, the API at {endpoint}")
    with step(console, "building the world") as said:
        world = build_world(CAST, router_addresses=ROUTER_ADDRESSES)
        left.callback(world.close)
        said.append(f"world: a router and {len(CAST)} nodes ({', '.join(node.name for node in CAST)}), IPv4 and IPv6")
    with step(console, "starting ringfence agent") as said:
        agent = _start_agent(workshop, left, world, host, socket)
        _wait_claimed(operator, agent)
        said.append("agent: runs in the router, has closed every port and claimed web, app and db")
    client = ApiClient(credentials, endpoint)
    left.callback(client.close)
    return Stage(console, world, operator, client, credentials, host, endpoint, socket, data, (server, agent))


def _start_agent(workshop: Workshop, left: ExitStack, world: World, host: HostCredential, socket: str) -> Child:
    inventory, data = workshop.folder / "inventory.toml", workshop.folder / "agent"
    inventory.write_text(render_inventory(world), encoding="utf-8")
    data.mkdir(mode=0o700)
    arguments = ("agent", "--server", socket, "--data", str(data), "--inventory", str(inventory))
    secret = {HOST_VARIABLE: host.host, KEY_VARIABLE: b64encode(host.private_key).decode()}
    agent = Child(workshop, "agent", arguments)
    agent.start(namespace=world.router, environment=secret)
    left.callback(agent.stop)
    return agent


def _start(workshop: Workshop, left: ExitStack, name: str, arguments: tuple[str, ...]) -> Child:
    child = Child(workshop, name, arguments)
    child.start()
    left.callback(child.stop)
    return child


def _endpoint(line: str) -> str:
    if not line.startswith(READY_LINE):
        raise OperatorError("starting ringfence server", f"expected {READY_LINE!r}, it said {line!r}")
    return line.removeprefix(READY_LINE).split()[0]


def _wait_claimed(operator: Operator, agent: Child) -> None:
    try:
        operator.wait_applied(HOST, instances=_MANAGED, timeout_s=_START_S)
    except OperatorError as error:
        raise OperatorError(error.step, f"{error.reason}; the end of its log:\n{agent.log_end()}") from error
