"""Runs ``doctor`` on the real host: opens its doors, and closes them again."""

from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

from ringfence.agent.doctor import Finding, Instruments, examine, read_inventory
from ringfence.agent.doctor_folder import examine_folder, read_credential
from ringfence.agent.doctor_server import examine_server
from ringfence.agent.doors.bridging import KernelBridging
from ringfence.agent.doors.conntrack import KernelConntrack
from ringfence.agent.doors.files import SystemFiles
from ringfence.agent.doors.links import KernelLinks
from ringfence.agent.doors.machine import LinuxMachine
from ringfence.agent.doors.nftables import KernelNftables
from ringfence.agent.doors.server import ask_server


def examine_host(inventory: Path | None, folder: Path | None = None) -> list[Finding]:
    """The findings about this host, in the network namespace of the caller, about ``folder`` and its server."""
    with ExitStack() as opened:

        def nftables() -> KernelNftables:
            return opened.enter_context(closing(KernelNftables()))

        def conntrack() -> KernelConntrack:
            return opened.enter_context(closing(KernelConntrack()))

        instruments = Instruments(nftables, conntrack, KernelLinks(), SystemFiles(), KernelBridging(), LinuxMachine())
        found = examine(instruments, inventory)
    return found if folder is None else [*found, *_joined(folder, inventory, instruments)]


def _joined(folder: Path, inventory: Path | None, instruments: Instruments) -> Iterator[Finding]:
    credential, findings = read_credential(folder)
    yield from findings
    if credential is not None:
        declared, _ = read_inventory(instruments.files, inventory)
        host = declared.host if declared else None
        yield from examine_folder(folder, credential.host, host, files=instruments.files, machine=instruments.machine)
        yield from examine_server(credential, ask_server)
