"""A change that takes a live flow's permission away cuts it by the very next packet, in either direction; no other."""

import statistics
import time
from contextlib import closing
from dataclasses import replace

import pytest

from lab import FAMILIES, HOST, HOST_ADDRESSES, NODES, Lab
from live_flows import LiveFlow
from policies import group
from ringfence.agent.doors.nftables import KernelNftables
from ringfence.nft import encode_batch, largest_generation
from ringfence.policy.packet import ICMP, ICMPV6, TCP, UDP
from ringfence.policy.values import HostName, Kind
from ringfence.world.stream import Stream, heard_since, last_heard_s
from ringfence.world.topology import build_world
from segments import ACK, SYN, Segment
from traffic import Traffic, sending_process
from waiting import wait_until

pytestmark = pytest.mark.netns
both_kinds = pytest.mark.kind(Kind.ROUTED, Kind.BRIDGED)

ALLOWED, DENIED = True, False
SERVICES = ("tcp/5432", "udp/99-109", "icmp", "icmpv6")
BASE = group("base", *(f"ingress {name}/7-29 from {peer}" for name in ("tcp", "udp") for peer in ("0.0.0.0/0", "::/0")))
IN_FLIGHT_S = 0.2  # what a thread of the test may be late to notice what had arrived before
IN_FLIGHT_NS = 2_000_000  # a packet that had passed the rules when they changed and was stamped after
SHUT = "egress tcp/1 to 192.0.2.1/32"


def _db_group(*, without=()):
    return group("db", *(f"ingress {service} from group app" for service in SERVICES if service not in without), SHUT)


def _policy(lab, **changes):
    """db serves members and sources of group app, and web everybody; ``changes`` says what is otherwise."""
    wears = {"db": ("db", "base"), "app": ("app",), "web": ("base",), "outside": ()} | changes.get("wears", {})
    groups = (
        changes.get("db", _db_group()),
        group("app", *changes.get("sources", ())),
        group("out", *changes.get("out", ())),
        BASE,
    )
    elsewhere = replace(lab.instance("outside", *wears["outside"]), host=HostName("h2"))
    here = [lab.instance(name, *wears[name]) for name in ("db", "app", "web") if name != changes.get("without")]
    lab.enforce(*groups, *here, elsewhere)


OUTSIDE = ("source 198.51.100.0/24", "source 2001:db8::/64")
OTHERS = ("source 203.0.113.0/24", "source 2001:db8:b::/48")
OUT = tuple(f"egress {service} to group db" for service in SERVICES)

# What is in force before, and what each cut leaves of it; the client is app, or outside where a source is removed.
ELSEWHERE = {"outside": ("app",)}
RESTRICTED = {"wears": {"app": ("app", "out")}, "out": (SHUT,)}
CUTS = {
    "rule removed": ({}, {"db": _db_group(without=SERVICES)}),
    "member removed": ({}, {"wears": {"app": ()}}),
    "member elsewhere removed": ({"wears": ELSEWHERE}, {}),
    "source removed": ({"sources": OUTSIDE}, {}),
    "one of several sources removed": ({"sources": (*OUTSIDE, *OTHERS)}, {"sources": OTHERS}),
    "group detached": ({}, {"wears": {"db": ("base",)}}),
    "instance removed": ({}, {"without": "db"}),
    "egress rule removed": ({"wears": {"app": ("app", "out")}, "out": OUT}, RESTRICTED),
    "first egress rule added": ({"wears": {"app": ("app", "out")}}, RESTRICTED),
    "restricting group attached": ({"out": (SHUT,)}, RESTRICTED),
}


def _flows(lab, client):
    return [
        LiveFlow(lab, client, protocol, family)
        for family in FAMILIES
        for protocol in (TCP, UDP, ICMP if family == 4 else ICMPV6)
    ]


def _bystanders(lab, names):
    """Flows through the same instance, and of unmanaged peers, that no cut concerns."""
    ways = [
        lab.udp(source, name, 7, family)
        for family in FAMILIES
        for source, name in (("outside", "db"), ("web", "db"), ("outside", "web"), ("web", "outside"))
        if name in names
    ]
    for way in ways:
        lab.expect_fate(ALLOWED, way)
        lab.expect_fate(ALLOWED, way.back())
    return ways


