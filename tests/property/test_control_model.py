"""The control plane against a deliberately tiny model, over any sequence of commands, claims and restarts."""

import asyncio
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from counts import FULL, count
from desk import H1, H2, cidr, instance, tcp
from ringfence.control.actor import Actor, Role, operator_of
from ringfence.control.plane import ControlPlane
from ringfence.control.settings import Settings
from ringfence.policy.commands import (
    AddInstance,
    AddRule,
    AddSource,
    Attach,
    ClaimInstances,
    CreateGroup,
    DeleteGroup,
    DeleteRule,
    Detach,
    RemoveInstance,
    RemoveSource,
)
from ringfence.policy.errors import Conflict, NotFound
from ringfence.policy.model import GroupPeer
from ringfence.policy.view import resolve_view
from ringfence.policy.view_changes import digest_view
from ringfence.wire.feed import FeedReader

MACHINES = count(reduced=20, stated=400)

names = st.sampled_from(["a", "b", "c", "default"])
peers = st.sampled_from(["10.0.0.0/8", "10.0.0.1/8", "a", "b", "c"])
ports = st.sampled_from([22, 80])
sources = st.sampled_from(["192.0.2.0/24", "192.0.2.1/24", "2001:db8::/32"])
wearers = st.sampled_from(["i1", "i2", "free"])
hosts = st.sampled_from([H1, H2])


class TinyModel:
    """What must be true, in the simplest words: names, sets and dictionaries."""

    def __init__(self):
        self.rules = {"default": []}  # group -> [(peer, port)], in order
        self.sources = {"default": {}}  # group -> {network: first spelling}
        self.worn = {"free": ["default"]}  # instance -> [group], in order
        self.homes = {"free": None}  # instance -> the host that it is bound to
        self.running = {}  # instance -> the number in its address

    def blockers(self, group):
        worn = any(group in groups for groups in self.worn.values())
        named = any((group == peer) for other, rules in self.rules.items() if other != group for peer, _ in rules)
        return group == "default" or worn or named


