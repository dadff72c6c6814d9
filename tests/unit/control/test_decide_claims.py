"""A host's inventory: what it may claim, what is refused, and that refusals open nothing."""

from dataclasses import replace
from ipaddress import ip_address
from itertools import permutations

import pytest

from desk import H1, H2, NOWHERE, STRANGER, STRANGERS, Desk, instance
from ringfence.policy.commands import Attach, InstanceClaim
from ringfence.policy.facts import HostAdded, InstanceObserved
from ringfence.policy.model import Host, Interface
from ringfence.policy.values import HostName, InterfaceName, Kind


@pytest.fixture
def desk():
    return Desk()


def reasons(decided):
    return dict(decided.refused)


def addresses(desk, name):
    return [str(address) for address in desk.instance(name).addresses]


def test_a_new_instance_is_bound_to_its_host_and_wears_default(desk):
    decided = desk.claim(H1, instance("web", "10.0.0.1"))
    born = desk.instance("web")
    assert decided.accepted == (("web", born.id),)
    assert (born.host, born.bound_to, born.groups) == (H1, H1, (desk.default,))


def test_a_given_id_is_kept(desk):
    assert desk.claim(H1, instance("web", id_=NOWHERE)).accepted == (("web", NOWHERE),)


def test_the_same_inventory_again_changes_nothing_and_answers_the_same(desk):
    claims = (instance("web", "10.0.0.1"), instance("db", "10.0.0.2", interface="veth1", id_=NOWHERE))
    first = desk.claim(H1, *claims)
    again = desk.claim(H1, *claims)
    assert (again.facts, again.accepted) == ((), first.accepted)


def test_the_same_name_on_another_host_is_another_instance(desk):
    desk.claim(H1, instance("web", "10.0.0.1"))
    desk.claim(H2, instance("web", "10.0.0.2"))
    assert desk.instance("web", H1).id != desk.instance("web", H2).id


def test_groups_that_were_attached_stay_when_the_inventory_changes(desk):
    (_, id_), *_ = desk.claim(H1, instance("web", "10.0.0.1")).accepted
    web = desk.create("web")
    desk.do(Attach(web, id_))
    desk.claim(H1, instance("web", "10.0.0.9"))
    assert desk.instance("web").groups == (desk.default, web)
    assert addresses(desk, "web") == ["10.0.0.9"]


def test_an_instance_that_is_no_longer_named_loses_host_and_interfaces_only(desk):
    (_, id_), *_ = desk.claim(H1, instance("web", "10.0.0.1")).accepted
    desk.claim(H1)
    gone = desk.instance("web")
    assert (gone.id, gone.host, gone.interfaces, gone.groups) == (id_, None, (), (desk.default,))
    assert desk.claim(H1).facts == ()


def test_an_instance_that_comes_back_is_the_same_again(desk):
    (_, id_), *_ = desk.claim(H1, instance("web", "10.0.0.1")).accepted
    desk.claim(H1)
    assert desk.claim(H1, instance("web", "10.0.0.1")).accepted == (("web", id_),)
    assert desk.instance("web").host == H1


def test_a_released_instance_stays_bound_to_its_host(desk):
    (_, id_), *_ = desk.claim(H1, instance("web", "10.0.0.1")).accepted
    desk.claim(H1)
    decided = desk.claim(H2, instance("web", "10.0.0.1", id_=id_))
    assert "is another host's" in reasons(decided)["web"]
    assert desk.instance("web").interfaces == ()


def test_another_hosts_id_is_refused_and_the_rest_is_accepted(desk):
    (_, id_), *_ = desk.claim(H1, instance("web", "10.0.0.1")).accepted
    decided = desk.claim(H2, instance("mine", "10.0.0.1", id_=id_), instance("db", "10.0.0.2", interface="veth1"))
    assert "is another host's" in reasons(decided)["mine"]
    assert [name for name, _ in decided.accepted] == ["db"]
    assert desk.instance("web").host == H1


def test_another_organisations_instance_is_refused_though_no_host_has_it(desk):
    ours = desk.add_instance("ours", "10.0.0.1")
    desk.apply(HostAdded(Host(HostName("h9"), STRANGERS, bytes(32))))
    assert "is another host's" in reasons(desk.claim(HostName("h9"), instance("mine", id_=ours)))["mine"]


def test_a_host_of_the_first_organisation_runs_declared_instances_of_every_other(desk):
    theirs = desk.add_instance("theirs", actor=STRANGER)
    born = desk.instance("theirs")
    assert desk.claim(H1, instance("theirs", "10.0.0.1", id_=theirs)).refused == ()
    placed = desk.instance("theirs")
    assert (placed.host, placed.organisation, placed.groups) == (H1, STRANGERS, born.groups)
    assert "is another host's" in reasons(desk.claim(H2, instance("theirs", id_=theirs)))["theirs"]


def test_a_declared_instance_is_claimed_once_by_its_id(desk):
    id_ = desk.add_instance("web", "10.0.0.1")
    desk.claim(H1, instance("web", "10.0.0.1", id_=id_))
    assert (desk.instance("web").host, desk.instance("web").bound_to) == (H1, H1)
    assert "is another host's" in reasons(desk.claim(H2, instance("web", id_=id_)))["web"]


def test_a_declared_instance_is_not_taken_by_its_name_alone(desk):
    declared = desk.add_instance("web", "10.0.0.1")
    ((_, claimed),) = desk.claim(H1, instance("web", "10.0.0.2")).accepted
    assert claimed != declared


