"""The table from errors to answers: whole, and silent where it must be."""

import importlib
import json
import pkgutil
from http import HTTPStatus

import pytest

import ringfence
from ringfence.api.answers import STATUS, answer_error, answer_unexpected
from ringfence.policy import errors
from ringfence.policy.errors import Busy, CallerError, Conflict, Invalid, OperatorError, RingfenceError, StateError
from ringfence.wire.signature import BadSignature


def every_error(base=RingfenceError):
    yield base
    for child in base.__subclasses__():
        yield from every_error(child)


def import_every_module():
    for module in pkgutil.walk_packages(ringfence.__path__, "ringfence."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)


def test_every_error_of_the_policy_room_has_a_row_of_its_own():
    named = {value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, RingfenceError)}
    assert set(STATUS) == named


def test_every_error_anywhere_gets_the_status_of_its_family():
    import_every_module()
    for error in set(every_error()):
        status = next(STATUS[ancestor] for ancestor in error.__mro__ if ancestor in STATUS)
        if issubclass(error, CallerError):
            assert 400 <= status < 500, error
        elif issubclass(error, Busy):
            assert status == HTTPStatus.SERVICE_UNAVAILABLE, error
        elif issubclass(error, StateError):
            assert status == HTTPStatus.CONFLICT, error
        else:
            assert status == HTTPStatus.INTERNAL_SERVER_ERROR, error


ANSWERS = [
    (Invalid("expected a name", field="$.name"), 400, "$.name: expected a name", "$.name"),
    (Conflict("a security group named web already exists"), 409, "a security group named web already exists", None),
    (Busy("the store is busy"), 503, "the store is busy", None),
    (BadSignature("unknown key"), 403, "the request is not signed, or not with a valid signature", None),
]


@pytest.mark.parametrize(("error", "status", "message", "field"), ANSWERS)
def test_a_refusal_carries_its_words_and_its_field(error, status, message, field):
    answer = answer_error(error)
    body = json.loads(answer.data)
    assert (answer.status, body["status"], body["message"], body["detail"]) == (status, status, message, message)
    assert body.get("field") == field


def test_what_the_operator_must_mend_is_not_told_to_the_caller():
    answer = answer_error(OperatorError("write the store", "disk /var/lib full", host="h1"))
    assert answer.data == answer_unexpected().data
    assert b"disk" not in answer.data
    assert answer.status == 500
