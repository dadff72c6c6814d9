"""The whole agent against a kernel, a server, files and a clock in memory: what the kernel holds after each event."""

import asyncio
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from threading import Event
from time import monotonic

import pytest

from fake_doors import (
    FakeBridging,
    FakeClock,
    FakeConnections,
    FakeConntrack,
    FakeFiles,
    FakeLinks,
    FakeMachine,
    FakeNames,
    FakeNftables,
    FakeNotices,
    FakePackets,
)
from fake_server import FakeServer
from ringfence.agent.allowed import BURST
from ringfence.agent.cache import Cache
from ringfence.agent.channel import ServerPlace
from ringfence.agent.doors.bundle import Doors
from ringfence.agent.doors.links import Master
from ringfence.agent.enforce import CLOSED
from ringfence.agent.inventory import declared_endpoints, parse_inventory
from ringfence.agent.loop import Agent
from ringfence.agent.own_view import OwnPart
from ringfence.agent.watch import SHOWN_S
from ringfence.nft import About, ForeignChain, Generation, Touched, render_text
from ringfence.nft.connections import Connection, Way
from ringfence.nft.packetlog import Told
from ringfence.policy.errors import OperatorError
from ringfence.policy.packet import Packet
from ringfence.policy.program.compile import LocalPorts, compile_program
from ringfence.policy.program.model import NamedSet, Within
from ringfence.policy.program.names import DROPS, FRAME_PROGRAMMED, PORTS, group_chain, rule_counter
from ringfence.policy.program.refusal import Fate, Refusal, log_prefix
from ringfence.policy.program.steps import AddElements, AddLine, FlushChain
from ringfence.policy.values import Direction
from ringfence.policy.view import PeerAddresses
from ringfence.wire.feed import FeedView
from views import GROUPS, endpoint, ingress, view
from waiting import wait_until

FOLDER = Path("/data")
FILE = Path("/etc/inventory.toml")
WEB, APP = GROUPS[:2]
GROUP_CHAIN = group_chain(WEB, Direction.INGRESS)
INSTANCE = '[[instance]]\nname = "{0}"\ninterface = "veth-{0}"\naddresses = ["{1}", "{2}"]\n'
ENDS = {name: endpoint(name, group) for name, group in (("web", WEB), ("app", APP))}


def inventory(*names, managed='managed = ["veth*"]\n', host="h1"):
    instances = "".join(INSTANCE.format(name, *ENDS[name].addresses) for name in names)
    return f'host = "{host}"\n{managed}{instances}'.encode()


BOTH = inventory("web", "app")
RULES = {WEB: (ingress(80),), APP: (ingress(81, WEB, number=2),)}
PEERS = {WEB: PeerAddresses(frozenset(ENDS["web"].addresses))}
ONE = view(1, ENDS["web"], rules={WEB: RULES[WEB]})
TWO = view(2, *ENDS.values(), rules=RULES, peers=PEERS)
MORE = replace(ONE, revision=2, rules={WEB: (*RULES[WEB], ingress(443, number=9))})
THREE = view(3, *ENDS.values(), rules={WEB: (ingress(443, number=3),), APP: ()})


class World:
    """Everything around an agent. It outlives the agent, as a machine does."""

    def __init__(self, text=BOTH):
        self.nftables = FakeNftables()
        self.conntrack = FakeConntrack()
        self.links = FakeLinks("veth-web", "veth-app")
        self.files = FakeFiles()
        self.clock = FakeClock()
        self.packets = FakePackets()
        self.connections = None
        self.names = FakeNames()
        self.place = None
        self.bridging = FakeBridging()
        self.machine = FakeMachine()
        self.server = FakeServer()
        self.write(text)

    def write(self, text):
        self.files.replace(FILE, text)

    @property
    def cache(self):
        return Cache(self.files, FOLDER, "h1")

    @asynccontextmanager
    async def agent(self, *, runs=True):
        self.nftables.notices = FakeNotices()
        kernel = self.nftables, self.nftables.notices, self.conntrack, self.links
        doors = Doors(*kernel, self.files, self.names, self.clock, self.bridging, self.packets, self.connections)
        doors = replace(doors, machine=self.machine)
        agent = Agent(doors, self.server, self.cache, FILE, place=self.place, jitter=lambda: 0.5)
        try:
            await agent.start()
            task = asyncio.ensure_future(agent.run() if runs else asyncio.sleep(0))
            yield agent
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        finally:
            agent.close()

    async def until(self, predicate, timeout_s=5.0, *, step_s=0.05):
        """Let the agent go on, and time with it, until ``predicate`` holds."""
        deadline = monotonic() + timeout_s
        while not predicate():
            assert monotonic() < deadline, f"{predicate} still fails; reports {self.server.reports[-3:]}"
            self.clock.advance(step_s)
            await asyncio.sleep(0.0005)

    async def until_applied(self, revision):
        await self.until(lambda: self.server.reports and self.server.reports[-1].applied == revision)

    async def until_said(self, words):
        await self.until(lambda: self.server.reports and words in (self.server.reports[-1].error or ""))

    def assert_holds(self, wanted, text=BOTH, epoch="e1", extra=()):
        """The kernel's whole text is that of ``wanted`` cut to the inventory ``text``."""
        declared = parse_inventory(text, file="test")
        ports = LocalPorts(tuple(sorted({*declared.managed, *declared.ports, *extra})))
        about = About(wanted.revision, epoch) if epoch else CLOSED
        program = compile_program(OwnPart().keep(wanted, declared), ports)
        generation = self.nftables.read().generation or Generation(0)
        wanted_text = render_text(program, generation, about)
        with suppress(AssertionError):
            wait_until(lambda: self.nftables.text() == wanted_text)  # stamps come a moment after the note
        assert self.nftables.text() == wanted_text


