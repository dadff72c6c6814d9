"""An account is imported by its own API, which a ringfence server speaks: the file is the one that was applied."""

import pytest

from contract.running import running_server
from ringfence.cli.app import run

POLICY = """\
version: 1
groups:
  db:
    ingress:
    - {protocol: tcp, ports: 5432, from: group web}
    egress:
    - {protocol: udp, ports: 53, to: public group resolvers}
  default: {description: Default Security Group}
  web:
    description: the public site
    sources: [203.0.113.0/24]
    ingress:
    - {protocol: tcp, ports: 8000-8100, from: 0.0.0.0/0, description: everybody}
    - {protocol: icmp, type: 8, code: 0, from: 0.0.0.0/0}
    - {protocol: icmpv6, type: 128, from: '::/0'}
    - {protocol: esp, from: 10.0.0.1/8}
public-groups:
  resolvers:
    sources: [9.9.9.9/32]
instances:
  db-1:
    groups: [db]
    addresses: [192.0.2.20]
  web-1:
    groups: [default, web]
    addresses: [192.0.2.10, '2001:db8::10']
"""


@pytest.fixture
def ringfence(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "policy.yaml").write_text(POLICY, encoding="utf-8")
    with running_server(tmp_path / "server") as server:
        for name, *addresses in (("web-1", "192.0.2.10", "2001:db8::10"), ("db-1", "192.0.2.20")):
            server.admin.post("/admin/v1/instances", json={"name": name, "addresses": addresses})
        monkeypatch.setenv("RINGFENCE_DATA", str(server.folder))
        monkeypatch.setenv("EXOSCALE_API_ENDPOINT", server.url)
        monkeypatch.setenv("EXOSCALE_API_KEY", server.key)
        monkeypatch.setenv("EXOSCALE_API_SECRET", server.secret)

        def call(*arguments):
            status = run(arguments)
            shown = capsys.readouterr()
            return status, shown.out, shown.err

        yield call


def test_an_account_is_imported_as_it_was_applied(ringfence, tmp_path):
    assert ringfence("apply", "policy.yaml", "--prune")[0] == 0
    status, out, err = ringfence("import", "exoscale")
    assert (status, err) == (0, "")
    (tmp_path / "imported.yaml").write_text(out, encoding="utf-8")
    assert ringfence("export", "--file", "imported.yaml")[1] == POLICY
    assert "nothing to do" in ringfence("apply", "imported.yaml", "--prune")[2]


def test_without_a_key_and_with_a_wrong_one_it_is_said(ringfence, monkeypatch):
    monkeypatch.setenv("EXOSCALE_API_SECRET", "wrong")
    status, _, err = ringfence("import", "exoscale")
    assert (status, "GET /security-group: 403" in err or "GET /security-group: 401" in err) == (1, True)
    monkeypatch.delenv("EXOSCALE_API_SECRET")
    assert ringfence("import", "exoscale")[0] == 2
