"""The official Python SDK, unchanged, from PyPI: every operation, and every kind of refusal."""

from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import pytest
from exoscale.api.exceptions import ExoscaleAPIAuthException, ExoscaleAPIClientException
from exoscale.api.v2 import Client

from contract.conftest import PUBLIC, VM_A, VM_B

pytestmark = pytest.mark.usefixtures("exchanges")

OPERATIONS = {
    "create-security-group",
    "get-security-group",
    "list-security-groups",
    "delete-security-group",
    "add-rule-to-security-group",
    "delete-rule-from-security-group",
    "add-external-source-to-security-group",
    "remove-external-source-from-security-group",
    "attach-instance-to-security-group",
    "detach-instance-from-security-group",
    "list-zones",
    "get-operation",
    "list-instances",
    "get-instance",
    "list-instance-types",
    "get-instance-type",
    "list-templates",
    "get-template",
    "get-reverse-dns-instance",
    "delete-reverse-dns-instance",
    "remove-instance-protection",
}


@pytest.fixture
def client(server):
    return Client(server.key, server.secret, url=server.url)


@pytest.fixture
def group(client):
    """The id of a fresh group, deleted afterwards with everything that hangs on it."""
    created = client.create_security_group(name=f"py-{uuid4()}", description="py")
    id_ = created["reference"]["id"]
    assert client.wait(created["id"])["state"] == "success"
    yield id_
    for instance in client.list_instances()["instances"]:
        if {"id": id_} in instance["security-groups"]:
            client.detach_instance_from_security_group(id=id_, instance={"id": instance["id"]})
    client.delete_security_group(id=id_)


def test_every_operation_is_answered_as_the_official_document_says(client, group, exchanges):
    rule = {"flow_direction": "ingress", "protocol": "tcp", "network": "0.0.0.0/0", "start_port": 22, "end_port": 22}
    assert client.add_rule_to_security_group(id=group, **rule)["reference"]["id"] == group
    client.add_external_source_to_security_group(id=group, cidr="203.0.113.0/24")
    client.attach_instance_to_security_group(id=group, instance={"id": VM_A})
    shown = client.get_security_group(id=group)
    assert shown["external-sources"] == ["203.0.113.0/24"]
    client.delete_rule_from_security_group(id=group, rule_id=shown["rules"][0]["id"])
    client.remove_external_source_from_security_group(id=group, cidr="203.0.113.0/24")
    instance = client.get_instance(id=VM_A)
    assert {VM_A, VM_B} <= {one["id"] for one in client.list_instances()["instances"]}
    assert {"id": group} in instance["security-groups"]
    client.detach_instance_from_security_group(id=group, instance={"id": VM_A})
    client.list_zones()
    client.list_security_groups()
    assert (
        client.get_instance_type(id=instance["instance-type"]["id"]) in client.list_instance_types()["instance-types"]
    )
    assert client.get_template(id=instance["template"]["id"]) in client.list_templates()["templates"]
    for absent in (client.get_reverse_dns_instance, client.delete_reverse_dns_instance):
        with pytest.raises(ExoscaleAPIClientException, match="404"):
            absent(id=VM_A)
    unprotected = client.remove_instance_protection(id=VM_A)  # with which Terraform ends a change of an instance
    assert (unprotected["state"], unprotected["reference"]["id"]) == ("success", VM_A)
    scrap = client.create_security_group(name=f"py-{uuid4()}")["reference"]["id"]
    client.delete_security_group(id=scrap)
    assert {operation for operation, _ in exchanges} == OPERATIONS


