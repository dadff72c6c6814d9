"""For ``ringfence doctor``: what this host can and cannot do for ringfence, and what is in the way.

Input: doors, and the inventory's file if it is given. Output: findings, each with advice. Nothing is changed; what the
caller has no right to look at is reported as skipped.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final

from ringfence.agent.crowding import find_crowding
from ringfence.agent.doors.bridging import SETTINGS, BridgingDoor
from ringfence.agent.doors.conntrack import ConntrackDoor
from ringfence.agent.doors.files import FilesDoor
from ringfence.agent.doors.links import LinksDoor
from ringfence.agent.doors.machine import MachineDoor
from ringfence.agent.doors.nftables import NftablesDoor
from ringfence.agent.inventory import Inventory, Logged, declared_endpoints, parse_inventory
from ringfence.agent.places import find_misplaced
from ringfence.nft import DEFAULT_MASK
from ringfence.nft.foreign import ForeignChain
from ringfence.policy.errors import OperatorError
from ringfence.policy.values import Kind

_ENOUGH_BYTES: Final = 4 << 20  # one transaction of some thousand rules
_FORWARDING: Final = ("net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding")
_EVENTS: Final = "net/netfilter/nf_conntrack_events"
_ACCOUNTING: Final = "net/netfilter/nf_conntrack_acct"
# The programs that tables belong to, by how the tables' names begin.
_FIREWALLS: Final = {
    "firewalld": "firewalld",
    "ufw": "ufw",
    "docker": "Docker",
    "libvirt": "libvirt",
    "incus": "Incus",
    "lxc": "LXC",
    "netavark": "Podman",
    "filter": "iptables-nft (ufw and Docker use it, too)",
}
_MARK_SHIFT, _MARK_BITS = 16, 16  # where DEFAULT_MASK keeps the generation


class State(Enum):
    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Finding:
    """``advice`` says what to do about it, if anything."""

    about: str
    state: State
    text: str
    advice: str | None = None


@dataclass(frozen=True, slots=True)
class Instruments:
    """The doors to look through; ``nftables`` and ``conntrack`` open theirs, or raise ``OperatorError``."""

    nftables: Callable[[], NftablesDoor]
    conntrack: Callable[[], ConntrackDoor]
    links: LinksDoor
    files: FilesDoor
    bridging: BridgingDoor
    machine: MachineDoor


def examine(instruments: Instruments, inventory: Inventory | None, findings: list[Finding]) -> list[Finding]:
    """All findings, causes before effects; ``findings`` are those that ``read_inventory`` had of the inventory."""
    kind = inventory.kind if inventory else None
    return [
        *_rules(instruments),
        *_flows(instruments),
        *_room(instruments.machine),
        *_events(instruments.machine, inventory),
        *_bridges(instruments, kind),
        *_machine(instruments.machine, kind),
        *findings,
        *(_declared(inventory, instruments) if inventory else ()),
    ]


def _rules(instruments: Instruments) -> Iterator[Finding]:
    """The kernel's nf_tables, our table in it, and those of others."""
    try:
        nftables = instruments.nftables()
        nftables.count_changes()
        about, foreign = nftables.read_about(), nftables.read_foreign()
    except OperatorError as error:
        yield Finding("nf_tables", State.SKIPPED, f"not looked at: {error.reason}", "run it as root")
        return
    yield Finding("nf_tables", State.OK, "the kernel has it")
    running = instruments.machine.is_agent_running()
    if about is not None and about.epoch:
        yield Finding("table", State.OK, f"the table ringfence is in force: revision {about.revision}")
    elif about is not None:
        text = "the table ringfence is in force without a policy: none has come from a server yet"
        yield Finding(
            "table", State.WARNING, text, "look at what is said of the server (--data), and at the agent's log"
        )
    else:
        state, advice = (State.PROBLEM, "the agent's log says why") if running else (State.WARNING, "start the agent")
        yield Finding("table", state, "no table of ringfence: nothing is enforced here", advice)
    if running:
        yield Finding("agent", State.OK, "an agent filters this network namespace")
    else:
        rest = "; what it enforced last stays in force" if about else ""
        yield Finding("agent", State.WARNING, f"no agent runs in this network namespace{rest}", "start the agent")
    yield from _foreign(foreign)


