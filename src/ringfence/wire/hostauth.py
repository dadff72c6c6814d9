"""PURE: authentication of hosts by an Ed25519 signature over each request that an agent sends.

Input: the parts of a request, a private key to sign with or a look-up of public keys to verify by, and the time.
Output: the Authorization header, or the name of the host that signed.
"""

import re
from base64 import b64decode, b64encode
from collections.abc import Callable
from typing import Final

from nacl.exceptions import BadSignatureError
from nacl.signing import SigningKey, VerifyKey

from ringfence.policy.errors import Invalid, Stranger
from ringfence.policy.values import HostName

SCHEME: Final = "RINGFENCE-ED25519"
KEY_SIZE_BYTES: Final = 32  # of raw private keys and of raw public keys
LEEWAY_S: Final = 60  # after `expires`, for clocks that differ a little
HORIZON_S: Final = 3600  # with `expires` further ahead a captured request could be replayed for too long

_HEADER = re.compile(
    rf"{SCHEME} host=(?P<host>[A-Za-z0-9][A-Za-z0-9._-]{{0,62}}),expires=(?P<expires>[0-9]{{1,12}}),"
    r"signature=(?P<signature>[A-Za-z0-9+/]{86}==)"
)
_HOST_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
# A host that does not exist costs one verification too, so that the time taken does not reveal which hosts exist.
_NOBODY: Final = SigningKey(bytes(KEY_SIZE_BYTES)).verify_key
_REFUSED: Final = "the request is not signed by a host that this server knows"


def parse_host_name(text: str, *, field: str) -> HostName:
    """A host's name: 1 to 63 letters, digits, ``.``, ``_``, ``-``, beginning with a letter or digit.

    Raises:
        Invalid: naming ``field``.
    """
    if not _HOST_NAME.fullmatch(text):
        raise Invalid(
            f"expected a host name of 1 to 63 letters, digits, '.', '_', '-', got {ascii(text)[:64]}", field=field
        )
    return HostName(text)


def derive_public_key(private_key: bytes) -> bytes:
    """The raw public key (32 bytes) that belongs to a raw private key (32 bytes)."""
    return bytes(SigningKey(private_key).verify_key)


def sign_request(private_key: bytes, host: HostName, method: str, target: str, body: bytes, expires: int) -> str:
    """The Authorization header of one request; ``target`` is the raw request target, ``expires`` seconds since 1970."""
    signature = SigningKey(private_key).sign(_signed_text(method, target, body, str(expires))).signature
    return f"{SCHEME} host={host},expires={expires},signature={b64encode(signature).decode()}"


def verify_request(
    header: str | None, method: str, target: str, body: bytes, now: float, key_of: Callable[[HostName], bytes | None]
) -> HostName:
    """The host that signed the request; ``key_of`` gives a known host's raw public key (32 bytes).

    A missing header, an unknown host and a wrong signature are refused with the same words. Only a host with a valid
    signature learns that its clock is wrong.

    Raises:
        Stranger: the request is not signed, has a wrong signature, or is signed for another time.
    """
    parts = _HEADER.fullmatch(header or "")
    if parts is None:
        raise Stranger(_REFUSED)
    host = HostName(parts["host"])
    public_key = key_of(host)
    key = _NOBODY if public_key is None else VerifyKey(public_key)
    try:
        key.verify(_signed_text(method, target, body, parts["expires"]), b64decode(parts["signature"]))
    except BadSignatureError as error:
        raise Stranger(_REFUSED) from error
    if public_key is None:
        raise Stranger(_REFUSED)
    _check_time(int(parts["expires"]), now)
    return host


def _check_time(expires: int, now: float) -> None:
    if now > expires + LEEWAY_S:
        raise Stranger(f"the signature expired {now - expires:.0f} s ago by this server's clock: compare the clocks")
    if expires > now + HORIZON_S:
        raise Stranger(
            f"the signature expires {expires - now:.0f} s ahead, at most {HORIZON_S} is taken: compare the clocks"
        )


def _signed_text(method: str, target: str, body: bytes, expires: str) -> bytes:
    return f"{method} {target}\n".encode() + body + f"\n{expires}".encode()