def scenario(body):
    """A test that is a coroutine over a fresh world."""

    def test():
        asyncio.run(body(World()))

    test.__name__ = body.__name__
    return test


@scenario
async def test_every_view_of_the_feed_reaches_the_kernel_and_is_reported(world):
    async with world.agent():
        for wanted in (ONE, TWO, THREE):
            world.server.publish(wanted)
            await world.until_applied(wanted.revision)
            world.assert_holds(wanted)
    assert world.server.claims[0] == parse_inventory(BOTH, file="test").claim
    assert all(report.error is None for report in world.server.reports)


@scenario
async def test_a_rule_that_comes_is_in_force_without_a_line_and_then_becomes_one(world):
    async with world.agent():
        world.server.publish(ONE)
        await world.until_applied(1)
        world.server.publish(MORE)
        await world.until_applied(2)
        world.assert_holds(MORE)
    noted = [steps for steps, _, about in world.nftables.commits if about == About(2, "e1")]
    lines = [any(isinstance(step, AddLine) for step in steps) for steps in noted]
    assert lines == [False, True, False], "elements, their line, and the end of the elements"


@scenario
async def test_a_view_that_comes_meanwhile_does_not_wait_for_the_lines_of_the_one_in_force(world):
    later = replace(MORE, revision=3, rules={WEB: (*MORE.rules[WEB], ingress(444, number=10))})
    events = asyncio.get_running_loop()
    async with world.agent() as agent:
        world.server.publish(ONE)
        await world.until_applied(1)

        def commit(steps, *, generation, about):
            FakeNftables.commit(world.nftables, steps, generation=generation, about=about)
            if about == About(2, "e1"):
                events.call_soon_threadsafe(world.server.publish, later)
                wait_until(lambda: agent._wanted.view is later)

        world.nftables.commit = commit
        world.server.publish(MORE)
        await world.until_applied(3)
        world.assert_holds(later)
    noted = [about.revision for *_, about in world.nftables.commits if about is not None]
    assert noted[noted.index(2) :][:2] == [2, 3]


@scenario
async def test_lines_that_the_kernel_does_not_take_are_tried_again_while_the_rules_are_in_force(world):
    async with world.agent():
        world.server.publish(ONE)
        await world.until_applied(1)
        world.nftables.refuse = lambda steps: any(isinstance(step, AddLine) for step in steps) and "no memory"
        world.server.publish(MORE)
        await world.until_said("no memory")
        assert world.server.reports[-1].applied == 2
        world.nftables.refuse = lambda _: None
        await world.until(lambda: not world.server.reports[-1].error)
        world.assert_holds(MORE)


@scenario
async def test_before_the_first_view_ever_all_managed_ports_are_closed(world):
    world.server.down = True
    async with world.agent(runs=False):
        world.assert_holds(view(0), epoch=None)


@scenario
async def test_an_older_revision_of_the_same_epoch_changes_nothing_and_is_reported(world):
    async with world.agent():
        world.server.publish(TWO)
        await world.until_applied(2)
        world.server.publish(ONE)
        await world.until_said("older than 2")
        world.assert_holds(TWO)
        world.server.publish(THREE)
        await world.until_applied(3)
    assert world.server.reports[-1].error is None


@scenario
async def test_another_epoch_is_followed_whatever_its_revision(world):
    async with world.agent():
        world.server.publish(TWO)
        await world.until_applied(2)
        world.server.publish(ONE, epoch="e2")
        await world.until_applied(1)
        world.assert_holds(ONE, epoch="e2")


@scenario
async def test_stopping_the_agent_leaves_the_rules(world):
    world.server.publish(TWO)
    async with world.agent():
        await world.until_applied(2)
    world.assert_holds(TWO)


@scenario
async def test_a_restart_without_the_server_changes_nothing_in_the_kernel(world):
    world.server.publish(TWO)
    async with world.agent():
        await world.until_applied(2)
        await world.until(lambda: world.cache.load_view() is not None)
    world.server.stop()
    changes = world.nftables.count_changes()
    async with world.agent() as agent:
        await world.until(lambda: agent.standing.applied == 2)
    assert world.nftables.count_changes() == changes


@scenario
async def test_after_a_reboot_the_kept_view_is_enforced_before_the_server_is_reached(world):
    world.cache.save_view(FeedView("e1", TWO))
    world.server.down = True
    async with world.agent(runs=False) as agent:
        world.assert_holds(TWO)
        assert agent.standing.applied == 2
    assert world.server.held.view == TWO  # of it the server need not tell again


@scenario
async def test_a_kept_view_that_is_older_than_the_kernels_is_not_enforced(world):
    world.server.publish(TWO)
    async with world.agent():
        await world.until_applied(2)
    world.cache.save_view(FeedView("e1", ONE))
    world.server.stop()
    async with world.agent(runs=False):
        world.assert_holds(TWO)
    assert world.server.held is None


