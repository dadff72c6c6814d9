"""Network namespaces without root and without mounting anything: made, kept by a file descriptor, entered by threads.

``enter_user_namespace`` comes once, before the process has a second thread; from then on this process may make and
configure networks of its own, and can no longer change the host's. A namespace lives as long as its descriptor is open,
so that nothing is left behind however the process ends.
"""

import ctypes
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Generic, TypeVar

from ringfence.policy.errors import OperatorError

CLONE_NEWUSER: Final = 0x10000000
CLONE_NEWNET: Final = 0x40000000
# What forbids user namespaces: the setting, the value that forbids, and how to allow them.
_KNOBS: Final = (
    ("kernel/unprivileged_userns_clone", "0", "kernel.unprivileged_userns_clone=1"),
    ("kernel/apparmor_restrict_unprivileged_userns", "1", "kernel.apparmor_restrict_unprivileged_userns=0"),
    ("user/max_user_namespaces", "0", "user.max_user_namespaces=10000"),
)

_libc = ctypes.CDLL(None, use_errno=True)
T = TypeVar("T")


class NamespacesForbidden(OperatorError):
    """This machine does not let this user make network namespaces; the text says what can be done about it."""

    def __init__(self, refusal: str) -> None:
        super().__init__("making a private network", f"{refusal}; {_advice()}")


@dataclass(frozen=True, slots=True)
class Namespace:
    """A network namespace, alive until ``close`` or the end of the process."""

    name: str
    fd: int

    def run(self, work: Callable[[], T]) -> T:
        """What ``work`` returns, called by a thread inside this namespace; sockets opened there stay there.

        The caller's own thread never moves, because without root it could not get back to the host's network.
        """

        def enter_and_work() -> T:
            enter_network(self.fd)
            return work()

        return _in_thread(enter_and_work, name=f"in-{self.name}")

    def write_sysctl(self, name: str, value: int | str) -> None:
        """Set ``net.<name>`` (with slashes: ``ipv4/ip_forward``) of this namespace.

        Raises:
            OperatorError: when /proc/sys is read-only, as in some containers.
        """
        path = Path("/proc/sys/net") / name

        def write() -> None:
            path.write_text(str(value), encoding="ascii")

        try:
            self.run(write)
        except OSError as error:
            raise OperatorError(f"writing {path} in namespace {self.name}", str(error)) from error

    def close(self) -> None:
        os.close(self.fd)


def enter_user_namespace() -> None:
    """Make this process root of a new user namespace; its network stays the same, but out of reach for changes.

    Where that is forbidden and the process has the right to make networks anyway (root), it stays as it is.

    Raises:
        NamespacesForbidden: when neither is allowed.
    """
    is_root = os.geteuid() == 0
    try:
        _enter_as_root() if is_root else _enter_as_user()
    except OSError as error:
        if not is_root:
            raise NamespacesForbidden(error.strerror or str(error)) from error
    probe_namespaces()


def probe_namespaces() -> None:
    """Make and configure a network namespace, and throw it away: the only sure way to learn whether it is allowed.

    Raises:
        NamespacesForbidden: when it is not.
        OperatorError: when it is, but /proc/sys is read-only.
    """
    namespace = make_namespace("probe")
    try:
        namespace.write_sysctl("ipv4/ip_forward", 1)
    finally:
        namespace.close()


def make_namespace(name: str) -> Namespace:
    """A fresh network namespace, empty but for its loopback interface, which is down.

    Raises:
        NamespacesForbidden: when the kernel refuses.
    """

    def unshare_network() -> int:
        _check(_libc.unshare(CLONE_NEWNET))
        return open_current_network()

    try:
        return Namespace(name, _in_thread(unshare_network, name=f"make-{name}"))
    except OSError as error:
        raise NamespacesForbidden(error.strerror or str(error)) from error


def leave_host_network() -> None:
    """Move the calling thread, and all threads and processes it starts, into an empty network of its own, for good.

    Raises:
        NamespacesForbidden: when the kernel refuses.
    """
    try:
        _check(_libc.unshare(CLONE_NEWNET))
    except OSError as error:
        raise NamespacesForbidden(error.strerror or str(error)) from error


def open_current_network() -> int:
    """A descriptor of the network namespace that the calling thread is in."""
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def enter_network(fd: int) -> None:
    """Move the calling thread, and only it, into a network namespace."""
    _check(_libc.setns(fd, CLONE_NEWNET))


class _Work(threading.Thread, Generic[T]):
    """One call in a thread of its own, with its result or its exception."""

    def __init__(self, work: Callable[[], T], *, name: str) -> None:
        super().__init__(name=name, daemon=True)
        self._work = work
        self._result: list[T] = []
        self._error: BaseException | None = None

    def run(self) -> None:
        try:
            self._result.append(self._work())
        except BaseException as error:  # noqa: BLE001  it is raised again in the thread that waits
            self._error = error

    def wait(self) -> T:
        self.join()
        if self._error is not None:
            raise self._error
        return self._result[0]


def _in_thread(work: Callable[[], T], *, name: str) -> T:
    thread = _Work(work, name=name)
    thread.start()
    return thread.wait()


def _check(returned: int) -> None:
    if returned != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _enter_as_user() -> None:
    """Map the caller's one id to root of the new namespace: all that the kernel lets an ordinary user map."""
    uid, gid = os.geteuid(), os.getegid()
    _check(_libc.unshare(CLONE_NEWUSER))
    # An ordinary user must give up setgroups before the kernel takes a gid_map (user_namespaces(7)).
    Path("/proc/self/setgroups").write_text("deny", encoding="ascii")
    Path("/proc/self/uid_map").write_text(f"0 {uid} 1", encoding="ascii")
    Path("/proc/self/gid_map").write_text(f"0 {gid} 1", encoding="ascii")


def _enter_as_root() -> None:
    """Map every id to itself, so that root's children may still become other users.

    Only a process outside the new namespace may write such maps, hence the child that stays behind.
    """
    maps = {kind: _identity(kind) for kind in ("uid_map", "gid_map")}
    entered_read, entered_write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(entered_write)
        os._exit(_write_parent_maps(entered_read, maps))
    os.close(entered_read)
    try:
        _check(_libc.unshare(CLONE_NEWUSER))
        os.write(entered_write, b"1")
    finally:
        os.close(entered_write)
        _, status = os.waitpid(child, 0)
    if status != 0:
        raise NamespacesForbidden("the ids of the new user namespace could not be mapped")


def _write_parent_maps(entered: int, maps: dict[str, str]) -> int:
    """Exit status of the child: 0 when the parent entered its namespace and the maps are written."""
    if not os.read(entered, 1):
        return 0
    try:
        for kind, lines in maps.items():
            Path("/proc", str(os.getppid()), kind).write_text(lines, encoding="ascii")
    except OSError:
        return 1
    return 0


def _identity(kind: str) -> str:
    lines = (line.split() for line in Path("/proc/self", kind).read_text(encoding="ascii").splitlines())
    return "\n".join(f"{inside} {inside} {count}" for inside, _, count in lines)


def _advice() -> str:
    for name, forbidding, setting in _KNOBS:
        path = Path("/proc/sys", name)
        if path.exists() and path.read_text(encoding="ascii").strip() == forbidding:
            return (
                f"{path} forbids unprivileged user namespaces: run the same command with sudo, "
                f"or allow them with: sudo sysctl -w {setting}"
            )
    return (
        "this machine forbids user or network namespaces: run the same command with sudo; "
        "in a container, start that with --privileged, or run ringfence outside"
    )
