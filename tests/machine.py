"""A machine that really boots: systemd as its first process, on a throw-away copy of this machine's own files.

An overlay over the root folder, all writes in memory, no network but what is made inside. It lies in a mount namespace
of its own, so that nothing of it is left whichever way the test ends.
"""

import os
import secrets
import shutil
import signal
import subprocess
import sys
import sysconfig
import textwrap
from contextlib import contextmanager
from pathlib import Path

from waiting import wait_until

NSPAWN = shutil.which("systemd-nspawn")
BOOT_S = 60.0
# These may lie where a unit sees nothing (ProtectHome=, PrivateTmp=), so they are shown in /opt.
_SHOWN = {"ringfence": Path(__file__).parents[1], "python": sys.base_prefix, "packages": sysconfig.get_path("purelib")}
_PYTHON = f"/opt/python/bin/python{sys.version_info.major}.{sys.version_info.minor}"
_PATHS = "LD_LIBRARY_PATH=/opt/python/lib PYTHONPATH=/opt/ringfence/src:/opt/packages"
_PREPARE = f"""
    mount --make-rprivate /
    [ -e /sys/fs/cgroup/cgroup.controllers ] || mount -t cgroup2 cgroup2 /sys/fs/cgroup
    mount -t tmpfs tmpfs "$1"
    mkdir "$1/upper" "$1/work" "$1/root"
    mount -t overlay overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$1/root"
    cd "$1/root"
    rm -rf etc/systemd/system/*.wants var/lib/ringfence* etc/ringfence
    echo {secrets.token_hex(16)} > etc/machine-id
    {"".join(f'mkdir -p opt/{name}; mount --bind "{place}" opt/{name}; ' for name, place in _SHOWN.items())}
    printf '%s\\n' '#!/bin/sh' 'exec env {_PATHS} {_PYTHON} -P -m ringfence "$@"' > usr/bin/ringfence
    chmod 0755 usr/bin/ringfence
    echo ready
    exec sleep infinity
"""
_ENCLOSED = "--private-network --capability=CAP_NET_ADMIN --keep-unit --register=no --link-journal=no"
_NSPAWN_SETTINGS = "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1 SYSTEMD_NSPAWN_API_VFS_WRITABLE=network"


class Unbootable(Exception):
    """No machine comes up here; the text is what systemd-nspawn, or the kernel, says of it."""


class Machine:
    """What is on its disk stays from one boot to the next."""

    def __init__(self, folder, holder):
        self._root = folder / "root"
        self._holder = holder
        self._nspawn = None

    def boot(self):
        """Until systemd says that all units have started, or which have not."""
        options = f"--quiet --machine=rf{self._holder.pid} --boot --console=pipe {_ENCLOSED} -D {self._root}"
        command = f"nsenter --mount --target {self._holder.pid} env {_NSPAWN_SETTINGS} {NSPAWN} {options}"
        self._nspawn = _start(command.split(), stdin=subprocess.DEVNULL, stderr=subprocess.STDOUT)
        wait_until(self._is_up, BOOT_S)

    def _is_up(self):
        if self._nspawn.poll() is not None:
            raise Unbootable(self._nspawn.stdout.read().strip() or f"systemd-nspawn: {self._nspawn.returncode}")
        return self._first and self._enter("systemctl", "is-system-running").stdout.strip() in {"running", "degraded"}

    @property
    def _first(self):
        """The machine's first process, by its number here."""
        return next(iter(Path(f"/proc/{self._nspawn.pid}/task/{self._nspawn.pid}/children").read_text().split()), None)

    def _enter(self, *command, given=None):
        clean = ("env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root")
        inside = ("nsenter", "--all", "--target", self._first, *clean, *command)
        return subprocess.run(  # noqa: S603  our own
            inside, input=given, capture_output=True, text=True, check=False, timeout=BOOT_S
        )

    def run(self, script):
        """What a shell's lines print; AssertionError with what they said when one of them fails."""
        said = self._enter("bash", "-euc", textwrap.dedent(script))
        assert said.returncode == 0, said.stdout + said.stderr
        return said.stdout

    def write(self, path, text):
        assert self._enter("install", "-D", "-m", "0644", "/dev/stdin", path, given=text).returncode == 0

    def power_off(self):
        """All units are stopped as at a shutdown; the disk stays."""
        self._enter("systemctl", "poweroff")
        self._nspawn.communicate(timeout=BOOT_S)

    def close(self):
        """As when the power fails: with its first process every other of the machine ends."""
        if self._nspawn and self._nspawn.poll() is None:
            if first := self._first:
                os.kill(int(first), signal.SIGKILL)
            self._nspawn.communicate(timeout=BOOT_S)


@contextmanager
def open_machine(folder):
    folder.mkdir()
    command = ("unshare", "--mount", "bash", "-euc", _PREPARE, "prepare", folder)
    with _start(command, stderr=subprocess.PIPE) as holder:
        try:
            if holder.stdout.readline() != "ready\n":
                raise Unbootable(holder.stderr.read().strip())
            machine = Machine(folder, holder)
            try:
                yield machine
            finally:
                machine.close()
        finally:
            holder.kill()


def _start(command, **streams):
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, **streams)  # noqa: S603  our own