@scenario
async def test_a_kept_view_of_another_epoch_than_the_kernels_is_not_enforced_whatever_its_revision(world):
    """A view is enforced before it is saved, so the kernel's is the later one: that of a restored server."""
    world.server.publish(ONE, epoch="e2")
    async with world.agent():
        await world.until_applied(1)
    world.cache.save_view(FeedView("e1", TWO))
    world.server.stop()
    async with world.agent(runs=False):
        world.assert_holds(ONE, epoch="e2")
    assert world.server.held is None


@scenario
async def test_an_older_view_from_the_server_is_not_taken_after_the_cache_was_lost(world):
    world.server.publish(TWO)
    async with world.agent():
        await world.until_applied(2)
    world.files.remove(FOLDER / "view.json")
    world.server.publish(ONE)
    async with world.agent():
        await world.until_said("older than 2")
    world.assert_holds(TWO)


@scenario
async def test_a_damaged_cache_closes_nothing_that_the_kernel_holds(world):
    world.server.publish(TWO)
    async with world.agent():
        await world.until_applied(2)
    world.files.replace(FOLDER / "view.json", b"junk")
    world.server.stop()
    async with world.agent(runs=False):
        world.assert_holds(TWO)


@scenario
async def test_an_instance_taken_out_of_the_inventory_is_closed_with_the_server_away(world):
    world.server.publish(TWO)
    async with world.agent():
        await world.until_applied(2)
        world.server.stop()
        less = inventory("web")
        world.write(less)
        await world.until(lambda: "veth-app" not in world.nftables.read().program.maps["ingress"].targets)
        world.assert_holds(TWO, less, extra=["veth-app"])


@scenario
async def test_without_patterns_a_port_that_was_declared_stays_closed_until_its_link_is_gone(world):
    text = inventory("web", "app", managed="")
    world.write(text)
    world.server.publish(TWO)
    async with world.agent():
        await world.until_applied(2)
        less = inventory("web", managed="")
        world.write(less)
        await world.until(lambda: len(world.server.claims) > 1)
        await world.until(lambda: "veth-app" not in world.nftables.read().program.maps["ingress"].targets)
        world.assert_holds(TWO, less, extra=["veth-app"])
        await world.until(lambda: "veth-app" in world.cache.load_memory().ports)
    async with world.agent(runs=False):
        world.assert_holds(TWO, less, extra=["veth-app"])
    world.links.present.remove("veth-app")
    async with world.agent(runs=False):
        world.assert_holds(TWO, less)


@pytest.mark.parametrize("lost", ["nothing", "folder", "rules"])
def test_an_instance_taken_out_while_the_agent_was_stopped_stays_closed(lost):
    async def body():
        world = World(inventory("web", "app", managed=""))
        world.server.publish(TWO)
        async with world.agent():
            await world.until_applied(2)
        less = inventory("web", managed="")
        world.write(less)
        if lost == "folder":
            for path in [path for path in world.files.contents if path.parent == FOLDER]:
                world.files.remove(path)
        if lost == "rules":
            world.nftables.flush()
        world.server.reports.clear()
        async with world.agent():
            await world.until_applied(2)
            world.assert_holds(TWO, less, extra=["veth-app"])

    asyncio.run(body())


@asynccontextmanager
async def without_view_and_server(world):
    """An agent that finds TWO in the kernel, and knows neither a view nor the server."""
    world.server.publish(TWO)
    async with world.agent():
        await world.until_applied(2)
        await world.until(lambda: world.cache.load_view() is not None)
    world.files.remove(FOLDER / "view.json")
    world.server.stop()
    async with world.agent() as agent:
        world.assert_holds(TWO)
        yield agent


def _reachable(world):
    return set(world.nftables.read().program.maps["ingress"].targets)


@scenario
async def test_without_view_and_server_what_is_taken_out_is_closed_and_comes_back_with_the_server(world):
    async with without_view_and_server(world):
        less = inventory("web")
        world.write(less)
        await world.until(lambda: _reachable(world) == {"veth-web"})
        program = world.nftables.read().program
        assert program.sets["ports"].elements == {("veth-web",), ("veth-app",)}
        assert {element[0] for element in program.sets["any_mac_ipv4"].elements} == {"veth-web"}
        assert world.nftables.read_about() == About(2, "e1")
        world.write(BOTH)
        world.server.down = False
        await world.until(lambda: _reachable(world) == {"veth-web", "veth-app"})
        world.assert_holds(TWO)


@scenario
async def test_without_view_and_server_what_is_newly_declared_is_closed(world):
    async with without_view_and_server(world):
        world.write(
            BOTH.replace(
                b"[[instance]]", b'[[instance]]\nname="db"\ninterface="db"\naddresses=["10.0.0.9"]\n[[instance]]', 1
            )
        )
        await world.until(lambda: ("db",) in world.nftables.read().program.sets["ports"].elements)
        assert _reachable(world) == {"veth-web", "veth-app"}
        assert ("db",) not in world.nftables.read().program.sets["any_mac"].elements


@scenario
async def test_without_view_and_server_another_instance_inherits_no_port(world):
    async with without_view_and_server(world):
        world.write(BOTH.replace(b'name = "web"', b'name = "web2"'))
        await world.until(lambda: _reachable(world) == {"veth-app"})


@scenario
async def test_a_changed_inventory_is_claimed_anew(world):
    world.server.publish(ONE)
    async with world.agent():
        await world.until_applied(1)
        world.write(inventory("web"))
        await world.until(lambda: len(world.server.claims) == 2)
    assert world.server.claims[-1] == parse_inventory(inventory("web"), file="test").claim


