"""The whole agent never blinks: killed, started again, refused and tampered with, while interfaces come and go.

A flood of allowed and of denied packets runs through it all, from before one of its instances has an interface. Not one
denied packet may pass, and not one may be lost that was allowed before and after.
"""

import random
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from itertools import count as count_up

import pytest

from counts import FULL, count
from flooder import Flood, build_flooder, forgetting
from lab import BRIDGED_NODES, HOST_ADDRESSES, NODES, Lab
from ringfence.agent.doors.netlink import NetlinkSocket
from ringfence.agent.doors.nftables import KernelNftables
from ringfence.nft import Generation, encode_removal
from ringfence.policy.errors import OperatorError
from ringfence.policy.program.names import group_chain
from ringfence.policy.program.steps import AddChain, FlushChain
from ringfence.policy.values import Direction, Kind
from ringfence.world.topology import build_world
from stack import start_stack
from waiting import wait_until

pytestmark = [pytest.mark.netns, pytest.mark.full]
KINDS = (Kind.ROUTED, Kind.BRIDGED) if FULL else (Kind.ROUTED,)

CHANGES = count(reduced=40, stated=400)
KILLS = count(reduced=2, stated=15)
RESTARTS = count(reduced=1, stated=5)
REFUSALS = count(reduced=1, stated=10)
NEARBY = ("udp/3999", "udp/4001-4100", "tcp", "icmp/8/0")  # what is opened around what stays shut
PEERS = {
    "web": (("group", "giver"), ("network", "198.51.100.10/32"), ("network", "198.51.0.0/16")),
    "db": (("group", "members"), ("network", "10.77.0.2/32")),
}
SETTLED_S = 30.0


class Policy:
    """What changes, by the API. Whatever is drawn: the same packets may pass, before, after and in between."""

    def __init__(self, stack, rng):
        self.stack = stack
        self.rng = rng
        self.instances = {name: str(id_) for name, id_ in stack.api.instances().items()}
        self.groups = {name: self._group(name) for name in ("web", "db", "out", "giver", "members", "extra", "late")}
        for name, instance in (("web", "web"), ("db", "db"), ("out", "app"), ("members", "app"), ("late", "vacant")):
            self.attach(name, instance)
        self.source("add", "giver", "198.51.100.0/28")
        for network in ("0.0.0.0/0", "::/0"):
            self.allow("web", "udp/1000", network=network)
        self.allow("out", "udp/3000", "egress", network="10.77.0.0/24")
        self.allow("extra", "udp/7000", network="0.0.0.0/0")
        self.allow("late", "udp/22", network="203.0.113.0/24")
        self.grants = {name: self._grant(name, peers[0]) for name, peers in PEERS.items()}
        self.noise = {}
        self.ports = count_up(100)
        self.is_extra_worn = self.has_source = False

    def change(self):
        """One random change, of one or two calls."""
        match self.rng.randrange(6):
            case 0 | 1:
                self._hand_over(self.rng.choice(("web", "db")))
            case 2:
                self._draw_noise()
            case 3:
                self.attach("extra", "web", "detach" if self.is_extra_worn else "attach")
                self.is_extra_worn = not self.is_extra_worn
            case 4:
                self.source("remove" if self.has_source else "add", "giver", "203.0.113.0/25")
                self.has_source = not self.has_source
            case _:
                self.allow("late", f"udp/{next(self.ports)}", network="192.0.2.0/24")

    def _hand_over(self, name):
        """Another rule lets the same packets pass; the old one goes only after it came."""
        old, path = self.grants[name]
        self.grants[name] = self._grant(name, self.rng.choice([peer for peer in PEERS[name] if peer != old]))
        self.stack.call("DELETE", path)

    def _grant(self, name, peer):
        kind, what = peer
        return peer, self.allow(name, "udp/2000" if name == "web" else "udp/3000", **{kind: what})

    def _draw_noise(self):
        name, what = drawn = self.rng.choice(("web", "db")), self.rng.choice(NEARBY)
        if drawn in self.noise:
            self.stack.call("DELETE", self.noise.pop(drawn))
        else:
            self.noise[drawn] = self.allow(name, what, network="0.0.0.0/0")

    def allow(self, name, what, direction="ingress", *, network=None, group=None):
        """A new rule; its path."""
        protocol, *numbers = what.split("/")
        rule = {"flow-direction": direction, "protocol": protocol}
        rule |= {"network": network} if network else {"security-group": {"id": self.groups[group]}}
        if protocol == "icmp":
            rule["icmp"] = {"type": int(numbers[0]), "code": int(numbers[1])}
        elif numbers:
            first, _, last = numbers[0].partition("-")
            rule |= {"start-port": int(first), "end-port": int(last or first)}
        before = {known["id"] for known in self._rules(name)}
        self.stack.call("POST", f"/security-group/{self.groups[name]}/rules", rule)
        (added,) = {known["id"] for known in self._rules(name)} - before
        return f"/security-group/{self.groups[name]}/rules/{added}"

    def attach(self, name, instance, verb="attach"):
        body = {"instance": {"id": self.instances[instance]}}
        self.stack.call("PUT", f"/security-group/{self.groups[name]}:{verb}", body)

    def source(self, verb, name, cidr):
        self.stack.call("PUT", f"/security-group/{self.groups[name]}:{verb}-source", {"cidr": cidr})

    def _group(self, name):
        return str(self.stack.api.create_group(name, ""))

    def _rules(self, name):
        return self.stack.read(f"/security-group/{self.groups[name]}").get("rules", [])


