"""The door to a server as ``doctor`` sees it: one unsigned request, its certificate and its clock."""

import ssl
import time
from contextlib import closing
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Final
from urllib.parse import urlsplit

from ringfence.agent.http import trust
from ringfence.policy.errors import OperatorError

_TIME_S: Final = 5.0
_PATH: Final = "/v2/zone"  # the one that is not signed


class NotTrusted(OperatorError):
    """The server's certificate is not accepted."""


@dataclass(frozen=True, slots=True)
class Answered:
    """``ahead_s``: how much the server's clock is ahead of this host's, to a second; ``days_left`` of its certificate.

    None: it does not say, or has no certificate.
    """

    ahead_s: float | None
    days_left: float | None


def ask_server(url: str, ca: bytes | None) -> Answered:
    """Ask the server at an ``http`` or ``https`` URL, trusting ``ca`` (DER) alone, or the system's if there is none.

    Raises:
        NotTrusted: its certificate is not accepted, with what OpenSSL says of it.
        OperatorError: it does not answer.
    """
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port
    try:
        secure = parts.scheme == "https"
        connection = (
            HTTPSConnection(host, port, timeout=_TIME_S, context=trust(ca))
            if secure
            else HTTPConnection(host, port, timeout=_TIME_S)
        )
        with closing(connection):
            connection.request("GET", _PATH)
            certificate = connection.sock.getpeercert() if isinstance(connection.sock, ssl.SSLSocket) else None
            asked_at = time.time()
            date = connection.getresponse().headers["Date"]
            now = (asked_at + time.time()) / 2
    except ssl.SSLCertVerificationError as error:
        raise NotTrusted(f"ask {url}", error.verify_message) from error
    except (OSError, HTTPException, ValueError) as error:
        raise OperatorError(f"ask {url}", str(error) or type(error).__name__) from error
    days_left = (ssl.cert_time_to_seconds(str(certificate["notAfter"])) - now) / 86400 if certificate else None
    return Answered(_ahead_s(date, now), days_left)


def _ahead_s(date: str | None, now: float) -> float | None:
    try:
        return None if date is None else parsedate_to_datetime(date).timestamp() + 0.5 - now
    except ValueError:
        return None
