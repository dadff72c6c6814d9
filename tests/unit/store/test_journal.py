"""What one server writes into the journal is what another reads."""

from dataclasses import fields, replace
from ipaddress import ip_network
from typing import get_args
from uuid import uuid4

import pytest

from desk import ORGANISATION
from ringfence.nft.foreign import ForeignChain
from ringfence.policy.facts import (
    AssertionsSet,
    Fact,
    HostAdded,
    HostInvited,
    HostJoined,
    HostRemoved,
    InstanceObserved,
    InstanceReleased,
    InstanceRemoved,
    LimitSet,
    OrganisationRemoved,
    RuleExpires,
    TrialBegun,
    TrialEnded,
)
from ringfence.policy.local import Failsafe
from ringfence.policy.lockout import parse_connection
from ringfence.policy.model import Host, Invitation, Operation, OperationReason, OperationState, Trial
from ringfence.policy.quota import Quota
from ringfence.policy.snapshot import Snapshot
from ringfence.policy.values import Protocol
from ringfence.store.decision import Decision, HostSaid, HostsSeen
from ringfence.store.follow import Follower
from ringfence.store.journal import Entry, decode_entries, encode_entries
from ringfence.store.migrate import load_migrations, migrate
from ringfence.store.postgresql import PostgresDatabase
from ringfence.store.rows import Rows
from unit.store.test_store import everything


def all_facts():
    """At least one fact of every kind."""
    start, facts, _ = everything()
    more = [
        HostAdded(Host("h9", ORGANISATION, bytes(range(32)), 7)),
        HostInvited("h9", Invitation(bytes(range(32)), 1_800_000_000)),
        HostJoined("h9", bytes(range(32))),
        HostRemoved("h9"),
        InstanceObserved(uuid4(), observe=True),
        InstanceReleased(uuid4()),
        InstanceRemoved(uuid4()),
        OrganisationRemoved(ORGANISATION),
        RuleExpires(uuid4(), uuid4(), 1_800_000_000),
        RuleExpires(uuid4(), uuid4(), None),
        TrialBegun(ORGANISATION, Trial(7, 1_800_000_000)),
        TrialEnded(ORGANISATION),
        LimitSet(ORGANISATION, next(iter(Quota)), 7),
        LimitSet(ORGANISATION, next(iter(Quota)), None),
        AssertionsSet(ORGANISATION, ("any -> db tcp/22 deny", "web -> db tcp/5432 allow")),
    ]
    return [*facts, *more], start


FAILSAFE = Failsafe(Protocol.TCP, 22, (ip_network("192.0.2.0/24"), ip_network("2001:db8::/64")))
CHAIN = ForeignChain("ip", "filter", "FORWARD", "forward", 0, policy_drops=True, drops=False)


def test_every_kind_of_fact_comes_back_equal():
    facts, start = all_facts()
    by_name = {fact.__name__: fact for fact in get_args(Fact)}
    facts += [by_name["OrganisationCreated"](organisation) for organisation in start.organisations.values()]
    entry = Entry(7, tuple(facts))
    assert decode_entries(encode_entries([entry])) == [entry]
    without = set(by_name) - {type(fact).__name__ for fact in facts}
    assert without <= {"RuleDeleted", "SourceRemoved", "GroupTakenOff"}, "ids and networks only"
    assert all(len(fields(by_name[name])) == 2 for name in without)


@pytest.mark.parametrize("state", OperationState)
def test_operations_and_hosts_seen_come_back_equal(state):
    operation = Operation(
        uuid4(), ORGANISATION, uuid4(), 7, state, OperationReason.FAULT, "boom \U0001f600", frozenset("ab"), 9
    )
    seen = (
        HostsSeen(("a", "c"), 1.5, HostSaid(7, None, "slow", 6)),
        HostsSeen(("b",), 2.0, HostSaid(None, "boom", None, 0, (CHAIN,))),
    )
    ends = ("192.0.2.1", 40000), ("2001:db8::1", 8443)
    said = replace(seen[0].said, failsafe=(FAILSAFE,), channel=parse_connection("it", *ends, agent="a"))
    seen += (HostsSeen(("a",), 1.5, said),)
    entries = [Entry(None, settled=(operation,), seen=seen), Entry(7, (), operation, frozenset("a"), changes_keys=True)]
    assert decode_entries(encode_entries(entries)) == entries


def test_news_of_ones_own_and_of_what_is_in_memory_is_no_news(postgres):
    database = PostgresDatabase(postgres.database())
    migrate(database, load_migrations())
    one, other = Follower(database, b""), Follower(database, b"")
    database.begin()
    rows = Rows()
    one.note(rows, [Decision(None, seen=(HostsSeen(("a",), 1.5, HostSaid(7, None, None, 6)),))])
    database.write(rows.runs())
    database.commit(one.news)
    one.committed()
    assert one.knows(one.news)
    assert not other.knows(one.news)
    assert not other.knows("something that anybody said")
    other.catch_up(Snapshot())
    assert other.knows(one.news)
    database.close()
