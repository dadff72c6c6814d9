"""A running server for each module, and a watch on every answer that clients of the `requests` library get."""

from urllib.parse import urlsplit

import pytest
from requests.adapters import HTTPAdapter

from contract.openapi import check_answer
from contract.running import running_server

PUBLIC = "public-sks-apiservers"
VM_A, VM_B = "7e81fefd-5daa-5bcd-befd-e19e15d90282", "19be73c9-ba65-5183-a191-3988556375de"  # the ids of the captures


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A server with a public group and two instances that no host enforces."""
    with running_server(tmp_path_factory.mktemp("data")) as running:
        furnish(running)
        yield running


def furnish(running):
    running.admin.post(
        "/admin/v1/groups", json={"name": PUBLIC, "description": "SKS", "external-sources": ["198.51.100.0/24"]}
    ).raise_for_status()
    for n, (id_, name) in enumerate(((VM_A, "vm-a"), (VM_B, "vm-b")), start=10):
        wanted = {
            "id": id_,
            "name": name,
            "addresses": [f"192.0.2.{n}", f"2001:db8::{n:x}"],
            "mac": f"06:aa:bb:00:00:{n}",
        }
        running.admin.post("/admin/v1/instances", json=wanted).raise_for_status()


@pytest.fixture
def exchanges(monkeypatch):
    """Every exchange of a client that is built on `requests`, each answer checked against the official openapi.json."""
    seen = []
    send = HTTPAdapter.send

    def watched(self, request, **kwargs):
        answer = send(self, request, **kwargs)
        path = urlsplit(request.url).path.removeprefix("/v2")
        operation = check_answer(request.method, path, answer.status_code, answer.content)
        assert answer.headers["x-request-id"]
        seen.append((operation, answer.status_code))
        return answer

    monkeypatch.setattr(HTTPAdapter, "send", watched)
    return seen
