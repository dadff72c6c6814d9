"""One contract for each of the agent's doors, that the fakes and the real ones keep alike."""

import asyncio
import os
import resource
import socket
import stat
import subprocess
import sys
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from types import SimpleNamespace

import pytest

from fake_doors import (
    FakeBridging,
    FakeClock,
    FakeConnections,
    FakeConntrack,
    FakeFiles,
    FakeLinks,
    FakeNames,
    FakeNftables,
    FakePackets,
)
from flows import add_flow
from ringfence.agent.doors.bridging import KernelBridging
from ringfence.agent.doors.clock import SystemClock
from ringfence.agent.doors.connections import KernelConnections
from ringfence.agent.doors.conntrack import KernelConntrack
from ringfence.agent.doors.files import SystemFiles, read_secret
from ringfence.agent.doors.links import Filtered, KernelLinks, lock_network
from ringfence.agent.doors.names import SystemNames
from ringfence.agent.doors.nftables import KernelNftables
from ringfence.agent.doors.packets import KernelPackets
from ringfence.nft import About, Generation, Touched
from ringfence.nft.connections import Connection, Way
from ringfence.nft.expressions import LOG_GROUP
from ringfence.nft.packetlog import Told
from ringfence.policy.errors import OperatorError
from ringfence.policy.packet import UDP, Packet
from ringfence.policy.program.compile import LocalPorts, compile_program
from ringfence.policy.program.delta import diff_programs
from ringfence.policy.program.model import Program
from ringfence.policy.program.refusal import TALLY
from ringfence.policy.program.steps import (
    AddChain,
    AddCounter,
    AddElements,
    AddSet,
    DeleteChain,
    DeleteSet,
    DeleteTable,
    DeleteTargets,
    FlushChain,
)
from ringfence.policy.view import PeerAddresses
from ringfence.world.namespaces import make_namespace
from ringfence.world.topology import raise_loopback
from views import GROUPS, endpoint, ingress, view

REAL = pytest.param("kernel", marks=pytest.mark.netns)
WEB, APP = GROUPS[:2]
NOTE = About(3, "e1")
FIFTH = Generation(5)
PORTS = LocalPorts(("veth*",))
OPEN = compile_program(
    view(
        1,
        endpoint("web", WEB),
        rules={WEB: (ingress(80, APP),)},
        peers={APP: PeerAddresses(frozenset({ip_address("10.77.0.9")}))},
    ),
    PORTS,
)
SHUT = compile_program(view(0), PORTS)


@pytest.fixture
def namespace(request):
    if "kernel" not in request.node.callspec.params.values():
        yield None
        return
    made = make_namespace("doors")
    yield made
    made.close()


@pytest.fixture(params=["fake", REAL])
def nftables(request, namespace):
    if request.param == "fake":
        yield FakeNftables()
        return
    door = namespace.run(KernelNftables)
    yield door
    door.close()


def _load(door, desired, present=None, about=NOTE, generation=FIFTH):
    delta = diff_programs(present or Program(), desired)
    if delta.prepare:
        door.commit(delta.prepare, generation=generation, about=None)
    door.commit(delta.flip, generation=generation, about=about)
    return 2 if delta.prepare else 1


def test_without_our_table_there_is_no_program_and_no_note(nftables):
    assert nftables.read().program is None
    assert nftables.read_about() is None


def test_what_is_committed_is_read_back(nftables):
    _load(nftables, OPEN)
    reading = nftables.read()
    assert (reading.program, reading.generation, reading.about) == (OPEN, 5, NOTE)
    assert nftables.read_about() == NOTE


def test_a_narrowing_change_moves_the_generation_of_everything(nftables):
    _load(nftables, OPEN)
    _load(nftables, SHUT, OPEN, generation=Generation(6))
    reading = nftables.read()
    assert (reading.program, reading.generation) == (SHUT, 6)


