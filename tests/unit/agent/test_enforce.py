"""The applier against a kernel in memory: what it holds after each view, each failure, each tampering."""

from contextlib import suppress
from dataclasses import replace
from ipaddress import ip_address, ip_network
from itertools import count

import pytest

from fake_doors import FakeConntrack, FakeNftables
from ringfence.agent.enforce import CLOSED, MOST_MENDED, Enforcer
from ringfence.agent.generations import Generations
from ringfence.nft import About, Generation, Touched
from ringfence.policy.errors import OperatorError
from ringfence.policy.program import delta, names
from ringfence.policy.program.base_chains import STAMP
from ringfence.policy.program.compile import LocalPorts, compile_program
from ringfence.policy.program.model import (
    Accept,
    Chain,
    Count,
    Dispatch,
    ElementType,
    Goto,
    Hook,
    HookName,
    Jump,
    Line,
    Member,
    NamedSet,
    Stamp,
)
from ringfence.policy.program.steps import (
    AddChain,
    AddCounter,
    AddElements,
    AddLine,
    AddSet,
    AddTargets,
    DeleteChain,
    DeleteElements,
    DeleteTargets,
    FlushChain,
    SetGeneration,
)
from ringfence.policy.program.waypoints import find_way
from ringfence.policy.values import Direction
from ringfence.policy.view import PeerAddresses
from views import GROUPS, endpoint, ingress, view

WEB, APP, SOURCES = GROUPS[:3]
PORTS = LocalPorts(("veth*",))
P_IN, P_OUT = (names.profile_chain(names.profile_of((WEB,)), direction) for direction in Direction)
ONE = view(1, endpoint("web", WEB), rules={WEB: (ingress(80),)})
TWO = view(
    2,
    endpoint("web", WEB),
    endpoint("app", APP),
    rules={WEB: (ingress(80), ingress(443, APP, number=2)), APP: (ingress(22, SOURCES, number=3),)},
    peers={
        APP: PeerAddresses(frozenset({ip_address("10.77.0.97")})),
        SOURCES: PeerAddresses(frozenset(), frozenset({ip_network("10.0.0.0/8")})),
    },
)
EMPTY = view(3)
MOVING, STAYING = ip_address("10.77.0.97"), ip_address("10.77.0.98")
EXCHANGED = [
    view(
        4 + turn,
        endpoint("web", WEB),
        rules={WEB: (ingress(80, one, number=4 + turn), ingress(443, other, number=6 + turn))},
        peers={one: PeerAddresses(frozenset({MOVING, STAYING})), other: PeerAddresses(frozenset({STAYING}))},
    )
    for turn, (one, other) in enumerate(((APP, SOURCES), (SOURCES, APP)))
]


class World:
    """A kernel and the agent's applier, which can be started anew."""

    def __init__(self, compile_=compile_program):
        self.nftables = FakeNftables()
        self.conntrack = FakeConntrack()
        self.compile = compile_
        self.start()

    def start(self):
        self.enforcer = Enforcer(self.nftables, Generations(self.conntrack), last_block=None, compile_=self.compile)

    def enforce(self, wanted, epoch="e1"):
        outcome = self.enforcer.enforce(wanted, About(wanted.revision, epoch), PORTS)
        self.enforcer.settle()
        return outcome

    @property
    def program(self):
        return self.nftables.read().program

    @property
    def generation(self):
        return self.nftables.read().generation


@pytest.fixture
def world():
    return World()


def test_the_kernel_holds_what_was_asked_for_and_says_so(world):
    outcome = world.enforce(TWO)
    assert world.program == compile_program(TWO, PORTS)
    assert world.nftables.read_about() == outcome.about == About(2, "e1")
    assert (outcome.changed, outcome.refused, outcome.repaired) == (True, (), None)


