"""No change blinks: while policies change, nothing denied by both the old and the new passes, nothing allowed is lost.

The flood is of packets that open flows, each judged by the whole rules. What may pass is fixed; by which rule, member
or source it may is what changes, so that every change hands flows over from one to another.
"""

import random
import select
from contextlib import closing
from copy import copy
from dataclasses import dataclass, field
from itertools import cycle, islice
from multiprocessing import get_context

import pytest

import flooder
from counts import FULL, count
from flooder import build_flooder, forgetting
from lab import Lab, Way
from policies import group
from ringfence.agent.doors.conntrack import KernelConntrack
from ringfence.policy.values import Kind
from ringfence.world.frames import octets_of_mac
from ringfence.world.packets import ETHERTYPE, tag_of

pytestmark = [pytest.mark.netns, pytest.mark.full]
KINDS = (Kind.ROUTED, Kind.BRIDGED) if FULL else (Kind.ROUTED,)

CHANGES = count(reduced=150, stated=1500)
EXCHANGES = count(reduced=60, stated=600)
_VOLLEY = 40  # packets between two readings of the taps, far below what a tap's buffer holds
_QUIET_S = 0.05  # nothing arrived for so long: nothing is under way any more
_FLOWS = 500  # of every kind
_FORGET_AFTER = 20_000  # packets, so that conntrack's table does not fill
COVERING = {
    4: ("198.51.100.0/24", "198.51.100.8/29", "198.51.0.0/16"),
    6: ("2001:db8::/64", "2001:db8::/123", "2001:db8::10/128"),
}
ELSEWHERE = (
    "203.0.113.0/24",
    "192.0.2.0/25",
    "198.51.101.0/24",
    "2001:db8:b::/48",
    "2001:db8:0:1::/64",
    "10.99.0.0/16",
)
GIVERS = ("s1", "s2", "s3")
STRANGERS = ("t1", "t2")


@dataclass
class Policy:
    """What may change. Whatever is drawn, the same packets may pass."""

    rng: random.Random
    by_source: list = field(default_factory=list)
    by_member: list = field(default_factory=list)
    sources: dict = field(default_factory=dict)
    noise: list = field(default_factory=list)
    extra: list = field(default_factory=list)
    leaving: list = field(default_factory=list)

    def __post_init__(self):
        for aspect in (*GIVERS, *STRANGERS, "by_source", "by_member", "noise", "extra", "leaving"):
            self.change(aspect)

    def change(self, aspect=None):
        """Draw one aspect anew; or who lets the flood pass, and up to two others."""
        others = (*GIVERS, *STRANGERS, "by_member", "noise", "extra", "leaving")
        for one in [aspect] if aspect else ["by_source", *self.rng.sample(others, self.rng.randrange(3))]:
            self._draw(one)

    def as_it_is(self):
        other = copy(self)
        other.by_source, other.sources = [*self.by_source], dict(self.sources)
        return other

    def _draw(self, aspect):
        rng = self.rng
        others = rng.sample(ELSEWHERE, rng.randrange(4))
        match aspect:
            case "by_source":
                self.by_source = rng.sample(("network", *GIVERS), rng.choice((1, 1, 2)))
            case "by_member":
                self.by_member = rng.sample(("network", "m1", "m2"), rng.randrange(1, 3))
            case "noise":
                near = [f"ingress udp/{port} from 0.0.0.0/0" for port in ("3999", "4001-4100", "1-999")]
                near += [f"ingress udp/4000 from group {name}" for name in STRANGERS]
                self.noise = rng.sample(
                    [*near, "ingress tcp from 0.0.0.0/0", "ingress udp/4000 from 203.0.113.0/24"], 3
                )
            case "extra":
                self.extra = rng.sample(("e1", "e2", "e3"), rng.randrange(4))
            case "leaving":
                self.leaving = rng.sample(
                    ("egress tcp to 0.0.0.0/0", "egress udp/5000 to group t1", "egress esp to ::/0"), 2
                )
            case name if name in STRANGERS:
                self.sources[name] = others
            case name:
                self.sources[name] = [rng.choice(COVERING[4]), rng.choice(COVERING[6]), *others]

    def enforce(self, lab):
        given = _grant("2000", self.by_source, ("198.51.100.10/32", "2001:db8::10/128"))
        served = _grant("3000", self.by_member, ("10.77.0.2/32", "fd77::2/128"))
        always = [f"ingress udp/1000 from {everybody}" for everybody in ("0.0.0.0/0", "::/0")]
        members = [name for name in self.by_member if name != "network"]
        lab.enforce(
            group("web", *always, *given, *self.noise),
            group("db", *served, "ingress udp/6000 from group m1"),
            group("out", "egress udp/3000 to 10.77.0.0/24", "egress udp/3000 to fd77::/64", *self.leaving),
            *(group(name, *(f"source {text}" for text in sources)) for name, sources in self.sources.items()),
            *(group(name) for name in ("m1", "m2")),
            *(group(f"e{number}", f"ingress udp/{7000 + number} from group s{number}") for number in (1, 2, 3)),
            lab.instance("web", "web", *self.extra),
            lab.instance("app", "out", *members),
            lab.instance("db", "db"),
        )