def test_another_hosts_address_is_refused_and_contributes_nothing(desk):
    desk.claim(H1, instance("web", "10.0.0.1"))
    decided = desk.claim(H2, instance("spy", "10.0.0.2", "10.0.0.1"))
    assert "address 10.0.0.1 belongs to another instance" in reasons(decided)["spy"]
    assert len(desk.snapshot.instances) == 1


def test_an_instance_whose_new_claim_is_refused_loses_what_it_had(desk):
    desk.claim(H1, instance("web", "10.0.0.1"))
    desk.claim(H2, instance("db", "10.0.0.2"))
    desk.claim(H2, instance("db", "10.0.0.2", "10.0.0.1"))
    assert (addresses(desk, "db"), desk.instance("db").host) == ([], None)


def test_two_instances_of_a_host_may_swap_their_addresses(desk):
    desk.claim(H1, instance("a", "10.0.0.1"), instance("b", "10.0.0.2", interface="veth1"))
    decided = desk.claim(H1, instance("a", "10.0.0.2"), instance("b", "10.0.0.1", interface="veth1"))
    assert decided.refused == ()
    assert (addresses(desk, "a"), addresses(desk, "b")) == (["10.0.0.2"], ["10.0.0.1"])


def test_an_address_is_free_on_unmanaged_interfaces(desk):
    desk.claim(H1, instance("web", "10.0.0.1"))
    assert desk.claim(H2, instance("db", "10.0.0.1", managed=False)).refused == ()


def test_a_realm_of_ones_own_is_no_way_to_anothers_address(desk):
    desk.claim(H1, instance("web", "10.0.0.1"))
    decided = desk.claim(H2, instance("spy", "10.0.0.1", realm="evil"))
    assert decided.refused == (("spy", "realms other than default are not offered yet"),)
    assert decided.facts == ()


@pytest.mark.parametrize(
    ("second", "reason"),
    [
        (instance("web", "10.0.0.2", interface="veth1"), "has the same name"),
        (instance("db", "10.0.0.2", interface="veth0"), "interface veth0 is claimed by instance web"),
        (instance("db", "10.0.0.1", interface="veth1"), "address 10.0.0.1 is claimed by instance web"),
        (instance("db", "10.0.0.2", interface="veth1", id_=NOWHERE), "has the same id"),
        (instance("db", "10.0.0.2", "10.0.0.2", interface="veth1"), "address 10.0.0.2 is given twice"),
    ],
)
def test_what_one_inventory_names_twice_is_refused_the_second_time(desk, second, reason):
    decided = desk.claim(H1, instance("web", "10.0.0.1", id_=NOWHERE), second)
    assert [name for name, _ in decided.accepted] == ["web"]
    assert reason in decided.refused[0][1]


def test_one_interface_given_twice_is_refused(desk):
    port = Interface(InterfaceName("veth0"), (ip_address("10.0.0.1"),))
    decided = desk.claim(H1, InstanceClaim("web", None, (port, replace(port, addresses=()))))
    assert reasons(decided)["web"] == "interface veth0 is given twice"


@pytest.mark.timeout(20)  # it took minutes, of everybody's time, when each address was looked for among all
def test_a_claim_of_very_many_addresses_costs_in_proportion(desk):
    many = [str(ip_address(0x0A000000 + number)) for number in range(15_000)]
    decided = desk.claim(H1, instance("web", *many, many[-1]))
    assert reasons(decided)["web"] == f"address {many[-1]} is given twice"


def test_an_address_that_an_adopted_instance_leaves_serves_the_others_in_any_order():
    for order in permutations(range(2)):
        desk = Desk()
        declared = desk.add_instance("web", "10.0.0.1")
        claims = (
            instance("web", "10.0.0.2", id_=declared),
            instance("db", "10.0.0.1", interface="veth1"),
        )
        assert desk.claim(H1, *(claims[index] for index in order)).refused == ()


def test_a_name_means_the_running_instance_before_a_released_one(desk):
    desk.claim(H1, instance("web", "10.0.0.1"))
    desk.claim(H1, instance("web", "10.0.0.1", id_=NOWHERE))
    assert desk.claim(H1, instance("web", "10.0.0.1")).accepted == (("web", NOWHERE),)


def test_a_claim_by_id_renames_the_instance(desk):
    desk.claim(H1, instance("web", "10.0.0.1", id_=NOWHERE))
    desk.claim(H1, instance("www", "10.0.0.1", id_=NOWHERE))
    assert desk.instance("www").id == NOWHERE


@pytest.mark.parametrize(("kind", "observed"), [(Kind.ROUTED, False), (Kind.BRIDGED, False), (Kind.SELF, True)])
def test_only_an_instance_that_is_its_host_is_born_observed(desk, kind, observed):
    desk.claim(H1, instance("web", "10.0.0.1", kind=kind))
    assert desk.instance("web").observe == observed


def test_a_declared_instance_that_becomes_a_host_is_observed_once(desk):
    """Enforced by its operator it stays so, whatever becomes of the inventory."""
    declared = desk.add_instance("h1")
    claim = instance("h1", "10.0.0.1", id_=declared, kind=Kind.SELF)
    desk.claim(H1, claim)
    assert desk.instance("h1").observe
    desk.apply(InstanceObserved(declared, observe=False))
    desk.claim(H1)
    desk.claim(H1, claim)
    assert not desk.instance("h1").observe