def test_a_change_that_is_not_found_in_the_kernel_afterwards_is_made_anew_or_told(world):
    world.enforce(ONE)
    read, stale = world.nftables.read_about, [About(1, "e1")]
    world.nftables.read_about = lambda: stale.pop() if stale else read()
    assert (
        world.enforce(TWO).repaired
        == "read back the change: expected 'revision=2 epoch=e1', found 'revision=1 epoch=e1'"
    )
    world.nftables.read_about = lambda: About(1, "e1")
    with pytest.raises(OperatorError, match="read back the change"):
        world.enforce(EMPTY)


def test_before_anything_else_every_port_is_closed(world):
    world.enforce(TWO)
    first = world.nftables.commits[0]
    assert first[2] == CLOSED
    world.nftables.flush()
    world.enforcer.distrust()
    world.enforcer.close_ports(PORTS)
    assert world.program == compile_program(EMPTY, PORTS)


def test_the_same_view_again_sends_nothing(world):
    world.enforce(TWO)
    before = world.nftables.count_changes()
    assert not world.enforce(TWO).changed
    assert world.nftables.count_changes() == before


def test_an_applier_started_anew_sends_nothing_when_the_kernel_holds_the_view(world):
    world.enforce(TWO)
    before = world.nftables.count_changes()
    world.start()
    assert not world.enforce(TWO).changed
    assert world.nftables.count_changes() == before


def test_a_newer_revision_of_the_same_policy_only_renews_the_note(world):
    world.enforce(TWO)
    generation = world.generation
    world.enforcer.enforce(TWO, About(9, "e1"), PORTS)
    assert world.nftables.commits[-1] == ((), generation, About(9, "e1"))


def test_sets_that_lines_will_use_are_filled_one_transaction_before(world):
    world.enforce(ONE)
    before = len(world.nftables.commits)
    world.enforce(TWO)
    prepare, flip, stamping = world.nftables.commits[before:]
    assert (prepare[2], stamping[2]) == (None, None)
    assert flip[2] == About(2, "e1")


def test_when_the_generation_moves_no_flow_is_stamped_until_no_packet_of_the_old_rules_is_under_way(world):
    world.enforce(ONE)
    before = len(world.nftables.commits)
    drained_at = []
    world.nftables.drain = lambda: drained_at.append(len(world.nftables.commits) - before)
    world.enforce(view(2, *ONE.endpoints, rules={}))
    *_, flip, stamping = [steps for steps, _, _ in world.nftables.commits[before:]]
    assert not any(_stamps(step) for step in flip)
    assert any(_stamps(step) for step in stamping)
    assert drained_at == [len(world.nftables.commits) - before - 1]


def _stamps(step):
    return isinstance(step, AddLine) and Stamp() in step.line.parts


def test_a_widening_change_keeps_the_generation_and_a_narrowing_one_moves_it(world):
    world.enforce(ONE)
    first = world.generation
    wider = view(2, *ONE.endpoints, rules={WEB: (ingress(80), ingress(443, number=2))})
    world.enforce(wider)
    assert world.generation == first
    world.enforce(view(3, *ONE.endpoints, rules={WEB: (ingress(443, number=2),)}))
    assert world.generation == first + 1


def test_a_table_made_anew_begins_in_a_swept_block_that_was_not_just_in_use(world):
    world.enforce(ONE)
    used = world.generation
    world.nftables.flush()
    world.conntrack.marks = [generation << 16 for generation in range(1, 1 << 16)]
    world.enforcer.distrust()
    world.enforce(ONE)
    assert world.generation // 256 == used // 256 + 1
    assert world.conntrack.count(world.generation << 16, 0xFFFF0000) == 0


def test_a_refused_change_is_tried_once_more_from_what_the_kernel_holds(world):
    world.enforce(ONE)
    refusals = iter(["Device or resource busy"])
    world.nftables.refuse = lambda _: next(refusals, None)
    outcome = world.enforce(TWO)
    assert "Device or resource busy" in outcome.repaired
    assert world.program == compile_program(TWO, PORTS)