PEERS = [
    {"network": "0.0.0.0/0"},
    {"network": "2001:DB8::1/32"},
    {"security_group": {"name": PUBLIC, "visibility": "public"}},
]
MATCHES = [
    {"protocol": "tcp", "start_port": 22, "end_port": 22},
    {"protocol": "tcp", "start_port": 8000},
    {"protocol": "udp", "start_port": 1, "end_port": 65535},
    {"protocol": "icmp", "icmp": {"type": 8, "code": 0}},
    {"protocol": "icmp", "icmp": {"type": -1, "code": -1}},
    {"protocol": "icmp"},
    {"protocol": "icmpv6", "icmp": {"type": 128, "code": 0}},
    {"protocol": "esp"},
    {"protocol": "ah"},
    {"protocol": "gre"},
    {"protocol": "ipip"},
]


@pytest.mark.parametrize("peer", PEERS, ids=str)
@pytest.mark.parametrize("match", MATCHES, ids=str)
def test_a_rule_is_shown_exactly_as_it_was_added(client, group, match, peer):
    for direction in ("ingress", "egress"):
        client.add_rule_to_security_group(id=group, flow_direction=direction, description="d", **match, **peer)
    shown = client.get_security_group(id=group)["rules"]
    expected = {name.replace("_", "-"): value for name, value in {**match, **peer, "description": "d"}.items()}
    for rule, direction in zip(shown, ("ingress", "egress"), strict=True):
        assert rule.pop("id")
        assert rule == {**expected, "flow-direction": direction}


def test_a_peer_group_is_shown_with_id_and_name(client, group):
    client.add_rule_to_security_group(
        id=group, flow_direction="ingress", protocol="tcp", start_port=1, end_port=2, security_group={"id": group}
    )
    shown = client.get_security_group(id=group)
    assert shown["rules"][0]["security-group"] == {"id": group, "name": shown["name"]}


def test_the_same_rule_twice_is_one_rule(client, group):
    for _ in range(2):
        answer = client.add_rule_to_security_group(
            id=group, flow_direction="ingress", protocol="esp", network="198.51.100.7/32"
        )
        assert client.wait(answer["id"])["state"] == "success"
    assert len(client.get_security_group(id=group)["rules"]) == 1


def test_ten_rules_at_once_are_ten_rules_as_terraform_adds_them(server, client, group):
    bodies = [b'{"flow-direction": "ingress", "protocol": "tcp", "network": "10.%d.0.0/16"}' % n for n in range(40)]
    with ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(lambda body: server.call("POST", f"/security-group/{group}/rules", body), bodies))
    assert {answer.status for answer in answers} == {200}
    networks = [rule["network"] for rule in client.get_security_group(id=group)["rules"]]
    assert sorted(networks) == sorted(f"10.{n}.0.0/16" for n in range(40))
    assert networks == [rule["network"] for rule in client.get_security_group(id=group)["rules"]]


def test_sources_are_a_set_of_networks_in_their_first_spelling(client, group):
    client.add_external_source_to_security_group(id=group, cidr="10.0.0.1/8")
    client.add_external_source_to_security_group(id=group, cidr="10.0.0.0/8")
    assert client.get_security_group(id=group)["external-sources"] == ["10.0.0.1/8"]
    client.remove_external_source_from_security_group(id=group, cidr="10.9.9.9/8")
    assert "external-sources" not in client.get_security_group(id=group)


def test_instances_are_listed_by_their_address(client):
    found = client.get_instance(id=VM_A)["public-ip"]
    assert [one["id"] for one in client.list_instances(ip_address=found)["instances"]] == [VM_A]
    assert client.list_instances(ip_address="192.0.2.254")["instances"] == []
    assert client.list_instances(manager_id=VM_A, manager_type="instance-pool")["instances"] == []


@pytest.mark.usefixtures("group")
def test_public_groups_are_listed_apart_and_without_id(client):
    private = client.list_security_groups(visibility="private")["security-groups"]
    assert private == client.list_security_groups()["security-groups"]
    assert {"default"} < {one["name"] for one in private}
    assert all(one["visibility"] == "private" and one["id"] for one in private)
    assert client.list_security_groups(visibility="public")["security-groups"] == [
        {"name": PUBLIC, "description": "SKS", "visibility": "public", "external-sources": ["198.51.100.0/24"]}
    ]


