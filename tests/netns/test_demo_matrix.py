"""The demo's three columns can disagree: a kernel that does not hold the policy is found out, cell by cell."""

from dataclasses import replace
from types import MappingProxyType
from uuid import UUID

import pytest

from ringfence.agent.doors.nftables import KernelNftables
from ringfence.nft import About, Generation
from ringfence.policy.errors import OperatorError
from ringfence.policy.model import Rule
from ringfence.policy.program.compile import LocalPorts, compile_program
from ringfence.policy.program.delta import diff_programs
from ringfence.policy.program.model import Program
from ringfence.policy.values import Direction, GroupId, InstanceId, Protocol, Revision, RuleId, parse_cidr
from ringfence.policy.view import Endpoint, HostView
from ringfence.world.demo_matrix import KernelCounters, Question, ask_all
from ringfence.world.demo_scene import BACKUP, HTTPS, INTERNET, POSTGRES, WEB
from ringfence.world.prober import Listeners, Probe
from ringfence.world.topology import build_world

pytestmark = pytest.mark.netns

GROUP = GroupId(UUID(int=1))
RULE = Rule(
    RuleId(UUID(int=2)), Direction.INGRESS, Protocol.TCP, parse_cidr("0.0.0.0/0", field="x"), HTTPS.port, HTTPS.port
)


def _view(placed, rules):
    endpoint = Endpoint(InstanceId(UUID(int=3)), "web", placed.port, placed.node.addresses, placed.mac, (GROUP,))
    return HostView(Revision(1), (endpoint,), MappingProxyType({GROUP: rules}))


def _load(world, view):
    def commit():
        door = KernelNftables()
        delta = diff_programs(Program(), compile_program(view, LocalPorts(("veth*",))))
        door.commit(delta.prepare, generation=Generation(1), about=None)
        door.commit(delta.flip, generation=Generation(1), about=About(1, "test"))
        door.close()

    world.router.run(commit)


@pytest.fixture
def world():
    built = build_world((WEB, INTERNET, BACKUP))
    listeners = Listeners()
    listeners.start([placed.namespace for placed in built.placed.values()], (HTTPS, POSTGRES))
    yield built
    listeners.close()
    built.close()


@pytest.fixture
def view(world):
    return _view(world.placed["web"], (RULE,))


@pytest.fixture
def ask(world):
    """The cells of web's two ports, by port."""
    counters = []

    def asked(view):
        counters.append(KernelCounters(world))
        internet, web = world.placed["internet"], world.placed["web"]
        questions = [Question(internet, web, service, 4) for service in (HTTPS, POSTGRES)]
        control = Probe(internet.namespace, BACKUP.addresses[0], POSTGRES)
        return {cell.question.service: cell for cell in ask_all(questions, view, counters[-1], control)}

    yield asked
    for opened in counters:
        opened.close()


def test_a_kernel_that_holds_the_policy_agrees_and_names_its_rule(world, view, ask):
    _load(world, view)
    cells = ask(view)
    assert [(cell.model, cell.kernel, cell.agrees) for cell in cells.values()] == [
        (True, True, True),
        (False, False, True),
    ]
    assert cells[HTTPS].counters == {f"r_{RULE.id.hex}"}


def test_a_kernel_that_lacks_a_rule_disagrees_in_that_cell_alone(world, view, ask):
    _load(world, replace(view, rules=MappingProxyType({GROUP: ()})))
    cells = ask(view)
    assert (cells[HTTPS].agrees, cells[POSTGRES].agrees) == (False, True)
    assert not cells[HTTPS].leaked


def test_a_kernel_with_a_rule_too_many_leaks_in_that_cell_alone(world, view, ask):
    extra = replace(RULE, id=RuleId(UUID(int=9)), start_port=POSTGRES.port, end_port=POSTGRES.port)
    _load(world, replace(view, rules=MappingProxyType({GROUP: (RULE, extra)})))
    cells = ask(view)
    assert (cells[HTTPS].agrees, cells[POSTGRES].agrees) == (True, False)
    assert cells[POSTGRES].leaked


def test_the_right_answer_by_the_wrong_rule_is_a_disagreement(world, view, ask):
    other = replace(RULE, id=RuleId(UUID(int=9)))
    _load(world, replace(view, rules=MappingProxyType({GROUP: (other,)})))
    cell = ask(view)[HTTPS]
    assert cell.model == cell.outcome.passed == cell.kernel
    assert not cell.agrees


def test_nothing_is_concluded_when_the_unfiltered_control_gets_no_answer(world, view, ask):
    _load(world, view)
    world.unplug("backup")
    with pytest.raises(OperatorError, match="control probe"):
        ask(view)
