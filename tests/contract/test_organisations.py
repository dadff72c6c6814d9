"""Two organisations on one server: neither sees, names or changes what is the other's."""

import asyncio
import json
import time
from uuid import uuid4

import httpx
import pytest

from ringfence.api import build_app
from ringfence.control.actor import operator_of
from ringfence.control.plane import ControlPlane
from ringfence.control.use_cases import found_organisation
from ringfence.policy.commands import AddInstance, CreateGroup, InstanceClaim
from ringfence.policy.values import InstanceId
from ringfence.store import Store
from ringfence.wire.signature import SignedRequest, sign_request


@pytest.fixture
def ask(tmp_path):
    """Ask(method, path with the foreign ids) -> status and body, signed with a key of the first organisation."""

    async def use(method, path, body):
        await asyncio.to_thread(_found_two, tmp_path)
        plane = await ControlPlane.open(tmp_path)
        try:
            foreign = await _second_organisation(plane)
            key = await plane.create_key("first")
            target = f"/v2{path.format(**foreign)}"
            content = body.format(**foreign).encode() if body else b""
            signed = SignedRequest(method, target.encode(), content)
            header = sign_request(key.id, key.secret, signed, int(time.time()) + 60)
            transport = httpx.ASGITransport(app=build_app(plane))
            async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
                answer = await client.request(method, target, content=content, headers={"Authorization": header})
            return answer.status_code, answer.json(), foreign
        finally:
            await plane.close()

    return lambda method, path, body="": asyncio.run(use(method, path, body))


def _found_two(folder):
    """A store with two organisations; a server makes only one so far."""
    store = Store.open(folder)
    for _ in range(2):
        store.submit(found_organisation(uuid4(), uuid4(), 1)).result()
    store.close()


async def _second_organisation(plane):
    """The ids of the other organisation's default group, another group, an instance and an operation."""
    [other] = [one for one in plane.snapshot.organisations.values() if one.id != plane.organisation]
    operator, instance = operator_of(other.id), InstanceId(uuid4())
    created = await plane.execute(CreateGroup("theirs"), operator)
    await plane.execute(AddInstance(InstanceClaim("their-vm", instance, ())), operator)
    return {"default": other.default_group, "group": created.group, "instance": instance, "operation": created.id}


REQUESTS = [
    ("GET", "/security-group/{group}", ""),
    ("DELETE", "/security-group/{group}", ""),
    ("POST", "/security-group/{group}/rules", '{{"flow-direction":"ingress","protocol":"esp","network":"0.0.0.0/0"}}'),
    ("PUT", "/security-group/{group}:add-source", '{{"cidr":"0.0.0.0/0"}}'),
    ("PUT", "/security-group/{default}:attach", '{{"instance":{{"id":"{instance}"}}}}'),
    ("GET", "/instance/{instance}", ""),
    ("GET", "/operation/{operation}", ""),
]


@pytest.mark.parametrize(("method", "path", "body"), REQUESTS)
def test_what_belongs_to_another_organisation_does_not_exist(ask, method, path, body):
    status, answer, foreign = ask(method, path, body)
    assert status == 404
    named = {str(id_) for id_ in foreign.values()} & set(answer["message"].replace(",", " ").split())
    assert all(id_ in path.format(**foreign) for id_ in named)


@pytest.mark.parametrize("path", ["/security-group", "/security-group?visibility=public", "/instance"])
def test_lists_show_only_ones_own(ask, path):
    status, answer, _ = ask("GET", path)
    assert status == 200
    assert "their" not in json.dumps(answer)


def test_a_rule_cannot_name_another_organisations_group(ask):
    body = '{{"flow-direction":"ingress","protocol":"esp","security-group":{{"id":"{group}"}}}}'
    status, answer, _ = ask("POST", "/security-group/{group}/rules", body)
    assert status == 404
    assert "theirs" not in answer["message"]


def test_both_may_use_the_same_name(ask):
    status, _, _ = ask("POST", "/security-group", '{{"name":"theirs"}}')
    assert status == 200
