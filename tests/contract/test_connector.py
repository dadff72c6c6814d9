"""The official exoscale-connector, unchanged, from PyPI: every operation it has, configured as people configure it."""

from uuid import uuid4

import pytest
from exoscale_connector.client import ExoscaleClient
from exoscale_connector.config import ClientConfig
from exoscale_connector.errors import APIError, NotFoundError
from exoscale_connector.resources.instance import InstanceClient
from exoscale_connector.resources.security_group import SecurityGroup, SecurityGroupClient, SecurityGroupRule
from exoscale_connector.resources.zone import ZoneClient

from contract.conftest import PUBLIC, VM_A

pytestmark = pytest.mark.usefixtures("exchanges")


@pytest.fixture
def client(server, monkeypatch):
    monkeypatch.setenv("EXOSCALE_API_KEY", server.key)
    monkeypatch.setenv("EXOSCALE_API_SECRET", server.secret)
    monkeypatch.setenv("EXOSCALE_API_ENDPOINT", server.url)
    monkeypatch.setenv("EXOSCALE_ZONE", "ch-dk-2")
    return ExoscaleClient(ClientConfig.from_env())


@pytest.fixture
def groups(client):
    return SecurityGroupClient(client)


@pytest.fixture
def group(groups):
    created = groups.create(SecurityGroup(name=f"con-{uuid4()}", description="con"))
    yield created
    groups.delete(created.id)


def test_a_group_lives_from_create_to_delete(groups, exchanges):
    created = groups.create(SecurityGroup(name=f"con-{uuid4()}", description="con"))
    assert groups.get(created.id).description == "con"
    assert created.id in {group.id for group in groups.list()}
    groups.delete(created.id)
    with pytest.raises(NotFoundError):
        groups.get(created.id)
    assert {"create-security-group", "get-security-group", "list-security-groups", "delete-security-group"} <= {
        operation for operation, _ in exchanges
    }


RULES = [
    SecurityGroupRule(flow_direction="ingress", protocol="tcp", start_port=22, end_port=22, network="0.0.0.0/0"),
    SecurityGroupRule(flow_direction="egress", protocol="udp", start_port=53, network="::/0", description="dns"),
    SecurityGroupRule(flow_direction="ingress", protocol="esp", network="10.0.0.1/8"),
    SecurityGroupRule(
        flow_direction="egress",
        protocol="tcp",
        start_port=443,
        end_port=443,
        security_group={"name": PUBLIC, "visibility": "public"},
    ),
]


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_a_rule_comes_back_as_it_was_added_and_goes(groups, group, rule):
    assert groups.add_rule(group.id, rule).state == "success"
    [shown] = groups.get(group.id).rules
    assert shown.model_copy(update={"id": None}) == rule
    groups.delete_rule(group.id, shown.id)
    assert groups.get(group.id).rules == []


def test_a_rule_may_name_its_own_group(groups, group):
    groups.add_rule(group.id, {"flow-direction": "egress", "protocol": "gre", "security-group": {"id": group.id}})
    assert groups.get(group.id).rules[0].security_group.name == group.name


def test_sources_and_instances_come_and_go(client, groups, group):
    path = f"security-group/{group.id}"
    client.put(f"{path}:add-source", json={"cidr": "203.0.113.0/24"})
    assert groups.get(group.id).external_sources == ["203.0.113.0/24"]
    client.put(f"{path}:remove-source", json={"cidr": "203.0.113.0/24"})
    client.put(f"{path}:attach", json={"instance": {"id": VM_A}})
    assert group.id in {worn.id for worn in InstanceClient(client).get(VM_A).security_groups}
    client.put(f"{path}:detach", json={"instance": {"id": VM_A}})


def test_zones_and_instances_are_listed(client):
    assert [zone.name for zone in ZoneClient(client).list()] == ["ch-dk-2"]
    assert {"vm-a", "vm-b"} <= {instance.name for instance in InstanceClient(client).list()}


def test_a_conflict_and_a_bad_value_are_api_errors_with_our_words(groups, group):
    with pytest.raises(APIError, match="already exists") as caught:
        groups.create(SecurityGroup(name=group.name))
    assert caught.value.status_code == 409
    with pytest.raises(APIError, match="CIDR") as caught:
        groups.add_rule(group.id, SecurityGroupRule(flow_direction="ingress", protocol="tcp", network="300.0.0.0/8"))
    assert caught.value.status_code == 400


def test_a_wrong_secret_is_refused(server):
    wrong = ExoscaleClient(ClientConfig(api_key=server.key, api_secret="wrong", endpoint=server.url))  # noqa: S106
    with pytest.raises(APIError) as caught:
        wrong.get("security-group")
    assert caught.value.status_code == 403