def _foreign(chains: tuple[ForeignChain, ...]) -> Iterator[Finding]:
    dropping = [chain for chain in chains if chain.may_drop]
    for chain in dropping:
        text = f"{_owner(chain.table)}{chain.text}"
        advice = "a packet must pass this as well: what a group allows may still be dropped here"
        yield Finding("other firewall", State.WARNING, text, advice)
    if not dropping:
        owners = sorted({chain.table for chain in chains})
        yield Finding("other firewall", State.OK, f"no other table drops{': ' if owners else ''}{', '.join(owners)}")

    for chain in chains:
        if chain.marks:
            text = f"{_owner(chain.table)}{chain.place} may set connection marks"
            advice = f"it must leave the bits {DEFAULT_MASK:#010x} alone, or flows are judged anew, or pass unjudged"
            yield Finding("connection marks", State.WARNING, text, advice)


def _owner(table: str) -> str:
    return next((f"{owner}: " for name, owner in _FIREWALLS.items() if table.lower().startswith(name)), "")


def _flows(instruments: Instruments) -> Iterator[Finding]:
    try:
        conntrack = instruments.conntrack()
        strangers = _foreign_marks(conntrack, instruments.nftables())
    except OperatorError as error:
        yield Finding("conntrack", State.SKIPPED, f"not looked at: {error.reason}", "run it as root")
        return
    yield Finding("conntrack", State.OK, "flows can be read and forgotten by their marks")
    if strangers:
        text = f"{strangers} flows or more carry bits of {DEFAULT_MASK:#010x} in their mark that ringfence never set"
        advice = "another program uses these bits, and flows may pass unjudged: give it the low half of the mark"
        yield Finding("connection marks", State.PROBLEM, text, advice)
    else:
        yield Finding(
            "connection marks", State.OK, f"nobody else uses the bits {DEFAULT_MASK:#010x}, as far as flows show"
        )


def _room(machine: MachineDoor) -> Iterator[Finding]:
    """How full conntrack is."""
    if (crowding := find_crowding(machine)) is not None:
        flows = f"{crowding.flows} of at most {crowding.most} flows"
        text = f"{flows}: when it is full, what begins is dropped, and only the kernel's log tells"
        yield Finding("conntrack", State.PROBLEM, text, crowding.advice)


def _events(machine: MachineDoor, inventory: Inventory | None) -> Iterator[Finding]:
    """What the kernel lacks for the flow log of allowed connections, if the inventory asks for that."""
    if inventory is None or inventory.flow_log is not Logged.ALL:
        return
    if machine.setting(_EVENTS) == "0":
        text = "switched off (net.netfilter.nf_conntrack_events = 0): no allowed connection is logged or counted"
        yield Finding("connection events", State.PROBLEM, text, "sysctl -w net.netfilter.nf_conntrack_events=2")
    if machine.setting(_ACCOUNTING) == "0":
        text = "not counted (net.netfilter.nf_conntrack_acct = 0): rules' packets and bytes stay empty"
        yield Finding("connection bytes", State.WARNING, text, "sysctl -w net.netfilter.nf_conntrack_acct=1")


def _foreign_marks(conntrack: ConntrackDoor, nftables: NftablesDoor) -> int:
    """How many flows have a mark bit that no generation so far has; generations are counted from 1."""
    used = (nftables.read().generation or 0).bit_length()
    marks = (1 << _MARK_SHIFT + bit for bit in range(used, _MARK_BITS))
    return max((conntrack.count(mark, mark) for mark in marks), default=0)


def _bridges(instruments: Instruments, kind: Kind | None) -> Iterator[Finding]:
    bridging, machine = instruments.bridging, instruments.machine
    names = " and ".join(f"net.bridge.{name}" for name in SETTINGS)
    if bridging.is_on():
        yield Finding("br_netfilter", State.OK, "bridged packets are shown to the rules: bridged ports can be filtered")
    elif machine.setting(f"net/bridge/{SETTINGS[0]}") is not None:
        state = State.PROBLEM if kind is Kind.BRIDGED else State.WARNING
        text = "switched off: what crosses a bridge is not judged"
        yield Finding("br_netfilter", state, text, f"the agent switches it on; or set {names} to 1")
    else:
        state = State.PROBLEM if kind is Kind.BRIDGED else State.WARNING
        yield Finding("br_netfilter", state, "not here: bridged ports cannot be filtered", "modprobe br_netfilter")
    loaded = "loaded" if machine.has_module("nf_conntrack_bridge") else "not loaded"
    text = f"nf_conntrack_bridge is {loaded}; ringfence does not need it, it uses br_netfilter"
    yield Finding("bridge conntrack", State.OK, text)


