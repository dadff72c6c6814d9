"""How fast the store acknowledges, against what the disk can sync at all. Run by `make bench`, for both databases.

Rounds are interleaved, so that a noisy neighbour hits all of them alike; the figures to trust are the ratios. One JSON
object on stdout.
"""

import asyncio
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

from desk import ORGANISATION
from places import Place
from ringfence.control.commits import Commits, Outcome
from ringfence.control.use_cases import found_organisation
from ringfence.policy.facts import RuleAdded, RuleDeleted, apply_facts
from ringfence.policy.model import Operation, OperationState, Rule
from ringfence.policy.values import Direction, Protocol, parse_cidr
from ringfence.store import AuditLine, Decision, Store, next_revision

ROUNDS = 3
ROUND_S = 1.0
CLIENTS = (1, 8, 64, 256)
PEER = parse_cidr("10.0.0.0/8", field="bench")


def syncs_per_s(folder: Path) -> float:
    """Appending 4 KiB and waiting for the disk, one after the other."""
    descriptor = os.open(folder / "floor", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    page, end_s = bytes(4096), time.monotonic() + ROUND_S
    done = 0
    while time.monotonic() < end_s:
        os.write(descriptor, page)
        os.fdatasync(descriptor)
        done += 1
    os.close(descriptor)
    return done / ROUND_S


def writes_per_s(store: Store, clients: int) -> tuple[float, float]:
    """Whole changes (rule, revision, operation, audit line) acknowledged per second, and their median latency in ms.

    The clients are tasks of one event loop, as in the server.
    """
    latencies_s: list[float] = []

    async def write(commits: Commits, end_s: float) -> None:
        rule = None
        while (begin_s := time.monotonic()) < end_s:
            rule = await commits.run(change(rule))
            latencies_s.append(time.monotonic() - begin_s)

    async def write_all() -> None:
        commits, end_s = Commits(store, lambda _: None), time.monotonic() + ROUND_S
        await asyncio.gather(*(write(commits, end_s) for _ in range(clients)))

    asyncio.run(write_all())
    return len(latencies_s) / ROUND_S, statistics.median(latencies_s) * 1000


def change(present):
    """A new rule, or the end of the one that the last change made: the policy stays small, only writing is measured."""
    rule_id, operation_id = uuid4(), uuid4()

    def decide(snapshot):
        (group,) = snapshot.groups.values()
        revision = next_revision(snapshot)
        if present is None:
            facts = (RuleAdded(group.id, Rule(rule_id, Direction.INGRESS, Protocol.TCP, PEER, 22, 22)),)
        else:
            facts = (RuleDeleted(group.id, present),)
        after = apply_facts(snapshot, facts, revision=revision)
        operation = Operation(operation_id, ORGANISATION, group.id, revision, OperationState.SUCCESS)
        audit = AuditLine(ORGANISATION, 0, "bench", "AddRule", str(group.id))
        result = rule_id if present is None else None
        return Decision(Outcome(result), facts=facts, after=after, operation=operation, audit=audit)

    return decide


def measure(new_place: Callable[[], Place], folder: Path) -> dict[str, object]:
    """Medians over the rounds."""
    floors: list[float] = []
    rates: dict[int, list[float]] = {clients: [] for clients in CLIENTS}
    latencies: dict[int, list[float]] = {clients: [] for clients in CLIENTS}
    for _ in range(ROUNDS):
        floors.append(syncs_per_s(folder))
        for clients in CLIENTS:
            store = new_place().open()
            store.submit(found_organisation(ORGANISATION, uuid4(), 0)).result()
            rate, latency = writes_per_s(store, clients)
            rates[clients].append(rate)
            latencies[clients].append(latency)
            store.close()
    floor = statistics.median(floors)
    return {
        "syncs_per_s": round(floor),
        "clients": {
            clients: {
                "writes_per_s": round(statistics.median(rates[clients])),
                "latency_ms": round(statistics.median(latencies[clients]), 2),
                "ratio_to_syncs": round(statistics.median(rates[clients]) / floor, 2),
            }
            for clients in CLIENTS
        },
    }


def test_grouped_commits_are_faster_than_the_disk_can_sync_one_by_one(new_place, tmp_path, request):
    found = measure(new_place, tmp_path)
    sys.stdout.write(json.dumps({"store": request.node.callspec.id, **found}) + "\n")
    many = found["clients"][64]
    # Far below what is measured: this machine has neighbours. Where the disk syncs quickly, the processor is the limit.
    assert many["ratio_to_syncs"] > 1.0 or many["writes_per_s"] > 1_000