def test_the_note_alone_can_be_renewed(nftables):
    _load(nftables, OPEN)
    nftables.commit((), generation=Generation(5), about=About(4, "e1"))
    reading = nftables.read()
    assert (reading.program, reading.about) == (OPEN, About(4, "e1"))


def test_each_counter_of_our_table_is_read_with_what_it_counted(nftables):
    assert nftables.read_hits() == {}
    _load(nftables, OPEN)
    everything = dict.fromkeys(OPEN.counters, 0)
    assert nftables.read_hits() == everything
    assert nftables.read_hits().items() <= everything.items(), "what is as it was may be left out"
    nftables.commit([AddCounter("one_more")], generation=FIFTH, about=NOTE)
    assert nftables.read_hits().items() >= {"one_more": 0}.items()


def test_no_packet_no_tally(nftables):
    assert nftables.read_tallies(TALLY.values()) == {}
    _load(nftables, OPEN)
    assert nftables.read_tallies(TALLY.values()) == {}


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        ([AddCounter("fresh"), AddCounter("closed")], "counter closed.*File exists|closed.*File exists"),
        ([AddCounter("fresh"), DeleteChain("nowhere")], "nowhere.*No such file or directory"),
        ([AddCounter("fresh"), DeleteSet("ports")], "ports.*Device or resource busy"),
        ([AddCounter("fresh"), AddChain("leave", None)], "leave.*File exists"),
        ([AddCounter("fresh"), AddElements("nothing", OPEN.sets["ports"], (("a",),))], "nothing.*No such file"),
    ],
)
def test_a_refused_change_names_its_step_and_changes_nothing(nftables, steps, words):
    _load(nftables, OPEN)
    before = nftables.count_changes()
    with pytest.raises(OperatorError, match=words):
        nftables.commit(steps, generation=Generation(6), about=About(9, "e1"))
    reading = nftables.read()
    assert (reading.program, reading.generation, reading.about) == (OPEN, 5, NOTE)
    assert nftables.count_changes() == before == reading.kernel_generation


def test_every_transaction_is_counted_as_one(nftables):
    _load(nftables, SHUT)
    before = nftables.count_changes()
    transactions = _load(nftables, OPEN, SHUT)
    nftables.commit((), generation=Generation(5), about=About(5, "e1"))
    assert nftables.count_changes() == before + transactions + 1


@dataclass
class Overheard:
    """Our door, what listens to the kernel beside it, and another program's door to the same kernel."""

    ours: object
    notices: object
    others: object


@pytest.fixture(params=["fake", REAL])
def overheard(request, namespace):
    if request.param == "fake":
        fake = FakeNftables()
        yield Overheard(fake, fake.notices, SimpleNamespace(commit=lambda steps: fake.intrude(*steps)))
        return
    ours, others = namespace.run(KernelNftables), namespace.run(KernelNftables)
    notices = namespace.run(ours.listen)
    commit = partial(others.commit, generation=FIFTH, about=None)
    yield Overheard(ours, notices, SimpleNamespace(commit=commit))
    for door in (notices, others, ours):
        door.close()


def test_our_own_changes_are_counted_and_not_told(overheard):
    _load(overheard.ours, OPEN)
    heard = overheard.notices.take()
    assert not heard.touched
    assert not heard.authors
    assert heard.changes == overheard.ours.count_changes()
    assert not overheard.notices.take().touched


