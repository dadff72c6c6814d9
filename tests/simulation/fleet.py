"""A server and three agents in one thread: first everything goes wrong, then nothing does, and all must come right.

While things go wrong two promises are looked at: after every transaction of every kernel nothing passes that the policy
it is said to hold denies; and an operation that ended as ``success`` is in force on every host that it names.
"""

import asyncio
import random
from collections import deque
from ipaddress import ip_address
from uuid import UUID

from desk import cidr, tcp
from ringfence.agent.enforce import CLOSED
from ringfence.control import plane as plane_module
from ringfence.control.actor import Actor, Role
from ringfence.control.use_cases import found_organisation
from ringfence.nft import About
from ringfence.policy.commands import (
    AddRule,
    AddSource,
    Attach,
    CreateGroup,
    DeleteGroup,
    DeleteRule,
    Detach,
    RemoveSource,
)
from ringfence.policy.errors import RingfenceError
from ringfence.policy.model import OperationState
from ringfence.policy.packet import TCP, Packet
from ringfence.policy.program.compile import compile_program
from ringfence.policy.program.steps import FlushChain
from ringfence.policy.values import HostName
from ringfence.policy.verdict import judge
from ringfence.policy.view import resolve_view
from simulation.machine import PORTS, Machine
from simulation.memory_store import MemoryStore
from simulation.network import ServerLife, SimulatedServer, Wire
from simulation.verdicts import Verdicts
from simulation.virtual_time import Endless, LoopClock, VirtualLoop

HOSTS = {f"h{number}": [f"i{number}a", f"i{number}b"] for number in (1, 2, 3)}
OUTSIDE = (ip_address("198.51.100.10"), ip_address("2001:db8::10"))
TCP_PORTS = (22, 80)
NETWORKS = ("0.0.0.0/0", "::/0", "198.51.100.0/24", "10.0.1.0/24", "fd00::/16")
NAMES = ("a", "b", "c", "d")
_FAULTS = (ArithmeticError, AttributeError, AssertionError, Endless, LookupError, NameError, TypeError)
STEPS = 40
HEALED_S = 60.0
SETTLED_S = 35.0  # the time that operations are given, and the tick that notices its end


class Broken(Exception):
    """A promise was broken."""