def _grant(port, ways, networks):
    for way in ways:
        for peer in networks if way == "network" else (f"group {way}",):
            yield f"ingress udp/{port} from {peer}"


def _kinds(lab):
    """Ways that every policy allows, and ways that none does; those that change hands are the most."""
    changing = [lab.udp("outside", "web", 2000, family) for family in (4, 6)]
    allowed = [*changing, lab.udp("outside", "web", 1000), *(lab.udp("app", "db", 3000, family) for family in (4, 6))]
    denied = [lab.udp("outside", "web", 4000, family) for family in (4, 6)]
    denied += [lab.udp("outside", "db", 6000), lab.udp("app", "outside", 5000)]
    denied.append(lab.udp("db", "web", 1000).again(source=lab.address("app", 4)))
    return [*changing * 3, *allowed], denied


class Flood:
    """Packets of fixed kinds, as fast as they go, counted by kind where they arrive: in a process of its own.

    It shares no lock with the process that changes the rules, so that it sends at every moment of a change.
    """

    def __init__(self, lab: Lab, ways: list[Way], *, allowed: int) -> None:
        self._allowed = allowed  # the first so many kinds
        self._missed = 0
        self._taps = lab.range.taps
        self._conntrack = lab.world.router.run(KernelConntrack)
        self._kinds = len(ways)
        frames = [
            (kind, self._taps[way.source].socket, _frame(lab, way.again(source_port=port), kind))
            for port in range(20000, 20000 + _FLOWS)
            for kind, way in enumerate(ways)
        ]
        self._shots = cycle(frames)
        fork = get_context("fork")
        self._started, self._over = fork.Event(), fork.Event()
        self._results, results = fork.Pipe(duplex=False)
        self._process = fork.Process(target=self._run, args=(results,), daemon=True)
        self._process.start()
        results.close()
        assert self._started.wait(10)

    def finish(self) -> tuple[list[int], list[int]]:
        """How many of each kind were sent, and how many arrived."""
        self._over.set()
        sent, arrived = self._results.recv()
        self._process.join()
        self._conntrack.close()
        return sent, arrived

    def _run(self, results) -> None:
        sent, arrived = [0] * self._kinds, [0] * self._kinds
        while not self._over.is_set():
            for _ in range(0, _FORGET_AFTER, _VOLLEY):
                for kind, opened, frame in islice(self._shots, _VOLLEY):
                    opened.send(frame)
                    sent[kind] += 1
                self._wait_for_arrivals(sent, arrived)
                self._started.set()
                if self._over.is_set():
                    break
            self._conntrack.delete(0, 1)
        while self._hear():
            self._count(arrived)
        results.send((sent, arrived))

    def _wait_for_arrivals(self, sent, arrived) -> None:
        """A busy machine must not fill a queue. What does not come in good time counts as lost, and is not awaited."""
        while (missing := sum(sent[: self._allowed]) - sum(arrived[: self._allowed])) > self._missed:
            if not self._hear():
                self._missed = missing
            self._count(arrived)

    def _hear(self) -> bool:
        return bool(select.select([tap.socket for tap in self._taps.values()], [], [], _QUIET_S)[0])

    def _count(self, arrived) -> None:
        for tap in self._taps.values():
            for packet in tap.take_packets():
                if (tag := tag_of(packet)) is not None:
                    arrived[tag] += 1


