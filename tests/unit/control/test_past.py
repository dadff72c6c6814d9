"""Changes on trial, differences between revisions, and the way back to one."""

import asyncio
from uuid import uuid4

import pytest

from desk import cidr, instance, tcp
from ringfence.control.actor import operator_of
from ringfence.control.past import Past
from ringfence.control.safety import USUAL, Safety
from ringfence.control.settings import Settings
from ringfence.policy.commands import (
    AddRule,
    AddSource,
    Attach,
    ClaimInstances,
    CreateGroup,
    DeleteGroup,
    DeleteRule,
    Detach,
    Edit,
    Observe,
    RemoveInstance,
    RemoveSource,
)
from ringfence.policy.errors import Busy, Conflict, NotFound
from ringfence.store import HistoryQuery
from unit.control.test_plane import H1, PlayedClock, opened, played, with_host
from waiting import wait_until

MINUTE = Safety(trial_s=60)


def operator(plane):
    return operator_of(plane.owners.first.id)


async def do(plane, *commands, safety=USUAL):
    """The ids that the commands would give to what they create."""
    edits = [Edit(command, uuid4()) for command in commands]
    await plane.change(edits, operator(plane), action="Change", safety=safety)
    return [edit.new_id for edit in edits]


def policy(plane):
    """All that a rollback is about, whatever the order in which it came."""
    groups = {
        id_: (group.name, group.description, set(group.rules), set(group.sources))
        for id_, group in plane.snapshot.groups.items()
    }
    return groups, {id_: (set(one.groups), one.observe) for id_, one in plane.snapshot.instances.items()}


async def arranged(plane):
    """An instance that wears ``web``, which has a rule and a source; ``app`` has a rule that names it."""
    vm = await with_host(plane)
    web, app = await do(plane, CreateGroup("web", "the site"), CreateGroup("app"))
    rule, _, _, _ = await do(
        plane,
        AddRule(web, tcp("0.0.0.0/0", 443)),
        AddRule(app, tcp(web, 8080)),
        AddSource(web, cidr("192.0.2.0/24")),
        Attach(web, vm),
    )
    return vm, web, app, rule


async def upheaval(plane, vm, web, app, rule, *, safety=USUAL):
    """Everything that one change can do."""
    return await do(
        plane,
        CreateGroup("new"),
        DeleteRule(web, rule),
        DeleteRule(app, plane.snapshot.groups[app].rules[0].id),
        AddRule(app, tcp("10.0.0.0/8", 22)),
        RemoveSource(web, cidr("192.0.2.0/24")),
        AddSource(app, cidr("198.51.100.0/24")),
        Detach(web, vm),
        Attach(app, vm),
        Observe((vm,), observe=True),
        DeleteGroup(web),
        safety=safety,
    )


@played
async def test_what_nobody_confirms_is_undone_whole_and_the_host_is_told(tmp_path):
    clock = PlayedClock()
    async with opened(tmp_path, clock=clock) as plane:
        things = await arranged(plane)
        before, view = policy(plane), plane.view(H1)
        await upheaval(plane, *things, safety=MINUTE)
        trial = plane.owners.first.trial
        assert (trial.revision, trial.ends_at) == (plane.snapshot.revision, int(clock.now_s()) + 60)
        assert policy(plane) != before
        clock.moment_s += 59
        await plane._deadlines.meet()
        assert plane.owners.first.trial == trial
        clock.moment_s += 1
        await asyncio.to_thread(wait_until, lambda: plane.owners.first.trial is None)
        assert policy(plane) == before
        assert (plane.view(H1).rules, plane.view(H1).peers) == (view.rules, view.peers)
        line = (await plane.history.read(HistoryQuery()))[-1]
        assert line.action == "ChangeUndone"
        assert line.subject.startswith(f"revision {trial.revision} was not confirmed: ")