@scenario
async def test_an_inventory_that_changes_while_the_last_one_is_claimed_is_claimed_too(world):
    world.server.publish(ONE)
    claim = world.server.claim

    async def claim_slowly(asked):
        world.server.claim = claim
        claimed = await claim(asked)
        world.write(inventory("app"))
        await world.clock.sleep(2)
        return claimed

    async with world.agent():
        await world.until_applied(1)
        world.server.claim = claim_slowly
        world.write(inventory("web"))
        await world.until(lambda: len(world.server.claims) == 3)
    claimed = [parse_inventory(text, file="test").claim for text in (BOTH, inventory("web"), inventory("app"))]
    assert world.server.claims == claimed


@scenario
async def test_an_unreadable_inventory_keeps_the_last_good_one_and_says_so(world):
    world.server.publish(TWO)
    async with world.agent():
        await world.until_applied(2)
        world.write(b"host = ")
        await world.until_said("not TOML")
        world.assert_holds(TWO)
        world.write(BOTH)
        await world.until(lambda: world.server.reports[-1].error is None)


@scenario
async def test_a_start_with_an_unreadable_inventory_uses_the_kept_one(world):
    world.server.publish(TWO)
    async with world.agent():
        await world.until_applied(2)
        await world.until(lambda: world.cache.load_inventory() is not None)
    world.files.remove(FILE)
    async with world.agent():
        await world.until_said("no such file")
        world.assert_holds(TWO)


def test_a_first_start_without_an_inventory_ends_with_its_name():
    async def body():
        world = World()
        world.files.remove(FILE)
        async with world.agent():
            pass

    with pytest.raises(OperatorError, match=r"/etc/inventory\.toml"):
        asyncio.run(body())


@scenario
async def test_an_inventory_of_another_host_is_refused(world):
    world.server.publish(TWO)
    async with world.agent():
        await world.until_applied(2)
        world.write(inventory("web", host="h2"))
        await world.until_said("expected 'h1'")
        world.assert_holds(TWO)


@scenario
async def test_refused_claims_are_reported(world):
    world.server.refuse = {"app": "its address is taken"}
    async with world.agent():
        await world.until(
            lambda: (
                world.server.reports
                and world.server.reports[-1].error == "instance 'app' is refused: its address is taken"
            )
        )


@scenario
async def test_a_refused_claim_is_made_again_by_itself(world):
    world.server.refuse = {"app": "its address is taken"}
    async with world.agent():
        await world.until(lambda: world.server.claims)
        world.server.refuse = {}
        await world.until(lambda: len(world.server.claims) == 2)
        await world.until(lambda: world.server.reports and world.server.reports[-1].error is None)


@scenario
async def test_after_the_server_was_away_the_agent_claims_and_follows_again(world):
    world.server.publish(ONE)
    async with world.agent():
        await world.until_applied(1)
        world.server.stop()
        await world.until(lambda: world.server.failures > 3)
        world.server.down = False
        world.server.publish(TWO)
        await world.until_applied(2)
        world.assert_holds(TWO)
    assert world.server.feeds == 2
    assert len(world.server.claims) == 2


@scenario
async def test_with_the_server_away_for_hours_the_policy_stays_over_a_restart_too_and_then_it_converges(world):
    world.server.publish(TWO)
    for _ in range(2):
        async with world.agent():
            await world.until(lambda: world.cache.load_view() is not None)
            world.server.stop()
            before, failures = world.clock.monotonic(), world.server.failures
            await world.until(lambda b=before: world.clock.monotonic() - b > 4 * 3600, step_s=60.0)
            assert world.server.failures - failures > 50  # it never stopped trying
            world.assert_holds(TWO)
    async with world.agent():
        world.server.down = False
        world.server.publish(THREE)
        await world.until_applied(3)
        world.assert_holds(THREE)


@scenario
async def test_a_report_comes_at_least_every_fifteen_seconds(world):
    world.server.publish(ONE)
    async with world.agent():
        await world.until_applied(1)
        for _ in range(3):
            count, before = len(world.server.reports), world.clock.monotonic()
            await world.until(lambda n=count: len(world.server.reports) > n)
            assert world.clock.monotonic() - before <= 16


@scenario
async def test_a_failing_commit_is_reported_and_tried_again(world):
    world.server.publish(ONE)
    async with world.agent():
        await world.until_applied(1)
        world.nftables.refuse = lambda _: "No space left on device"
        world.server.publish(TWO)
        await world.until_said("No space left")
        assert world.server.reports[-1].applied == 1
        world.assert_holds(ONE)
        world.nftables.refuse = lambda _: None
        await world.until_applied(2)
        world.assert_holds(TWO)
    assert world.server.reports[-1].error is None


@scenario
async def test_a_kernel_without_our_rules_that_takes_none_is_told_to_be_open(world):
    world.server.publish(ONE)
    async with world.agent():
        await world.until_applied(1)
        world.nftables.refuse = lambda _: "Operation not permitted"
        world.nftables.flush()
        await world.until_said("Operation not permitted; the kernel holds no rules, and every port is open")
        assert world.server.reports[-1].applied is None
        world.nftables.refuse = lambda _: None
        await world.until_applied(1)


