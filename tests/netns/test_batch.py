"""Our netlink batches and the real kernel: the same tables as by `nft -f`, read back whole, healed, all or nothing."""

import random
import re
import shutil
import subprocess
from collections import Counter
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import pytest

from counts import count
from generated import MANAGED, PORTS, UNDECLARED_MAC, dweller
from nasty import GROUPS, NETWORKS, random_rule
from policies import ORGANISATION, cidr, group, group_id, instance, snapshot
from ringfence.agent.doors.netlink import NetlinkSocket
from ringfence.agent.doors.nftables import KernelNftables
from ringfence.nft import About, Generation, next_generation, read_table, render_text
from ringfence.policy.errors import OperatorError
from ringfence.policy.model import Group, GroupPeer, Rule
from ringfence.policy.program.compile import compile_program
from ringfence.policy.program.delta import diff_programs
from ringfence.policy.program.hasten import hasten
from ringfence.policy.program.model import Drop, Goto, Line, Program, part_of
from ringfence.policy.program.names import TableFamily
from ringfence.policy.program.steps import AddChain, AddLine, DeleteLine
from ringfence.policy.snapshot import Snapshot
from ringfence.policy.values import Direction, GroupId, Icmp, Kind, Protocol, Revision, RuleId
from ringfence.policy.view import resolve_view
from ringfence.world.namespaces import make_namespace
from wordings import load_policy

pytestmark = pytest.mark.netns
NFT = shutil.which("nft", path="/usr/sbin:/sbin:/usr/bin:/bin")
needs_nft = pytest.mark.skipif(NFT is None, reason="no nft program: apt install nftables")
POLICIES = Path(__file__).parent.parent / "golden"
ABOUT, GENERATION = About(7, "an-epoch-0"), Generation(3)


@contextmanager
def kernel():
    """A namespace with a door to its nf_tables, both gone afterwards."""
    namespace = make_namespace("nft")
    door = namespace.run(KernelNftables)
    try:
        yield namespace, door
    finally:
        door.close()
        namespace.close()


@pytest.fixture
def place():
    with kernel() as made:
        yield made


@pytest.fixture
def namespace(place):
    return place[0]


@pytest.fixture
def door(place):
    return place[1]


def nft(namespace, *arguments, text=None):
    def run():
        return subprocess.run([NFT, *arguments], input=text, capture_output=True, text=True, check=False)  # noqa: S603  our own text

    done = namespace.run(run)
    assert done.returncode == 0, done.stderr
    return done.stdout


def apply(door, actual, desired, generation=GENERATION, about=ABOUT):
    """Both transactions of the delta, as the agent commits them."""
    delta = diff_programs(actual, desired)
    if delta.prepare:
        door.commit(delta.prepare, generation=generation, about=None)
    door.commit(delta.flip, generation=generation, about=about)
    return delta


def nasty_program(seed):
    """The program of a seeded policy: as many kinds of rules, peers and sources as fit in five groups."""
    rng = random.Random(seed)
    ids = [group_id(name) for name in GROUPS]
    groups = {id_: _nasty_group(rng, id_, name, ids) for id_, name in zip(ids, GROUPS, strict=True)}
    worn = (rng.sample(ids, rng.randrange(4)) for _ in MANAGED)
    dwellers = [dweller(node, groups) for node, groups in zip(MANAGED, worn, strict=True)]
    instances = {one.id: one for one in dwellers if rng.random() < 0.9}
    return compile_program(resolve_view(Snapshot(Revision(1), {}, groups, instances)), PORTS)


def _nasty_group(rng, id_, name, ids):
    rules = [] if name == "empty" else [_nasty_rule(rng, ids) for _ in range(rng.randrange(1, 7))]
    sources = rng.sample(NETWORKS, rng.choice((0, 0, 1, 3)))
    return Group(id_, ORGANISATION, name, rules=tuple(rules), sources=tuple(map(cidr, sources)))