class Fleet:
    """One run, all of which follows from ``seed``. ``trace`` tells what happened, the newest last."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.trace = deque(maxlen=400)
        self.store = MemoryStore()
        self.clock = LoopClock()
        self.wire = Wire(self.rng)
        self.broken = None
        self.machines = {}
        for number, (host, names) in enumerate(HOSTS.items(), 1):
            instances = {name: [f"10.0.{number}.{at}", f"fd00:{number}::{at}"] for at, name in enumerate(names, 1)}
            self.machines[host] = Machine(
                HostName(host),
                instances,
                clock=LoopClock(),
                server=SimulatedServer(self.wire, HostName(host)),
                rng=self.rng,
                committed=self.check_closed,
            )
        self._calls = set()
        self._denials = {}
        self._verdicts = {host: Verdicts() for host in HOSTS}

    def tell(self, words: str) -> None:
        self.trace.append(f"{self.clock.monotonic():9.4f}  {words}")

    def break_(self, words: str) -> None:
        self.tell(f"BROKEN: {words}")
        self.broken = self.broken or words
        raise Broken(words)

    def start_task(self, loop, coroutine, **more) -> asyncio.Task:
        """As the loop does it. A task that ends by a fault is found also if nobody waits for it."""
        task = asyncio.Task(coroutine, loop=loop, **more)
        task.add_done_callback(self._note_end)
        return task

    def _note_end(self, task) -> None:
        error = None if task.cancelled() else task.exception()
        if isinstance(error, _FAULTS):
            self.broken = self.broken or f"{task.get_name()} ended by {error!r}"

    # What is promised

    def check_closed(self, machine) -> None:
        """No packet passes that the revision in the kernel's own note denies; without a note none does at all.

        While the agent goes from that to another in steps, the other may allow it. What another program opened is open
        until the first transaction that closes it.
        """
        table = machine.kernel.table
        self.tell(f"{machine.name}: the kernel holds {table.about.text if table.about else None!r}")
        open_to = next(self._open_to(machine, table), None)
        if open_to is None:
            machine.is_opened = False
        elif not machine.is_opened:
            self.break_(f"{machine.name} at {table.about} lets pass what is denied: {open_to}")
        revision = table.about.revision if table.about else 0
        if revision and revision < machine.newest:
            self.break_(f"{machine.name} held revision {machine.newest} and went back to {revision}")
        machine.newest = max(machine.newest, revision)

    def _open_to(self, machine, table):
        denied, coming = self._denied(machine, table.about), machine.coming
        if coming is not None and table.about not in (None, CLOSED, coming):
            denied = denied & self._denied(machine, coming)
        return self._verdicts[machine.name].passing(table.program, denied)

    def _denied(self, machine, about):
        """The packets, each with the port it goes to, that the revision of a note denies; of each revision once."""
        known = about is not None and about != CLOSED
        key = machine.name, about.revision if known else 0
        if key not in self._denials:
            view = resolve_view(self.store.history[key[1]], machine.name)
            self._denials[key] = {each: None for each in self._packets(machine) if not _allows(view, *each)}.keys()
        return self._denials[key]

    def _packets(self, machine):
        others = [one.instances[name] for one in self.machines.values() if one is not machine for name in one.instances]
        for name, addresses in machine.instances.items():
            for at, address in enumerate(addresses):
                for source in (OUTSIDE[at], *(other[at] for other in others)):
                    for port in TCP_PORTS:
                        yield Packet(source, address, TCP, 40_000, port, opening=True), PORTS.format(name)

    def check_truth(self, operation, began: float) -> None:
        """``success`` means: on every host that it touched, but for those it names as offline."""
        if operation.state is not OperationState.SUCCESS or operation.revision is None:
            return
        for host in operation.hosts:
            machine = self.machines[host]
            if host in (operation.message or "") or machine.disturbed_at >= began:
                continue
            held = machine.kernel.read_about()
            if held is None or held.revision < operation.revision:
                self.break_(f"{operation.revision} is said to be enforced, but {host} holds {held}")

    # What happens

    async def run(self) -> None:
        plane_module.new_id = lambda: UUID(int=self.rng.getrandbits(128), version=4)
        self.store.ask(found_organisation(plane_module.new_id(), plane_module.new_id(), 0), lambda _: None)
        self.start_server()
        for host in self.machines:
            await self.wire.life.plane.enrolment.add_host(HostName(host), host.encode().ljust(32))
        for machine in self.machines.values():
            machine.start()
        for _ in range(STEPS):
            await self.rng.choice(EVENTS)(self)
            await asyncio.sleep(self.rng.choice((0, 0.003, 0.05, 0.5, 4)))
            self.look()
        await self.heal()

    def look(self) -> None:
        for machine in self.machines.values():
            if error := machine.failure():
                self.break_(f"the agent of {machine.name} ended by {error!r}")
        for call in [call for call in self._calls if call.done()]:
            self._calls.discard(call)
            call.result()
        if self.broken:
            raise Broken(self.broken)

    def start_server(self) -> None:
        if self.wire.life is None:
            self.wire.life = ServerLife(self.store, self.clock)
            self.tell("the server starts")

    async def heal(self) -> None:
        self.tell("from here on nothing goes wrong")
        self.start_server()
        for machine in self.machines.values():
            self.wire.mend(machine.name)
            machine.kernel.refusals = []
            machine.kernel.fuse = None
            machine.kernel.notices.hear_again()
            machine.clock.skew_s = 0
            machine.start()
        began = self.clock.monotonic()
        while unlike := [one.name for one in self.machines.values() if not self.is_converged(one)]:
            if self.clock.monotonic() > began + HEALED_S:
                self.break_(f"{unlike} did not converge in {HEALED_S:.0f} s")
            await asyncio.sleep(0.25)
            await self.start_agents()
            self.look()
        await asyncio.sleep(SETTLED_S)
        self.look()
        if self._calls:
            self.break_(f"{len(self._calls)} operations have no end")

    def is_converged(self, machine) -> bool:
        plane = self.wire.life.plane
        view = plane.view(machine.name)
        declared = {PORTS.format(name) for name in machine.present}
        table = machine.kernel.table
        if {end.interface for end in view.endpoints} != declared or table is None:
            return False
        if machine.agent.standing.applied != view.revision or table.about != About(view.revision, plane.epoch):
            return False
        return table.program == compile_program(view, machine.agent._declared.ports)

    def machine(self):
        return self.rng.choice(list(self.machines.values()))

    # Events

    async def call(self) -> None:
        """A caller changes something, and waits for the end of the operation."""
        if self.wire.life is None:
            return
        command = self._command()
        if command is not None:
            self._calls.add(asyncio.create_task(self._ask(command)))

    async def call_twice(self) -> None:
        await self.call()
        await self.call()

    async def _ask(self, command) -> None:
        life, began = self.wire.life, self.clock.monotonic()
        actor = Actor(life.plane.owners.first.id, "EXOcaller", Role.OWNER)
        try:
            operation = await life.plane.execute(command, actor)
        except RingfenceError as error:
            self.tell(f"refused: {command}: {error}")
            return
        self.tell(f"{operation.revision}: {command}")
        while operation.state is OperationState.PENDING:
            await asyncio.sleep(0.1)
            if self.wire.life is not None:
                operation = self.wire.life.plane.operation(operation.id, operation.organisation)
        self.tell(f"{operation.revision} ends as {operation.state.value}: {operation.message}")
        self.check_truth(operation, began)

    def _command(self):  # noqa: PLR0911  one arm per kind
        rng, snapshot = self.rng, self.store.snapshot
        groups = list(snapshot.groups.values())
        group, other = rng.choice(groups), rng.choice(groups)
        instances = list(snapshot.instances)
        kind = rng.choice(
            ("create", "rule", "rule", "rule", "unrule", "source", "unsource", "wear", "wear", "bare", "end")
        )
        match kind:
            case "create":
                return CreateGroup(rng.choice(NAMES))
            case "rule":
                peer = rng.choice((other.id, rng.choice(NETWORKS)))
                return AddRule(group.id, tcp(peer, rng.choice(TCP_PORTS)))
            case "unrule" if group.rules:
                return DeleteRule(group.id, rng.choice(group.rules).id)
            case "source":
                return AddSource(group.id, cidr(rng.choice(NETWORKS)))
            case "unsource" if group.sources:
                return RemoveSource(group.id, rng.choice(group.sources))
            case "wear" if instances:
                return Attach(group.id, rng.choice(instances))
            case "bare" if instances:
                return Detach(group.id, rng.choice(instances))
            case "end":
                return DeleteGroup(group.id)
        return None

    async def kill_agent(self) -> None:
        machine = self.machine()
        self.tell(f"the agent of {machine.name} is killed")
        await machine.kill()

    async def light_fuse(self) -> None:
        machine = self.machine()
        machine.kernel.fuse, machine.kernel.burns_after = self.rng.randrange(4), self.rng.random() < 0.5
        self.tell(f"the agent of {machine.name} will be killed at its transaction {machine.kernel.fuse} from now")

    async def start_agents(self) -> None:
        for machine in self.machines.values():
            machine.start()

    async def kill_server(self) -> None:
        if self.wire.life is not None:
            self.tell("the server is killed")
            self.wire.life.kill()
            self.wire.life = None

    async def restart_server(self) -> None:
        await self.kill_server()
        self.start_server()

    async def cut_off(self) -> None:
        host = self.machine().name
        self.tell(f"{host} reaches nobody")
        self.wire.cut_off(host)

    async def mend_network(self) -> None:
        for host in self.machines:
            self.wire.mend(host)

    async def refuse(self) -> None:
        machine = self.machine()
        self.tell(f"the kernel of {machine.name} refuses for a while")
        machine.kernel.refusals = ["no buffer space"] * self.rng.randrange(1, 6)

    async def flush(self) -> None:
        machine = self.machine()
        self.tell(f"another program flushes the rules of {machine.name}")
        machine.flush()

    async def tamper(self) -> None:
        machine = self.machine()
        if machine.kernel.table is not None:
            self.tell(f"another program empties a chain of {machine.name}")
            machine.tamper(FlushChain(self.rng.choice(("arrive", "leave", "allow"))))

    async def lose_notices(self) -> None:
        self.machine().kernel.notices.lose()

    async def turn_deaf(self) -> None:
        notices = self.machine().kernel.notices
        if notices.deaf:
            notices.hear_again()
        else:
            notices.deaf = True

    async def edit_inventory(self) -> None:
        machine = self.machine()
        name = self.rng.choice(list(machine.instances))
        if name in machine.present:
            del machine.present[name]
        else:
            machine.present[name] = None
        self.tell(f"the inventory of {machine.name} now has {[*machine.present]}")
        machine.write_inventory()

    async def reboot(self) -> None:
        machine = self.machine()
        self.tell(f"{machine.name} boots anew")
        await machine.reboot()
        machine.start()

    async def take_image(self) -> None:
        for machine in self.machines.values():
            machine.take_image()

    async def restore_image(self) -> None:
        machine = self.machine()
        self.tell(f"the disk of {machine.name} is an old one")
        await machine.restore_image()
        machine.start()

    async def jump_clocks(self) -> None:
        clock = self.rng.choice((self.clock, self.machine().clock))
        clock.skew_s = self.rng.choice((-86_400.0, 0.0, 86_400.0))

    async def pass_time(self) -> None:
        await asyncio.sleep(self.rng.choice((5, 20, 50)))


EVENTS = (
    *(Fleet.call,) * 12,
    *(Fleet.call_twice,) * 3,
    *(Fleet.start_agents,) * 4,
    *(Fleet.restart_server,) * 2,
    *(Fleet.mend_network,) * 3,
    *(Fleet.pass_time,) * 2,
    Fleet.kill_agent,
    Fleet.light_fuse,
    Fleet.kill_server,
    Fleet.cut_off,
    Fleet.refuse,
    Fleet.flush,
    Fleet.tamper,
    Fleet.lose_notices,
    Fleet.turn_deaf,
    Fleet.edit_inventory,
    Fleet.reboot,
    Fleet.take_image,
    Fleet.restore_image,
    Fleet.jump_clocks,
)


def play(seed: int) -> tuple[str | None, list[str]]:
    """What was broken, None if nothing, and the trace."""
    fleet = Fleet(seed)
    try:
        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            runner.get_loop().set_task_factory(fleet.start_task)
            runner.run(fleet.run())
    except (Broken, Endless) as error:
        return fleet.broken or str(error), list(fleet.trace)
    return fleet.broken, list(fleet.trace)


def _allows(view, packet, port):
    end = next((end for end in view.endpoints if end.interface == port), None)
    return end is not None and judge(view, packet, source=None, destination=end).allowed