@pytest.fixture(scope="module")
def lab(request):
    """Instances alone are on the bridge: what is for a port that is not there would be flooded to others."""
    nodes = [node for node in BRIDGED_NODES if node.managed or not node.bridged]
    nodes = nodes if getattr(request, "param", Kind.ROUTED) is Kind.BRIDGED else NODES
    with closing(Lab(build_world(nodes, router_addresses=HOST_ADDRESSES, mute=True))) as opened:
        yield opened


@pytest.fixture
def stack(lab):
    started = start_stack(lab.world)
    yield started
    started.close()


@pytest.fixture
def program(tmp_path):
    return build_flooder(tmp_path)


def _ways(lab):
    """What every policy allows, and what none does. ``vacant``'s port comes and goes, so nothing of it is allowed."""
    allowed = [lab.udp("outside", "web", 2000), lab.udp("outside", "web", 1000), lab.udp("outside", "web", 1000, 6)]
    allowed.append(lab.udp("app", "db", 3000))
    denied = [lab.udp("outside", "web", 4000, family) for family in (4, 6)]
    denied += [lab.udp("outside", "db", 6000), lab.udp("app", "outside", 5000), lab.udp("outside", "vacant", 2000)]
    denied.append(lab.udp("vacant", "web", 1000).again(source=lab.address("app", 4)))  # spoofed
    denied.append(lab.udp("vacant", "db", 3000))
    return list(map(lab.addressed, allowed)), list(map(lab.addressed, denied))


# A child dies with the thread that started it (prctl(2), PR_SET_PDEATHSIG): this one lasts as long as the tests.
_HAND = ThreadPoolExecutor(1)


@contextmanager
def _at_a_random_moment(rng, work):
    """``work`` happens in another thread, somewhere in the body or shortly after it began."""
    delay_s = rng.uniform(0, 0.02)

    def run():
        time.sleep(delay_s)
        work()

    done = _HAND.submit(run)
    yield
    done.result()


def _crash(stack):
    stack.agent.kill()
    stack.start_agent()


def _restart(stack):
    stack.agent.stop()
    stack.start_agent()


@contextmanager
def _in_the_way(lab, policy):
    """Somebody makes the very chain that the agent is about to make, again and again: its transactions are refused."""
    chain = group_chain(policy.stack.api.create_group(f"refused-{policy.rng.random()}", ""), Direction.INGRESS)
    policy.groups["refused"] = _id_in(chain)
    over = threading.Event()
    with closing(lab.world.router.run(KernelNftables)) as vandal:

        def run():
            while not over.is_set():
                _make(vandal, chain)

        thread = threading.Thread(target=run)
        thread.start()
        timer = threading.Timer(0.1, over.set)
        timer.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            timer.cancel()


def _make(vandal, chain):
    with suppress(OperatorError):  # it is there, or the agent was quicker
        vandal.commit((AddChain(chain, None),), generation=Generation(1), about=None)


def _id_in(chain):
    hexadecimal = chain.split("_")[1]
    return "-".join((hexadecimal[:8], hexadecimal[8:12], hexadecimal[12:16], hexadecimal[16:20], hexadecimal[20:]))