def _nasty_rule(rng, ids):
    body = random_rule(rng, [str(id_) for id_ in ids])
    icmp = body.get("icmp")
    peer = cidr(body["network"]) if "network" in body else GroupPeer(GroupId(UUID(body["security-group"]["id"])))
    return Rule(
        RuleId(UUID(int=rng.getrandbits(128))),
        Direction(body["flow-direction"]),
        Protocol(body["protocol"]),
        peer,
        body.get("start-port"),
        body.get("end-port"),
        Icmp(icmp["type"], icmp["code"]) if icmp else None,
    )


def blocks(listing):
    """What is in a listing, object by object: nft lists objects in the order in which they were made."""
    found = {}
    for line in listing.splitlines():
        if line.startswith("\t") and not line.startswith("\t\t") and line.endswith("{"):
            current = found.setdefault(line.strip(), [])
        elif line.strip() not in ("", "}") and line.startswith("\t\t"):
            current.append(line)
    return {
        name: sorted(_elements(lines)) if name.startswith(("set", "map")) else lines for name, lines in found.items()
    }


def _elements(lines):
    """The lines of a set or map with its elements apart: their order is a hash's and means nothing."""
    text = " ".join(line.strip() for line in lines)
    head, _, elements = text.partition("elements = {")
    return [head, *(element.strip() for element in re.split(r",\s", elements.replace("}", "")))]


def _wide():
    snapshot, ports = load_policy(POLICIES / "every-protocol.toml")
    return compile_program(resolve_view(snapshot), ports)


def _hastened():
    """With rules of both directions and families as elements: single addresses, networks, sources, ranges of ports."""
    before = ("ingress tcp/80 from 0.0.0.0/0", "egress tcp/1 to 0.0.0.0/0")
    more = ("ingress udp/5000-6000 from group peers", "ingress tcp from 2001:db8::/48", "egress udp/53 to ::/0")
    peers = group("peers", "source 192.0.2.3/32", "source 198.51.100.0/25", "source 2001:db8::/32")
    ends = (instance("a", "10.0.0.1", "fd00::1", wears=["web"]), instance("b", "10.0.0.2", wears=["peers"]))
    views = [resolve_view(snapshot(*ends, peers, group("web", *rules))) for rules in (before, (*before, *more))]
    actual, desired = (compile_program(view, PORTS) for view in views)
    return hasten(actual, desired, views[1].endpoints)[0].program


PROGRAMS = {
    "hastened": _hastened,
    **{path.stem: lambda path=path: _golden(path) for path in sorted(POLICIES.glob("*.toml"))},
    **{f"nasty-{seed}": lambda seed=seed: nasty_program(seed) for seed in range(30)},
}


def _golden(path):
    snapshot, ports = load_policy(path)
    return compile_program(resolve_view(snapshot), ports)


@needs_nft
@pytest.mark.parametrize("name", PROGRAMS)
def test_our_batch_and_our_text_make_the_same_table(name, place):
    program = PROGRAMS[name]()
    namespace, door = place
    apply(door, Program(), program)
    with kernel() as (other, _):
        nft(other, "-f", "-", text=render_text(program, GENERATION, ABOUT))
        ours, theirs = blocks(nft(namespace, "list", "ruleset")), blocks(nft(other, "list", "ruleset"))
        assert len(ours) > 20
        assert ours == theirs


def bridged_program():
    dwellers = [dweller(node, {}) for node in MANAGED if node.name != UNDECLARED_MAC]
    view = resolve_view(Snapshot(Revision(1), {}, {}, {one.id: one for one in dwellers}))
    return compile_program(view, replace(PORTS, kind=Kind.BRIDGED))


def _of_options(line):
    """Whether it looks an option of discovery up, which nft 1.0.6 and 1.1.3 list, each in its way, and do not read."""
    return ". @th" in line or "icmpv6 taddr" in line


@needs_nft
def test_our_batch_and_our_text_make_the_same_tables_for_bridged_ports(place):
    program = bridged_program()
    namespace, door = place
    apply(door, Program(), program)
    text = render_text(program, GENERATION, ABOUT)
    with kernel() as (other, _):
        nft(other, "-f", "-", text="\n".join(line for line in text.splitlines() if not _of_options(line)))
        for family in TableFamily:
            table = ("list", "table", family.value, "ringfence")
            ours, theirs = blocks(nft(namespace, *table)), blocks(nft(other, *table))
            listed = [line for lines in ours.values() for line in lines if _of_options(line)]
            assert {name: [line for line in lines if not _of_options(line)] for name, lines in ours.items()} == theirs
            rendered = render_text(part_of(program, family), GENERATION, None).splitlines()
            assert len(listed) == (6 if family is TableFamily.BRIDGE else 0)
            assert _lookups(listed) == _lookups(filter(_of_options, rendered))


