"""What ``doctor`` finds of the agent's own folder: its credential, what a restart would begin with, room for the next.

Input: the folder, the host that the inventory names, and doors. Nothing is written.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from ringfence.agent.cache import Cache
from ringfence.agent.credential import HostCredential, load_credential
from ringfence.agent.doctor import Finding, State
from ringfence.agent.doors.files import FilesDoor
from ringfence.agent.doors.links import LinksDoor
from ringfence.agent.doors.machine import MachineDoor
from ringfence.agent.inventory import Inventory
from ringfence.agent.places import Renames
from ringfence.policy.errors import OperatorError
from ringfence.policy.values import HostName

_ENOUGH_BYTES: Final = 64 << 20  # two large views, and the flow log
_UNKEPT: Final = "what comes from the server is enforced, and not kept for the next start"


def read_credential(folder: Path, environment: Mapping[str, str]) -> tuple[HostCredential | None, list[Finding]]:
    """The host's credential, as an agent with that folder and environment would have it, or why it cannot be had."""
    try:
        return load_credential(folder, environment), []
    except OperatorError as error:
        if isinstance(error.__cause__, PermissionError):
            return None, [Finding("credential", State.SKIPPED, f"not looked at: {error.reason}", "run it as root")]
        advice = "no agent starts with this folder; the rules in force stay"
        return None, [Finding("credential", State.PROBLEM, str(error), advice)]


def examine_folder(
    folder: Path, host: HostName, declared: HostName | None, *, files: FilesDoor, machine: MachineDoor
) -> Iterator[Finding]:
    """Findings about the folder of ``host``; ``declared``: the host that the inventory names, if it was read."""
    if declared not in (None, host):
        text = f"the inventory is that of host {declared}, and {folder} that of {host}"
        yield Finding("host", State.PROBLEM, text, "give the agent the inventory and the folder of one host")
    yield _room(folder, machine)
    yield _kept(Cache(files, folder, host))


def examine_renames(cache: Cache, inventory: Inventory, *, links: LinksDoor, machine: MachineDoor) -> Iterator[Finding]:
    """The ports that were renamed since the agent of the folder saw them, to what the inventory does not name."""
    memory = cache.load_memory()
    renames = Renames(memory.seen_in(links.life()))
    wanted = renames.look(inventory, memory.ports, links.numbered())
    for renamed in renames.find(wanted if machine.is_agent_running() else memory.ports):
        state = State.PROBLEM if renamed.is_open else State.WARNING
        advice = f"start the agent, or {renamed.advice}" if renamed.is_open else renamed.advice
        yield Finding("instance", state, renamed.text, advice)


def _room(folder: Path, machine: MachineDoor) -> Finding:
    room = machine.room(folder)
    if room is None:
        text = f"{folder} cannot be written: {_UNKEPT}"
        return Finding("folder", State.PROBLEM, text, "make it writable, or give the agent another --data")
    if room.bytes < _ENOUGH_BYTES or room.files < 1:
        left = f"{room.bytes >> 20} MiB and {room.files} files"
        state = State.WARNING if room.bytes and room.files else State.PROBLEM
        text = f"{folder} has room for {left} more: when it is full, {_UNKEPT}"
        return Finding("folder", state, text, "make room there")
    return Finding("folder", State.OK, f"{folder} can be written, and has room")


def _kept(cache: Cache) -> Finding:
    closed = "with it every managed port would stay closed at the next boot, until the server is reached"
    try:
        kept = cache.load_view()
    except OperatorError as error:
        advice = "start the agent: the next policy from the server replaces it"
        return Finding("kept policy", State.WARNING, f"{error}; {closed}", advice)
    if kept is None:
        return Finding("kept policy", State.WARNING, f"none: {closed}", "start the agent, which keeps what it enforces")
    return Finding("kept policy", State.OK, f"revision {kept.view.revision} is what the next boot begins with")
