"""Runs ``doctor`` on the real host: opens its doors, and closes them again."""

from contextlib import ExitStack, closing
from pathlib import Path

from ringfence.agent.credential import load_credential
from ringfence.agent.doctor import Finding, Instruments, examine
from ringfence.agent.doctor_server import examine_server
from ringfence.agent.doors.bridging import KernelBridging
from ringfence.agent.doors.conntrack import KernelConntrack
from ringfence.agent.doors.files import SystemFiles
from ringfence.agent.doors.links import KernelLinks
from ringfence.agent.doors.machine import LinuxMachine
from ringfence.agent.doors.nftables import KernelNftables
from ringfence.agent.doors.server import ask_server


def examine_host(inventory: Path | None, folder: Path | None = None) -> list[Finding]:
    """The findings about this host, in the network namespace of the caller, and about the server of ``folder``."""
    with ExitStack() as opened:

        def nftables() -> KernelNftables:
            return opened.enter_context(closing(KernelNftables()))

        def conntrack() -> KernelConntrack:
            return opened.enter_context(closing(KernelConntrack()))

        system = (KernelLinks(), SystemFiles(), KernelBridging(), LinuxMachine())
        found = examine(Instruments(nftables, conntrack, *system), inventory)
    return found if folder is None else [*found, *examine_server(load_credential(folder, {}), ask_server)]
