"""The addresses on which the server listens: ``HOST:PORT`` or ``unix:PATH``, as text and as open sockets.

Input: what the operator wrote. Output: bound sockets and the URLs under which they answer. It knows no app.
"""

import errno
import os
import socket
import stat
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from ringfence.policy.errors import Invalid, OperatorError

BACKLOG = 4096  # a thousand agents may come back at once; the system's limit is net.core.somaxconn
_MAX_PORT = 65535
_OTHERS = 0o177  # all that 0600 leaves out
_ADVICE = {
    errno.EADDRINUSE: ": who listens there says ss -ltnp; choose another with --listen",
    errno.EACCES: ": ports below 1024 need root or CAP_NET_BIND_SERVICE, a unix socket a folder that may be written",
    errno.EADDRNOTAVAIL: ": no interface of this machine has that address",
}


@dataclass(frozen=True, slots=True)
class TcpListen:
    """Port 0 lets the system choose."""

    host: str
    port: int


@dataclass(frozen=True, slots=True)
class UnixListen:
    path: Path


Listen = TcpListen | UnixListen


def parse_listen(text: str) -> Listen:
    """``127.0.0.1:8443``, ``[::1]:0``, ``localhost:8443`` or ``unix:/run/ringfence.sock``; ``Invalid`` for others."""
    if text.startswith("unix:"):
        return UnixListen(Path(text.removeprefix("unix:")))
    host, separator, port = text.rpartition(":")
    if not separator or not host or not port.isdecimal() or not port.isascii() or int(port) > _MAX_PORT:
        raise Invalid(f"expected HOST:PORT or unix:PATH to listen on, got {text!a}")
    return TcpListen(host.removeprefix("[").removesuffix("]"), int(port))


def is_loopback(listen: Listen) -> bool:
    """Whether only this machine can reach it."""
    match listen:
        case UnixListen():
            return True
        case TcpListen(host="localhost"):
            return True
        case TcpListen(host):
            try:
                return ip_address(host).is_loopback
            except ValueError:
                return False


def check_plaintext(listens: list[Listen], *, insecure: bool) -> None:
    """Refuses plain HTTP beyond this machine: a signature keeps a request from being changed, not from being repeated.

    Raises:
        OperatorError: naming the address and the ways out.
    """
    for listen in listens:
        if not insecure and not is_loopback(listen):
            raise OperatorError(
                f"listen on {render_listen(listen)}",
                "plain HTTP is served on loopback only; run ringfence server init to have a certificate made, or give "
                "yours with --tls-cert and --tls-key, or say --insecure if nobody else can read this network",
            )


def open_socket(listen: Listen) -> socket.socket:
    """A bound, listening socket. A left-over socket file of a dead server is replaced, one in use is not.

    Raises:
        OperatorError: saying where and the system's own words.
    """
    try:
        match listen:
            case UnixListen(path):
                return _open_unix(path)
            case TcpListen(host, port):
                return _open_tcp(host, port)
    except OSError as error:
        said = (error.strerror or str(error)).partition(" (while ")[0]  # Python's addition repeats the address
        raise OperatorError(f"listen on {render_listen(listen)}", said + _ADVICE.get(error.errno or 0, "")) from error


def render_listen(listen: Listen) -> str:
    match listen:
        case UnixListen(path):
            return f"unix:{path}"
        case TcpListen(host, port):
            return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def render_url(listen: Listen, opened: socket.socket, *, tls: bool = False) -> str:
    """The API's base URL of a listener, with the port that it really has: ``http://127.0.0.1:8443/v2``."""
    match listen:
        case UnixListen(path):
            return f"unix:{path}"
        case TcpListen(host):
            scheme = "https" if tls else "http"
            return f"{scheme}://{render_listen(TcpListen(host, opened.getsockname()[1]))}/v2"


def _open_tcp(host: str, port: int) -> socket.socket:
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    return socket.create_server(address[:2], family=family, backlog=BACKLOG)


def _open_unix(path: Path) -> socket.socket:
    """Bound under a private mask, so that there is no moment in which others may connect."""
    _remove_dead(path)
    opened = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _bind_private(opened, path)
        opened.listen(BACKLOG)
    except OSError:
        opened.close()
        raise
    return opened


def _bind_private(opened: socket.socket, path: Path) -> None:
    mask = os.umask(_OTHERS)
    try:
        opened.bind(str(path))
    finally:
        os.umask(mask)


def _remove_dead(path: Path) -> None:
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise OSError(errno.EEXIST, "there is a file that is not a socket")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
    raise OSError(errno.EADDRINUSE, "another server listens there")