@both_kinds
@pytest.mark.parametrize("server_first", [True, False], ids=["server-speaks", "client-speaks"])
@pytest.mark.parametrize("cut", CUTS)
def test_a_cut_stops_exactly_its_flows_by_the_next_packet(lab, cut, server_first):
    before, after = CUTS[cut]
    client = "outside" if "source" in cut or "elsewhere" in cut else "app"
    _policy(lab, **before)
    lab.forget_flows()
    flows = _flows(lab, client)
    for flow in flows:
        flow.open()
    spared = _bystanders(lab, ("web", "outside") if cut == "instance removed" else ("db", "web", "outside"))
    _policy(lab, **after)
    for flow in flows:
        for _ in range(2):
            lab.expect_fate(DENIED, flow.from_server if server_first else flow.from_client)
            lab.expect_fate(DENIED, flow.from_client if server_first else flow.from_server)
    for way in spared:
        lab.expect_fate(ALLOWED, way.back(), way)


@both_kinds
def test_after_a_cut_tcp_in_mid_stream_comes_back_neither_way_round(lab):
    """Not even where the server may open flows to the client, nor when conntrack forgot the connection."""
    everything = group("app", "ingress all from 0.0.0.0/0", "ingress all from ::/0")

    def enforce(*rules):
        db = group("db", *rules)
        lab.enforce(db, everything, lab.instance("db", "db"), lab.instance("app", "app"))

    for family, client in ((4, "app"), (6, "app"), (4, "outside"), (6, "outside")):
        enforce("ingress tcp/5432 from 0.0.0.0/0", "ingress tcp/5432 from ::/0")
        flow = LiveFlow(lab, client, TCP, family)
        flow.open()
        enforce()
        server = flow.from_server.packet
        bits = {"finish": 0x11, "reset": 0x14, "answer": SYN | ACK}
        for forget in (False, True):
            if forget:
                lab.forget_flows()
            lab.expect_fate(DENIED, flow.from_server, flow.from_client, flow.from_server)
            odd = [replace(flow.from_server, encode=Segment(server, flags, 9000, 9000)) for flags in bits.values()]
            lab.expect_fate(DENIED, *odd)


@both_kinds
@pytest.mark.parametrize("family", FAMILIES)
def test_flows_of_the_host_itself_are_cut_too(lab, family):
    everybody = {4: "0.0.0.0/0", 6: "::/0"}[family]

    def enforce(into, out):
        lab.enforce(
            group("g", f"ingress {into} from {everybody}", f"egress {out} to {everybody}"), lab.instance("web", "g")
        )

    for asked in (lab.udp(HOST, "web", 53, family), lab.udp("web", HOST, 53, family)):
        enforce("udp/53", "udp/53")
        lab.expect_fate(ALLOWED, asked)
        lab.expect_fate(ALLOWED, asked.back())
        enforce("udp/54", "udp/54")
        lab.expect_fate(DENIED, asked.back())
        lab.expect_fate(DENIED, asked)


def test_allowing_again_lets_a_cut_flow_go_on(lab):
    for protocol in (TCP, UDP, ICMP):
        _policy(lab)
        flow = LiveFlow(lab, "app", protocol, 4)
        flow.open()
        _policy(lab, db=_db_group(without=SERVICES))
        lab.expect_fate(DENIED, flow.from_server)
        _policy(lab)
        lab.expect_fate(ALLOWED, flow.from_server, flow.from_client)


def test_one_of_two_rules_that_allow_a_flow_may_go(lab):
    both = group("db", "ingress udp/99 from group app", "ingress udp/90-99 from 0.0.0.0/0", SHUT)
    for rest in ("ingress udp/99 from group app", "ingress udp/90-99 from 0.0.0.0/0"):
        _policy(lab, db=both)
        flow = LiveFlow(lab, "app", UDP, 4)
        flow.open()
        _policy(lab, db=group("db", rest, SHUT))
        lab.expect_fate(ALLOWED, flow.from_server, flow.from_client)
        _policy(lab, db=group("db", SHUT))
        lab.expect_fate(DENIED, flow.from_server, flow.from_client)


def test_a_change_that_only_widens_moves_no_generation(lab):
    steps = (
        {"db": _db_group(without=SERVICES)},
        {"db": _db_group(without=("icmp", "udp/99-109"))},
        {},
        {"sources": ("source 203.0.113.0/24",)},
        {"sources": ("source 203.0.113.0/24", "source 192.0.2.0/24", "source 2001:db8::/32")},
        {"sources": ("source 203.0.113.0/24", "source 192.0.2.0/24", "source 2001:db8::/32"), "wears": ELSEWHERE},
    )
    _policy(lab, **steps[0])
    first = lab.generation
    for step in steps[1:]:
        _policy(lab, **step)
        assert lab.generation == first, f"after {step}"
    _policy(lab, sources=("source 203.0.113.0/24",), wears=ELSEWHERE)
    assert lab.generation != first