@played
async def test_what_is_confirmed_stays_and_can_be_confirmed_once(tmp_path):
    clock = PlayedClock()
    async with opened(tmp_path, clock=clock) as plane:
        await do(plane, CreateGroup("web"), safety=MINUTE)
        revision = plane.owners.first.trial.revision
        await plane.past.confirm(revision, operator(plane))
        clock.moment_s += 61
        await plane._deadlines.meet()
        assert [group.name for group in plane.snapshot.groups.values()] == ["default", "web"]
        with pytest.raises(NotFound, match=rf"revision {revision} was confirmed already, at 2023-.*: it stays"):
            await plane.past.confirm(revision, operator(plane))


@played
async def test_who_confirms_what_is_not_on_trial_is_told_what_became_of_it(tmp_path):
    clock = PlayedClock()
    async with opened(tmp_path, clock=clock) as plane:
        await do(plane, CreateGroup("web"), safety=MINUTE)
        undone = plane.owners.first.trial.revision
        clock.moment_s += 61
        await plane._deadlines.meet()
        await do(plane, CreateGroup("app"))
        plain = plane.snapshot.revision
        for revision, said in (
            (undone, rf"revision {undone} was undone at 2023-.* UTC, because nobody had confirmed it: make the change"),
            (plain, f"revision {plain} does not wait to be confirmed, no other does"),
            (99, f"there is no revision 99: the newest is {plain}"),
        ):
            with pytest.raises(NotFound, match=said):
                await plane.past.confirm(revision, operator(plane))
        await do(plane, CreateGroup("db"), safety=MINUTE)
        with pytest.raises(NotFound, match=f"does not wait to be confirmed, revision {plain + 1} does"):
            await plane.past.confirm(plain, operator(plane))


@played
async def test_a_trial_outlives_the_server_and_ends_before_one_serves(tmp_path):
    clock = PlayedClock()
    async with opened(tmp_path, clock=clock) as plane:
        things = await arranged(plane)
        before = policy(plane)
        await upheaval(plane, *things, safety=MINUTE)
        trial = plane.owners.first.trial
    async with opened(tmp_path, clock=clock) as plane:
        assert plane.owners.first.trial == trial
    clock.moment_s += 60
    async with opened(tmp_path, clock=clock) as plane:
        assert (plane.owners.first.trial, policy(plane)) == (None, before)


@played
async def test_one_change_of_an_organisation_is_on_trial_at_a_time_and_others_go_on(tmp_path):
    async with opened(tmp_path) as plane:
        await do(plane, CreateGroup("web"), safety=MINUTE)
        with pytest.raises(Conflict, match=r"ringfence confirm \d+, or undo it by ringfence rollback \d+"):
            await do(plane, CreateGroup("app"), safety=MINUTE)
        await do(plane, CreateGroup("app"))


@played
async def test_a_change_on_trial_that_is_rolled_back_waits_no_more(tmp_path):
    clock = PlayedClock()
    async with opened(tmp_path, clock=clock) as plane:
        things = await arranged(plane)
        before, revision = policy(plane), plane.snapshot.revision
        await upheaval(plane, *things, safety=MINUTE)
        trial = plane.owners.first.trial
        await do(plane, CreateGroup("later"))
        await plane.rollback(trial.revision, operator(plane))  # takes only what came after it back
        assert plane.owners.first.trial == trial
        preview = await plane.preview_rollback(revision, operator(plane))
        assert preview.would[-1] == "no change waits to be confirmed"
        await plane.rollback(revision, operator(plane))
        assert (plane.owners.first.trial, policy(plane)) == (None, before)
        with pytest.raises(NotFound, match=f"{trial.revision} was taken back at .* rollback to revision {revision}"):
            await plane.past.confirm(trial.revision, operator(plane))
        await do(plane, CreateGroup("again"), safety=MINUTE)
        clock.moment_s += 60
        await plane._deadlines.meet()
        assert (plane.owners.first.trial, policy(plane)) == (None, before)