def _lookups(lines):
    """The joined keys of the lines and the sets in which they are looked up; nft spells some of the rest otherwise."""
    spelt = (line.replace("icmpv6 taddr", "@th,64,128") for line in lines)
    return sorted(re.findall(r"iifname(?: \. (?:@th\S+|\w+ \w+))+ @\w+", line) for line in spelt)


def test_what_was_written_of_bridged_ports_is_read_back_exactly_and_swept_for_routed_ones(door):
    program, routed = bridged_program(), nasty_program(3)
    apply(door, Program(), program)
    assert door.read().program == program
    apply(door, program, routed)
    assert door.read().program == routed
    apply(door, routed, program)
    assert door.read().program == program


@pytest.mark.parametrize("name", [*PROGRAMS][:12])
def test_what_was_written_is_read_back_exactly(name, door):
    program = PROGRAMS[name]()
    apply(door, Program(), program)
    reading = door.read()
    assert reading.program == program
    assert (reading.generation, reading.about) == (GENERATION, ABOUT)
    assert door.read_about() == ABOUT
    assert reading.hits.keys() == program.counters
    assert not diff_programs(reading.program, program)


def test_where_nothing_is_nothing_is_read(door):
    reading = door.read()
    assert (reading.program, reading.generation, reading.about) == (None, None, None)
    assert door.read_about() is None


@pytest.mark.full
@pytest.mark.timeout(900)
def test_every_policy_loads_as_a_change_of_the_one_before(door):
    actual, generation = Program(), Generation(1)
    narrowing = 0
    for number in range(count(reduced=100, stated=2000)):
        desired = nasty_program(number)
        narrows = diff_programs(actual, desired).narrows
        narrowing += narrows
        generation = next_generation(generation) if narrows else generation
        apply(door, actual, desired, generation, About(number, "run"))
        if number % 25 == 0:
            reading = door.read()
            assert (reading.program, reading.generation) == (desired, generation)
        actual = desired
    assert door.read().program == actual
    assert narrowing > 10


def test_a_narrowing_change_moves_the_generation_in_every_line_that_holds_it(door):
    before, after = nasty_program(1), nasty_program(2)
    apply(door, Program(), before, Generation(1))
    assert apply(door, before, after, Generation(2)).narrows
    assert door.read().generation == 2


# Each replaces a line of ours by one that an inattentive reader would take for it.
LOOKALIKES = {
    "a look-up turned round": ("leave", "iifname @ports", "iifname != @ports"),
    "a prefix turned round": ("origin", 'iifname "veth*"', 'iifname != "veth*"'),
    "half a range": ("closed", "counter", "meta l4proto >= 200 counter"),
    "a state turned round": ("arrive", "ct state established", "ct state != established"),
    "a generation turned round": ("arrive", "== @fresh", "!= @fresh"),
    "a generation of fewer bits": ("arrive", "0xffff0000 == @fresh", "0xff000000 == @fresh"),
    "a masked port": ("unspecified", "udp sport 68", "udp sport & 0xfffe == 68"),
    "a log of more": ("refuse_stray", "snaplen 128", "snaplen 1280"),
    "a log that is not bounded": ("refuse_stray", "limit rate 10/second", "limit rate 1000/second"),
    "a log that is told to somebody else": ("refuse_stray", "group 5280", "group 1"),
    "a mask with a hole": ("unspecified", "ip saddr 0.0.0.0", "ip saddr & 255.0.255.255 == 0.0.0.0"),
}