@scenario
async def test_an_agent_without_the_kernels_log_says_that_nothing_is_told_of_refused_packets(world):
    world.packets = None
    world.server.publish(TWO)
    async with world.agent():
        await world.until_said("refused packets are counted and not logged")
        world.write(b'flow_log = "off"\n' + BOTH)
        await world.until(lambda: world.server.reports[-1].error is None)
        await world.until_applied(2)


@scenario
async def test_a_port_whose_frames_something_else_takes_is_told_not_to_be_judged(world):
    world.server.publish(TWO)
    async with world.agent():
        await world.until_applied(2)
        world.links.masters["veth-app"] = Master("br0", is_bridge=True)
        await world.until_said(
            "instance 'app': 'veth-app' is a port of the bridge 'br0', and the inventory says routed"
        )
        world.links.masters.clear()
        await world.until(lambda: world.server.reports[-1].error is None)


@scenario
async def test_a_conntrack_that_is_nearly_full_is_told_until_there_is_room(world):
    settings = world.machine.settings
    settings |= {"net/netfilter/nf_conntrack_count": "90", "net/netfilter/nf_conntrack_max": "100"}
    world.server.publish(TWO)
    async with world.agent():
        await world.until_said("conntrack is nearly full, with 90% or more of the 100 flows that it may hold")
        settings["net/netfilter/nf_conntrack_max"] = "200"
        await world.until(lambda: world.server.reports[-1].error is None)


@scenario
async def test_a_port_that_is_renamed_is_closed_and_told_until_it_is_named_as_before(world):
    world.server.publish(TWO)
    async with world.agent():
        await world.until_applied(2)
        world.links.renamed["veth-app"] = "lan9"
        await world.until_said("the port 'veth-app' was renamed 'lan9', which the inventory does not name: nothing")
        await world.until(lambda: ("lan9",) in world.nftables.read().program.sets[PORTS].elements)
        world.links.renamed.clear()
        await world.until(lambda: world.server.reports[-1].error is None)
        await world.until(lambda: ("lan9",) not in world.nftables.read().program.sets[PORTS].elements)
        world.assert_holds(TWO)


@scenario
async def test_a_port_that_was_renamed_while_no_agent_ran_is_closed_unless_the_machine_booted_meanwhile(world):
    world.server.publish(TWO)
    async with world.agent():
        await world.until_applied(2)
    world.links.renamed["veth-app"] = "lan9"
    world.links.boots += 1
    async with world.agent():
        assert ("lan9",) not in world.nftables.read().program.sets[PORTS].elements
    world.links.renamed.clear()
    async with world.agent():
        await world.until_applied(2)
    world.links.renamed["veth-app"] = "lan9"
    async with world.agent(runs=False):
        assert ("lan9",) in world.nftables.read().program.sets[PORTS].elements


@scenario
async def test_a_port_that_is_renamed_to_what_the_inventory_gives_free_is_left_alone(world):
    world.server.publish(TWO)
    free = '[[instance]]\nname = "x"\n[[instance.interface]]\n'
    free += 'name = "lan9"\naddresses = ["10.0.0.9"]\nmanaged = false\n'
    world.write(BOTH + free.encode())
    async with world.agent():
        await world.until_applied(2)
        world.links.renamed["veth-app"] = "lan9"
        looked_at = world.links.looked_at
        await world.until(lambda: world.links.looked_at > looked_at + 1)
        assert ("lan9",) not in world.nftables.read().program.sets[PORTS].elements


@scenario
async def test_an_uplink_that_is_renamed_is_told_and_not_closed(world):
    world.write(BOTH.split(b"[[instance]]")[0] + b'kind = "self"\n[[instance]]' + BOTH.split(b"[[instance]]")[1])
    async with world.agent():
        await world.until(lambda: world.links.looked_at > 1)
        world.links.renamed["veth-web"] = "lan9"
        await world.until_said("which the inventory does not name: what crosses it is not judged")
        assert ("lan9",) not in world.nftables.read().program.sets[PORTS].elements


@scenario
async def test_an_instance_that_the_kernel_refuses_is_named_and_comes_back_by_itself_when_it_can(world):
    world.nftables.cursed.add(group_chain(APP, Direction.INGRESS))
    world.server.publish(TWO)
    async with world.agent():
        await world.until_said("instance 'app' stays closed: the kernel refused its rules")
        await world.until_applied(2)
        assert _reachable(world) == {"veth-web"}
        world.nftables.cursed.clear()
        await world.until(lambda: world.server.reports[-1].error is None)
        world.assert_holds(TWO)


@scenario
async def test_rules_that_another_program_flushed_are_closed_at_once_and_made_whole(world):
    world.server.publish(TWO)
    async with world.agent():
        await world.until_applied(2)
        before = len(world.nftables.commits)
        world.nftables.flush()
        await world.until(lambda: world.nftables.read_about() == About(2, "e1"))
        world.assert_holds(TWO)
    assert world.nftables.commits[before][2] == CLOSED


@scenario
async def test_a_line_that_another_program_deleted_is_mended(world):
    world.server.publish(TWO)
    async with world.agent():
        await world.until_applied(2)
        reads = world.nftables.reads
        world.nftables.intrude(FlushChain("leave"))
        await world.until(lambda: world.nftables.table.chains["leave"].lines)
        world.assert_holds(TWO)
        await world.until(
            lambda: "nft (pid 7) changed ringfence's own rules" in (world.server.reports[-1].notice or "")
        )
        assert world.nftables.reads == reads + 1, "only the test itself has read the whole table"