@played
async def test_a_change_that_changes_nothing_needs_no_trial(tmp_path):
    async with opened(tmp_path) as plane:
        await do(plane, Observe((await with_host(plane),), observe=False), safety=MINUTE)
        assert plane.owners.first.trial is None


@played
async def test_what_others_changed_since_stays(tmp_path):
    """The trial: made ``new`` and a rule, took a rule and a source away. Others used, deleted and added since."""
    clock = PlayedClock()
    async with opened(tmp_path, clock=clock) as plane:
        vm, web, app, rule = await arranged(plane)
        new, _, ssh, _, _, source = await do(
            plane,
            CreateGroup("new"),
            DeleteRule(web, rule),
            AddRule(web, tcp("10.0.0.0/8", 22)),
            AddRule(web, tcp("10.0.0.0/8", 23)),
            RemoveSource(web, cidr("192.0.2.0/24")),
            CreateGroup("empty"),
            safety=MINUTE,
        )
        again, _, _, _ = await do(
            plane,
            AddRule(web, tcp("0.0.0.0/0", 443)),  # what the trial took away, by somebody else
            DeleteRule(web, ssh),  # what the trial added
            Attach(new, vm),  # what the trial made
            AddRule(app, tcp("203.0.113.0/24", 80)),
        )
        clock.moment_s += 60
        await plane._deadlines.meet()
        assert [one.id for one in plane.snapshot.groups[web].rules] == [again]  # neither ssh nor telnet, once 443
        assert [one.text for one in plane.snapshot.groups[web].sources] == ["192.0.2.0/24"]
        assert len(plane.snapshot.groups[app].rules) == 2
        assert new in plane.snapshot.instances[vm].groups
        assert source not in plane.snapshot.groups  # nobody used it
        assert plane.owners.first.trial is None


@played
async def test_a_rollback_makes_the_policy_what_it_was_at_any_revision(tmp_path):
    async with opened(tmp_path) as plane:
        things = await arranged(plane)
        states = {plane.snapshot.revision: policy(plane)}
        await upheaval(plane, *things)
        states[plane.snapshot.revision] = policy(plane)
        await do(plane, CreateGroup("web"))  # the name of one that is gone
        states[plane.snapshot.revision] = policy(plane)
        for revision in (*states, *reversed(states)):
            changed = await plane.rollback(revision, operator(plane))
            assert policy(plane) == states[revision]
            assert changed.operation.revision in (None, plane.snapshot.revision)
        instances = plane.snapshot.instances
        await plane.rollback(1, operator(plane))  # a host's instances are there whatever the policy
        assert [group.name for group in plane.snapshot.groups.values()] == ["default"]
        assert plane.snapshot.instances.keys() == instances.keys()


@played
async def test_a_difference_says_what_the_one_has_and_the_other_has_not(tmp_path):
    async with opened(tmp_path) as plane:
        _, web, _, rule = await arranged(plane)
        old = plane.snapshot.revision
        await do(plane, DeleteRule(web, rule))
        [same] = await do(plane, AddRule(web, tcp("0.0.0.0/0", 80)))
        await do(plane, CreateGroup("passing"))
        await do(plane, DeleteGroup(next(one.id for one in plane.snapshot.groups.values() if one.name == "passing")))
        new, organisation = plane.snapshot.revision, plane.owners.first.id
        assert await plane.past.difference(organisation, old, new) == (
            f"group web: rule {rule} deleted: ingress tcp/443 from 0.0.0.0/0",
            f"group web: rule {same} added: ingress tcp/80 from 0.0.0.0/0",
        )
        back = await plane.past.difference(organisation, new, old)
        assert [line.partition(" from ")[0] for line in back] == [
            f"group web: rule {same} deleted: ingress tcp/80",
            f"group web: rule {rule} added: ingress tcp/443",
        ]
        assert await plane.past.difference(organisation, new, new) == ()
        assert len(await plane.past.difference(organisation, new - 1, new)) == 1