TAMPERINGS = {
    "a rule of somebody's": "insert rule inet ringfence arrive accept",
    "a rule with an expression that we never use": "add rule inet ringfence allow log prefix x accept",
    "a rule that looks like ours": "insert rule inet ringfence closed accept",
    "a set of somebody's": "add set inet ringfence theirs { type mark; elements = { 7 }; }",
    "an interval set of somebody's": "add set inet ringfence theirs { type inet_service; flags interval; }",
    "a chain of somebody's": "add chain inet ringfence theirs { type filter hook input priority 5; }",
    "a chain that drops": "add chain inet ringfence theirs { type filter hook prerouting priority 5; policy drop; }",
    "our own chain made to drop": (
        "add chain inet ringfence arrive { type filter hook postrouting priority 0; policy drop; }"
    ),
    "a counter of somebody's": "add counter inet ringfence theirs",
    "an element too many": 'add element inet ringfence ports { "lo" }',
    "a map entry that is missing": 'delete element inet ringfence egress { "veth-a" }',
    "a chain that was emptied": "flush chain inet ringfence origin",
    "a table that was emptied": "flush table inet ringfence",
    "no generation": "flush set inet ringfence fresh",
    "a rule of another generation": "insert rule inet ringfence arrive ct mark & 0xffff0000 == 0x00090000 accept",
}


@needs_nft
@pytest.mark.parametrize("tampering", TAMPERINGS)
def test_tampering_is_seen_and_healed(tampering, namespace, door):
    program = _wide()
    apply(door, Program(), program)
    nft(namespace, TAMPERINGS[tampering])
    reading = door.read()
    assert reading.program != program
    generation = next_generation(GENERATION) if diff_programs(reading.program, program).narrows else GENERATION
    apply(door, reading.program, program, generation)
    healed = door.read()
    assert (healed.program, healed.generation, healed.about) == (program, generation, ABOUT)


@needs_nft
def test_a_set_and_a_line_that_hold_different_generations_hold_none(namespace, door):
    apply(door, Program(), _wide())
    nft(namespace, "flush set inet ringfence fresh; add element inet ringfence fresh { 0x00090000 }")
    assert door.read().generation is None


@needs_nft
@pytest.mark.parametrize("name", LOOKALIKES)
def test_a_line_that_only_resembles_ours_is_told_apart(name, namespace, door):
    chain, ours, theirs = LOOKALIKES[name]
    program = _wide()
    apply(door, Program(), program)
    listing = nft(namespace, "-a", "list", "chain", "inet", "ringfence", chain)
    line = next(line.strip() for line in listing.splitlines() if ours in line)
    rule, _, handle = line.partition(" # handle ")
    replaced = rule.replace(ours, theirs, 1)
    assert replaced != rule
    nft(namespace, f"replace rule inet ringfence {chain} handle {handle} {replaced}")
    reading = door.read()
    assert reading.program.chains[chain] != program.chains[chain], replaced
    apply(door, reading.program, program, next_generation(GENERATION))
    assert door.read().program == program


@needs_nft
def test_a_set_with_a_flag_that_we_never_use_is_made_anew(namespace, door):
    program = _wide()
    apply(door, Program(), program)
    shape = "any_mac_ipv6 { type ifname . ipv6_addr; flags timeout; }"
    tampering = f"flush table inet ringfence; delete set inet ringfence any_mac_ipv6; add set inet ringfence {shape}"
    nft(namespace, tampering)
    reading = door.read()
    assert reading.program.sets["any_mac_ipv6"] != program.sets["any_mac_ipv6"]
    apply(door, reading.program, program)
    assert "timeout" not in nft(namespace, "list", "set", "inet", "ringfence", "any_mac_ipv6")
    assert door.read().program == program


@needs_nft
def test_a_table_that_was_deleted_is_made_again(namespace, door):
    program = _wide()
    apply(door, Program(), program)
    nft(namespace, "delete table inet ringfence")
    assert door.read().program is None
    apply(door, Program(), program)
    assert door.read().program == program


THEIRS = """
table ip ringfence {
    counter hits { }
    set ports { type ipv4_addr; elements = { 10.0.0.1 }; }
    chain arrive { ip saddr @ports counter name hits drop; }
}
table inet filter {
    chain arrive { type filter hook input priority 0; policy drop; }
}
"""


