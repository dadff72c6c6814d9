"""PURE: parses a JSON document from a caller, so strictly that no two parsers could understand it differently.

Input: the raw body. Output: plain values (dict, list, str, int, float, bool, None), or ``Invalid`` naming the place.
"""

import json
import re
from codecs import BOM_UTF8
from collections import Counter
from typing import Final, NoReturn

from ringfence.policy.errors import Invalid

JsonValue = dict[str, "JsonValue"] | list["JsonValue"] | str | int | float | bool | None

MAX_DEPTH: Final = 32

# Strings are skipped whole, so that brackets in them do not count; one without an end, too, and nothing is looked at
# twice: else a body of quotes would take hours.
_BRACKET = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[\[{]|[\]}]', re.DOTALL)
_SURROGATE = re.compile("[\ud800-\udfff]")


def parse_document(body: bytes) -> JsonValue:
    """The JSON value of ``body``. O(size of the body).

    Raises:
        Invalid: it is not exactly one UTF-8 JSON value, or has a repeated key, NaN, nesting deeper than ``MAX_DEPTH``,
            a NUL or half a surrogate pair in a text, or a number of thousands of digits.
    """
    if body.startswith(BOM_UTF8):
        raise Invalid("expected one JSON document: without a byte order mark (BOM)")
    _check_depth(body)
    try:
        value: JsonValue = _DECODER.decode(body.decode())
    except UnicodeDecodeError as error:
        raise Invalid(f"expected JSON in UTF-8, but byte {error.start} is not") from error
    except ValueError as error:  # JSONDecodeError, or int() on too many digits
        raise Invalid(f"expected one JSON document: {_shorten(str(error))}") from error
    if b"\\u" in body:  # without an escape, JSON in UTF-8 can contain neither NUL nor half a surrogate pair
        _check_texts(value, "$")
    return value


def _check_depth(body: bytes) -> None:
    if body.count(b"[") + body.count(b"{") <= MAX_DEPTH:
        return
    depth = 0
    for token in _BRACKET.finditer(body):
        match token[0]:
            case b"[" | b"{":
                depth += 1
            case b"]" | b"}":
                depth -= 1
        if depth > MAX_DEPTH:
            raise Invalid(f"expected JSON nested at most {MAX_DEPTH} deep")


def _unique_pairs(pairs: list[tuple[str, JsonValue]]) -> dict[str, JsonValue]:
    """Refuses repeated keys, because parsers differ on which of them counts."""
    found = dict(pairs)
    if len(found) != len(pairs):
        repeated, _ = Counter(name for name, _ in pairs).most_common(1)[0]
        raise Invalid(f"the key {_shorten(ascii(repeated))} occurs more than once in one object")
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise Invalid(f"{name} is not a JSON value")


_DECODER: Final = json.JSONDecoder(object_pairs_hook=_unique_pairs, parse_constant=_refuse_constant)


def _check_texts(value: JsonValue, path: str) -> None:
    match value:
        case str():
            _check_text(value, path)
        case dict():
            for name, inner in value.items():
                _check_text(name, path)
                _check_texts(inner, f"{path}.{name}")
        case list():
            for index, inner in enumerate(value):
                _check_texts(inner, f"{path}[{index}]")
        case _:
            return


def _check_text(text: str, path: str) -> None:
    if "\0" in text:
        raise Invalid("a text may not contain the character NUL", field=path)
    if _SURROGATE.search(text):
        raise Invalid("a text may not contain half a surrogate pair", field=path)


def _shorten(text: str) -> str:
    return text if len(text) <= 100 else text[:97] + "..."  # noqa: PLR2004  enough to recognise one's own input
