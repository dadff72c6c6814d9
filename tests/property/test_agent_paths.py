"""The kernel's state depends on the newest view, never on the way to it: any order, repetition, restart or failure."""

from hypothesis import given, settings
from hypothesis import strategies as st

from fake_doors import FakeConntrack, FakeNftables
from ringfence.agent.enforce import Enforcer
from ringfence.agent.generations import Generations
from ringfence.nft import About
from ringfence.policy.errors import OperatorError
from ringfence.policy.program.compile import LocalPorts, compile_program
from views import local_views

PORTS = LocalPorts(("veth*",))
EVENTS = st.sampled_from(["again", "restart", "flush", "refuse once", "refuse", "nothing"])


@given(st.lists(st.tuples(local_views(), EVENTS), min_size=1, max_size=5))
@settings(max_examples=60, deadline=None)
def test_whatever_came_before_the_kernel_holds_the_newest_view(path):
    nftables, conntrack = FakeNftables(), FakeConntrack()
    enforcer = Enforcer(nftables, Generations(conntrack), last_block=None)
    for revision, (view, event) in enumerate(path):
        refusals = iter({"refuse once": ["no"], "refuse": ["no", "no", "no"]}.get(event, []))
        nftables.refuse = lambda _, left=refusals: next(left, None)
        if event == "restart":
            enforcer = Enforcer(nftables, Generations(conntrack), last_block=None)
        if event == "flush":
            nftables.flush()
            enforcer.distrust()
        for _ in range(2 if event == "again" else 1):
            try:
                enforcer.enforce(view, About(revision, "e1"), PORTS)
            except OperatorError:
                assert event == "refuse"
    nftables.refuse = lambda _: None
    enforcer.enforce(view, About(revision, "e1"), PORTS)
    reading = nftables.read()
    assert reading.program == compile_program(view, PORTS)
    assert reading.about == About(revision, "e1")
    assert reading.generation is not None