@scenario
async def test_a_change_of_which_no_notice_came_is_found_by_the_count(world):
    world.server.publish(TWO)
    async with world.agent():
        await world.until_applied(2)
        world.nftables.notices.deaf = True
        world.nftables.intrude(FlushChain("leave"))
        await world.until(lambda: world.nftables.table.chains["leave"].lines)
        world.assert_holds(TWO)


@scenario
async def test_when_notices_were_lost_the_whole_table_is_looked_at(world):
    world.server.publish(TWO)
    async with world.agent():
        await world.until_applied(2)
        world.nftables.notices.deaf = True
        world.nftables.intrude(FlushChain(GROUP_CHAIN))
        world.nftables.notices.lose()
        await world.until(lambda: world.nftables.table.chains[GROUP_CHAIN].lines)
        world.assert_holds(TWO)


@scenario
async def test_changes_in_others_tables_make_the_agent_read_nothing(world):
    world.server.publish(TWO)
    async with world.agent():
        await world.until_applied(2)
        reads, commits = world.nftables.reads, len(world.nftables.commits)
        for _ in range(100):
            world.nftables.changes += 1
            world.nftables.notices.tell(Touched(), world.nftables.changes)
            await world.until(lambda: True)
        passed = world.clock.monotonic()
        await world.until(lambda: world.clock.monotonic() > passed + 5)
        assert (world.nftables.reads, len(world.nftables.commits)) == (reads, commits)
    assert world.server.reports[-1].error is None


@scenario
async def test_a_table_that_cannot_be_looked_at_is_trusted_and_looked_at_again(world):
    world.server.publish(TWO)
    async with world.agent():
        await world.until_applied(2)
        read, commits = world.nftables.read, len(world.nftables.commits)
        world.nftables.read = lambda: _raise(OperatorError("read the kernel's rules", "it never stands still"))
        world.nftables.notices.lose()
        passed = world.clock.monotonic()
        await world.until(lambda: world.clock.monotonic() > passed + 5)
        assert len(world.nftables.commits) == commits
        world.nftables.read = read
        world.assert_holds(TWO)
    assert world.server.reports[-1].error is None


def _raise(error):
    raise error


@scenario
async def test_other_programs_chains_that_drop_are_read_when_the_kernel_tells_of_a_change_and_now_and_then(world):
    chain = ForeignChain("ip", "filter", "FORWARD", "forward", 0, policy_drops=True, drops=False)
    harmless = replace(chain, chain="INPUT", policy_drops=False)
    async with world.agent():
        await world.until(lambda: world.server.reports and world.server.reports[-1].foreign == ())
        world.nftables.foreign = [chain, harmless]
        sent = len(world.server.reports)
        await world.until(lambda: len(world.server.reports) > sent)
        assert world.server.reports[-1].foreign == ()
        world.nftables.notices.tell_of_others()
        await world.until(lambda: world.server.reports[-1].foreign == (chain,))
        world.nftables.foreign = []
        world.nftables.notices.lose()
        await world.until(lambda: world.server.reports[-1].foreign == ())
        world.nftables.foreign = [chain]  # of iptables-legacy, say, of which the kernel tells nothing
        world.clock.advance(300)
        await world.until(lambda: world.server.reports[-1].foreign == (chain,))


@scenario
async def test_tampering_is_told_for_a_while_and_then_forgotten(world):
    world.server.publish(TWO)
    async with world.agent():
        await world.until_applied(2)
        world.nftables.flush()
        await world.until(lambda: " ms, whole after " in (world.server.reports[-1].notice or ""))
        world.clock.advance(SHOWN_S)
        await world.until(lambda: world.server.reports[-1].notice is None)
    assert all(report.error is None for report in world.server.reports)


@scenario
async def test_a_full_disk_stops_no_change_and_is_reported(world):
    async with world.agent():
        world.files.broken.add(FOLDER / "view.json")
        world.server.publish(TWO)
        await world.until_said("Input/output error")
        assert world.server.reports[-1].applied == 2
        world.assert_holds(TWO)
        world.files.broken.clear()
        await world.until(lambda: world.server.reports[-1].error is None)
        assert world.cache.load_view().view == TWO


@pytest.mark.parametrize(
    ("door", "path"),
    [("append", FOLDER / "flows.jsonl"), ("stamp", FILE), ("replace", FOLDER / "view.json")],
    ids=["flow log", "inventory", "folder"],
)
def test_a_disk_that_hangs_holds_up_no_change_and_is_told(door, path, monkeypatch):
    monkeypatch.setattr("ringfence.agent.loop.SLOW_DISK_S", 0.05)
    answers = Event()

    async def scenario(world):
        world.packets.names = {7: "veth-web"}
        do = getattr(world.files, door)

        def hang(asked, *given, **named):
            if asked == path:
                answers.wait(10)
            return do(asked, *given, **named)

        async with world.agent():
            world.server.publish(ONE)
            await world.until_applied(1)
            monkeypatch.setattr(world.files, door, hang)
            packet = Packet(ip_address("198.51.100.10"), ENDS["web"].addresses[0], 6, destination_port=22)
            world.packets.tell(Told(log_prefix(Refusal.DENIED_IN, Fate.DROP), 7, leaves=False, packet=packet))
            world.server.publish(TWO)
            await world.until_applied(2)
            world.assert_holds(TWO)
            if door != "append":
                await world.until_said("disk has not answered")
            await world.until(lambda: world.server.flow_reports)
            later = replace(ONE, revision=3)
            world.server.publish(later)
            await world.until_applied(3)
            kept = {
                "append": lambda: world.files.contents.get(FOLDER / "flows.jsonl"),
                "replace": lambda: (found := world.cache.load_view()) and found.view == later,
            }
            for what, is_kept in kept.items():
                if what != door:  # which may be on another disk
                    await world.until(is_kept)
            answers.set()
            await world.until(lambda: world.server.reports[-1].error is None)
            for is_kept in kept.values():
                await world.until(is_kept)

    asyncio.run(scenario(World()))