def test_what_another_program_did_to_our_table_is_mended_by_the_second_try(world):
    world.enforce(ONE)
    world.nftables.commit([FlushChain("leave"), AddCounter("alien")], generation=Generation(9), about=About(1, "e1"))
    world.enforce(TWO)
    world.enforcer.distrust()
    world.enforce(TWO)
    assert world.program == compile_program(TWO, PORTS)
    assert world.nftables.read().about == About(2, "e1")


def test_lines_of_two_generations_are_all_written_anew(world):
    world.enforce(ONE)
    old = world.generation
    chain = world.program.chains["arrive"]
    world.nftables.table.generations["arrive"] = {Generation(77)}
    assert world.generation is None
    world.enforcer.distrust()
    world.enforce(ONE)
    assert world.program.chains["arrive"] == chain
    assert world.generation not in (None, 77, old)


def test_when_the_kernel_keeps_refusing_the_old_rules_stay_and_its_words_are_told(world):
    world.enforce(ONE)
    held = world.nftables.text()
    world.nftables.refuse = lambda _: "No space left on device"
    with pytest.raises(OperatorError, match="No space left on device"):
        world.enforce(TWO)
    assert world.nftables.text() == held
    world.nftables.refuse = lambda _: None
    world.enforce(TWO)
    assert world.program == compile_program(TWO, PORTS)


def test_when_a_first_view_is_refused_the_ports_are_closed(world):
    world.nftables.refuse = lambda steps: "too large" if any(isinstance(step, AddTargets) for step in steps) else None
    with pytest.raises(OperatorError, match="too large"):
        world.enforce(TWO)
    assert _in_use(world.program) == _in_use(compile_program(EMPTY, PORTS))
    assert world.nftables.read_about() == CLOSED


def test_a_table_that_vanished_is_closed_before_anything_else_is_tried(world):
    world.enforce(ONE)
    world.nftables.flush()
    world.nftables.refuse = lambda steps: "too large" if any(isinstance(step, AddTargets) for step in steps) else None
    with pytest.raises(OperatorError, match="too large"):
        world.enforce(TWO)
    assert _in_use(world.program) == _in_use(compile_program(EMPTY, PORTS))


def test_a_table_that_is_removed_during_a_load_is_closed_at_the_next_piece_and_the_load_begun_anew(world, monkeypatch):
    monkeypatch.setattr(delta, "_PIECE", 3)
    world.enforcer.close_ports(PORTS)
    commit = world.nftables.commit

    def flush_after_the_third(steps, *, generation, about):
        commit(steps, generation=generation, about=about)
        if len(world.nftables.commits) == 3:
            world.nftables.flush()

    monkeypatch.setattr(world.nftables, "commit", flush_after_the_third)
    outcome = world.enforce(TWO)
    assert "another program removed our table" in outcome.repaired
    assert world.nftables.commits[3][2] == CLOSED, "closed before anything else"
    assert world.program == compile_program(TWO, PORTS)


def test_tampered_rules_that_cannot_be_mended_are_closed_and_intact_ones_stay(world):
    world.enforce(TWO)
    world.nftables.commit([FlushChain("leave")], generation=Generation(1), about=None)
    world.nftables.refuse = lambda steps: "too large" if any(isinstance(step, AddTargets) for step in steps) else None
    wanted = view(4, *TWO.endpoints, endpoint("db"), rules=TWO.rules, peers=TWO.peers)
    with pytest.raises(OperatorError, match="too large"):
        world.enforce(wanted)
    assert world.program == compile_program(EMPTY, PORTS)


def test_hooks_that_another_program_removed_are_closed_first_and_rewritten_with_one_generation(world):
    world.enforce(TWO)
    for chain in ("origin", "leave", "arrive"):
        world.nftables.commit([FlushChain(chain), DeleteChain(chain)], generation=Generation(1), about=None)
    before = len(world.nftables.commits)
    world.enforcer.distrust()
    world.enforce(TWO)
    assert world.nftables.commits[before][2] == CLOSED
    assert world.program == compile_program(TWO, PORTS)
    assert world.generation is not None


