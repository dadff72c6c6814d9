"""Rules in force as elements, in a real kernel: they let pass what they should, count it, and settle unnoticed."""

from contextlib import closing

import pytest

from lab import open_lab
from policies import group, rule
from ringfence.agent.enforce import Enforcer
from ringfence.agent.generations import Generations
from ringfence.nft import About
from ringfence.policy.program.compile import compile_program
from ringfence.policy.program.names import LATE, rule_counter
from ringfence.policy.values import Kind

pytestmark = pytest.mark.netns
ALLOWED, DENIED = True, False
KINDS = (Kind.ROUTED, Kind.BRIDGED)
MORE = ("ingress tcp/443 from 198.51.100.0/28", "ingress udp/5000-5010 from ::/0", "ingress udp/53 from group peers")
OUT = "egress tcp/8000-8010 to 198.51.100.0/24"


def _enforce(lab, *more):
    return lab.enforce(
        group("web", "ingress tcp/80 from 0.0.0.0/0", *more),
        group("out", "egress udp/1 to 10.0.0.0/8", *([OUT] if more else [])),
        group("peers"),
        lab.instance("web", "web"),
        lab.instance("app", "out", "peers"),
        lab.instance("db", "peers"),
    )


def _hits(lab, text):
    return lab.nftables.read().hits[rule_counter(rule(text, "out" if text == OUT else "web").id)]


def _elements(lab):
    sets = lab.nftables.read().program.sets
    return sum(len(sets[name].elements) for name in LATE.values())


def test_a_rule_counts_and_lets_pass_as_an_element_and_over_settling(lab):
    _enforce(lab)
    allowed = [
        lab.tcp("outside", "web", 443),
        lab.udp("outside", "web", 5010, 6),
        lab.udp("db", "web", 53, 6),
        lab.udp("db", "web", 53),
        lab.tcp("app", "outside", 8005),
    ]
    denied = [
        lab.tcp("beyond", "web", 443),
        lab.udp("outside", "web", 5011, 6),
        lab.udp("outside", "web", 53),
        lab.udp("outside", "db", 5010, 6),
        lab.tcp("app", "outside", 8011),
    ]
    lab.expect(DENIED, *allowed, *denied)
    lab.settles = False
    _enforce(lab, *MORE)
    assert _elements(lab) >= 7
    lab.expect(ALLOWED, *allowed)
    lab.expect(DENIED, *denied)
    lab.expect(ALLOWED, *allowed)
    counted = [_hits(lab, text) for text in (*MORE, OUT)]
    assert counted == [2, 2, 4, 2]
    generation = lab.generation
    lab.settles = True
    _enforce(lab, *MORE)
    assert (_elements(lab), lab.generation) == (0, generation)
    assert [_hits(lab, text) for text in (*MORE, OUT)] == counted
    lab.expect_fate(ALLOWED, *(way.back() for way in allowed), *(way.again() for way in allowed))
    assert [_hits(lab, text) for text in (*MORE, OUT)] == counted, "a flow that an element let pass was judged anew"
    lab.expect(ALLOWED, *allowed)
    lab.expect(DENIED, *denied)
    _enforce(lab)
    lab.expect_fate(DENIED, *(way.again() for way in allowed))


def test_whoever_starts_after_a_kill_in_between_finds_the_elements_and_makes_lines_of_them():
    with closing(open_lab()) as lab:
        _enforce(lab)
        lab.settles = False
        _enforce(lab, *MORE)
        assert _elements(lab) > 0
        started = Enforcer(lab.nftables, Generations(lab.conntrack), last_block=None)
        generation = lab.generation
        started.enforce(lab.view, About(lab.view.revision, "lab"), lab.ports)
        started.settle()
        assert (_elements(lab), lab.generation) == (0, generation)
        assert lab.nftables.read().program == compile_program(lab.view, lab.ports)
        lab.expect(ALLOWED, lab.tcp("outside", "web", 443))
