"""The network namespace: its interfaces, what takes their frames, and the lock by which only one agent filters it."""

import errno
import logging
import os
import socket
import struct
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from ringfence.agent.doors.listener import Listener
from ringfence.agent.doors.netlink import NetlinkSocket
from ringfence.nft.netlink import F_DUMP, F_REQUEST, pack_message, parse, parse_messages
from ringfence.policy.errors import OperatorError

# An abstract address belongs to the network namespace, whatever the agent's folder, and is freed with the process.
_LOCK_ADDRESS: Final = "\0ringfence-agent"
_NAME_TRIES: Final = 10  # whoever holds it may be gone when we look
_NETLINK_ROUTE: Final = 0
_GROUP_LINK: Final = 1
_RECEIVE_SIZE_BYTES: Final = 1 << 18  # what does not fit is lost, and the loss is a notice as well
_NOTICE_SIZE_BYTES: Final = 1  # of each, for only that it came counts: the kernel forgets the rest
_MOST_NOTICES: Final = 1024  # at once
_BOOT: Final = "/proc/sys/kernel/random/boot_id"
_NETWORK: Final = "/proc/thread-self/ns/net"
_NETLINK_SOCK_DIAG: Final = 4
_ASK_SOCKETS: Final = 20
_SHOW_NAME, _SHOW_USER = 0x01, 0x40
_NAME, _USER = 0, 7
_SOCKET_SIZE: Final = 12  # of unix_diag_msg behind its first four octets
_DEVICES: Final = "/sys/class/net"
_NAMELESS: Final = "?"  # in another network namespace

_log: Final = logging.getLogger("ringfence.agent")


class Filtered(OperatorError):
    """An agent filters the network namespace already."""


@dataclass(frozen=True, slots=True)
class Master:
    """What takes an interface's frames before they are packets of this host; ``name`` is None when nothing does."""

    name: str | None
    is_bridge: bool = False


class LinksDoor(Protocol):
    def master_of(self, interface: str) -> Master | None:
        """What the interface is a port of; None when that cannot be seen."""
        ...

    def is_bridge(self, interface: str) -> bool:
        """Whether it is seen to be a Linux bridge itself."""
        ...

    def names(self) -> frozenset[str]:
        """The names of all interfaces, up or down."""
        ...

    def numbered(self) -> dict[int, str]:
        """The names of all interfaces by the kernel's numbers, which stay when a name changes."""
        ...

    def life(self) -> str | None:
        """Of what the numbers are: this boot and network namespace. None when that cannot be told."""
        ...

    async def changed(self) -> None:
        """Until a link may have come, gone or changed since the last call; at the first call at once."""
        ...


class KernelLinks:
    """The links of the network namespace of the caller."""

    def __init__(self) -> None:
        self._notices: Listener | None = None

    def close(self) -> None:
        if self._notices is not None:
            self._notices.close()

    def life(self) -> str | None:
        try:
            return f"{Path(_BOOT).read_text(encoding='ascii').strip()} {Path(_NETWORK).stat().st_ino}"
        except OSError:
            return None

    async def changed(self) -> None:
        if self._notices is None:
            self._notices = _listen()
            return
        await self._notices.wait()
        self._notices.drain(lambda _: None, _MOST_NOTICES, _NOTICE_SIZE_BYTES)

    def names(self) -> frozenset[str]:
        return frozenset(self.numbered().values())

    def numbered(self) -> dict[int, str]:
        try:
            return dict(socket.if_nameindex())
        except OSError as error:
            raise OperatorError("list the network interfaces", str(error)) from error

    def is_bridge(self, interface: str) -> bool:
        return _kind_of(interface) == "bridge"

    def master_of(self, interface: str) -> Master | None:
        # Strings, not paths: a host has a thousand ports, and they are looked at for ever.
        device = f"{_DEVICES}/{interface}"
        try:
            name = Path(os.readlink(f"{device}/master")).name  # noqa: PTH115  as above
        except OSError:
            return _without_master(device)
        kind = _kind_of(name)
        return Master(None) if kind == "vrf" else Master(name, kind == "bridge")  # what a VRF routes passes the rules


def _listen() -> Listener:
    """The kernel's notices of links: no right is needed to hear them."""
    listener = Listener("listen to the kernel's changes of links", _RECEIVE_SIZE_BYTES, _NETLINK_ROUTE)
    try:
        listener.join(_GROUP_LINK)
    except OperatorError:
        listener.close()
        raise
    return listener


def _without_master(device: str) -> Master | None:
    """What is below a macvtap, which hands its frames to that at once; nothing takes any other interface's."""
    if not os.access(f"{device}/macvtap", os.F_OK):  # which raises nothing, and so costs little
        there = os.access(device, os.F_OK)  # else /sys may be another network namespace's
        return Master(None) if there else None
    try:
        lower = [name.removeprefix("lower_") for name in os.listdir(device) if name.startswith("lower_")]  # noqa: PTH208
    except OSError:
        return None  # gone meanwhile
    return Master(lower[0] if lower else _NAMELESS)


def _kind_of(device: str) -> str | None:
    """The kind of a device, bridges and others that have ports, as the kernel calls it, if it calls it anything."""
    try:
        told = Path(_DEVICES, device, "uevent").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((line.removeprefix("DEVTYPE=") for line in told if line.startswith("DEVTYPE=")), None)


@contextmanager
def lock_network() -> Iterator[None]:
    """Holds the caller's network namespace for this agent alone; raises ``Filtered`` at once when another holds it.

    The name that tells is anybody's to take: whoever is neither root nor the caller's user holds it in vain.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as lock:
        _take_name(lock)
        yield


def _take_name(lock: socket.socket) -> None:
    step = "lock the network namespace"
    for _ in range(_NAME_TRIES):
        try:
            lock.bind(_LOCK_ADDRESS)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise OperatorError(step, error.strerror or str(error)) from error
        else:
            return
        holders = _holders()
        if holders & {0, os.geteuid()}:
            break
        if holders:
            _log.warning("user %d, who is no agent, holds the name by which agents know of each other", min(holders))
            return
    reason = "another agent filters this network namespace already; two would undo each other's rules"
    raise Filtered(step, reason)


def _holders() -> frozenset[int]:
    """The users whose processes hold the name, once for each type of socket; empty if the kernel tells of none.

    A datagram socket can have the name beside an agent's: every one counts (unix_diag.h).
    """
    every, nothing = 0xFFFFFFFF, 0
    wanted = struct.pack("=5I", every, nothing, _SHOW_NAME | _SHOW_USER, every, every)
    request = pack_message(_ASK_SOCKETS, F_REQUEST | F_DUMP, 1, wanted, family=socket.AF_UNIX)
    try:
        with closing(NetlinkSocket(_NETLINK_SOCK_DIAG)) as netlink:
            told = [one for one in parse_messages(netlink.dump(request)) if one.type == _ASK_SOCKETS]
    except OperatorError:
        return frozenset()
    sockets = (parse(one.payload[_SOCKET_SIZE:]) for one in told)
    users = (one.get(_USER) for one in sockets if one.get(_NAME) == _LOCK_ADDRESS.encode())
    return frozenset(int.from_bytes(user, sys.byteorder) for user in users if user is not None)