class ControlMachine(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.folder = Path(tempfile.mkdtemp())
        self.model = TinyModel()
        self.newest = 0
        self.readers, self.lines, self.held = {}, {}, {}

    @initialize()
    def start(self):
        self.open()
        for number, host in enumerate((H1, H2)):
            self.wait(self.plane.enrolment.add_host(host, bytes([number] * 32)))
            self.follow(host)
        self.wait(self.plane.execute(AddInstance(instance("free", "10.9.0.1")), self.actor))

    def open(self):
        self.plane = self.wait(ControlPlane.open(self.folder, Settings(settle_wait_s=0.0)))
        for host in self.plane.snapshot.hosts:
            self.follow(host)
        self.actor = Actor(self.plane.owners.first.id, "EXOtest", Role.OWNER)

    def follow(self, host):
        """From where the host's reader was when the server ended."""
        reader = self.readers.setdefault(host, FeedReader())
        lines = self.lines[host] = []
        self.plane.feed.follow(host, reader.base, send=lines.append, end=list)

    def wait(self, asked):
        return self.loop.run_until_complete(asked)

    def group(self, name):
        return next((id_ for id_, group in self.plane.snapshot.groups.items() if group.name == name), self.nothing)

    def instance(self, name):
        return next((id_ for id_, one in self.plane.snapshot.instances.items() if one.name == name), self.nothing)

    @property
    def nothing(self):
        return type(self.plane.owners.first.id)(int=0)

    def ask(self, command, refusal=None, actor=None):
        """Executes; a refusal must be the one that the model expects, and change nothing."""
        before, actor = self.plane.snapshot, actor or self.actor
        if refusal is None:
            return self.wait(self.plane.execute(command, actor))
        with pytest.raises(refusal):
            self.wait(self.plane.execute(command, actor))
        assert self.plane.snapshot is before
        return None

    @rule(name=names)
    def create(self, name):
        if name in self.model.rules:
            self.ask(CreateGroup(name), Conflict)
            return
        self.ask(CreateGroup(name))
        self.model.rules[name], self.model.sources[name] = [], {}

    @rule(name=names)
    def delete(self, name):
        command = DeleteGroup(self.group(name))
        if name not in self.model.rules:
            self.ask(command, NotFound)
        elif self.model.blockers(name):
            self.ask(command, Conflict)
        else:
            self.ask(command)
            del self.model.rules[name], self.model.sources[name]

    @rule(name=names, peer=peers, port=ports)
    def add_rule(self, name, peer, port):
        draft = tcp(peer if "/" in peer else self.group(peer), port)
        command = AddRule(self.group(name), draft)
        if name not in self.model.rules or ("/" not in peer and peer not in self.model.rules):
            self.ask(command, NotFound)
            return
        operation = self.ask(command)
        is_new = (peer, port) not in self.model.rules[name]
        assert (operation.revision is not None) == is_new
        if is_new:
            self.model.rules[name].append((peer, port))

    @rule(name=names, index=st.integers(0, 3))
    def delete_rule(self, name, index):
        group = self.plane.snapshot.groups.get(self.group(name))
        if group is None or index >= len(group.rules):
            self.ask(DeleteRule(self.group(name), self.nothing), NotFound)
            return
        self.ask(DeleteRule(group.id, group.rules[index].id))
        del self.model.rules[name][index]

    @rule(name=names, source=sources)
    def add_source(self, name, source):
        command = AddSource(self.group(name), cidr(source))
        if name not in self.model.sources:
            self.ask(command, NotFound)
            return
        self.ask(command)
        self.model.sources[name].setdefault(cidr(source).network, source)

    @rule(name=names, source=sources)
    def remove_source(self, name, source):
        command = RemoveSource(self.group(name), cidr(source))
        known = self.model.sources.get(name, {})
        self.ask(command, None if cidr(source).network in known else NotFound)
        known.pop(cidr(source).network, None)

    @rule(name=names, wearer=wearers)
    def attach(self, name, wearer):
        is_known = name in self.model.rules and wearer in self.model.worn
        self.ask(Attach(self.group(name), self.instance(wearer)), None if is_known else NotFound)
        if is_known and name not in self.model.worn[wearer]:
            self.model.worn[wearer].append(name)

    @rule(name=names, wearer=wearers)
    def detach(self, name, wearer):
        is_known = name in self.model.rules and wearer in self.model.worn
        self.ask(Detach(self.group(name), self.instance(wearer)), None if is_known else NotFound)
        if is_known and name in self.model.worn[wearer]:
            self.model.worn[wearer].remove(name)

    @rule(wearer=wearers)
    def remove_instance(self, wearer):
        refusal = Conflict if wearer in self.model.running else None if wearer in self.model.worn else NotFound
        self.ask(RemoveInstance(self.instance(wearer)), refusal, operator_of(self.actor.organisation))
        if refusal is None:
            del self.model.worn[wearer], self.model.homes[wearer]

    @rule(
        host=hosts,
        chosen=st.lists(
            st.tuples(st.sampled_from(["i1", "i2"]), st.integers(1, 3)), max_size=2, unique_by=lambda c: c[0]
        ),
    )
    def claim(self, host, chosen):
        """Both hosts name their instances differently, so that a name says whose it is."""
        mine = [(f"{name}" if host == H1 else f"{name}-of-h2", number) for name, number in chosen]
        taken = {number for name, number in self.model.running.items() if self.model.homes[name] != host}
        accepted = []
        for name, number in mine:
            if number not in taken:
                taken.add(number)
                accepted.append((name, number))
        claims = [instance(name, f"10.0.0.{number}", interface=f"veth-{name}"[:15]) for name, number in mine]
        claimed = self.wait(self.plane.claim(host, ClaimInstances(tuple(claims))))
        assert [name for name, _ in claimed.accepted] == [name for name, _ in accepted]
        assert len(claimed.refused) == len(mine) - len(accepted)
        for name in [name for name in self.model.running if self.model.homes[name] == host]:
            del self.model.running[name]
        for name, number in accepted:
            self.model.homes.setdefault(name, host)
            self.model.worn.setdefault(name, ["default"])
            self.model.running[name] = number

    @rule()
    def restart(self):
        kept, views = self.plane.snapshot, {host: self.plane.view(host) for host in (H1, H2)}
        self.wait(self.plane.close())
        self.open()
        assert self.plane.snapshot == kept
        assert {host: self.plane.view(host) for host in (H1, H2)} == views

    @invariant()
    def groups_are_those_of_the_model(self):
        groups = self.plane.snapshot.groups
        assert {
            group.name: [_said(rule, groups) for rule in group.rules] for group in groups.values()
        } == self.model.rules
        kept = {group.name: {one.network: one.text for one in group.sources} for group in groups.values()}
        assert kept == self.model.sources

    @invariant()
    def instances_are_those_of_the_model(self):
        found = self.plane.snapshot.instances.values()
        groups = self.plane.snapshot.groups
        assert {one.name: [groups[id_].name for id_ in one.groups] for one in found} == self.model.worn
        assert {one.name: one.bound_to for one in found} == self.model.homes
        running = {one.name: one for one in found if one.host is not None}
        assert running.keys() == self.model.running.keys()
        for name, number in self.model.running.items():
            assert [str(address) for address in running[name].addresses] == [f"10.0.0.{number}"]

    @invariant()
    def views_are_what_a_fresh_resolution_gives(self):
        fresh = replace(self.plane.snapshot, index=None)
        for host in (H1, H2):
            view = self.plane.view(host)
            assert replace(resolve_view(fresh, host), revision=view.revision) == view
            assert view.revision <= self.plane.snapshot.revision
            assert self.plane.feed.wanted(host).digest == digest_view(view)

    @invariant()
    def whoever_reads_the_feed_line_by_line_holds_the_newest_view(self):
        for host in (H1, H2):
            for line in self.lines[host]:
                self.held[host] = self.readers[host].decode_line(line).view
            self.lines[host].clear()
            assert self.held[host] == self.plane.view(host)

    @invariant()
    def revisions_never_go_back(self):
        assert self.plane.snapshot.revision >= self.newest
        self.newest = self.plane.snapshot.revision

    def teardown(self):
        if hasattr(self, "plane"):
            self.wait(self.plane.close())
        self.loop.close()
        shutil.rmtree(self.folder)


def _said(rule, groups):
    peer = groups[rule.peer.group].name if isinstance(rule.peer, GroupPeer) else rule.peer.text
    return peer, rule.start_port


@pytest.mark.full
@pytest.mark.timeout(600)
def test_any_sequence_of_commands_claims_and_restarts_agrees_with_the_tiny_model():
    run_state_machine_as_test(
        ControlMachine,
        settings=settings(
            max_examples=MACHINES,
            stateful_step_count=40,
            deadline=None,
            derandomize=not FULL,
            suppress_health_check=list(HealthCheck),
        ),
    )