def _events(rng):
    """Which change goes with what, spread over all of them."""
    kinds = ["crash"] * KILLS + ["restart"] * RESTARTS + ["refusal"] * REFUSALS + ["replug"] * (CHANGES // 10)
    kinds += [None] * (CHANGES - len(kinds))
    rng.shuffle(kinds)
    return kinds


def _change(event, lab, policy):
    match event:
        case "crash":
            with _at_a_random_moment(policy.rng, lambda: _crash(policy.stack)):
                policy.change()
        case "restart":
            with _at_a_random_moment(policy.rng, lambda: _restart(policy.stack)):
                policy.change()
        case "replug":
            lab.world.pull("vacant")
            with _at_a_random_moment(policy.rng, lambda: lab.world.push("vacant")):
                policy.change()
        case "refusal":
            with _in_the_way(lab, policy):
                policy.allow("refused", "udp/7777", network="192.0.2.0/24")
                policy.attach("refused", "web")
            policy.attach("refused", "web", "detach")
        case _:
            policy.change()


def test_nothing_blinks_while_the_agent_is_killed_refused_and_interfered_with(lab, stack, program, record_property):
    rng = random.Random(20261125)
    policy = Policy(stack, rng)
    allowed, denied = _ways(lab)
    lab.world.pull("vacant")
    with closing(Flood(program, lab.world, [*allowed, *denied], allowed=len(allowed))) as flood:
        began = flood.counts
        lab.world.push("vacant")
        with forgetting(lab.conntrack):
            for event in _events(rng):
                _change(event, lab, policy)
        over = flood.finish()
    rate = (sum(over.sent) - sum(began.sent)) / (over.at - began.at)
    told = f"{sum(over.sent)} packets at {rate:.0f}/s through {CHANGES} changes, {KILLS} kill -9, {RESTARTS} restarts,"
    told += f" {REFUSALS} times refused: {flood.passed(over)} denied passed, {flood.lost(over)} allowed lost"
    record_property("blink", told)
    assert (flood.passed(over), flood.lost(over)) == (0, 0), f"{over}"
    assert min(over.sent) > CHANGES


def _boot(lab, stack):
    folder = stack.workshop.folder
    command = [sys.executable, "-m", "ringfence", "boot", "--data", str(folder / "agent")]
    command += ["--inventory", str(folder / "inventory.toml")]
    lab.world.router.run(lambda: subprocess.run(command, check=True, capture_output=True))  # noqa: S603  our own program


@pytest.mark.parametrize(
    "kept",
    [
        pytest.param(True, id="with the last policy"),
        pytest.param(False, id="without", marks=pytest.mark.long),
    ],
)
def test_between_boot_and_the_agents_start_nothing_passes_but_what_the_last_policy_allows(lab, stack, program, kept):
    Policy(stack, random.Random(1))
    view = stack.workshop.folder / "agent" / "view.json"
    stack.agent.stop()
    if not kept:
        view.unlink()
    ports = ("web", "app", "db", "vacant")
    for name in ports:
        lab.world.pull(name)
    with closing(lab.world.router.run(NetlinkSocket)) as reboot:
        reboot.request(encode_removal().data)
    _boot(lab, stack)
    allowed, denied = _ways(lab)
    with closing(
        Flood(program, lab.world, [lab.addressed(lab.udp("outside", "beyond", 9)), *denied, *allowed], allowed=1)
    ) as flood:
        for name in ports:
            lab.world.push(name)

        def passed():
            return flood.counts.arrived[1 : 1 + len(denied)], any(flood.counts.arrived[1 + len(denied) :])

        _let_pass(flood, 20_000)
        assert passed() == ((0,) * len(denied), kept)
        stack.start_agent()
        wait_until(lambda: passed()[1], SETTLED_S)
        _let_pass(flood, 20_000)
        assert passed() == ((0,) * len(denied), True)


def _let_pass(flood, packets):
    sent = sum(flood.counts.sent)
    wait_until(lambda: sum(flood.counts.sent) > sent + packets, SETTLED_S)


def test_the_flood_sees_a_moment_in_which_the_rules_are_gone(lab, stack, program):
    """That the test above can fail: one chain is flushed until it shows, and the agent mends it as fast as it can."""
    policy = Policy(stack, random.Random(1))
    allowed, denied = _ways(lab)
    assert policy.grants
    with closing(Flood(program, lab.world, [*allowed, *denied], allowed=len(allowed))) as flood:
        with closing(lab.world.router.run(KernelNftables)) as vandal:

            def flush_and_look():
                """Often the agent is there before a packet is."""
                vandal.commit((FlushChain("arrive"),), generation=Generation(1), about=None)
                return flood.passed(flood.counts) > 0

            wait_until(flush_and_look)
        wait_until(lambda: lab.nftables.read().program.chains["arrive"].lines, SETTLED_S)
        after = flood.passed(flood.counts)
        _let_pass(flood, 10_000)
        assert flood.passed(flood.counts) == after
    assert "changed ringfence's own rules" in stack.agent.log_end()
