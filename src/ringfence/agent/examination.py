"""Runs ``doctor`` on the real host: opens its doors, and closes them again."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from types import MappingProxyType

from ringfence.agent.cache import Cache
from ringfence.agent.credential import HostCredential
from ringfence.agent.doctor import Finding, Instruments, examine, read_inventory
from ringfence.agent.doctor_folder import examine_folder, examine_renames, read_credential
from ringfence.agent.doctor_server import examine_server
from ringfence.agent.doors.bridging import KernelBridging
from ringfence.agent.doors.conntrack import KernelConntrack
from ringfence.agent.doors.files import SystemFiles
from ringfence.agent.doors.links import KernelLinks
from ringfence.agent.doors.machine import LinuxMachine
from ringfence.agent.doors.nftables import KernelNftables
from ringfence.agent.doors.server import ask_server
from ringfence.agent.inventory import Inventory


def examine_host(
    inventory_file: Path | None, folder: Path | None = None, environment: Mapping[str, str] = MappingProxyType({})
) -> list[Finding]:
    """The findings about this host, in the network namespace of the caller, about ``folder`` and its server.

    ``environment``: where the credential may stand instead of in the folder.
    """
    with ExitStack() as opened:

        def nftables() -> KernelNftables:
            return opened.enter_context(closing(KernelNftables()))

        def conntrack() -> KernelConntrack:
            return opened.enter_context(closing(KernelConntrack()))

        instruments = Instruments(nftables, conntrack, KernelLinks(), SystemFiles(), KernelBridging(), LinuxMachine())
        inventory, findings = read_inventory(instruments.files, inventory_file)
        found = examine(instruments, inventory, findings)
    if folder is None:
        return found
    credential, findings = read_credential(folder, environment)
    return [*found, *findings, *(_joined(folder, credential, inventory, instruments) if credential else ())]


def _joined(
    folder: Path, credential: HostCredential, inventory: Inventory | None, instruments: Instruments
) -> Iterator[Finding]:
    declared = inventory.host if inventory else None
    yield from examine_folder(folder, credential.host, declared, files=instruments.files, machine=instruments.machine)
    if inventory is not None:
        cache = Cache(instruments.files, folder, credential.host)
        yield from examine_renames(cache, inventory, links=instruments.links, machine=instruments.machine)
    yield from examine_server(credential, ask_server)
