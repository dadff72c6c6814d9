"""PURE: EXO2-HMAC-SHA256, the request signature of the Exoscale API: who signed these bytes, or a refusal.

Input: the Authorization header, the method, the raw target and the raw body of a request, the time, a look-up of
secrets. Output: the key id that signed. It knows no HTTP library, no clock and no store.

The signed text, as every official client builds it (egoscale v3, requests-exoscale-auth, the Java SDK)::

    METHOD SP raw-path LF body LF values-of-signed-query-arguments LF (headers: none) LF expires
"""

import hmac
from binascii import b2a_base64
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import parse_qsl

from ringfence.policy.errors import Denied
from ringfence.policy.values import KeyId

if TYPE_CHECKING:
    from hashlib import _Hash

SCHEME: Final = "EXO2-HMAC-SHA256"
LEEWAY_S: Final = 60  # after `expires`: the Java SDK signs with `expires` = now
HORIZON_S: Final = 3600  # `expires` further ahead would make a captured request replayable for too long

_BLOCK_BYTES: Final = 64  # of SHA-256
_MAX_HEADER: Final = 1024
_MAX_QUERY_ARGUMENTS: Final = 16
_MAX_DIGITS: Final = 12
# An unknown key costs the same HMAC as a known one, so that time does not tell which keys exist.
_NOBODY: Final = ("\0" * 32,)


class BadSignature(Denied):
    """Not signed, or not signed rightly. The caller is told only that; ``why`` is for the server's log."""

    def __init__(self, why: str) -> None:
        super().__init__("the request is not signed, or not with a valid signature")
        self.why = why


class SignedRequest(NamedTuple):  # made for every request: a third of a dataclass's time
    """The parts of a request that a signature covers, as they came over the wire: nothing decoded or normalised."""

    method: str
    target: bytes  # path and, after "?", the query
    body: bytes


@dataclass(frozen=True, slots=True)
class Window:
    """How far ``expires`` may lie behind (``leeway_s``) and ahead (``horizon_s``) of the server's clock."""

    leeway_s: int = LEEWAY_S
    horizon_s: int = HORIZON_S


def sign_request(key: KeyId, secret: str, request: SignedRequest, expires: int) -> str:
    """The Authorization header of one request; ``expires`` in seconds since 1970. Signs every query argument."""
    names = tuple(sorted({name for name, _ in parse_query(request.target)}))
    signed = f",signed-query-args={';'.join(names)}" if names else ""
    text = _signed_text(request, names, str(expires))
    return f"{SCHEME} credential={key}{signed},expires={expires},signature={_signature(secret, text).decode()}"


def verify_request(
    header: str | None,
    request: SignedRequest,
    *,
    now: float,
    secrets_of: Callable[[KeyId], tuple[str, ...]],
    window: Window = Window(),
) -> KeyId:
    """The key that signed the request; ``secrets_of`` gives what a known key may sign with, of an unknown one nothing.

    Replays are not noticed: clients send the same signature again when they retry.

    Raises:
        BadSignature: for a missing or malformed header, an unknown key, a wrong signature or a time out of the window.
    """
    key, signed_names, expires, signature = _parse_authorization(header)
    secrets = secrets_of(key)
    text = _signed_text(request, signed_names, expires)
    given = signature.encode()
    found = False
    for secret in secrets or _NOBODY:
        found |= hmac.compare_digest(_signature(secret, text), given)
    if not found or not secrets:
        raise BadSignature(f"wrong signature for key {key}" if secrets else "unknown key")
    _check_time(int(expires), now, window)
    return key


def parse_query(target: bytes) -> tuple[tuple[str, str], ...]:
    """Names and values of the query, decoded, in order, repeated ones too."""
    _, _, query = target.partition(b"?")
    if not query:
        return ()
    try:
        found = parse_qsl(query.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=_MAX_QUERY_ARGUMENTS)
    except ValueError as error:
        raise BadSignature(f"more than {_MAX_QUERY_ARGUMENTS} query arguments") from error
    return tuple(found)


def _parse_authorization(header: str | None) -> tuple[KeyId, tuple[str, ...], str, str]:
    """The key, the names of the query arguments that are signed, when it expires, and the signature."""
    if not header:
        raise BadSignature("no Authorization header")
    scheme, _, rest = header.partition(" ")
    if scheme != SCHEME or len(header) > _MAX_HEADER or not header.isascii():
        raise BadSignature(f"the Authorization header is not one of {SCHEME}")
    parts = rest.split(",")
    try:
        fields = dict([part.strip().split("=", 1) for part in parts])
        key, expires, signature = fields["credential"], fields["expires"], fields["signature"]
    except ValueError as error:
        raise BadSignature("the Authorization header is malformed") from error
    except KeyError as error:
        raise BadSignature(f"the Authorization header lacks {error.args[0]}") from error
    if len(fields) < len(parts):
        raise BadSignature("the Authorization header names something twice")
    if not expires.isdecimal() or len(expires) > _MAX_DIGITS:
        raise BadSignature("the Authorization header's expires is no number of seconds")
    names = fields.get("signed-query-args")
    return KeyId(key), tuple(names.split(";")) if names else (), expires, signature


def _signed_text(request: SignedRequest, names: tuple[str, ...], expires: str) -> bytes:
    """What the client signed."""
    path, _, _ = request.target.partition(b"?")
    values = _signed_values(request.target, names) if names else b""
    return b"%b %b\n%b\n%b\n\n%b" % (request.method.encode(), path, request.body, values, expires.encode())


def _signed_values(target: bytes, names: tuple[str, ...]) -> bytes:
    """An argument given more than once is listed but not signed, as the Python SDK does."""
    values: dict[str, list[str]] = {}
    for name, value in parse_query(target):
        values.setdefault(name, []).append(value)
    return "".join(values[name][0] for name in names if len(values.get(name, ())) == 1).encode("utf-8", "replace")


def _signature(secret: str, text: bytes) -> bytes:
    """HMAC-SHA256 (RFC 2104), in base64.

    Neither by ``hmac.digest``, which gives the interpreter up however short the text is, and would have to wait for it,
    nor by ``hmac.new``, which takes three times as long as what it does.
    """
    inner, outer = _keyed(secret)
    inner, outer = inner.copy(), outer.copy()
    inner.update(text)
    outer.update(inner.digest())
    return b2a_base64(outer.digest(), newline=False)


@lru_cache(maxsize=1024)
def _keyed(secret: str) -> tuple["_Hash", "_Hash"]:
    """The inner and the outer hash, which have taken in the secret and nothing else yet."""
    key = secret.encode()
    block = (sha256(key).digest() if len(key) > _BLOCK_BYTES else key).ljust(_BLOCK_BYTES, b"\0")
    return sha256(bytes(each ^ 0x36 for each in block)), sha256(bytes(each ^ 0x5C for each in block))


def _check_time(expires: int, now: float, window: Window) -> None:
    if now > expires + window.leeway_s:
        raise BadSignature(f"expired {now - expires:.0f} s ago (leeway {window.leeway_s} s): compare the clocks")
    if expires > now + window.horizon_s:
        raise BadSignature(f"expires {expires - now:.0f} s ahead, at most {window.horizon_s} s are taken")
