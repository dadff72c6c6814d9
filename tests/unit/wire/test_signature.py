"""EXO2-HMAC-SHA256: what is signed, what is refused, and that a refusal says nothing."""

import hmac
from base64 import b64encode

import pytest

from ringfence.policy.errors import Denied
from ringfence.wire import signature
from ringfence.wire.signature import BadSignature, SignedRequest, Window, sign_request, verify_request

NOW = 1700000000
SECRETS = {"EXOtest": ("s3cr3t",), "EXOrotated": ("new", "old")}
WRONG = "wrong"
GET = SignedRequest("GET", b"/v2/security-group", b"")


def header(request=GET, *, key="EXOtest", secret="s3cr3t", expires=NOW + 600):  # noqa: S107  a secret of the examples
    return sign_request(key, secret, request, expires)


def verify(value, request=GET, *, now=NOW, window=Window()):  # noqa: B008  frozen
    return verify_request(value, request, now=now, secrets_of=lambda key: SECRETS.get(key, ()), window=window)


EXAMPLES = [
    (
        SignedRequest("POST", b"/v2/security-group", b'{"name":"web"}'),
        "",
        "LaHn2o5/Q8McPKFpUIpWe74qQ52mZ4ymrH0PsAcOV+c=",
    ),
    (
        SignedRequest("GET", b"/v2/security-group?visibility=public", b""),
        "signed-query-args=visibility,",
        "u63/v0rnp48+D2ck6OUSnjkz9/u2gLgY6OjhIi1zYIA=",
    ),
]


@pytest.mark.parametrize(("request_", "names", "expected"), EXAMPLES)
def test_the_published_examples_verify_and_are_what_we_sign(request_, names, expected):
    written = f"EXO2-HMAC-SHA256 credential=EXOtest,{names}expires=1700000600,signature={expected}"
    assert header(request_) == written
    assert verify(written, request_) == "EXOtest"


CHANGED = [
    SignedRequest("DELETE", b"/v2/security-group", b""),
    SignedRequest("GET", b"/v2/security-groups", b""),
    SignedRequest("GET", b"/v2/security%2Dgroup", b""),
    SignedRequest("GET", b"/v2/security-group", b" "),
    SignedRequest("get", b"/v2/security-group", b""),
]


@pytest.mark.parametrize("request_", CHANGED)
def test_a_signature_covers_method_raw_path_and_body(request_):
    with pytest.raises(BadSignature):
        verify(header(), request_)


def test_a_signed_query_argument_cannot_be_changed_dropped_or_doubled():
    signed = header(SignedRequest("GET", b"/v2/security-group?visibility=public", b""))
    for target in (b"", b"?visibility=private", b"?visibility=public&visibility=private", b"?other=public"):
        with pytest.raises(BadSignature):
            verify(signed, SignedRequest("GET", b"/v2/security-group" + target, b""))


def test_an_argument_that_the_client_never_signs_is_tolerated_as_java_needs():
    assert verify(header(), SignedRequest("GET", b"/v2/security-group?visibility=public", b"")) == "EXOtest"


def test_an_argument_given_twice_is_listed_but_not_signed_as_the_python_client_does():
    request = SignedRequest("GET", b"/v2/security-group?visibility=public&visibility=private", b"")
    text = b"GET /v2/security-group\n\n\n\n" + str(NOW + 600).encode()
    value = signature._signature("s3cr3t", text).decode()
    names = "signed-query-args=visibility"
    assert verify(f"EXO2-HMAC-SHA256 credential=EXOtest,{names},expires={NOW + 600},signature={value}", request)


def test_a_query_value_is_signed_decoded():
    plain = SignedRequest("GET", b"/v2/security-group?visibility=public", b"")
    escaped = SignedRequest("GET", b"/v2/security-group?visibility=%70ublic", b"")
    assert verify(header(plain), escaped) == "EXOtest"


TIMES = [
    (0, True),
    (-60, True),  # the Java SDK signs with expires = now; clocks differ a little
    (-61, False),
    (3600, True),
    (3601, False),
]


@pytest.mark.parametrize(("ahead_s", "accepted"), TIMES)
def test_expires_may_lie_a_minute_behind_and_an_hour_ahead(ahead_s, accepted):
    value = header(expires=NOW + ahead_s)
    if accepted:
        assert verify(value) == "EXOtest"
    else:
        with pytest.raises(BadSignature):
            verify(value)


