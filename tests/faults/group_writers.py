"""Run as a program (folder, label, writers, groups of each): says on stdout what was acknowledged, until killed."""

import asyncio
import os
import sys
from pathlib import Path

from ringfence.control.actor import Actor, Role
from ringfence.control.plane import ControlPlane
from ringfence.policy.commands import AddRule, CreateGroup, RuleDraft
from ringfence.policy.values import Direction, Protocol, parse_cidr

RULE = RuleDraft(Direction.INGRESS, Protocol.TCP, parse_cidr("10.0.0.1/8", field="test"), 22, 22)


async def write(plane: ControlPlane, label: str) -> None:
    actor = Actor(plane.owners.first.id, label, Role.OWNER)
    for number in range(int(sys.argv[4])):
        name = f"{label}.{number}"
        created = await plane.execute(CreateGroup(name), actor)
        say("group", name, created.revision)
        ruled = await plane.execute(AddRule(created.group, RULE), actor)
        say("rule", name, ruled.revision)


def say(what: str, name: str, revision: int | None) -> None:
    os.write(1, f"{what} {name} {revision}\n".encode())  # one write, so that a kill leaves whole lines


async def main() -> None:
    plane = await ControlPlane.open(Path(sys.argv[1]))
    await asyncio.gather(*(write(plane, f"{sys.argv[2]}.{writer}") for writer in range(int(sys.argv[3]))))


if __name__ == "__main__":
    asyncio.run(main())
