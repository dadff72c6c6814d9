"""What a server of 100,000 groups, 1,000,000 rules, 100,000 instances and 10,000 hosts costs: start, memory, a change.

Run as a program, or by `make bench`. One JSON object on stdout; the bounds stand beside the figures. The server's own
process is a child, so that its memory is nobody else's. A change is timed from the command to its acknowledgement, disk
included, without HTTP, at the newest snapshot; each kind is done a few times, and the median counts.
"""

import asyncio
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from bench.fleets import fill
from ringfence.control.actor import operator_of
from ringfence.control.plane import ControlPlane
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
    InstanceClaim,
    RuleDraft,
)
from ringfence.policy.values import Direction, HostName, Protocol, parse_cidr

SIZES = {"hosts": 10_000, "instances": 100_000, "groups": 100_000, "rules_per_group": 10}
TIMES = 9
BOUNDS = {"start_s": 60, "memory_mib": 4096, "change_ms": 20}


def measure(folder: Path, sizes: dict[str, int] = SIZES) -> dict[str, object]:
    began = time.monotonic()
    hosts = {HostName(f"host-{n}"): n.to_bytes(32) for n in range(sizes["hosts"])}
    fill(folder, hosts=hosts, instances=sizes["instances"], groups=sizes["groups"], rules=sizes["rules_per_group"])
    filled_s = time.monotonic() - began
    command = (sys.executable, __file__, str(folder))
    child = subprocess.run(command, capture_output=True, text=True, check=True, timeout=900)  # noqa: S603  our own
    return {"sizes": sizes, "bounds": BOUNDS, "filled_s": round(filled_s, 1), **json.loads(child.stdout)}


async def use(folder: Path) -> dict[str, object]:
    """In the child: opens the store, and changes it."""
    began = time.monotonic()
    plane = await ControlPlane.open(folder, Settings(settle_wait_s=0.0))
    started_s = time.monotonic() - began
    try:
        changes = {name: await timed for name, timed in _changes(plane)}
    finally:
        await plane.close()
    memory_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    load = os.getloadavg()[0]
    return {"start_s": round(started_s, 1), "memory_mib": round(memory_mib), "change_ms": changes, "load": load}


def _changes(plane):
    """The kinds of changes, each as its name and the times that it takes, in ms."""
    chance = Random(3)
    groups, instances = list(plane.snapshot.groups), list(plane.snapshot.instances)
    (organisation,) = plane.snapshot.organisations.values()
    default = organisation.default_group
    some = chance.sample(groups, TIMES)
    wearers = chance.sample(instances, TIMES)
    draft = RuleDraft(Direction.INGRESS, Protocol.TCP, parse_cidr("192.0.2.0/24", field="bench"), 22, 22)
    created = []

    def rule(group):
        return plane.snapshot.groups[group].rules[-1].id

    yield "create a group", _timed(plane, (CreateGroup(f"new-{n}") for n in range(TIMES)), created)
    yield "delete a group", _timed(plane, (DeleteGroup(made.group) for made in created))
    yield "add a rule", _timed(plane, (AddRule(group, draft) for group in some))
    yield "delete a rule", _timed(plane, (DeleteRule(group, rule(group)) for group in some))
    yield "add a source", _timed(plane, (AddSource(group, parse_cidr("192.0.2.0/24", field="bench")) for group in some))
    yield "attach an instance", _timed(plane, (Attach(*pair) for pair in zip(some, wearers, strict=True)))
    yield "detach an instance", _timed(plane, (Detach(*pair) for pair in zip(some, wearers, strict=True)))
    yield "claim an inventory again", _claimed(plane, list(plane.snapshot.hosts)[:TIMES])
    yield (
        "add a rule to the group that every instance wears (all 10,000 hosts)",
        _timed(plane, (AddRule(default, replace(draft, end_port=100 + n)) for n in range(TIMES))),
    )


async def _timed(plane, commands, made=None):
    (organisation,) = plane.snapshot.organisations
    actor, took_ms = operator_of(organisation), []
    for command in commands:
        began = time.perf_counter()
        operation = await plane.execute(command, actor)
        took_ms.append((time.perf_counter() - began) * 1000)
        if made is not None:
            made.append(operation)
    return _summary(took_ms)


async def _claimed(plane, hosts):
    took_ms = []
    for host in hosts:
        claims = tuple(InstanceClaim(one.name, one.id, one.interfaces) for one in plane.snapshot.index.on(host))
        began = time.perf_counter()
        await plane.claim(host, ClaimInstances(claims))
        took_ms.append((time.perf_counter() - began) * 1000)
    return _summary(took_ms)


def _summary(took_ms):
    return {"median": round(statistics.median(took_ms), 2), "worst": round(max(took_ms), 2)}


@pytest.mark.timeout(1800)
def test_a_server_of_a_hundred_thousand_groups(tmp_path):
    print(json.dumps(measure(tmp_path), indent=2))  # noqa: T201  as above


if __name__ == "__main__":
    if len(sys.argv) == 2:
        print(json.dumps(asyncio.run(use(Path(sys.argv[1])))))  # noqa: T201  what a program is for
    else:
        with tempfile.TemporaryDirectory() as made_folder:
            print(json.dumps(measure(Path(made_folder)), indent=2))  # noqa: T201  as above
