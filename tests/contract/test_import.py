"""`ringfence import` prints what docs/import.md shows, and a file that can be applied."""

import io
import json
import re
from pathlib import Path

import pytest

from ringfence.cli.app import run

PAGE = (Path(__file__).parents[2] / "docs" / "import.md").read_text(encoding="utf-8")
FILES = dict(zip(("rules", "limited"), re.findall(r"```iptables\n(.*?)```", PAGE, re.DOTALL), strict=True))
EXAMPLES = re.findall(r"```console\n\$ ringfence ([^\n]*)\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture
def ringfence(tmp_path, capsys, monkeypatch):
    """Runs one command line where the files of the page lie; status, stdout and stderr come back."""
    monkeypatch.chdir(tmp_path)
    for name, text in FILES.items():
        Path(name).write_text(text, encoding="utf-8")

    def call(*arguments):
        status = run(arguments)
        shown = capsys.readouterr()
        return status, shown.out, shown.err

    return call


@pytest.mark.parametrize(("line", "wanted"), EXAMPLES)
def test_the_page_shows_what_the_command_prints(ringfence, line, wanted):
    _, out, err = ringfence(*line.split())
    assert out + err == wanted


def test_what_is_imported_can_be_asked(ringfence):
    Path("policy.yaml").write_text(ringfence("import", "iptables-save", "rules", "--group", "web")[1], encoding="utf-8")
    status, out, _ = ringfence("reach", "--file", "policy.yaml", "--from", "10.64.0.1", "--to", "web", "tcp/22")
    assert (status, out) == (0, "")


def test_an_ip6tables_save_comes_along(ringfence):
    Path("six").write_text(
        "*filter\n:INPUT DROP [0:0]\n-A INPUT -p tcp --dport 22 -j ACCEPT\nCOMMIT\n", encoding="utf-8"
    )
    status, out, err = ringfence("import", "iptables-save", "rules", "--ipv6", "six")
    assert (status, err) == (0, "")
    assert "{protocol: tcp, ports: 22, from: '::/0'}" in out


def test_an_account_of_aws_is_imported_and_a_fault_names_file_and_field(ringfence):
    permission = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": "10.0.0.0/8"}]}
    everywhere = {"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}], "Ipv6Ranges": [{"CidrIpv6": "::/0"}]}
    group = {"GroupName": "web", "GroupId": "sg-1", "IpPermissions": [permission], "IpPermissionsEgress": [everywhere]}
    Path("groups.json").write_text(json.dumps({"SecurityGroups": [group]}), encoding="utf-8")
    status, out, err = ringfence("import", "aws", "groups.json")
    assert (status, err) == (0, "")
    assert out.endswith("  web:\n    ingress:\n    - {protocol: tcp, ports: 22, from: 10.0.0.0/8}\n")
    permission["IpProtocol"] = "132"
    Path("groups.json").write_text(json.dumps({"SecurityGroups": [group]}), encoding="utf-8")
    status, _, err = ringfence("import", "aws", "groups.json")
    assert (status, "groups.json: $.SecurityGroups[0].IpPermissions[0].IpProtocol" in err) == (2, True)


def test_ufw_needs_its_folder_and_nft_its_json(ringfence):
    status, _, err = ringfence("import", "ufw", "nowhere")
    assert (status, err) == (
        2,
        "ringfence: nowhere: there is no before.rules: expected ufw's folder, such as /etc/ufw\n",
    )
    status, _, err = ringfence("import", "nft", "rules")
    assert (status, err.startswith("ringfence: rules: expected one JSON document")) == (2, True)


def test_what_comes_by_standard_input_is_called_so(ringfence, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO(FILES["limited"]))
    assert "ringfence: standard input, line 3: it limits how often" in ringfence("import", "iptables-save", "-")[2]