class NarrowNftables(KernelNftables):
    """Nine bits of mark for the generation, so that a few hundred changes bring every value round again."""

    mask = 0x01FF0000

    def commit(self, steps, *, generation, about):
        batch = encode_batch(self._numbered(steps), generation=generation, about=about, mask=self.mask)
        assert not self._netlink.request(batch.data).refusals


@pytest.mark.parametrize("sweeps", [True, False], ids=["swept", "unswept"])
def test_a_generation_that_comes_round_again_revives_no_flow_because_old_flows_are_swept(sweeps):
    world = build_world(NODES, router_addresses=HOST_ADDRESSES, mute=True)
    mask = NarrowNftables.mask
    with closing(Lab(world, nftables=NarrowNftables, mask=mask, sweeps=sweeps)) as lab:
        _policy(lab)
        flow = LiveFlow(lab, "app", UDP, 4)
        flow.open()
        stamped = lab.generation
        _policy(lab, db=group("db", "ingress tcp/2 from 0.0.0.0/0", SHUT))
        ahead = (stamped - lab.generation) % largest_generation(mask)
        for change in range(ahead):  # each takes a rule away and gives another, which moves the generation by one
            lab.expect_fate(DENIED, flow.from_server) if change % 100 == 1 else None
            _policy(lab, db=group("db", f"ingress tcp/{1 + change % 2} from 0.0.0.0/0", SHUT))
        # Proof that the sweep is what does it: without it the flow is alive again.
        lab.expect_fate(not sweeps, flow.from_server)


def test_live_connections_are_cut_and_others_lose_no_packet(live):
    app, web, db, outside = (live.world.placed[name] for name in ("app", "web", "db", "outside"))
    _policy(live)
    with closing(Traffic()) as traffic:
        cut = [
            traffic.talk(app, db, family, 99 + silent, reply_only=bool(silent))
            for family in FAMILIES
            for silent in (0, 1)
        ]
        spared = [
            traffic.talk(source, to, family, 7 + number)
            for family in FAMILIES
            for number, (source, to) in enumerate([(web, db), (outside, db), (outside, web), (web, outside)])
        ]
        cut_streams = [Stream(app, db, db.address(family), 5432) for family in FAMILIES]
        spared_streams = [Stream(web, db, db.address(family), 20) for family in FAMILIES]
        wait_until(lambda: all(talk.flows for talk in (*cut, *spared)))
        wait_until(lambda: all(end.count > 5 for one in (*cut_streams, *spared_streams) for end in one.heard()))
        _policy(live, db=_db_group(without=SERVICES))
        done_ns, done_s = time.time_ns(), time.monotonic()
        wait_until(lambda: all(heard_since(stream, done_s + 2 * IN_FLIGHT_S) for stream in spared_streams))
        traffic.fall_silent()
        assert [talk.lost() for talk in spared] == [[]] * len(spared)
        assert all(talk.last_ns <= done_ns + IN_FLIGHT_NS for talk in cut)
        assert all(last_heard_s(stream) <= done_s + IN_FLIGHT_S for stream in cut_streams)
    for stream in (*cut_streams, *spared_streams):
        stream.close()


def test_a_cut_takes_milliseconds(live, record_property):
    app, db = live.world.placed["app"], live.world.placed["db"]
    whole_ms, late_ms = [], []
    for round_ in range(12):
        _policy(live)
        with closing(Traffic()) as traffic:
            talk = traffic.talk(app, db, FAMILIES[round_ % 2], 99 + round_ % 11, reply_only=True)
            with sending_process(talk.server):
                seen = len(talk.client.heard)
                wait_until(lambda talk=talk, seen=seen: len(talk.client.heard) > seen + 50)
                started_ns = time.time_ns()
                _policy(live, db=_db_group(without=SERVICES))
                done_ns = time.time_ns()
                wait_until(lambda done_ns=done_ns: time.time_ns() > done_ns + 20_000_000)
        whole_ms.append((talk.last_ns - started_ns) / 1e6)
        late_ms.append((talk.last_ns - done_ns) / 1e6)
    record_property(
        "from the start of the apply to the last packet",
        f"median {statistics.median(whole_ms):.1f} ms, longest {max(whole_ms):.1f} ms; "
        f"after the kernel's acknowledgement at most {max(late_ms):.1f} ms",
    )
    assert max(late_ms) * 1e6 <= IN_FLIGHT_NS
