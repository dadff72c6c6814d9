"""The door to a server as ``doctor`` sees it: its certificate, its clock, and whether it takes the host for its own."""

import ssl
import time
from contextlib import closing
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Final
from urllib.parse import urlsplit

from ringfence.agent.credential import HostCredential
from ringfence.agent.http import reason_of, trust
from ringfence.policy.errors import OperatorError
from ringfence.wire.hostauth import sign_request

_TIME_S: Final = 5.0
_PATH: Final = "/v2/zone"  # the one operation that needs no signature
_SIGNED: Final = "/agent/v1/feed"  # asked without an upgrade, as here, it starts no feed
_SIGNATURE_LIFE_S: Final = 60


class NotTrusted(OperatorError):
    """The server's certificate is not accepted."""


@dataclass(frozen=True, slots=True)
class Answered:
    """``ahead_s``: by how much the server's clock is ahead of this host's, to a second, None if it does not say.

    ``days_left``: how long its certificate is still valid, None without one. ``takes_host``: whether it accepts what
    the host signs.
    """

    ahead_s: float | None
    days_left: float | None
    takes_host: bool


def ask_server(url: str, credential: HostCredential) -> Answered:
    """Asks the server at an ``http`` or ``https`` URL, trusting the credential's CA, or the system's if it has none.

    Raises:
        NotTrusted: its certificate is not accepted; with OpenSSL's reason.
        OperatorError: it does not answer.
    """
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port
    try:
        secure = parts.scheme == "https"
        connection = (
            HTTPSConnection(host, port, timeout=_TIME_S, context=trust(credential.ca))
            if secure
            else HTTPConnection(host, port, timeout=_TIME_S)
        )
        with closing(connection):
            connection.request("GET", _PATH)
            certificate = connection.sock.getpeercert() if isinstance(connection.sock, ssl.SSLSocket) else None
            asked_at = time.time()
            answer = connection.getresponse()
            answer.read()
            now = (asked_at + time.time()) / 2
            connection.request("GET", _SIGNED, headers={"Authorization": _signature(credential, now)})
            takes_host = connection.getresponse().status != HTTPStatus.UNAUTHORIZED
    except ssl.SSLCertVerificationError as error:
        raise NotTrusted(f"ask {url}", error.verify_message) from error
    except OSError as error:
        raise OperatorError(f"ask {url}", reason_of(error)) from error
    except (HTTPException, ValueError) as error:
        raise OperatorError(f"ask {url}", str(error) or type(error).__name__) from error
    days_left = (ssl.cert_time_to_seconds(str(certificate["notAfter"])) - now) / 86400 if certificate else None
    return Answered(_ahead_s(answer.headers["Date"], now), days_left, takes_host)


def _signature(credential: HostCredential, now: float) -> str:
    expires = int(now) + _SIGNATURE_LIFE_S
    return sign_request(credential.private_key, credential.host, "GET", _SIGNED, b"", expires)


def _ahead_s(date: str | None, now: float) -> float | None:
    try:
        return None if date is None else parsedate_to_datetime(date).timestamp() + 0.5 - now
    except ValueError:
        return None
