"""A host's signature: what it covers, when it counts, and what a refusal tells."""

import pytest

from ringfence.policy.errors import Denied, Invalid
from ringfence.wire.hostauth import derive_public_key, parse_host_name, sign_request, verify_request

KEY, OTHER = b"k" * 32, b"o" * 32
KEYS = {"h1": derive_public_key(KEY)}
NOW = 1_700_000_000
HEADER = sign_request(KEY, "h1", "PUT", "/agent/v1/inventory", b"body", NOW + 300)


def _verify(header=HEADER, method="PUT", target="/agent/v1/inventory", body=b"body", now=NOW):
    return verify_request(header, method, target, body, now, KEYS.get)


def _refusal(**changed):
    with pytest.raises(Denied) as refused:
        _verify(**changed)
    return str(refused.value)


def test_a_signed_request_gives_the_name_of_its_host():
    assert _verify() == "h1"


@pytest.mark.parametrize(
    "changed",
    [
        {"method": "POST"},
        {"target": "/agent/v1/inventory?x"},
        {"body": b"Body"},
        {"body": b""},
        {"header": None},
        {"header": ""},
        {"header": HEADER + " "},
        {"header": HEADER.replace("h1", "h2")},
        {"header": HEADER.replace(str(NOW + 300), str(NOW + 301))},
        {"header": sign_request(OTHER, "h1", "PUT", "/agent/v1/inventory", b"body", NOW + 300)},
        {"header": sign_request(OTHER, "nobody", "PUT", "/agent/v1/inventory", b"body", NOW + 300)},
        {"header": sign_request(bytes(32), "nobody", "PUT", "/agent/v1/inventory", b"body", NOW + 300)},
    ],
)
def test_anything_else_is_refused_with_the_same_words(changed):
    assert _refusal(**changed) == "the request is not signed by a host that this server knows"


@pytest.mark.parametrize(
    ("now", "counts"), [(NOW + 360, True), (NOW + 361, False), (NOW - 3300, True), (NOW - 3301, False)]
)
def test_a_signature_counts_from_an_hour_before_it_expires_to_a_minute_after(now, counts):
    if counts:
        assert _verify(now=now) == "h1"
    else:
        assert "clock" in _refusal(now=now)


def test_a_stranger_does_not_learn_that_the_time_is_wrong():
    stranger = sign_request(OTHER, "h1", "PUT", "/agent/v1/inventory", b"body", NOW - 9999)
    assert "clock" not in _refusal(header=stranger)


@pytest.mark.parametrize("name", ["h1", "node-1.example_x", "A" * 63])
def test_host_names_are_plain(name):
    assert parse_host_name(name, field="name") == name


@pytest.mark.parametrize("name", ["", "-h", "h 1", "h,1", "h=1", "A" * 64, "hé", "h\n"])
def test_host_names_that_could_be_mistaken_are_refused(name):
    with pytest.raises(Invalid):
        parse_host_name(name, field="name")
