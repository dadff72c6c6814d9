"""What is enforced before the server is reached: the last view saved on disk, or a table that closes every port.

The agent starts with it, and ``boot`` consists of it, for when a machine has no network yet.
"""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ringfence.agent.cache import Cache
from ringfence.agent.doors.bridging import BridgingDoor
from ringfence.agent.doors.conntrack import ConntrackDoor
from ringfence.agent.doors.files import FilesDoor
from ringfence.agent.doors.links import LinksDoor
from ringfence.agent.doors.nftables import NftablesDoor
from ringfence.agent.enforce import CLOSED, Enforcer, Outcome
from ringfence.agent.generations import Generations
from ringfence.agent.own_view import OwnPart
from ringfence.agent.ports import Declaration, Declared
from ringfence.nft import About
from ringfence.policy.errors import OperatorError
from ringfence.policy.local import LocalPorts
from ringfence.policy.values import Kind, Revision
from ringfence.policy.view import HostView
from ringfence.wire.feed import FeedView

_log: Final = logging.getLogger("ringfence.agent")


class NotEnforceable(OperatorError):
    """This host cannot filter ports of the kind that its inventory declares."""


@dataclass(frozen=True, slots=True)
class BootDoors:
    nftables: NftablesDoor
    conntrack: ConntrackDoor
    links: LinksDoor
    files: FilesDoor
    bridging: BridgingDoor


@dataclass(frozen=True, slots=True)
class Booted:
    """``text`` says what is in force."""

    outcome: Outcome
    text: str


def boot(doors: BootDoors, cache: Cache, inventory_file: Path) -> Booted:
    """Enforces the last saved view if it is good, else closes every managed port. Writes nothing to disk.

    Raises:
        OperatorError: there is no usable inventory, now or saved, or the kernel refuses.
    """
    memory = cache.load_memory()
    enforcer = Enforcer(doors.nftables, Generations(doors.conntrack), last_block=memory.block)
    held = enforcer.held() or CLOSED
    declared = Declared(inventory_file, files=doors.files, links=doors.links, cache=cache, memory=memory)
    declared.begin(enforcer.held_ports(), enforcer.held_observed())
    if declared.problem:
        _log.warning("%s", declared.problem)
    kept = load_view(cache, held)
    if kept is not None:
        declared.note_view(kept.view)
    outcome = carry_out(enforcer, kept, declared.current, doors.bridging, own=OwnPart())
    revision, ports = outcome.about.revision, declared.current.ports
    return Booted(outcome, f"revision {revision} is enforced from disk" if revision else closed_words(ports))


def closed_words(ports: LocalPorts) -> str:
    """What is in force where no view is."""
    if any(uplink.observe for uplink in ports.uplinks):
        return "this host is observed and nothing is dropped, until a policy comes that enforces it"
    return "every managed port is closed"


def load_view(cache: Cache, held: About) -> FeedView | None:
    """The view saved on disk, unless the kernel already holds a newer one, as ``held`` says."""
    try:
        kept = cache.load_view()
    except OperatorError as error:
        _log.warning("%s", error)
        return None
    if kept is None or held == CLOSED:
        return kept
    # A view is enforced before it is saved, so if the epochs differ, the kernel's is the later one.
    is_older = held.epoch != kept.epoch or held.revision > kept.view.revision
    return None if is_older else kept


def carry_out(
    enforcer: Enforcer, wanted: FeedView | None, declared: Declaration, bridging: BridgingDoor, *, own: OwnPart
) -> Outcome:
    """Makes the kernel hold the wanted view; without one it opens nothing, and closes what the inventory closes.

    Raises:
        NotEnforceable: nothing would judge what crosses the bridge, so all ports are closed.
    """
    if declared.ports.kind is Kind.BRIDGED:
        _show_bridges(enforcer, declared.ports, bridging)
    if wanted is not None:
        about = About(wanted.view.revision, wanted.epoch)
        return enforcer.enforce(own.keep(wanted.view, declared.inventory), about, declared.ports)
    if enforcer.held() in (None, CLOSED):
        return enforcer.enforce(HostView(Revision(0)), CLOSED, declared.ports)
    # Rules of an earlier run are in force, and only the server knows what they should become.
    return enforcer.narrow(declared.endpoints, declared.ports)


def _show_bridges(enforcer: Enforcer, ports: LocalPorts, bridging: BridgingDoor) -> None:
    """Switches br_netfilter on; if that fails, closes all ports, for nothing would judge what crosses a bridge."""
    if bridging.is_on():
        return
    try:
        bridging.switch_on()
    except OperatorError as error:
        enforcer.enforce(HostView(Revision(0)), CLOSED, ports)
        reason = f"{error.reason}; nothing can be enforced at a bridge, and every port under our care is closed"
        raise NotEnforceable(error.step, reason) from error