@pytest.mark.parametrize(
    ("steps", "touched"),
    [
        ([FlushChain("leave")], Touched(chains=frozenset({"leave"}))),
        ([FlushChain("origin"), DeleteChain("origin")], Touched(chains=frozenset({"origin"}))),
        ([AddChain("alien", None)], Touched(chains=frozenset({"alien"}))),
        ([AddElements("ports", OPEN.sets["ports"], (("a",),))], Touched(sets=frozenset({"ports"}))),
        ([DeleteTargets("egress", tuple(OPEN.maps["egress"].targets.items()))], Touched(sets=frozenset({"egress"}))),
        (
            [AddSet("alien", OPEN.sets["ports"]), AddCounter("alien")],
            Touched(sets=frozenset({"alien"}), counters=frozenset({"alien"})),
        ),
    ],
)
def test_what_others_touch_in_our_table_is_named_and_read_alone(overheard, steps, touched):
    _load(overheard.ours, OPEN)
    overheard.notices.take()
    overheard.others.commit(steps)
    heard = overheard.notices.take()
    assert heard.touched == touched
    assert len(heard.authors) == 1
    assert heard.changes == overheard.ours.count_changes()
    part, whole = overheard.ours.read_touched(touched), overheard.ours.read()
    assert part.about == whole.about == NOTE
    for kind, names in (("chains", touched.chains), ("sets", touched.sets), ("maps", touched.sets)):
        everything = getattr(whole.program, kind)
        assert getattr(part.program, kind) == {name: everything[name] for name in names & everything.keys()}
    assert part.program.counters == touched.counters


def test_transactions_up_to_a_count_are_left_out(overheard):
    _load(overheard.ours, OPEN)
    overheard.others.commit([FlushChain("leave")])
    known = overheard.ours.count_changes()
    overheard.others.commit([FlushChain("arrive")])
    heard = overheard.notices.take(known)
    assert heard.touched == Touched(chains=frozenset({"arrive"}))
    assert heard.changes == known + 1


def test_a_table_that_is_removed_is_told_of_as_such_and_nothing_is_read_of_it(overheard):
    _load(overheard.ours, OPEN)
    overheard.others.commit([DeleteTable()])
    touched = overheard.notices.take().touched
    assert touched.table
    reading = overheard.ours.read_touched(touched | Touched(chains=frozenset({"leave"})))
    assert (reading.program, reading.about) == (Program(), None)


def test_a_waiter_is_woken_by_what_others_change(overheard):
    async def woken():
        waiting = asyncio.ensure_future(overheard.notices.wait())
        await asyncio.sleep(0)
        assert not waiting.done()
        overheard.others.commit([FlushChain("leave")])
        await asyncio.wait_for(waiting, 5)

    _load(overheard.ours, OPEN)
    overheard.notices.take()
    asyncio.run(woken())


@pytest.mark.netns
def test_notices_that_find_no_room_are_said_to_be_lost(monkeypatch):
    monkeypatch.setattr("ringfence.agent.doors.notices._RECEIVE_SIZE_BYTES", 4096)
    namespace = make_namespace("doors")
    with (
        closing(namespace),
        closing(namespace.run(KernelNftables)) as ours,
        closing(namespace.run(ours.listen)) as notices,
    ):
        _load(ours, OPEN)
        others = namespace.run(KernelNftables)
        for number in range(100):
            others.commit([AddCounter(f"c{number}")], generation=FIFTH, about=None)
        others.close()
        assert notices.take().lost


@pytest.mark.netns
def test_a_dormant_table_is_told_of_and_seen():
    namespace = make_namespace("doors")
    with (
        closing(namespace),
        closing(namespace.run(KernelNftables)) as ours,
        closing(namespace.run(ours.listen)) as notices,
    ):
        _load(ours, OPEN)
        command = ("nft", "add table inet ringfence { flags dormant; }")
        namespace.run(lambda: subprocess.run(command, check=True))  # noqa: S603  as an operator would
        assert notices.take().touched.table
        assert ours.read().dormant


@pytest.fixture(params=["fake", REAL])
def conntrack(request, namespace):
    """Flows with marks of generations 5 (v4 and v6) and 300 and of somebody else, and the door to them."""
    marks = [5 << 16 | 7, 300 << 16, 7]
    if request.param == "fake":
        door = FakeConntrack()
        door.marks = [*marks, marks[0]]
        yield door
        return
    door = namespace.run(KernelConntrack)
    for number, mark in enumerate(marks):
        namespace.run(partial(add_flow, mark, 7001 + number))
    namespace.run(partial(add_flow, marks[0], 7001, "2001:db8::1", "2001:db8::2"))
    yield door
    door.close()


