"""What instances wear, and instances that an operator declares."""

import pytest

from desk import H1, H2, NOWHERE, OPERATOR, STRANGER, Desk, instance
from ringfence.policy.commands import AddInstance, Attach, Detach, ReleaseInstance, RemoveInstance
from ringfence.policy.errors import Conflict, Denied, NotFound
from ringfence.policy.model import NOBODY
from ringfence.policy.snapshot import index_of


@pytest.fixture
def desk():
    return Desk()


def test_an_instance_is_born_with_the_default_group_and_without_a_host(desk):
    desk.add_instance("web", "10.0.0.1")
    born = desk.instance("web")
    assert (born.groups, born.host, born.bound_to, born.created_at) == ((desk.default,), None, None, 1000)


def test_attach_is_idempotent_and_keeps_the_order_of_attaching(desk):
    web, db, id_ = desk.create("web"), desk.create("db"), desk.add_instance("i")
    for group in (db, web):
        desk.do(Attach(group, id_))
    assert desk.do(Attach(db, id_)) == ()
    assert desk.instance("i").groups == (desk.default, db, web)


def test_detach_is_idempotent_and_succeeds_on_what_is_not_worn(desk):
    web, id_ = desk.create("web"), desk.add_instance("i")
    assert desk.do(Detach(web, id_)) == ()
    desk.do(Attach(web, id_))
    desk.do(Detach(web, id_))
    assert desk.do(Detach(web, id_)) == ()


def test_the_last_group_may_be_detached_and_default_does_not_come_back(desk):
    id_ = desk.add_instance("i")
    desk.do(Detach(desk.default, id_))
    assert desk.instance("i").groups == ()


@pytest.mark.parametrize("command", [Attach, Detach])
def test_an_unknown_instance_and_another_organisations_are_not_found(desk, command):
    group, foreign = desk.create("web"), desk.add_instance("theirs", actor=STRANGER)
    for id_ in (NOWHERE, foreign):
        with pytest.raises(NotFound, match=f"there is no instance {id_}"):
            desk.do(command(group, id_))


def test_an_id_that_is_taken_conflicts(desk):
    id_ = desk.add_instance("web")
    with pytest.raises(Conflict, match=f"an instance with id {id_} already exists"):
        desk.do(AddInstance(instance("other", id_=id_)))


def test_a_given_id_is_kept(desk):
    desk.do(AddInstance(instance("web", id_=NOWHERE)))
    assert desk.instance("web").id == NOWHERE


def test_a_retried_declaration_without_an_id_makes_no_second_instance(desk):
    desk.add_instance("web")
    with pytest.raises(Conflict, match="an instance named web already exists"):
        desk.do(AddInstance(instance("web")))


def test_a_name_that_a_host_uses_is_free(desk):
    desk.claim(H1, instance("web"))
    assert desk.add_instance("web")


def test_an_address_that_is_taken_conflicts(desk):
    desk.add_instance("web", "10.0.0.1", "10.0.0.2")
    with pytest.raises(Conflict, match=r"address 10\.0\.0\.2 belongs to instance web"):
        desk.do(AddInstance(instance("db", "10.0.0.2")))


def test_the_same_address_twice_conflicts(desk):
    with pytest.raises(Conflict, match="given twice"):
        desk.do(AddInstance(instance("db", "10.0.0.2", "10.0.0.2")))


@pytest.mark.parametrize("free", [{"realm": "lab"}, {"managed": False}])
def test_addresses_of_another_realm_and_of_unmanaged_interfaces_are_free(desk, free):
    desk.add_instance("web", "10.0.0.1")
    assert desk.do(AddInstance(instance("db", "10.0.0.1", **free)))


@pytest.mark.parametrize("command", [ReleaseInstance, RemoveInstance])
def test_an_instance_that_a_host_runs_is_neither_released_nor_removed_and_only_the_operator_may(desk, command):
    ((_, id_),) = desk.claim(H1, instance("web", "10.0.0.1")).accepted
    with pytest.raises(Conflict, match="instance web is on host h1: take it out of that host's inventory first"):
        desk.do(command(id_), OPERATOR)
    with pytest.raises(Denied, match="only the operator"):
        desk.do(command(id_))
    with pytest.raises(NotFound):
        desk.do(command(desk.add_instance("theirs", actor=STRANGER)), OPERATOR)


def test_a_released_instance_moves_to_the_host_that_gives_its_id_with_all_that_it_wears(desk):
    ((_, id_),) = desk.claim(H1, instance("web", "10.0.0.1")).accepted
    web = desk.create("web")
    desk.do(Attach(web, id_))
    desk.claim(H1)
    desk.do(ReleaseInstance(id_), OPERATOR)
    assert desk.do(ReleaseInstance(id_), OPERATOR) == ()
    assert desk.claim(H2, instance("web", "10.0.0.1", id_=id_)).refused == ()
    assert (desk.instance("web").host, desk.instance("web").groups) == (H2, (desk.default, web))


def test_a_removed_instance_leaves_its_groups_and_its_name_and_address_are_free(desk):
    web, id_ = desk.create("web"), desk.add_instance("i", "10.0.0.1")
    desk.do(Attach(web, id_))
    desk.do(RemoveInstance(id_), OPERATOR)
    assert not desk.snapshot.instances
    assert index_of(desk.snapshot).peer(web) == NOBODY
    assert desk.add_instance("i", "10.0.0.1") != id_