@pytest.mark.parametrize("before", [None, ONE], ids=["nothing", "a view"])
@pytest.mark.parametrize("failing", range(1, 7))
def test_whichever_commit_fails_the_kernel_holds_a_whole_view_and_gets_there_at_last(before, failing):
    world = World()
    old = [None, compile_program(EMPTY, PORTS)]
    if before is not None:
        world.enforce(before)
        old = [world.program]
    numbers = count(1)
    world.nftables.refuse = lambda _: "refused" if next(numbers) >= failing else None
    with suppress(OperatorError):
        world.enforce(TWO)
    new = compile_program(TWO, PORTS)
    assert _in_use(world.program) in [_in_use(each) for each in (*old, new, _without_stamps(new))]
    world.nftables.refuse = lambda _: None
    world.enforce(TWO)
    assert world.program == compile_program(TWO, PORTS)


def test_whichever_step_of_a_way_fails_the_kernel_holds_a_program_of_it_and_gets_there_at_last():
    """The groups exchange a member and their rules at once, which is never seen mixed."""
    before, after = (compile_program(each, PORTS) for each in EXCHANGED)
    way = [_in_use(each) for each in (before, *(leg.program for leg in find_way(before, after)))]
    assert len(way) == 5
    for failing in count(1):
        world = World()
        world.enforce(EXCHANGED[0])
        sent = len(world.nftables.commits)
        world.nftables.refuse = lambda _, world=world, last=sent + failing: (
            "refused" if len(world.nftables.commits) + 1 >= last else None
        )
        with suppress(OperatorError):
            world.enforce(EXCHANGED[1])
        assert _in_use(world.program) in [*way, *map(_without_stamps, way)]
        if world.program == after:
            break  # nothing failed any more
        if failing % 2:
            world.start()
        world.nftables.refuse = lambda _: None
        world.enforce(EXCHANGED[1])
        assert world.program == after
    assert failing > len(way)


def _without_stamps(program):
    """What is in force until no packet of the old rules is under way."""
    return replace(program, chains={**program.chains, STAMP: Chain(())})


def _in_use(program):
    """The program but for what was made ahead and that nothing leads to yet."""
    if program is None:
        return None
    reached, ahead = {}, [name for name, chain in program.chains.items() if chain.hook]
    while ahead:
        name = ahead.pop()
        if name not in reached:
            reached[name] = program.chains[name]
            for part in _parts(program.chains[name]):
                ahead += [part.chain] if isinstance(part, Jump | Goto) else []
                ahead += program.maps[part.map].targets.values() if isinstance(part, Dispatch) else []
    parts = [part for chain in reached.values() for part in _parts(chain)]
    asked = {part.set for part in parts if isinstance(part, Member)}
    counters = frozenset(part.counter for part in parts if isinstance(part, Count))
    sets = {name: set_ for name, set_ in program.sets.items() if name in asked}
    return replace(program, counters=counters, sets=sets, chains=reached)


def _parts(chain):
    return [part for line in chain.lines for part in line.parts]


def test_an_instance_that_cannot_be_compiled_stays_closed_and_the_others_converge():
    def compile_(wanted, ports):
        if any(end.name == "web" for end in wanted.endpoints):
            raise ZeroDivisionError("poison")
        return compile_program(wanted, ports)

    world = World(compile_)
    outcome = world.enforce(TWO)
    assert outcome.refused == ("instance 'web' stays closed: ZeroDivisionError: poison",)
    targets = world.program.maps["ingress"].targets
    assert set(targets) == {"veth-app"}


