"""The recording of a real account: the same calls here, and answers of exactly the same shape."""

import json

import pytest

from contract.openapi import check_answer
from contract.replay import CAPTURES
from contract.running import running_server

EXCHANGES = [json.loads(line) for line in (CAPTURES / "exoscale-account.jsonl").read_text().splitlines()]
FREE = {
    ("", "message"),  # we say when no host enforces a change yet
    ("zones", "id"),  # of no use to any client, and not in openapi.json
    ("security-groups", "description"),  # ours of "default" is another, or none
}
# Operations of other resources, which the recording kept.
FOREIGN = ("0102", "0104", "0106", "0107", "0108")


@pytest.fixture
def server(tmp_path):
    with running_server(tmp_path) as running:
        yield running


def test_every_call_of_the_recording_has_an_answer_of_the_recorded_shape(server):
    ids: dict[str, str] = {}
    for exchange in EXCHANGES:
        if exchange["path"].endswith(tuple(number.lstrip("0") for number in FOREIGN)):
            continue
        path = translate(exchange["path"], ids)
        body = translate(json.dumps(exchange["request"]), ids).encode() if exchange["request"] else b""
        answer = server.call(exchange["method"], path.removeprefix("/v2"), body)
        assert answer.status == exchange["status"], (path, answer.body)
        check_answer(exchange["method"], path.removeprefix("/v2"), answer.status, answer.body)
        assert shape(answer.json) == shape(exchange["response"]), path
        learn(exchange["response"], answer.json, ids)


def translate(text, ids):
    for recorded, ours in ids.items():
        text = text.replace(recorded, ours)
    return text


def learn(recorded, ours, ids):
    """Pairs the ids of two answers; the order of lists is the same in both."""
    match recorded, ours:
        case dict(), dict():
            for name in recorded.keys() & ours.keys():
                learn(recorded[name], ours[name], ids)
        case list(), list():
            for one, other in zip(recorded, ours, strict=False):
                learn(one, other, ids)
        case str(), str() if recorded.startswith("00000000-"):
            ids[recorded] = ours


def shape(value, place=""):
    """Field names and types. Left out is what may differ between two servers that are both right."""
    match value:
        case dict():
            return {name: shape(inner, name) for name, inner in value.items() if (place, name) not in FREE}
        case list() if place == "zones":
            return [shape(value[0], place)]
        case list():
            return [shape(inner, place) for inner in value]
        case _:
            return type(value).__name__