def test_flows_are_counted_by_the_masked_mark(conntrack):
    assert conntrack.count(5 << 16, 0xFFFF0000) == 2
    assert conntrack.count(0x01000000, 0xFF000000) == 1
    assert conntrack.count(9 << 16, 0xFFFF0000) == 0


def test_only_flows_with_the_masked_mark_are_deleted(conntrack):
    conntrack.delete(5 << 16, 0xFFFF0000)
    assert [conntrack.count(mark, 0xFFFFFFFF) for mark in (5 << 16 | 7, 300 << 16, 7)] == [0, 1, 1]


def test_deleting_what_is_not_there_is_no_error(conntrack):
    conntrack.delete(9 << 16, 0xFFFF0000)
    assert conntrack.count(7, 0xFFFFFFFF) == 1


def test_a_deletion_of_everything_is_not_possible(conntrack):
    with pytest.raises(ValueError, match="every flow"):
        conntrack.delete(0, 0)


@dataclass
class Conntracked:
    """The door, and what makes a connection to a port begin where it listens."""

    door: object
    begin: object


@pytest.fixture(params=["fake", REAL])
def connections(request, namespace):
    if request.param == "fake":
        door = FakeConnections()
        ends = Way(b"\xc0\0\2\1", b"\xc0\0\2\2", 40000, 0), Way(b"\xc0\0\2\2", b"\xc0\0\2\1", 0, 40000)

        def begin(port):
            first, back = ends
            there = replace(first, destination_port=port)
            door.tell(Connection(ended=False, protocol=17, original=there, reply=replace(back, source_port=port)))

        yield Conntracked(door, begin)
        return
    door = namespace.run(KernelConnections)
    yield Conntracked(door, lambda port: namespace.run(partial(add_flow, 1, port)))
    door.close()


def test_connections_are_told_of_while_somebody_listens(connections):
    connections.begin(6001)
    connections.door.listen(on=True)
    connections.begin(6002)
    [told] = connections.door.take()
    connections.door.listen(on=False)
    connections.begin(6003)
    assert connections.door.take() == ()
    assert (told.ended, told.protocol, connections.door.lost()) == (False, 17, 0)
    for packet in (told.asked, told.reached):
        assert (str(packet.source), packet.source_port) == ("192.0.2.1", 40000)
        assert (str(packet.destination), packet.destination_port) == ("192.0.2.2", 6002)


@pytest.mark.netns
def test_connections_that_find_no_room_are_counted(monkeypatch):
    monkeypatch.setattr("ringfence.agent.doors.connections._RECEIVE_SIZE_BYTES", 4096)
    with closing(make_namespace("doors")) as namespace, closing(namespace.run(KernelConnections)) as door:
        door.listen(on=True)
        namespace.run(lambda: [add_flow(1, port) for port in range(6000, 6100)])
        told = door.take()
        assert 0 < len(told) < 100
        assert len(told) + door.lost() == 100


LOOPBACK = ip_address("127.0.0.1")
LOGGED = f"""
add table inet other
add chain inet other seen {{ type filter hook postrouting priority 0; }}
add rule inet other seen udp dport 6001-6009 log prefix "seen" group {LOG_GROUP} snaplen 128
"""


@dataclass
class Logged:
    """A door to the log of packets, and how a packet to a port of 127.0.0.1 comes to be logged."""

    door: FakePackets | KernelPackets
    send: object


def _send_datagram(port):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.bind((str(LOOPBACK), 40000))
        sender.sendto(b"x", (str(LOOPBACK), port))