CURSED = {
    "a group's chain": lambda: names.group_chain(APP, Direction.INGRESS),
    "a profile's chain": lambda: names.profile_chain(names.profile_of((APP,)), Direction.EGRESS),
    "a set": lambda: names.source_set(SOURCES, 4),
}


@pytest.mark.parametrize("name", CURSED.values(), ids=CURSED)
def test_an_instance_whose_rules_the_kernel_refuses_stays_closed_and_the_others_converge(world, name):
    world.enforce(ONE)
    world.nftables.cursed.add(name())
    outcome = world.enforce(TWO)
    (said,) = outcome.refused
    assert said.startswith("instance 'app' stays closed: the kernel refused its rules: ")
    assert name() in said
    assert outcome.left_out
    assert world.nftables.read_about() == About(2, "e1")
    assert set(world.program.maps["ingress"].targets) == {"veth-web"}
    assert world.enforcer.is_whole()


def test_it_is_tried_again_without_reading_and_comes_back_when_the_cause_is_healed(world):
    name = names.source_set(SOURCES, 4)
    world.nftables.cursed.add(name)
    world.enforce(TWO)
    reads = world.nftables.reads
    assert world.enforce(TWO).left_out
    assert world.nftables.reads == reads
    world.nftables.cursed.clear()
    outcome = world.enforce(TWO)
    assert (outcome.refused, outcome.left_out) == ((), False)
    assert world.program == compile_program(TWO, PORTS)


def test_two_instances_refused_for_different_causes_are_both_left_out(world):
    third = view(4, *TWO.endpoints, endpoint("db"), rules=TWO.rules, peers=TWO.peers)
    world.nftables.cursed = {names.group_chain(WEB, Direction.INGRESS), names.source_set(SOURCES, 4)}
    outcome = world.enforce(third)
    assert len(outcome.refused) == 2
    assert set(world.program.maps["ingress"].targets) == {"veth-db"}


def test_what_all_share_is_blamed_on_nobody(world):
    world.enforce(ONE)
    held = _in_use(world.program)
    world.nftables.cursed.add("ingress")
    with pytest.raises(OperatorError, match="cursed"):
        world.enforce(TWO)
    assert _in_use(world.program) == held


GROUP_IN = names.group_chain(WEB, Direction.INGRESS)
MEMBERS = names.member_set(APP, 4)
STRANGER = (ip_address("10.9.9.9"),)
MEMBER = (ip_address("10.77.0.97"),)
ALIEN = AddLine(GROUP_IN, Line((Accept(),)))

INTRUSIONS = {
    "a base chain flushed": [FlushChain("leave")],
    "a base chain deleted": [FlushChain("origin"), DeleteChain("origin")],
    "a group's chain flushed": [FlushChain(GROUP_IN)],
    "a line added": [ALIEN],
    "a chain added and led to": [AddChain("alien", None), AddLine(GROUP_IN, Line((Jump("alien"),)))],
    "a base chain added": [AddChain("alien", Hook(HookName.PREROUTING, -400)), AddLine("alien", Line((Accept(),)))],
    "a member added": [AddElements(MEMBERS, NamedSet((ElementType.IPV4,)), (STRANGER,))],
    "all members taken out": [DeleteElements(MEMBERS, NamedSet((ElementType.IPV4,)), (MEMBER,))],
    "a port taken out of the map": [DeleteTargets(names.EGRESS_MAP, (("veth-web", P_OUT),))],
    "a port led elsewhere": [
        DeleteTargets(names.INGRESS_MAP, (("veth-web", P_IN),)),
        AddTargets(names.INGRESS_MAP, (("veth-web", "allow"),)),
    ],
    "a set and a counter added": [AddSet("alien", NamedSet((ElementType.IPV6,))), AddCounter("alien")],
}