@needs_nft
def test_tables_of_others_are_neither_read_nor_touched(namespace, door):
    nft(namespace, "-f", "-", text=THEIRS)
    before = nft(namespace, "list", "ruleset")
    assert door.read().program is None
    for number in range(3):
        reading = door.read()
        apply(door, reading.program or Program(), nasty_program(number), Generation(number + 1))
    assert door.read().program == nasty_program(2)
    nft(namespace, "delete table inet ringfence")
    assert nft(namespace, "list", "ruleset") == before


FAULTS = {
    "a line that goes nowhere": (AddLine("allow", Line((Goto("nowhere"),))), "add a line to chain allow"),
    "a line that is not there": (DeleteLine("allow", Line((Drop(),))), "delete a line of chain allow"),
    "a chain that is there": (AddChain("allow", None), "add chain allow"),
    "a line in a chain that is not there": (AddLine("missing", Line((Goto("allow"),))), "add a line to chain missing"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_refused_batch_changes_nothing_and_its_step_is_named(fault, door):
    step, told = FAULTS[fault]
    before, after = nasty_program(3), nasty_program(4)
    apply(door, Program(), before)
    held, changes = door.read(), door.count_changes()
    flip = diff_programs(before, after).flip
    middle = len(flip) // 2
    with pytest.raises(OperatorError, match=re.escape(told)) as caught:
        door.commit((*flip[:middle], step, *flip[middle:]), generation=Generation(9), about=About(8, "new"))
    assert "nothing was changed" in str(caught.value)
    assert door.read() == held
    assert door.count_changes() == changes


def test_after_a_refusal_the_right_change_still_succeeds(door):
    program = nasty_program(5)
    with pytest.raises(OperatorError):
        door.commit((AddChain("x", None),), generation=GENERATION, about=None)
    apply(door, Program(), program)
    assert door.read().program == program


def test_large_sets_are_split_into_messages_and_stay_one_transaction(door):
    many = [f"10.{n // 256}.{n % 256}.0/25" for n in range(3000)]
    name = group_id("many")
    group = Group(name, ORGANISATION, "many", rules=(_from_group(name),), sources=tuple(map(cidr, many)))
    wearer = dweller(MANAGED[0], [name])
    program = compile_program(resolve_view(Snapshot(Revision(1), {}, {name: group}, {wearer.id: wearer})), PORTS)
    changes = door.count_changes()
    apply(door, Program(), program)
    assert door.count_changes() == changes + 2
    assert door.read().program == program
    assert max(len(set_.elements) for set_ in program.sets.values()) == 3000


def _from_group(name):
    return Rule(RuleId(UUID(int=1)), Direction.INGRESS, Protocol.TCP, GroupPeer(name))


@pytest.mark.full
def test_a_damaged_reading_is_a_reading_or_a_plain_error(namespace, door):
    apply(door, Program(), _wide())
    recorded = _recorded(namespace)
    rng = random.Random(1)
    outcomes = Counter(_replayed(recorded, rng) for _ in range(count(reduced=100, stated=1500)))
    assert min(outcomes["read"], outcomes["refused"]) > 5, outcomes


def _recorded(namespace):
    """What the kernel answers to each request of a whole reading."""
    answers = []
    channel = namespace.run(NetlinkSocket)
    conversation = read_table()
    request = next(conversation)
    try:
        while True:
            answers.append(channel.dump(request))
            request = conversation.send(answers[-1])
    except StopIteration:
        return answers
    finally:
        channel.close()


def _replayed(answers, rng):
    """The recorded conversation again, with some bits of one answer turned."""
    damaged = [bytearray(answer) for answer in answers]
    victim = rng.choice([answer for answer in damaged if answer])
    for _ in range(rng.randrange(1, 4)):
        victim[rng.randrange(len(victim))] ^= 1 << rng.randrange(8)
    conversation = read_table()
    next(conversation)
    try:
        for answer in damaged:
            conversation.send(bytes(answer))
    except StopIteration:
        return "read"
    except (ValueError, KeyError):  # what the door turns into a plain error
        return "refused"
    return "read"  # it asked for another round, because a generation was damaged
