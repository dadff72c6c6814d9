"""The door to a server as ``doctor`` sees it: its certificate, its clock, and whether it takes the host for its own."""

import ssl
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Final
from urllib.parse import urlsplit

from ringfence.agent.client import SIGNATURE_LIFE_S
from ringfence.agent.credential import HostCredential
from ringfence.agent.doors.http_connection import Answer
from ringfence.agent.http import advice_on, message_of, reason_of, trust
from ringfence.policy.errors import OperatorError
from ringfence.wire.hostauth import sign_request

_TIME_S: Final = 5.0
_PATH: Final = "/v2/zone"  # the one operation that needs no signature
_SIGNED: Final = "/agent/v1/feed"  # asked without an upgrade, as here, it starts no feed
_MOST_BYTES: Final = 1 << 20  # of an answer


class NotTrusted(OperatorError):
    """The server's certificate is not accepted; ``advice`` says what to do."""

    def __init__(self, step: str, error: ssl.SSLCertVerificationError) -> None:
        super().__init__(step, error.verify_message)
        self.advice = advice_on(error)


@dataclass(frozen=True, slots=True)
class Answered:
    """``ahead_s``: by how much the server's clock is ahead of this host's, to a second, None if it does not say.

    ``days_left``: how long its certificate is still valid, None without one. ``refusal``: its words if it does not
    accept what the host signs.
    """

    ahead_s: float | None
    days_left: float | None
    refusal: str | None


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
            connection.connect()
            certificate = connection.sock.getpeercert() if isinstance(connection.sock, ssl.SSLSocket) else None
            asked_at = time.time()
            date, _ = _ask(connection, _PATH, {})
            now = (asked_at + time.time()) / 2
            _, signed = _ask(connection, _SIGNED, {"Authorization": _signature(credential, now)})
    except ssl.SSLCertVerificationError as error:
        raise NotTrusted(f"ask {url}", error) from error
    except OSError as error:
        raise OperatorError(f"ask {url}", reason_of(error)) from error
    except (HTTPException, ValueError) as error:
        raise OperatorError(f"ask {url}", str(error) or type(error).__name__) from error
    if signed.status not in (HTTPStatus.UNAUTHORIZED, HTTPStatus.UPGRADE_REQUIRED):
        reason = f"to what an agent asks it answered {signed.status}: {message_of(signed)}"
        raise OperatorError(f"ask {url}", reason)
    refusal = message_of(signed) if signed.status == HTTPStatus.UNAUTHORIZED else None
    days_left = (ssl.cert_time_to_seconds(str(certificate["notAfter"])) - now) / 86400 if certificate else None
    return Answered(_ahead_s(date, now), days_left, refusal)


def _ask(connection: HTTPConnection, path: str, headers: Mapping[str, str]) -> tuple[str | None, Answer]:
    """The answer's date, and the answer."""
    connection.request("GET", path, headers=dict(headers))
    answer = connection.getresponse()
    content = answer.read(_MOST_BYTES + 1)
    if len(content) > _MOST_BYTES:
        raise HTTPException(f"an answer of more than {_MOST_BYTES} bytes")
    return answer.headers["Date"], Answer(answer.status, content, answer.headers["Location"])


def _signature(credential: HostCredential, now: float) -> str:
    expires = int(now) + SIGNATURE_LIFE_S
    return sign_request(credential.private_key, credential.host, "GET", _SIGNED, b"", expires)


def _ahead_s(date: str | None, now: float) -> float | None:
    try:
        return None if date is None else parsedate_to_datetime(date).timestamp() + 0.5 - now
    except ValueError:
        return None