@scenario
async def test_what_is_known_of_rules_counters_hinders_no_rule_when_it_cannot_be_read(world):
    world.files.broken.add(FOLDER / "counters.json")
    world.server.publish(ONE)
    async with world.agent():
        await world.until_applied(1)
        world.assert_holds(ONE)
        world.files.broken.clear()


@scenario
async def test_counters_that_cannot_be_kept_are_reported_and_sent_all_the_same(world):
    world.server.publish(ONE)
    async with world.agent():
        await world.until_applied(1)
        world.files.broken.add(FOLDER / "counters.json")
        world.clock.advance(60)
        await world.until_said("totals of rules that were kept before")
        world.nftables.hits = {rule_counter(RULES[WEB][0].id): 5}
        await world.until(lambda: any(count.judged == 5 for count in world.server.counts.values()), step_s=1)
        world.files.broken.clear()
        await world.until(lambda: world.server.reports[-1].error is None, step_s=1)


@scenario
async def test_old_flows_that_cannot_be_swept_are_reported_and_stop_nothing(world):
    world.conntrack.refusal = "Operation not supported"
    world.server.publish(TWO)
    async with world.agent():
        await world.until_applied(2)
        await world.until_said("Operation not supported")
        await world.until_applied(2)
        world.assert_holds(TWO)


@scenario
async def test_a_fault_of_ours_ends_nothing(world):
    world.server.publish(ONE)
    async with world.agent():
        await world.until_applied(1)
        world.links.names = lambda: 1 / 0
        world.write(inventory("web"))
        world.server.publish(TWO)
        await world.until_applied(2)


UPLINK = b'[[instance]]\nname = "h1"\ninterface = "eth0"\naddresses = ["192.0.2.1"]\n'
SAFE = b'[[failsafe]]\nport = 22\nprotocol = "tcp"\nsources = ["192.0.2.0/24"]\n'
ITSELF = b'host = "h1"\nkind = "self"\n' + UPLINK + SAFE


def _channel_lines(world):
    lines = world.nftables.table.chains["lifeline_out"].lines
    return {
        str(part.network.network_address)
        for line in lines
        for part in line.parts
        if isinstance(part, Within) and part.network.num_addresses == 1
    }


@scenario
async def test_a_self_host_is_never_cut_off_from_its_server_wherever_that_moves(world):
    """Before the first view, after a restart without a name server, and at its new address as soon as it has one."""
    world.write(ITSELF)
    world.place = ServerPlace("rf.example", 8443)
    world.names.known["rf.example"] = frozenset({ip_address("203.0.113.1")})
    world.server.down = True
    async with world.agent() as agent:
        assert _channel_lines(world) == {"203.0.113.1"}
        world.names.known["rf.example"] = frozenset({ip_address("203.0.113.2")})
        await world.until(lambda: _channel_lines(world) == {"203.0.113.1", "203.0.113.2"})
        del world.names.known["rf.example"]
        await world.until(lambda: "channel" in agent.standing.problems)
    world.nftables = FakeNftables()
    async with world.agent(runs=False):
        assert _channel_lines(world) == {"203.0.113.1", "203.0.113.2"}


@scenario
async def test_only_a_host_that_filters_itself_asks_where_its_server_is(world):
    world.place = ServerPlace("rf.example", 8443)
    async with world.agent(runs=False) as agent:
        assert not agent.standing.problems


BRIDGED = b'kind = "bridged"\n' + BOTH.replace(b"[[instance]]\n", b'[[instance]]\nmac = "02:00:00:00:00:0%d"\n')
BRIDGED = BRIDGED.replace(b"%d", b"1", 1).replace(b"%d", b"2", 1)


@scenario
async def test_br_netfilter_is_switched_on_for_bridged_ports_and_again_when_somebody_switches_it_off(world):
    world.write(BRIDGED)
    world.bridging.on = False
    async with world.agent():
        world.server.publish(TWO)
        await world.until_applied(2)
        assert world.bridging.on
        world.bridging.on = False
        await world.until(lambda: world.bridging.on)


@scenario
async def test_where_bridges_cannot_be_filtered_nothing_is_claimed_to_be_enforced_and_every_port_is_closed(world):
    world.write(BRIDGED)
    async with world.agent():
        world.server.publish(TWO)
        await world.until_applied(2)
        opened = world.nftables.table.program
        world.bridging.on, world.bridging.refusal = False, "this kernel has no br_netfilter here"
        await world.until_said("nothing can be enforced at a bridge, and every port under our care is closed")
        assert world.server.reports[-1].applied is None
        assert world.nftables.table.program.sets[FRAME_PROGRAMMED].elements == frozenset()
        world.bridging.refusal = None
        await world.until_applied(2)
        assert world.nftables.table.program == opened


