"""The agent as a service: opens its real doors, locks its folder and network namespace, and ends at SIGTERM.

It ends only when it is told to, or with an ``OperatorError`` when it cannot start.
"""

import asyncio
import ctypes
import gc
import logging
import random
import signal
import threading
from collections.abc import Coroutine, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Final

from ringfence.agent.cache import Cache
from ringfence.agent.client import open_server
from ringfence.agent.credential import HostCredential, load_credential
from ringfence.agent.doors.bridging import KernelBridging
from ringfence.agent.doors.bundle import Doors
from ringfence.agent.doors.clock import SystemClock
from ringfence.agent.doors.connections import KernelConnections
from ringfence.agent.doors.conntrack import KernelConntrack
from ringfence.agent.doors.files import SystemFiles, lock_folder
from ringfence.agent.doors.links import KernelLinks, lock_network
from ringfence.agent.doors.machine import LinuxMachine
from ringfence.agent.doors.names import SystemNames
from ringfence.agent.doors.nftables import KernelNftables, RulesRefused
from ringfence.agent.doors.packets import KernelPackets
from ringfence.agent.http import place_of
from ringfence.agent.inventory import parse_inventory
from ringfence.agent.loop import Agent
from ringfence.agent.start import BootDoors, Booted, boot
from ringfence.nft import Generation
from ringfence.policy.errors import OperatorError
from ringfence.policy.program.names import TableFamily
from ringfence.policy.program.steps import AddTable, DeleteTable
from ringfence.policy.values import HostName
from ringfence.pulse import tell_ready

# malloc.h. The thresholds are glibc's initial ones; set explicitly they stay, else freeing a large buffer raises them.
_KEPT_WHOLE: Final = 128 << 10
_MALLOC: Final = {"M_ARENA_MAX": (-8, 1), "M_MMAP_THRESHOLD": (-3, _KEPT_WHOLE), "M_TRIM_THRESHOLD": (-1, _KEPT_WHOLE)}
_ALLOCATIONS: Final = 100_000  # allocations between two collections of the youngest objects

_log: Final = logging.getLogger("ringfence.agent")


async def run_agent(
    server: str,
    folder: Path,
    inventory: Path,
    credential: HostCredential,
    *,
    insecure: bool = False,
    flow_file: Path | None = None,
) -> None:
    """Enforce this host's view in the network namespace of the caller, until SIGTERM, SIGINT or cancellation.

    ``server`` is https://HOST:PORT, http:// on loopback (elsewhere only with ``insecure``), or unix:PATH; it need not
    be there yet. The rules stay in force when the agent ends.

    Raises:
        OperatorError: the folder or the network namespace is another agent's, there is no usable inventory, or the
            kernel cannot be had.
    """
    clock = SystemClock()
    spare_collections()
    with (
        lock_folder(folder),
        lock_network(),
        closing(KernelNftables()) as nftables,
        closing(nftables.listen()) as notices,
        closing(KernelConntrack()) as conntrack,
        _open_packets() as packets,
        closing(KernelConnections()) as connections,
        closing(KernelLinks()) as links,
    ):
        nftables.count_changes()  # says at once when nf_tables cannot be had here
        async with open_server(server, credential, clock, insecure=insecure) as connection:
            kernel = nftables, notices, conntrack, links
            system = SystemFiles(), SystemNames(), clock, KernelBridging()
            doors = Doors(*kernel, *system, packets, connections, flow_file, LinuxMachine())
            cache = Cache(doors.files, folder, credential.host)
            started = Agent(doors, connection, cache, inventory, place=place_of(server), jitter=random.random)
            with closing(started) as agent:
                await agent.start()
                _give_back()
                tell_ready()
                _log.info("agent runs", extra={"fields": {"host": credential.host, "server": server}})
                await _until_told(agent.run())
    _log.info("agent ends; its rules stay in force", extra={"fields": {"host": credential.host}})


@contextmanager
def _open_packets() -> Iterator[KernelPackets | None]:
    """The log of refused packets; None where the kernel has none to give, for enforcing does not depend on it."""
    try:
        opened = KernelPackets()
    except OperatorError as error:
        _log.warning("no flow log: %s", error)
        yield None
        return
    with closing(opened):
        yield opened


def spare_collections() -> None:
    """Tunes garbage collection and malloc for a policy: a hundred thousand objects that live long and form no cycles.

    Collecting less often halves the time of a load. One heap for all threads lets one thread use what another freed;
    large buffers (a view, a batch, the kernel's answer) are outside of it, and return to the kernel when freed. The
    garbage of loading the program is collected first, before a policy's objects surround it.
    """
    gc.collect()
    gc.set_threshold(_ALLOCATIONS, 50, 100)
    with suppress(AttributeError):  # of another C library than glibc
        for parameter, value in _MALLOC.values():
            ctypes.CDLL(None).mallopt(parameter, value)


def _give_back() -> None:
    """Returns to the kernel the free memory that compiling and loading a policy needed."""
    with suppress(AttributeError):  # of another C library than glibc
        ctypes.CDLL(None).malloc_trim(0)


def run_boot(folder: Path, inventory: Path, environment: Mapping[str, str]) -> Booted:
    """Enforces the saved view in the caller's network namespace, or else closes its managed ports, without a server.

    Raises:
        Filtered: an agent filters the namespace already.
        OperatorError: there is no usable inventory, or the kernel refuses.
    """
    files = SystemFiles()
    spare_collections()
    with lock_network(), closing(KernelNftables()) as nftables, closing(KernelConntrack()) as conntrack:
        doors = BootDoors(nftables, conntrack, KernelLinks(), files, KernelBridging())
        return boot(doors, Cache(files, folder, _host(folder, inventory, environment)), inventory)


def run_leave() -> None:
    """Take all that is ours out of the kernel's rules in the caller's network namespace: nothing is filtered any more.

    Raises:
        Filtered: an agent filters the namespace, and would bring it back.
        OperatorError: the kernel refuses.
    """
    with lock_network(), closing(KernelNftables()) as nftables:
        _remove_table(nftables, TableFamily.INET)
        try:
            _remove_table(nftables, TableFamily.BRIDGE)
        except RulesRefused as refused:
            if not refused.is_unsupported:  # a kernel that knows no tables of bridges holds none of ours
                raise


def _remove_table(nftables: KernelNftables, family: TableFamily) -> None:
    """Adding it first makes it no error when there is none."""
    nftables.commit((AddTable(family), DeleteTable(family)), generation=Generation(1), about=None)


def _host(folder: Path, inventory: Path, environment: Mapping[str, str]) -> HostName:
    """The host's name by its credential, else by its inventory: a host that never joined closes its ports, too."""
    try:
        return load_credential(folder, environment).host
    except OperatorError as error:
        _log.warning("%s", error)
        text = SystemFiles().read(inventory)
        return parse_inventory(text or b"", file=str(inventory)).host


async def _until_told(work: Coroutine[object, object, None]) -> None:
    """Run ``work`` until it ends, or is ended by SIGTERM or SIGINT: that counts as a clean end."""
    task = asyncio.ensure_future(work)
    told = asyncio.Event()

    def tell() -> None:
        told.set()
        task.cancel()

    loop = asyncio.get_running_loop()
    listens = threading.current_thread() is threading.main_thread()
    for number in (signal.SIGTERM, signal.SIGINT) if listens else ():
        loop.add_signal_handler(number, tell)
    try:
        await task
    except asyncio.CancelledError:
        if not told.is_set():
            raise
    finally:
        for number in (signal.SIGTERM, signal.SIGINT) if listens else ():
            loop.remove_signal_handler(number)