def test_attach_and_detach_may_be_repeated(client, group):
    for _ in range(2):
        client.attach_instance_to_security_group(id=group, instance={"id": VM_B})
    assert client.get_instance(id=VM_B)["security-groups"].count({"id": group}) == 1
    for _ in range(2):
        client.detach_instance_from_security_group(id=group, instance={"id": VM_B})


def test_a_first_answer_is_final_when_no_host_enforces_anything(client, group):
    answer = client.add_external_source_to_security_group(id=group, cidr="192.0.2.0/24")
    assert answer["state"] == "success"
    assert answer["message"] == "stored; no host enforces it yet"


def test_refusals_are_client_errors_with_a_text(client, group):
    name = client.get_security_group(id=group)["name"]
    client.attach_instance_to_security_group(id=group, instance={"id": VM_A})
    refused = [
        (lambda: client.create_security_group(name=name), "409", "already exists"),
        (lambda: client.delete_security_group(id=group), "409", "vm-a"),
        (lambda: client.get_security_group(id=str(uuid4())), "404", "no security group"),
        (lambda: client.get_security_group(id="nope"), "404", "UUID"),
        (lambda: client.get_operation(id=str(uuid4())), "404", "operation"),
        (lambda: client.remove_instance_protection(id=str(uuid4())), "404", "no instance"),
        (lambda: client.delete_rule_from_security_group(id=group, rule_id=str(uuid4())), "404", "rule"),
        (lambda: client.create_security_group(name=""), "400", "$.name"),
        (client.list_load_balancers, "404", "load-balancer is not offered"),
        (lambda: client.stop_instance(id=VM_A), "404", f"instance/{VM_A}:stop is not offered"),
        (lambda: client.reveal_instance_password(id=VM_A), "404", f"instance/{VM_A}:password is not offered"),
    ]
    for call, status, text in refused:
        with pytest.raises(ExoscaleAPIClientException) as caught:
            call()
        assert status in str(caught.value)
        assert text in str(caught.value)


def test_a_group_named_by_anothers_rule_cannot_be_deleted_and_its_dependent_is_named(client, group):
    other = client.create_security_group(name=f"dependent-{uuid4()}")["reference"]["id"]
    client.add_rule_to_security_group(id=other, flow_direction="ingress", protocol="esp", security_group={"id": group})
    with pytest.raises(ExoscaleAPIClientException, match="dependent-"):
        client.delete_security_group(id=group)
    client.delete_security_group(id=other)


def test_default_cannot_be_deleted(client):
    default = next(one for one in client.list_security_groups()["security-groups"] if one["name"] == "default")
    with pytest.raises(ExoscaleAPIClientException, match="409"):
        client.delete_security_group(id=default["id"])


def test_a_wrong_secret_is_an_authentication_error(server):
    for key, secret in ((server.key, "wrong"), ("EXOnobody", server.secret)):
        with pytest.raises(ExoscaleAPIAuthException):
            Client(key, secret, url=server.url).list_security_groups()


def test_a_revoked_key_is_refused_at_once(server):
    key = server.admin.post("/admin/v1/keys", json={"name": "short-lived"}).json()
    client = Client(key["id"], key["secret"], url=server.url)
    client.list_security_groups()
    assert server.admin.delete(f"/admin/v1/keys/{key['id']}").status_code == 204
    with pytest.raises(ExoscaleAPIAuthException):
        client.list_security_groups()


def test_a_reading_key_may_read_and_not_change(server):
    key = server.admin.post("/admin/v1/keys", json={"name": "r", "role": "reader"}).json()
    client = Client(key["id"], key["secret"], url=server.url)
    client.list_security_groups()
    with pytest.raises(ExoscaleAPIAuthException, match="may only read"):
        client.create_security_group(name="never")
