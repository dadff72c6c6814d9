"""Of an observed instance nothing is dropped or cut: all is judged, counted and told, and passes; nobody else gains."""

from dataclasses import replace

import pytest

from lab import FAMILIES
from policies import group
from ringfence.policy.packet import ICMPV6
from ringfence.policy.program import names
from ringfence.policy.program.refusal import Refusal
from ringfence.policy.values import Kind, Mac
from ringfence.policy.verdict import Default

pytestmark = pytest.mark.netns

ALLOWED, DENIED = True, False
families = pytest.mark.parametrize("family", FAMILIES)
everywhere = pytest.mark.kind(Kind.ROUTED, Kind.BRIDGED)
SHUT = "egress tcp/1 to 192.0.2.1/32"


def _observed(instance):
    return replace(instance, observe=True)


def _would(lab, refusal):
    return lab.nftables.read().hits[names.would_counter(refusal.value)]


@everywhere
@families
def test_of_an_observed_instance_nothing_is_dropped_in_either_direction(lab, family):
    lab.enforce(group("shut", SHUT), _observed(lab.instance("web", "shut")), lab.instance("app"))
    into, out = lab.udp("outside", "web", 53, family), lab.udp("web", "outside", 53, family)
    before = _would(lab, Refusal.DENIED_IN), _would(lab, Refusal.DENIED_OUT)
    lab.expect(ALLOWED, into, out, lab.tcp("outside", "web", 22, family), lab.echo("outside", "web", family))
    assert _would(lab, Refusal.DENIED_IN) == before[0] + 3
    assert _would(lab, Refusal.DENIED_OUT) == before[1] + 1
    lab.expect(DENIED, lab.udp("outside", "app", 53, family))


@everywhere
@families
def test_who_is_enforced_gains_nothing_by_an_observed_peer(lab, family):
    lab.enforce(_observed(lab.instance("web")), group("shut", SHUT), lab.instance("app", "shut"))
    lab.expect(DENIED, lab.udp("web", "app", 53, family), lab.udp("app", "web", 53, family))
    lab.expect(DENIED, lab.udp("app", "outside", 53, family))


@families
def test_an_observed_instance_may_even_spoof_and_it_is_told(lab, family):
    lab.enforce(_observed(lab.instance("web")), lab.instance("app"))
    own = lab.udp("web", "outside", 53, family)
    claimed = own.again(source=lab.address("app", family))
    before = _would(lab, Refusal.SPOOFED)
    lab.expect(ALLOWED, claimed)
    assert lab.judge(claimed).egress.reason is Default.SPOOFED
    lab.expect_fate(ALLOWED, replace(lab.udp("web", "outside", 54, family), mac=Mac("02:bb:bb:bb:bb:bb")))
    assert _would(lab, Refusal.SPOOFED) >= before + 2


@families
def test_tcp_in_mid_stream_and_what_conntrack_cannot_place_pass_too(lab, family):
    lab.enforce(_observed(lab.instance("web")))
    lab.expect(ALLOWED, lab.tcp("outside", "web", 80, family, opening=False))
    if family == 6:
        lab.expect(ALLOWED, lab.way("outside", "web", ICMPV6, 6, icmp_type=200))


@everywhere
@families
def test_in_observe_no_change_cuts_and_back_in_enforce_the_next_packet_is_judged(lab, family):
    allowing = group("g", f"ingress udp/53 from {'0.0.0.0/0' if family == 4 else '::/0'}")
    web = lab.instance("web", "g")
    lab.enforce(allowing, _observed(web))
    way = lab.udp("outside", "web", 53, family)
    lab.expect(ALLOWED, way)
    lab.expect_fate(ALLOWED, way.back(), way)
    lab.enforce(group("g"), _observed(web))
    lab.expect_fate(ALLOWED, way, way.back())
    lab.enforce(group("g"), web)
    lab.expect_fate(DENIED, way, way.back())


@families
def test_tcp_taken_up_in_observe_is_judged_afterwards_as_if_who_spoke_first_had_opened_it(lab, family):
    web = lab.instance("web")
    lab.enforce(_observed(web))
    opened_inwards = lab.tcp("outside", "web", 22, family, opening=False)
    lab.expect(ALLOWED, opened_inwards)
    unseen = lab.tcp("outside", "web", 23, family, opening=False)
    lab.expect(ALLOWED, unseen.back())  # the server speaks first, so it looks like the one that began
    lab.enforce(web)
    lab.expect_fate(DENIED, opened_inwards, opened_inwards.back())
    lab.expect_fate(ALLOWED, unseen, unseen.back())


@families
def test_observing_revives_what_was_cut_and_moves_no_generation(lab, family):
    web = lab.instance("web")
    lab.enforce(web)
    way = lab.udp("outside", "web", 53, family)
    lab.expect(DENIED, way)
    before = lab.generation
    lab.enforce(_observed(web))
    assert lab.generation == before
    lab.expect_fate(ALLOWED, way, way.back())
