"""TLS on the listeners: the certificate that new connections get, taken anew from its files whenever they change.

Input: the files of a certificate and its key; the own CA, if they are its. Output: one context for all listeners. A
connection that is open keeps the certificate that it began with.
"""

import asyncio
import logging
import ssl
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from ringfence.api.authority import Authority, TlsFiles
from ringfence.policy.errors import OperatorError

LOOK_S: Final = 1.0  # between two looks at the files
HANDSHAKE_TIME_S: Final = 10.0

_Stamp = tuple[tuple[int, int, int], ...]

_log = logging.getLogger("ringfence.api")


class Certificate:
    """The certificate in use. ``context`` is what listeners are opened with; each handshake asks for the newest.

    Raises:
        OperatorError: the files cannot be read, or do not belong together.
    """

    def __init__(self, files: TlsFiles, authority: Authority | None = None) -> None:
        self._files = files
        self._authority = authority
        self._stamp = self._look()
        self._newest = _load_context(files)
        self.context = _load_context(files)
        self.context.sni_callback = self._choose

    async def keep(self, now: Callable[[], datetime] = lambda: datetime.now(UTC), look_s: float = LOOK_S) -> None:
        """For ever: renews what the own CA issued before it ends, and takes over what changed in the files.

        What keeps it from that is said once, until it is something else.
        """
        said = ""
        while True:
            await asyncio.sleep(look_s)
            hindrance = self._follow(now())
            if hindrance and hindrance != said:
                _log.warning("the certificate in use stays: %s", hindrance)
            said = hindrance

    def _follow(self, now: datetime) -> str:
        """Renews and reloads the certificate where due. Returns why that failed, "" if it did not."""
        try:
            self._renew(now)
            self._reload()
        except OperatorError as error:
            return str(error)
        return ""

    def _renew(self, now: datetime) -> None:
        if self._authority is not None and self._authority.renew(now):
            _log.info("the server's certificate was renewed", extra={"fields": {"names": self._authority.names()}})

    def _reload(self) -> None:
        """Loads changed files."""
        stamp = self._look()
        if stamp == self._stamp:
            return
        self._newest = _load_context(self._files)
        self._stamp = stamp
        _log.info("new connections get the new certificate", extra={"fields": {"file": str(self._files.certificate)}})

    def _choose(self, connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        """Called in each handshake, whether the caller names a server or not."""
        connection.context = self._newest

    def _look(self) -> _Stamp:
        try:
            found = [path.stat() for path in (self._files.certificate, self._files.key)]
        except OSError as error:
            raise OperatorError(f"reading {error.filename}", error.strerror or str(error)) from error
        return tuple((one.st_mtime_ns, one.st_ino, one.st_size) for one in found)


def own_certificate(authority: Authority, now: datetime) -> Certificate:
    """The certificate that the own CA issued, renewed if need be: it may have ended while no server ran.

    One that cannot be renewed, because the CA's key lies elsewhere or the disk is full, is used until it ends.
    """
    try:
        authority.renew(now)
    except OperatorError as error:
        if authority.ends() <= now:
            raise
        _log.warning("the certificate in use stays: %s", error)
    return Certificate(authority.server, authority)


def _load_context(files: TlsFiles) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(files.certificate, files.key, password=_refuse_passphrase)
    except (OSError, ValueError) as error:  # an SSLError is an OSError
        raise OperatorError(f"reading the certificate {files.certificate} with {files.key}", _explain(error)) from error
    return context


def _refuse_passphrase() -> str:
    """Without this OpenSSL would ask on the terminal, and a service would hang."""
    raise ValueError("the key is protected by a passphrase; give one that is not")


def _explain(error: Exception) -> str:
    match error:
        case ssl.SSLError(reason="KEY_VALUES_MISMATCH"):
            return "the key belongs to another certificate"
        case ssl.SSLError():
            return f"expected a certificate chain and its private key, in PEM ({error.reason or error})"
        case OSError():
            return error.strerror or str(error)
        case _:
            return str(error)