@played
async def test_what_is_not_known_is_refused_in_words(tmp_path):
    clock = PlayedClock()
    async with opened(tmp_path, Settings(keep_history_s=3600, settle_wait_s=0.01), clock) as plane:
        await do(plane, CreateGroup("web"))
        actor = operator(plane)
        with pytest.raises(NotFound, match="there is no revision 9: the newest is 2"):
            await plane.rollback(9, actor)
        acme = await plane.owners.create("acme")
        with pytest.raises(NotFound, match="younger than revision 1: it begins with revision 3"):
            await plane.rollback(1, operator_of(acme.id))
        await do(plane, CreateGroup("kept"), safety=Safety(trial_s=7200))
        clock.moment_s += 3601
        await do(plane, CreateGroup("app"))
        plane.history._due_s = 0
        await plane.history.tidy(clock.monotonic_s())
        with pytest.raises(NotFound, match="not known any more: see --keep-history"):
            await plane.rollback(1, actor)
        clock.moment_s += 3600
        await plane._deadlines.meet()  # what undoes a change on trial is kept as long as it is
        assert [group.name for group in plane.snapshot.groups.values()] == ["default", "web", "default", "app"]


@played
async def test_a_rule_whose_time_is_up_does_not_come_back(tmp_path):
    clock = PlayedClock()
    async with opened(tmp_path, clock=clock) as plane:
        [web] = await do(plane, CreateGroup("web"))
        await do(plane, AddRule(web, tcp("0.0.0.0/0"), 60), AddRule(web, tcp("0.0.0.0/0", 80)))
        wanted = plane.snapshot.revision
        await do(plane, DeleteGroup(web))
        clock.moment_s += 61
        await plane.rollback(wanted, operator(plane))
        assert [rule.start_port for rule in plane.snapshot.groups[web].rules] == [80]


@played
async def test_a_rollback_that_others_overtake_is_decided_anew(tmp_path):
    async with opened(tmp_path) as plane:
        await do(plane, CreateGroup("web"))
        busy = 3

        async def change(wish, actor):
            nonlocal busy
            if busy:
                busy -= 1
                await do(plane, CreateGroup(f"other-{busy}"))
            return await plane._change(wish, actor)

        past = Past(plane._store, change, plane._now_s)
        await past.back(1, operator(plane).organisation, lambda wish: change(wish, operator(plane)))
        assert [group.name for group in plane.snapshot.groups.values()] == ["default"]
        busy = 100
        with pytest.raises(Busy, match="try again"):
            await past.back(1, operator(plane).organisation, lambda wish: change(wish, operator(plane)))


@played
async def test_instances_that_came_since_keep_what_they_were_born_with(tmp_path):
    async with opened(tmp_path) as plane:
        vm, web, _, _ = await arranged(plane)
        wanted = plane.snapshot.revision
        claimed = await plane.claim(
            H1, ClaimInstances((instance("i-h1", "10.0.0.1"), instance("late", "10.0.0.9", interface="veth1")))
        )
        late = claimed.accepted[1][1]
        await do(plane, Attach(web, late), Detach(web, vm))
        await plane.rollback(wanted, operator(plane))
        default = plane.owners.first.default_group
        assert plane.snapshot.instances[late].groups == (default,)
        assert set(plane.snapshot.instances[vm].groups) == {default, web}


@played
async def test_a_rollback_passes_over_what_an_instance_wore_that_was_removed_since(tmp_path):
    async with opened(tmp_path) as plane:
        vm, web, _, _ = await arranged(plane)
        wanted, groups = plane.snapshot.revision, policy(plane)[0]
        await do(plane, Detach(web, vm), DeleteRule(web, plane.snapshot.groups[web].rules[0].id))
        await plane.claim(H1, ClaimInstances(()))
        await plane.execute(RemoveInstance(vm), operator(plane))
        await plane.rollback(wanted, operator(plane))
        assert policy(plane) == (groups, {})