def _frame(lab, way, kind):
    addresses = octets_of_mac(lab.receiver(way)) + octets_of_mac(lab.range.taps[way.source].mac)
    return addresses + ETHERTYPE[way.packet.family].to_bytes(2, "big") + way.octets(kind)


def test_a_flood_of_new_flows_sees_no_blink_through_random_changes(lab, record_property):
    policy = Policy(random.Random(20260824))
    policy.enforce(lab)
    allowed, denied = _kinds(lab)
    flood = Flood(lab, [*allowed, *denied], allowed=len(allowed))
    late = 0
    for _ in range(CHANGES):
        before = policy.as_it_is()
        policy.change()
        if policy.rng.random() < 0.5:  # the new rules come, as elements, before the old ones go
            before.by_source += [way for way in policy.by_source if way not in before.by_source]
            lab.settles = policy.rng.random() < 0.5
            before.enforce(lab)
            late += lab.holds_late
            lab.settles = True
        policy.enforce(lab)
    sent, arrived = flood.finish()
    passed = sum(arrived[len(allowed) :])
    lost = sum(sent[: len(allowed)]) - sum(arrived[: len(allowed)])
    record_property(f"packets through {CHANGES} changes", f"{sum(sent)}, {passed} denied passed, {lost} allowed lost")
    assert (passed, lost) == (0, 0), f"sent {sent}, arrived {arrived}"
    assert min(sent) > CHANGES
    assert late > CHANGES / 40, "hardly ever was a rule an element"


def _exchange(lab, turn):
    """One group lets the flood pass and the other does not; which of them its sender is in changes at the same time."""
    worn, other = ("m1", "m2")[turn % 2], ("m2", "m1")[turn % 2]
    before = [f"ingress udp/{10_000 + number} from group m1" for number in range(60)]  # a packet is long on its way
    lab.enforce(
        group("out", "egress udp to 0.0.0.0/0"),
        group("db", *before, f"ingress udp/3000 from group {worn}", f"ingress udp/6000 from group {other}"),
        *(group(name) for name in ("m1", "m2")),
        lab.instance("app", "out", worn),
        lab.instance("web", "m1", "m2"),
        lab.instance("db", "db"),
    )


def test_members_and_rules_that_change_at_once_are_never_seen_mixed(lab, record_property):
    """A packet under way finds new members by old lines: in one transaction some 50 of 300 changes would show it."""
    _exchange(lab, 0)
    flood = Flood(lab, [lab.udp("app", "db", 3000), lab.udp("app", "db", 6000)], allowed=1)
    for turn in range(1, EXCHANGES + 1):
        _exchange(lab, turn)
    sent, arrived = flood.finish()
    record_property(f"packets through {EXCHANGES} exchanges", f"{sent}, arrived {arrived}")
    assert arrived == [sent[0], 0]
    assert min(sent) > EXCHANGES


@pytest.mark.kind(Kind.ROUTED, Kind.BRIDGED)
def test_an_instance_that_comes_or_goes_is_at_no_hook_taken_for_a_stranger(lab, tmp_path, record_property):
    """In one transaction a packet between two hooks met a gate that was open and rules that did not know the port."""
    ways = [lab.udp("web", "app", 10_000), lab.udp("outside", "db", 2000), lab.udp("db", "outside", 2000)]
    ways = list(map(lab.addressed, ways))

    def take_turns(turn):
        lab.enforce(
            group("out", "egress udp/10000 to 0.0.0.0/0"),
            group("in", "ingress udp/10000 from 0.0.0.0/0"),
            *(lab.instance(name, "out", "in") for name in ("web", "app", *(["db"] if turn % 2 else []))),
        )

    take_turns(0)
    with closing(flooder.Flood(build_flooder(tmp_path), lab.world, ways, allowed=1)) as flood:
        with forgetting(lab.conntrack):
            for turn in range(1, EXCHANGES + 1):
                take_turns(turn)
        over = flood.finish()
    told = f"{over.sent}, {flood.passed(over)} denied passed, {flood.lost(over)} allowed lost"
    record_property(f"packets while an instance came or went {EXCHANGES} times", told)
    assert (flood.passed(over), flood.lost(over)) == (0, 0), f"{over}"
    assert min(over.sent) > EXCHANGES