@pytest.mark.parametrize("steps", INTRUSIONS.values(), ids=INTRUSIONS)
def test_what_was_touched_is_written_anew_without_reading_the_whole_table(world, steps):
    world.enforce(TWO)
    reads = world.nftables.reads
    world.nftables.intrude(*steps)
    assert world.enforcer.mend(world.nftables.notices.take().touched, PORTS)
    assert world.nftables.reads == reads
    assert world.program == compile_program(TWO, PORTS)
    assert world.generation is not None
    assert world.nftables.read_about() == About(2, "e1")


def test_lines_that_were_touched_and_are_what_they_were_move_nothing(world):
    world.enforce(TWO)
    before = len(world.nftables.commits)
    assert not world.enforcer.mend(Touched(chains=frozenset({GROUP_IN, "gone"})), PORTS)
    assert len(world.nftables.commits) == before


@pytest.mark.parametrize("steps", [(SetGeneration(),), "stamp"], ids=["set", "line"])
def test_another_generation_than_ours_is_written_anew(world, steps):
    world.enforce(TWO)
    intrusion = (FlushChain(STAMP), *_lines_of(STAMP)) if steps == "stamp" else steps
    world.nftables.intrude(*intrusion, generation=77)
    assert world.generation is None
    assert world.enforcer.mend(world.nftables.notices.take().touched, PORTS)
    assert world.generation not in (None, 77)
    assert world.program == compile_program(TWO, PORTS)


def _lines_of(chain):
    return [AddLine(chain, line) for line in compile_program(TWO, PORTS).chains[chain].lines]


@pytest.mark.parametrize("touched", [Touched(table=True), Touched(sets=frozenset(map(str, range(MOST_MENDED + 1))))])
def test_a_table_that_was_touched_as_such_or_too_much_is_closed_in_one_transaction_whatever_it_holds(world, touched):
    world.enforce(TWO)
    before, reads = len(world.nftables.commits), world.nftables.reads
    assert world.enforcer.mend(touched, PORTS)
    assert world.nftables.reads == reads
    assert len(world.nftables.commits) == before + 1
    assert world.program == compile_program(EMPTY, PORTS)
    assert world.nftables.read_about() == CLOSED
    assert world.enforce(TWO).changed
    assert world.program == compile_program(TWO, PORTS)


def test_a_flushed_table_is_closed_even_while_nothing_is_trusted(world):
    world.enforce(TWO)
    world.enforcer.distrust()
    world.nftables.flush()
    assert world.enforcer.mend(world.nftables.notices.take().touched, PORTS)
    assert world.nftables.read_about() == CLOSED


def test_what_cannot_be_mended_alone_is_found_by_the_whole_reading(world):
    world.enforce(TWO)
    world.nftables.intrude(FlushChain("leave"))
    world.nftables.refuse = lambda _: "busy"
    with pytest.raises(OperatorError):
        world.enforcer.mend(world.nftables.notices.take().touched, PORTS)
    world.nftables.refuse = lambda _: None
    world.enforcer.distrust()
    world.enforce(TWO)
    assert world.program == compile_program(TWO, PORTS)


def test_a_change_inside_our_table_is_noticed_by_reading_it(world):
    world.enforce(TWO)
    assert world.enforcer.is_whole()
    world.nftables.commit([FlushChain("leave")], generation=Generation(9), about=None)
    assert not world.enforcer.is_whole()


