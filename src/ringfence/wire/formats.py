"""PURE: the version of the agents' protocol that a document is in, and which side to upgrade when two versions differ.

Every document has a ``format``, which is raised when an older reader would misunderstand a document. Views and claims
with an unknown field are refused whole, because that field might narrow them. A host's reports, and what the server
answers to its claims, may have unknown fields (``Lenient``), so that the newer side can speak to the older one.
"""

from typing import Final, Literal, TypeVar

import msgspec

from ringfence.policy.errors import Invalid

FORMAT: Final = 3

Side = Literal["agent", "server"]

_T = TypeVar("_T")
_ASKED_WITHOUT: Final = 3  # the format of an agent that asks for a feed without saying which it reads


class Lenient(msgspec.Struct, frozen=True, rename="kebab"):
    """A document that decides nothing, or a part of one: unknown fields are ignored."""


class _Beginning(msgspec.Struct, frozen=True):
    """The fields by which documents of the protocol are distinguished."""

    format: int | None = None
    base: int | None = None


def decode(text: bytes, shape: type[_T]) -> _T:
    """Decodes a document of the protocol; ``Invalid`` says where it is wrong."""
    try:
        return msgspec.json.decode(text, type=shape)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Invalid(f"not a document of the agent protocol: {error}") from error


def decode_formatted(text: bytes, shape: type[_T], *, writer: Side) -> _T:
    """As ``decode``, but reports a different format as such, rather than as wrong fields."""
    _require(decode(text, _Beginning).format, writer)
    return decode(text, shape)


def is_delta(line: bytes) -> bool:
    """Whether a line of the feed builds on a view."""
    return decode(line, _Beginning).base is not None


def check_asked(text: str | None) -> None:
    """Raises ``Invalid`` if an agent asks for a feed in another format (a number in digits) than this server's."""
    if text is not None and not text.isdecimal():
        raise Invalid("expected the number of a format", field="format")
    _require(_ASKED_WITHOUT if text is None else int(text), "agent")


def _require(found: int | None, writer: Side) -> None:
    """``writer`` is the side that the document or the question comes from; the other side reads it here."""
    reader: Side = "agent" if writer == "server" else "server"
    if found is None:
        raise Invalid(f"expected the format, {FORMAT}", field="$.format")
    if found != FORMAT:
        said = f"the {writer} speaks format {found}, this {reader} {FORMAT}"
        raise Invalid(f"{said}: upgrade the {reader if found > FORMAT else writer}", field="$.format")
