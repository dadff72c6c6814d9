"""PURE: how a host joins: the operator's token, and the request that registers the host's own public key.

A token is ``HOST:SECRET``, or ``HOST:SECRET:FINGERPRINT`` if the server's certificate is issued by its own CA: the
SHA-256 of that CA's certificate, so that the host can authenticate the server before it sends the secret.
"""

import hashlib
import re
from dataclasses import dataclass, field
from typing import Annotated, Final

import msgspec

from ringfence.policy.errors import Denied, Invalid
from ringfence.policy.values import HostName
from ringfence.wire.decode import convert
from ringfence.wire.document import parse_document
from ringfence.wire.hostauth import KEY_SIZE_BYTES, parse_host_name

JOIN_PATH: Final = "/agent/v1/join"  # GET: the CA; POST: the request

_SECRET = re.compile(r"[A-Za-z0-9_-]{43}")  # 256 bits in base64url
_FINGERPRINT = re.compile(r"[0-9a-f]{64}")
_EXPECTED: Final = "expected a token as `ringfence host token NAME` prints it"


@dataclass(frozen=True, slots=True)
class JoinToken:
    """``fingerprint``: the SHA-256 of the CA's certificate in hex; None if the server does not use a CA of its own."""

    host: HostName
    secret: str = field(repr=False)
    fingerprint: str | None = None

    @property
    def text(self) -> str:
        return ":".join((self.host, self.secret, *([self.fingerprint] if self.fingerprint else [])))


@dataclass(frozen=True, slots=True)
class JoinRequest:
    """``public_key`` is the raw Ed25519 key (32 bytes) whose private part never leaves the host."""

    host: HostName
    secret: str = field(repr=False)
    public_key: bytes


class _JoinShape(msgspec.Struct, frozen=True, rename="kebab", forbid_unknown_fields=True):
    host: str
    secret: str
    public_key: Annotated[bytes, msgspec.Meta(min_length=KEY_SIZE_BYTES, max_length=KEY_SIZE_BYTES)]  # as base64


def parse_token(text: str) -> JoinToken:
    """The parts of a token.

    Raises:
        Invalid: it is malformed. The message contains nothing of the token.
    """
    host, _, rest = text.strip().partition(":")
    secret, separator, fingerprint = rest.partition(":")
    if not _SECRET.fullmatch(secret) or (separator and not _FINGERPRINT.fullmatch(fingerprint)):
        raise Invalid(_EXPECTED, field="TOKEN")
    return JoinToken(parse_host_name(host, field="TOKEN"), secret, fingerprint or None)


def fingerprint_of(certificate: bytes) -> str:
    """The SHA-256 of a certificate in DER form, in hex."""
    return hashlib.sha256(certificate).hexdigest()


def hash_secret(secret: str) -> bytes:
    """The hash that the server stores. Plain SHA-256 is enough, because a secret has 256 random bits."""
    return hashlib.sha256(secret.encode()).digest()


def encode_join(request: JoinRequest) -> bytes:
    return msgspec.json.encode(_JoinShape(request.host, request.secret, request.public_key))


def decode_join(body: bytes) -> JoinRequest:
    """The inverse of ``encode_join``. A malformed host name is answered like a wrong token.

    Raises:
        Invalid: the document has another shape, or the key has another size.
        Denied: the host name is malformed.
    """
    shape = convert(parse_document(body), _JoinShape)
    try:
        return JoinRequest(parse_host_name(shape.host, field="$.host"), shape.secret, shape.public_key)
    except Invalid as error:
        raise refuse_token() from error


def refuse_token() -> Denied:
    """The error for every token that is not accepted, whatever the reason, so that it tells nothing to a guesser."""
    return Denied(
        "the token is not accepted: it was used, has expired, or was never made here; "
        "make another with `ringfence host token NAME` where the server is"
    )