class TestHaste:
    """Rules that come are elements first, and lines when somebody settles them."""

    MORE = replace(TWO, revision=3, rules={**TWO.rules, WEB: (*TWO.rules[WEB], ingress(8080, number=9))})
    LATE = names.LATE[Direction.INGRESS, 4]

    @pytest.fixture
    def hasty(self, world):
        world.enforce(TWO)
        world.nftables.commits.clear()
        world.enforcer.enforce(self.MORE, About(3, "e1"), PORTS)
        return world

    def test_a_rule_is_in_force_and_noted_without_a_line_and_then_it_is_a_line_without_an_element(self, hasty):
        ((steps, generation, about),) = hasty.nftables.commits
        assert [type(step) for step in steps] == [AddCounter, AddElements]
        assert about == About(3, "e1")
        assert hasty.enforcer.is_whole()
        hasty.enforcer.settle()
        _, lines, last = hasty.nftables.commits
        assert [type(step) for step in lines[0]] == [AddLine]
        assert [type(step) for step in last[0]] == [DeleteElements]
        assert lines[1] == last[1] == generation == hasty.generation
        assert hasty.program == compile_program(self.MORE, PORTS)
        assert hasty.enforcer.is_whole()

    def test_elements_go_when_no_packet_is_under_way_by_lines_of_before(self, hasty):
        said = []
        hasty.nftables.drain = lambda: said.append(hasty.program)
        hasty.enforcer.settle()
        (drained,) = said
        assert drained.sets[self.LATE].elements
        assert drained.chains == hasty.program.chains

    def test_an_applier_that_starts_in_between_has_nothing_to_send_and_then_settles(self, hasty):
        hasty.start()
        before = hasty.nftables.count_changes()
        assert not hasty.enforcer.enforce(self.MORE, About(3, "e1"), PORTS).changed
        assert hasty.nftables.count_changes() == before
        hasty.enforcer.settle()
        assert hasty.program == compile_program(self.MORE, PORTS)

    def test_an_applier_that_was_killed_between_lines_and_elements_takes_the_elements_away(self, hasty):
        hasty.nftables.refuse = lambda steps: any(isinstance(step, DeleteElements) for step in steps) and "killed"
        with suppress(OperatorError):
            hasty.enforcer.settle()
        hasty.nftables.refuse = lambda _: None
        hasty.start()
        hasty.enforce(self.MORE)
        assert hasty.program == compile_program(self.MORE, PORTS)

    def test_what_comes_before_anybody_settled_goes_on_from_there(self, hasty):
        fewer = replace(self.MORE, revision=4, rules={**self.MORE.rules, WEB: self.MORE.rules[WEB][1:]})
        hasty.enforce(fewer)
        assert hasty.program == compile_program(fewer, PORTS)

    def test_whoever_lost_what_is_known_settles_nothing_by_it(self, hasty):
        hasty.enforcer.distrust()
        sent = len(hasty.nftables.commits)
        hasty.enforcer.settle()
        assert len(hasty.nftables.commits) == sent

    def test_a_kernel_that_refuses_the_elements_takes_the_lines(self, world):
        world.enforce(TWO)
        world.nftables.cursed = {self.LATE}
        assert world.enforce(self.MORE).repaired
        assert world.program == compile_program(self.MORE, PORTS)

    def test_tampered_elements_are_mended(self, hasty):
        held = hasty.program.sets[self.LATE]
        hasty.nftables.intrude(DeleteElements(self.LATE, replace(held, elements=frozenset()), tuple(held.elements)))
        assert hasty.enforcer.mend(Touched(sets=frozenset({self.LATE})), PORTS)
        assert hasty.program.sets[self.LATE] == held
        assert hasty.enforcer.is_whole()


def test_flows_of_who_loses_a_group_that_another_keeps_are_judged_anew(world):
    """Nothing but the map changes then: no chain, and no set."""
    rules = {WEB: (ingress(80),)}
    world.enforce(view(1, endpoint("web", WEB), endpoint("app", WEB), endpoint("db"), rules=rules))
    before = world.generation
    world.enforce(view(2, endpoint("web", WEB), endpoint("app"), endpoint("db"), rules=rules))
    assert world.generation != before


def test_flows_through_a_port_that_comes_under_our_care_are_judged_anew(world):
    """Nothing but the set of ports changes then, and it only grows."""
    generations = []
    for patterns in (("veth-web",), ("veth-late", "veth-web")):
        world.enforcer.enforce(ONE, About(1, "e1"), LocalPorts(patterns))
        generations.append(world.generation)
    assert generations[0] != generations[1]