def test_the_window_is_the_callers_choice():
    assert verify(header(expires=NOW - 200), window=Window(leeway_s=300)) == "EXOtest"


MALFORMED = [
    None,
    "",
    "EXO2-HMAC-SHA256",
    "EXO2-HMAC-SHA256 ",
    "EXO2-HMAC-SHA256 credential=EXOtest",
    "Bearer abc",
    "EXO2-HMAC-SHA256 credential=EXOtest,expires=x,signature=AA==",
    "EXO2-HMAC-SHA256 credential=EXOtest,expires=-1,signature=AA==",
    "EXO2-HMAC-SHA256 credential=EXOtest,expires=٣,signature=AA==",
    "EXO2-HMAC-SHA256 credential=EXOtest,expires=9999999999999,signature=AA==",
    "EXO2-HMAC-SHA256 credential=EXOtest,credential=EXOtest,expires=1,signature=AA==",
    "EXO2-HMAC-SHA256 credential=EXOtest,expires=1700000600,signature=",
    "EXO2-HMAC-SHA256 credential=EXOtest,expires=1700000600,signature=é",
    "EXO2-HMAC-SHA256 credential=" + "x" * 2000 + ",expires=1700000600,signature=AA==",
    "exo2-hmac-sha256 credential=EXOtest,expires=1700000600,signature=AA==",
]


@pytest.mark.parametrize("value", MALFORMED)
def test_a_missing_or_malformed_header_is_refused(value):
    with pytest.raises(BadSignature):
        verify(value)


def test_a_field_given_twice_is_refused_whichever_of_them_is_right():
    for twice in ("credential=EXOother,credential=EXOtest", "credential=EXOtest,credential=EXOother"):
        with pytest.raises(BadSignature):
            verify(header().replace("credential=EXOtest", twice))


def test_more_query_arguments_than_anybody_sends_are_refused_before_they_cost_anything():
    request = SignedRequest("GET", b"/v2/security-group?" + b"&".join(b"a%d=1" % n for n in range(1000)), b"")
    value = header().replace(",expires", ",signed-query-args=a1,expires")
    with pytest.raises(BadSignature):
        verify(value, request)


def test_every_refusal_has_the_same_words_and_the_reason_only_for_the_log():
    refusals = []
    for value in (None, header(key="EXOother"), header(secret=WRONG), header(expires=NOW - 999)):
        with pytest.raises(Denied) as caught:
            verify(value)
        refusals.append(caught.value)
    assert len({str(refusal) for refusal in refusals}) == 1
    assert len({refusal.why for refusal in refusals}) == len(refusals)


def test_an_unknown_key_costs_the_same_hmac_and_is_compared_in_constant_time(monkeypatch):
    calls = []
    sign, compare = signature._signature, hmac.compare_digest
    monkeypatch.setattr(signature, "_signature", lambda *a: calls.append("digest") or sign(*a))
    monkeypatch.setattr(hmac, "compare_digest", lambda *a: calls.append("compare") or compare(*a))
    for key in ("EXOtest", "EXOnobody"):
        value = header(key=key, secret=WRONG)
        calls.clear()
        with pytest.raises(BadSignature):
            verify(value)
        assert calls == ["digest", "compare"]


def test_nobody_can_sign_as_an_unknown_key_with_the_dummy_secret():
    text = f"GET /v2/security-group\n\n\n\n{NOW + 600}".encode()
    value = signature._signature(signature._NOBODY[0], text).decode()
    with pytest.raises(BadSignature):
        verify(f"EXO2-HMAC-SHA256 credential=EXOnobody,expires={NOW + 600},signature={value}")


@pytest.mark.parametrize(("secret", "accepted"), [("new", True), ("old", True), ("older", False)])
def test_a_rotated_key_signs_with_either_of_its_secrets(secret, accepted):
    value = header(key="EXOrotated", secret=secret)
    if accepted:
        assert verify(value) == "EXOrotated"
    else:
        with pytest.raises(BadSignature):
            verify(value)


@pytest.mark.parametrize("secret", ["", "s", "s" * 63, "s" * 64, "s" * 65, "é" * 100])
@pytest.mark.parametrize("text", [b"", b"GET /v2/zone", b"x" * 10_000])
def test_a_signature_is_the_hmac_of_the_standard_library(secret, text):
    assert signature._signature(secret, text) == b64encode(hmac.digest(secret.encode(), text, "sha256"))