@pytest.fixture(params=["fake", REAL])
def packets(request, namespace):
    if request.param == "fake":
        door = FakePackets(lo=1)
        packet = Packet(LOOPBACK, LOOPBACK, UDP, 40000)
        told = Told("seen", 1, leaves=False, packet=packet)
        yield Logged(door, lambda port: door.tell(replace(told, packet=replace(packet, destination_port=port))))
        return
    namespace.run(raise_loopback)
    namespace.run(lambda: subprocess.run(("nft", "-f", "-"), input=LOGGED, text=True, check=True))  # noqa: S607
    door = namespace.run(KernelPackets)
    yield Logged(door, lambda port: namespace.run(partial(_send_datagram, port)))
    door.close()


def test_logged_packets_are_waited_for_and_taken_once(packets):
    assert packets.door.take() == ()
    taken = []
    for port in (6001, 6002):
        packets.send(port)
        asyncio.run(asyncio.wait_for(packets.door.wait(), 5))
        taken += packets.door.take()
    assert packets.door.take() == ()
    assert [(told.prefix, told.leaves, told.packet.destination_port) for told in taken] == [
        ("seen", False, 6001),
        ("seen", False, 6002),
    ]
    for told in taken:
        ends = told.packet.source, told.packet.source_port, told.packet.destination, told.packet.protocol
        assert ends == (LOOPBACK, 40000, LOOPBACK, UDP)
        assert packets.door.interface(told.index) == "lo"
    assert packets.door.interface(4000) is None


@pytest.mark.parametrize("kind", ["fake", "system"])
def test_a_file_is_read_as_it_was_replaced(kind, tmp_path):
    files = FakeFiles() if kind == "fake" else SystemFiles()
    path = tmp_path / "folder" / "file"
    assert files.read(path) is None
    assert files.stamp(path) is None
    files.replace(path, b"one")
    first = files.stamp(path)
    assert files.stamp(path) == first
    files.replace(path, b"two")
    assert files.read(path) == b"two"
    assert files.stamp(path) != first


@pytest.mark.parametrize("kind", ["fake", "system"])
def test_a_file_that_is_added_to_is_bounded_and_one_older_one_is_kept(kind, tmp_path):
    files = FakeFiles() if kind == "fake" else SystemFiles()
    path, older = tmp_path / "folder" / "file", tmp_path / "folder" / "file.1"
    for line, wanted, kept in ((b"1\n", b"1\n", None), (b"22\n", b"1\n22\n", None), (b"333\n", b"333\n", b"1\n22\n")):
        files.append(path, line, most_bytes=6)
        assert (files.read(path), files.read(older)) == (wanted, kept)


def test_a_file_that_is_added_to_is_its_owners_only(tmp_path):
    SystemFiles().append(tmp_path / "file", b"x", most_bytes=9)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o600


def test_a_pipe_that_nobody_holds_is_refused_and_holds_up_nobody(tmp_path):
    os.mkfifo(tmp_path / "pipe", 0o600)
    for use in (SystemFiles().read, read_secret, partial(SystemFiles().append, content=b"x", most_bytes=None)):
        with pytest.raises(OperatorError, match=r"no regular file|No such device"):
            use(tmp_path / "pipe")


def test_a_file_without_end_fills_no_memory(tmp_path):
    with (tmp_path / "file").open("wb") as file:
        file.truncate(1 << 40)
    for use in (SystemFiles().read, read_secret):
        with pytest.raises(OperatorError, match="1048576 MiB"):
            use(tmp_path / "file")


def test_a_file_that_tells_no_size_is_not_read_to_an_end_that_may_never_come():
    for use in (SystemFiles().read, read_secret):
        with pytest.raises(OperatorError, match="more in it than its 0 bytes"):
            use(Path("/proc/self/mounts"))


def test_what_does_not_fit_is_not_written_by_half(tmp_path):
    SystemFiles().append(tmp_path / "file", b"first\n", most_bytes=None)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (9, hard))  # as on a full disk, some octets go and then none
    try:
        for use in (partial(SystemFiles().append, most_bytes=None), SystemFiles().replace):
            with pytest.raises(OperatorError, match="File too large"):
                use(tmp_path / "file", b"second one\n")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (tmp_path / "file").read_bytes() == b"first\n"
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


