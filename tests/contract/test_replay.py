"""The recorded requests of exo, Terraform, Go, Java and Python, byte for byte but for ids and signatures."""

import pytest

from contract.conftest import furnish
from contract.openapi import check_answer
from contract.replay import KEY, SECRET, Replay, load_client, recorded_signature, shape_differences
from contract.running import running_server
from ringfence.wire.signature import BadSignature, verify_request

CLIENTS = {"exo": 42, "tf": 28, "tf-instances": 19, "go": 33, "go-v2": 34, "java": 18, "pysdk": 42, "connector": 11}


@pytest.fixture
def server(tmp_path):
    """A server of its own for each client: the recordings share names."""
    with running_server(tmp_path) as running:
        furnish(running)
        yield running


@pytest.mark.parametrize("client", CLIENTS)
def test_every_recorded_request_gets_the_recorded_status_and_shape(server, client):
    replay = Replay(server)
    exchanges = load_client(client)
    assert len(exchanges) == CLIENTS[client]
    for number, exchange in enumerate(exchanges, start=1):
        answer = replay.play(exchange)
        where = f"{client} {number}: {exchange.method} {exchange.path} {exchange.body} -> {answer.body.decode()}"
        assert answer.status == exchange.status, where
        check_answer(exchange.method, exchange.path.removeprefix("/v2"), answer.status, answer.body)
        if answer.status == 200:
            assert not shape_differences(exchange.response, answer.json), where


@pytest.mark.parametrize("client", CLIENTS)
def test_every_recorded_signature_verifies_unless_the_client_signed_wrongly_on_purpose(client):
    for exchange in load_client(client):
        if exchange.authorization is None:
            assert exchange.path == "/v2/zone"
            continue
        header, request, expires = recorded_signature(exchange)
        if exchange.status == 403:
            with pytest.raises(BadSignature):
                verify_request(header, request, now=expires, secrets_of={KEY: (SECRET,)}.__getitem__)
        else:
            assert verify_request(header, request, now=expires, secrets_of={KEY: (SECRET,)}.__getitem__) == KEY