def _machine(machine: MachineDoor, kind: Kind | None) -> Iterator[Finding]:
    off = [name for name in _FORWARDING if machine.setting(name) == "0"]
    if off and kind is not Kind.SELF:
        settings = ", ".join(name.replace("/", ".") for name in off)
        advice = f"sysctl -w {' '.join(name.replace('/', '.') + '=1' for name in off)}"
        yield Finding("forwarding", State.WARNING, f"off: {settings}; instances are not routed", advice)
    else:
        yield Finding("forwarding", State.OK, "on for IPv4 and IPv6" if not off else "not needed here")
    limit = machine.setting("net/core/wmem_max")
    if limit is None:
        text = "net.core.wmem_max is not to be seen from this network namespace"
        yield Finding("send buffer", State.SKIPPED, text, "run it in the host's own")
    elif int(limit) < _ENOUGH_BYTES:
        text = f"net.core.wmem_max is {limit}: without CAP_NET_ADMIN of the machine a large change is refused"
        yield Finding("send buffer", State.WARNING, text, f"sysctl -w net.core.wmem_max={_ENOUGH_BYTES}")
    else:
        yield Finding("send buffer", State.OK, f"net.core.wmem_max is {limit}")
    forbidden = machine.setting("user/max_user_namespaces") == "0" or (
        machine.setting("kernel/unprivileged_userns_clone") == "0"
    )
    if forbidden:
        text = "ordinary users may not make namespaces: the demo needs root"
        yield Finding("user namespaces", State.WARNING, text, "run the demo with sudo; the agent does not need them")
    else:
        yield Finding("user namespaces", State.OK, "allowed: the demo runs without root")


def read_inventory(files: FilesDoor, file: Path | None) -> tuple[Inventory | None, list[Finding]]:
    """The inventory, and what is to say of the file."""
    if file is None:
        text = "none given: nothing is said of instances and ports"
        return None, [Finding("inventory", State.SKIPPED, text, "give it with --inventory FILE")]
    try:
        content = files.read(file)
        inventory = None if content is None else parse_inventory(content, file=str(file))
    except OperatorError as error:
        return None, [Finding("inventory", State.PROBLEM, str(error), "mend the file; the last good one is in force")]
    if inventory is None:
        return None, [Finding("inventory", State.PROBLEM, f"there is no file {file}", "write it, or give another one")]
    counted = f"{len(inventory.instances)} instances, ports {inventory.kind.value}"
    return inventory, [Finding("inventory", State.OK, counted)]


def _declared(inventory: Inventory, instruments: Instruments) -> Iterator[Finding]:
    links = instruments.links.names()
    for pattern in inventory.managed:
        if not any(fnmatchcase(name, pattern) for name in links):
            text = f"no interface matches {pattern!r}"
            yield Finding("managed", State.WARNING, text, "harmless, if instances are still to come")
    for misplaced in find_misplaced(inventory, instruments.links):
        state = State.PROBLEM if misplaced.is_open else State.WARNING
        yield Finding("instance", state, misplaced.text, misplaced.advice)
    yield from _bridged_uplinks(inventory, instruments)
    for endpoint in declared_endpoints(inventory):
        if endpoint.interface not in links:
            text = f"instance {endpoint.name!r}: there is no interface {endpoint.interface!r}"
            yield Finding("instance", State.WARNING, text, "start it, or take it out of the inventory")
        if endpoint.mac is None and inventory.kind is not Kind.SELF:
            local = " and any link-local address" if endpoint.has_open_link_local else ""
            text = f"instance {endpoint.name!r} declares no mac: it may send from any MAC address{local}"
            yield Finding("instance", State.WARNING, text, 'declare mac = "..." in the inventory')


def _bridged_uplinks(inventory: Inventory, instruments: Instruments) -> Iterator[Finding]:
    """The uplinks that are bridges, where br_netfilter takes what crosses them for this host's own."""
    if inventory.kind is not Kind.SELF or not instruments.bridging.is_on():
        return
    for endpoint in declared_endpoints(inventory):
        if instruments.links.is_bridge(endpoint.interface):
            crossing = "what crosses it to virtual machines and others is judged by this host's groups, too"
            text = f"instance {endpoint.name!r}: {endpoint.interface!r} is a bridge: {crossing}"
            settings = " ".join(f"net.bridge.{name}=0" for name in SETTINGS)
            yield Finding("instance", State.WARNING, text, f"if it is to be left alone: sysctl -w {settings}")