@pytest.mark.netns
def test_a_folder_that_turned_read_only_can_still_be_locked(tmp_path):
    lock = f"from ringfence.agent.doors.files import *\nwith lock_folder(Path({str(tmp_path)!r})): print('locked')"
    (tmp_path / "agent.lock").touch()
    script = 'mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" && exec "$2" -c "$3"'
    arguments = ("unshare", "--mount", "sh", "-c", script, "sh", str(tmp_path), sys.executable, lock)
    assert subprocess.check_output(arguments, text=True) == "locked\n"  # noqa: S603  our own


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_folder_that_a_copy_made_another_users_says_how_it_becomes_the_agents_own(tmp_path):
    for name in ("agent.lock", "credential"):
        (tmp_path / name).touch(0o600)
        os.chown(tmp_path / name, 65534, 65534)
    lines = (
        "from ringfence.agent.doors.files import *",
        f"folder = Path({str(tmp_path)!r})",
        "for use in (lock_folder(folder).__enter__, lambda: read_secret(folder / 'credential')):",
        "    try: use()",
        "    except OperatorError as error: print(error)",
    )
    without = ("setpriv", "--bounding-set=-all,+net_admin", "--inh-caps=-all,+net_admin")
    said = subprocess.check_output((*without, sys.executable, "-c", "\n".join(lines)), text=True)  # noqa: S603  our own
    assert said.count(f"run: chown -R root: {tmp_path}") == 2