@scenario
async def test_an_inventory_may_go_from_routed_to_bridged_ports_and_back(world):
    async with world.agent():
        world.server.publish(TWO)
        await world.until_applied(2)
        routed = world.nftables.table.program
        world.write(BRIDGED)
        await world.until(lambda: FRAME_PROGRAMMED in world.nftables.table.program.sets)
        await world.until(lambda: world.nftables.table.program.sets[FRAME_PROGRAMMED].elements)
        world.write(BOTH)
        await world.until(lambda: world.nftables.table.program == routed)


def _of_uplink(revision, *, observe):
    declared = declared_endpoints(parse_inventory(ITSELF, file="test"))[0]
    return view(revision, replace(declared, observe=observe), rules={})


def _is_observed(world):
    return ("eth0",) in world.nftables.table.sets["observed"].elements


@scenario
async def test_an_uplink_is_observed_until_a_view_says_otherwise_and_then_as_it_said_last(world):
    """A host that nobody filtered yet is not cut off by an agent that finds no server; one that is, is not opened."""
    world.write(ITSELF)
    world.server.down = True
    for _ in range(2):  # the second finds the table of the first in the kernel
        async with world.agent(runs=False):
            assert _is_observed(world)
    world.server.down = False
    async with world.agent():
        for revision, observe in ((1, True), (2, False)):
            world.server.publish(_of_uplink(revision, observe=observe))
            await world.until_applied(revision)
            assert _is_observed(world) == observe
        world.server.publish(view(3))
        await world.until_applied(3)
        assert not _is_observed(world)
    world.files.contents.clear()
    world.write(ITSELF)
    world.server.down = True
    async with world.agent(runs=False):
        assert not _is_observed(world), "the kernel's rules are of a view, though that is lost"


@scenario
async def test_a_host_whose_kept_view_was_enforced_is_enforced_from_the_first_moment(world):
    world.write(ITSELF)
    world.server.publish(_of_uplink(1, observe=False))
    async with world.agent():
        await world.until_applied(1)
    world.server.down = True
    for lost in ((), (FOLDER / "view.json",)):
        world.nftables = FakeNftables()
        for path in lost:
            world.files.remove(path)
        async with world.agent(runs=False):
            assert not _is_observed(world), f"without {lost}"
        assert not any(("eth0",) in shape.elements for shape in _sets_of_commits(world, "observed"))


def _sets_of_commits(world, name):
    """What the set held in each transaction that filled it."""
    steps = (step for steps, *_ in world.nftables.commits for step in steps)
    return [
        NamedSet((), frozenset(step.elements)) for step in steps if isinstance(step, AddElements) and step.set == name
    ]


@scenario
async def test_what_rules_counted_is_told_and_a_restarted_agent_goes_on_from_it(world):
    rule = RULES[WEB][0].id
    async with world.agent():
        world.server.publish(TWO)
        await world.until_applied(2)
        world.nftables.hits = {rule_counter(rule): 3}
        await world.until(lambda: rule in world.server.counts and world.server.counts[rule].judged == 3)
    world.nftables.hits = {rule_counter(rule): 5}
    async with world.agent():
        await world.until(lambda: world.server.counts[rule].judged == 5)


@scenario
async def test_allowed_connections_are_told_of_and_counted_by_rule_once_the_inventory_asks_for_it(world):
    rule, web, source = RULES[WEB][0].id, ENDS["web"].addresses[0].packed, ip_address("192.0.2.1").packed
    ways = Way(source, web, 4000, 80), Way(web, source, 80, 4000)
    world.connections = FakeConnections()
    world.write(inventory("web", "app", managed='managed = ["veth*"]\nflow_log = "all"\n'))
    async with world.agent():
        world.server.publish(TWO)
        await world.until_applied(2)
        world.connections.tell(*(Connection(ended=False, protocol=6, original=ways[0], reply=ways[1]),) * (BURST + 7))
        await world.until(lambda: rule in world.server.counts and world.server.counts[rule].connections == BURST + 7)
        told = [record for report in world.server.flow_reports for record in report.records]
        assert {(record.rule, record.instance) for record in told[:BURST]} == {(rule, ENDS["web"].instance)}
        await world.until(
            lambda: any(one.packets == 7 for report in world.server.flow_reports for one in report.records)
        )


@scenario
async def test_a_refused_packet_is_told_of_by_the_view_in_force(world):
    world.packets = FakePackets(**{"veth-web": 7})
    async with world.agent():
        world.server.publish(TWO)
        await world.until_applied(2)
        await world.until(lambda: world.nftables.tally_reads > 1)  # and what the first said is taken note of
        packet = Packet(ip_address("192.0.2.1"), ENDS["web"].addresses[0], 6, source_port=1, destination_port=22)
        world.packets.tell(Told(log_prefix(Refusal.DENIED_IN, Fate.DROP), 7, leaves=False, packet=packet))
        await world.until(lambda: world.server.flow_reports)
        [record] = world.server.flow_reports[0].records
        assert (record.instance, record.reason) == (ENDS["web"].instance, "default ingress")
        world.nftables.tallies = {(DROPS, "veth-web"): 401}
        await world.until(lambda: len(world.server.flow_reports) > 1)
        [record] = world.server.flow_reports[1].records
        assert (record.instance, record.reason, record.packets) == (ENDS["web"].instance, "rate limit", 400)
