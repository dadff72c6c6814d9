"""JSON documents: what is one, and what is refused before anybody asks what it means."""

import pytest

from ringfence.policy.errors import Invalid
from ringfence.wire.document import MAX_DEPTH, parse_document


def test_a_document_becomes_plain_values():
    text = '{"a": [1, 2.5, true, null], "b": {"c": "ü\\n"}} \n'
    assert parse_document(text.encode()) == {"a": [1, 2.5, True, None], "b": {"c": "ü\n"}}


REFUSED = [
    (b"", "one JSON document"),
    (b"{", "one JSON document"),
    (b"{}{}", "Extra data"),
    (b"{} x", "Extra data"),
    (b"{'a': 1}", "one JSON document"),
    (b'{"a": 1,}', "one JSON document"),
    (b'{"a": NaN}', "NaN"),
    (b'{"a": -Infinity}', "-Infinity"),
    (b'{"a": 1, "a": 1}', "'a' occurs more than once"),
    (b'{"b": {"a": 1, "\\u0061": 2}}', "'a' occurs more than once"),
    (b'{"a": "x\\u0000y"}', "$.a: a text may not contain the character NUL"),
    (b'{"a": ["x", "\\ud800"]}', "$.a[1]: a text may not contain half"),
    (b'{"\\udfff": 1}', "half a surrogate"),
    (b'{"a": "\x01"}', "control character"),
    (b'{"a": "\xff"}', "byte 7"),
    (b"\xef\xbb\xbf{}", "BOM"),
    ("{}".encode("utf-16"), "UTF-8"),
    (b'{"a": ' + b"9" * 5000 + b"}", "digits"),
    (b"[" * 100_000, f"at most {MAX_DEPTH} deep"),
    (b'{"a":' * 100_000, f"at most {MAX_DEPTH} deep"),
]


@pytest.mark.parametrize(("body", "says"), REFUSED)
def test_anything_but_one_clean_document_is_refused(body, says):
    with pytest.raises(Invalid) as caught:
        parse_document(body)
    assert says in str(caught.value)
    assert len(str(caught.value)) < 200


DISTINCT = b",".join(b'"%x": 1' % number for number in range(50_000))
LARGE = [
    (b"[" + b"[]," * MAX_DEPTH + b'"' + b'\\"' * 400_000, "Unterminated string"),
    (b"[" + b"[]," * MAX_DEPTH + b'"' + b"\\" * 800_001, "Unterminated string"),
    (b"{" + DISTINCT + b', "c34f": 2}', "'c34f' occurs more than once"),
]


@pytest.mark.timeout(20)  # each took minutes to hours, of everybody's time, when it was looked at again and again
@pytest.mark.parametrize(("body", "says"), LARGE)
def test_what_is_refused_costs_in_proportion_to_its_size(body, says):
    with pytest.raises(Invalid, match=says):
        parse_document(body)


def test_brackets_in_texts_do_not_count_as_depth():
    body = b'{"a": "' + b"[" * 1000 + b'\\"' + b"{" * 1000 + b'"}'
    assert parse_document(body)


def test_the_limit_of_depth_itself_is_accepted():
    assert parse_document(b"[" * MAX_DEPTH + b"]" * MAX_DEPTH)
    with pytest.raises(Invalid):
        parse_document(b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1))


def test_a_whole_surrogate_pair_is_one_character():
    assert parse_document(b'"\\ud83d\\ude00"') == "\N{GRINNING FACE}"
