"""PURE: which version of the agents' protocol a document is of, and which side to upgrade when the two differ.

Every document says its ``format``; it is raised when what an older side would make of a document is wrong. What a host
is to enforce, and what it claims, is refused whole with a field that is not known, because the field might narrow it.
What a host tells of itself may have such fields (``Told``): a newer agent tells an older server what that understands.
"""

from typing import Final, Literal, TypeVar

import msgspec

from ringfence.policy.errors import Invalid

FORMAT: Final = 3

Side = Literal["agent", "server"]

_T = TypeVar("_T")
_ASKED_WITHOUT: Final = 3  # the format of an agent that asks for a feed without saying which it reads


class Told(msgspec.Struct, frozen=True, rename="kebab"):
    """Something that a host tells of itself; fields that are not known are passed over."""


class _Beginning(msgspec.Struct, frozen=True):
    """What tells one document of the protocol from another."""

    format: int | None = None
    base: int | None = None


def decode(text: bytes, shape: type[_T]) -> _T:
    """A document of the protocol; ``Invalid`` says where it is none."""
    try:
        return msgspec.json.decode(text, type=shape)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Invalid(f"not a document of the agent protocol: {error}") from error


def decode_formatted(text: bytes, shape: type[_T], *, writer: Side) -> _T:
    """As ``decode``, but another format is named as such before its fields are complained about."""
    _require(decode(text, _Beginning).format, writer)
    return decode(text, shape)


def is_delta(line: bytes) -> bool:
    """Whether a line of the feed builds on a view."""
    return decode(line, _Beginning).base is not None


def check_asked(text: str | None) -> None:
    """Raises ``Invalid`` when an agent asks for a feed in a format, in digits, that is not the one written here."""
    if text is not None and not text.isdecimal():
        raise Invalid("expected the number of a format", field="format")
    _require(_ASKED_WITHOUT if text is None else int(text), "agent")


def _require(found: int | None, writer: Side) -> None:
    """``writer`` is the side that a document comes from, or a question; the other one reads it here."""
    reader: Side = "agent" if writer == "server" else "server"
    if found is None:
        raise Invalid(f"expected the format, {FORMAT}", field="$.format")
    if found != FORMAT:
        said = f"the {writer} speaks format {found}, this {reader} {FORMAT}"
        raise Invalid(f"{said}: upgrade the {reader if found > FORMAT else writer}", field="$.format")