def test_a_replaced_file_is_its_owners_only_and_leaves_nothing_beside_it(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    path.chmod(0o644)
    SystemFiles().replace(path, b"new")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("kind", ["fake", "system"])
def test_a_file_that_cannot_be_read_is_named(kind, tmp_path):
    files = FakeFiles() if kind == "fake" else SystemFiles()
    if kind == "fake":
        files.broken.add(tmp_path)
    with pytest.raises(OperatorError, match=str(tmp_path)):
        files.read(tmp_path)  # a folder


@pytest.mark.parametrize("kind", ["fake", "kernel"])
def test_the_loopback_is_among_the_links(kind):
    door = FakeLinks("veth0") if kind == "fake" else KernelLinks()
    assert "lo" in door.names()
    assert "no-such-link" not in door.names()


@pytest.mark.parametrize("kind", ["fake", "kernel"])
def test_the_numbers_of_links_are_of_one_life(kind):
    door, other = (FakeLinks(), FakeLinks()) if kind == "fake" else (KernelLinks(), KernelLinks())
    assert door.life() is not None
    assert door.life() == other.life()


_PORTS = """
from pyroute2 import IPRoute
from ringfence.agent.doors.links import KernelLinks, Master
with IPRoute() as netlink:
    netlink.link("add", ifname="br0", kind="bridge")
    netlink.link("add", ifname="v0", kind="veth", peer="v1")
    netlink.link("set", index=netlink.link_lookup(ifname="v0")[0], master=netlink.link_lookup(ifname="br0")[0])
door = KernelLinks()
found = [door.master_of(name) for name in ("v0", "v1", "nowhere")]
assert found == [Master("br0", is_bridge=True), Master(None), None], found
assert [door.is_bridge(name) for name in ("br0", "v0", "nowhere")] == [True, False, False]
"""

_TAPS = """
from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError
from ringfence.agent.doors.links import KernelLinks, Master
with IPRoute() as netlink:
    netlink.link("add", ifname="v0", kind="veth", peer="v1")
    below = netlink.link_lookup(ifname="v0")[0]
    try:
        for kind in ("macvtap", "macvlan"):
            netlink.link("add", ifname=f"{kind}0", kind=kind, link=below)
    except NetlinkError as error:
        raise SystemExit(f"skipped: {error}")
door = KernelLinks()
found = [door.master_of(name) for name in ("macvtap0", "macvlan0")]
assert found == [Master("v0"), Master(None)], found
"""


def _in_a_network_of_its_own(script):
    """What it says on stderr; it sees its network in /sys."""
    inside = 'mount -t sysfs sysfs /sys && exec "$0" -c "$1"'
    command = ("unshare", "--net", "--mount", "sh", "-c", inside, sys.executable, script)
    said = subprocess.run(command, capture_output=True, text=True, check=False).stderr  # noqa: S603  our own
    if said.startswith("skipped: "):
        pytest.skip(f"no macvtap can be made here: {said}")
    return said


@pytest.mark.netns
def test_what_takes_an_interfaces_frames_is_seen():
    assert not _in_a_network_of_its_own(_PORTS)


@pytest.mark.netns
def test_what_is_below_a_macvtap_takes_its_frames_and_a_macvlans_are_this_hosts():
    assert not _in_a_network_of_its_own(_TAPS)


@pytest.mark.netns
def test_a_network_is_locked_once_at_a_time_and_another_network_is_not_concerned():
    def lock():
        with lock_network():
            pass

    other = make_namespace("other")
    with closing(other), lock_network():
        other.run(lock)
        with pytest.raises(OperatorError, match="another agent filters this network namespace already"):
            lock()
    lock()


@pytest.mark.netns
def test_whoever_may_change_no_rules_cannot_pass_for_an_agent(caplog):
    def lock():
        with lock_network():
            pass

    def squat(user, type_=socket.SOCK_STREAM):
        taken = socket.socket(socket.AF_UNIX, type_)
        taken.bind("\0ringfence-agent")
        os.fchown(taken.fileno(), user, -1)
        return taken

    with closing(make_namespace("squatted")) as namespace:
        with closing(namespace.run(partial(squat, 65534))):
            namespace.run(lock)
        assert "user 65534, who is no agent, holds the name" in caplog.text
        with closing(namespace.run(partial(squat, 0))), pytest.raises(Filtered):
            namespace.run(lock)
        beside = [socket.SOCK_DGRAM, socket.SOCK_SEQPACKET]  # each type of socket has the name once
        with ExitStack() as taken:
            taken.enter_context(closing(namespace.run(partial(squat, 0))))
            for type_ in beside:
                taken.enter_context(closing(namespace.run(partial(squat, 65534, type_))))
            with pytest.raises(Filtered):
                namespace.run(lock)


@pytest.mark.parametrize("kind", ["fake", "system"])
def test_the_clock_goes_on_by_what_was_slept(kind):
    async def slept():
        clock = FakeClock() if kind == "fake" else SystemClock()
        began = clock.monotonic()
        sleeping = asyncio.ensure_future(clock.sleep(0.01))
        await asyncio.sleep(0)
        if kind == "fake":
            clock.advance(0.01)
        await sleeping
        return clock.monotonic() - began

    assert asyncio.run(slept()) >= 0.0099


@pytest.mark.parametrize("kind", ["real", "fake"])
def test_names_have_addresses_or_are_refused_by_name(kind):
    names = SystemNames() if kind == "real" else FakeNames()
    if kind == "fake":
        names.known = {name: frozenset({ip_address("127.0.0.1")}) for name in ("localhost", "127.0.0.1")}
    assert ip_address("127.0.0.1") in names.addresses("localhost")
    assert names.addresses("127.0.0.1") == {ip_address("127.0.0.1")}
    with pytest.raises(OperatorError, match=r"nobody\.invalid"):
        names.addresses("nobody.invalid")


@pytest.mark.parametrize("kind", ["fake", REAL])
def test_br_netfilter_is_seen_switched_off_and_switched_on_again(kind, namespace):
    if kind == "fake":
        door = FakeBridging()
        door.on = False
    else:
        door = KernelBridging()
        namespace.write_sysctl("bridge/bridge-nf-call-ip6tables", 0)
    inside = namespace.run if namespace else lambda work: work()
    assert not inside(door.is_on)
    inside(door.switch_on)
    assert inside(door.is_on)
