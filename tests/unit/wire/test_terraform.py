"""Terraform configuration: what each rule becomes, and what the provider cannot say."""

import json
import random
import shutil
import subprocess

import pytest

from counts import count
from ringfence.policy.errors import Invalid
from ringfence.wire.policy_file import read_policy
from ringfence.wire.terraform import quote, render_terraform

POLICY = """\
version: 1
groups:
  default: {}
  1st group:
    description: the "public" site, ${not} evaluated
    sources: [203.0.113.0/24, 192.0.2.0/24]
    ingress:
    - {protocol: tcp, ports: 8000-8100, from: group default, description: internal}
    - {protocol: icmpv6, type: 128, from: "::/0"}
    - {protocol: udp, from: 10.0.0.1/8}
    egress:
    - {protocol: esp, to: public group resolvers}
public-groups:
  resolvers: {sources: [9.9.9.9/32]}
"""
WANTED = """\
resource "exoscale_security_group" "_1st_group" {
  name             = "1st group"
  description      = "the \\"public\\" site, $${not} evaluated"
  external_sources = ["203.0.113.0/24", "192.0.2.0/24"]
}

resource "exoscale_security_group_rule" "_1st_group_ingress_…" {
  security_group_id      = exoscale_security_group._1st_group.id
  type                   = "INGRESS"
  protocol               = "TCP"
  user_security_group_id = data.exoscale_security_group.default.id
  start_port             = 8000
  end_port               = 8100
  description            = "internal"
}

resource "exoscale_security_group_rule" "_1st_group_ingress_…" {
  security_group_id = exoscale_security_group._1st_group.id
  type              = "INGRESS"
  protocol          = "ICMPv6"
  cidr              = "::/0"
  icmp_type         = 128
  icmp_code         = -1
}

resource "exoscale_security_group_rule" "_1st_group_ingress_…" {
  security_group_id = exoscale_security_group._1st_group.id
  type              = "INGRESS"
  protocol          = "UDP"
  cidr              = "10.0.0.1/8"
  start_port        = 1
  end_port          = 65535
}

resource "exoscale_security_group_rule" "_1st_group_egress_…" {
  security_group_id     = exoscale_security_group._1st_group.id
  type                  = "EGRESS"
  protocol              = "ESP"
  public_security_group = "resolvers"
}
"""


def _render(text):
    return render_terraform(read_policy(text, "policy.yaml").document)


def _labels(text):
    return [line.split('"')[3] for line in text.splitlines() if line.startswith("resource")]


def test_every_group_source_and_rule_is_a_resource_and_default_is_looked_up():
    text = _render(POLICY)
    for label in _labels(text):
        text = (
            text.replace(label, f"{label[:-12]}…") if label.rpartition("_")[2].isalnum() and "gress_" in label else text
        )
    assert 'data "exoscale_security_group" "default" {\n  name = "default"\n}\n' in text
    assert text[text.index("resource") :] == WANTED


def test_a_rule_keeps_its_name_when_another_comes_before_it():
    rule = "    - {protocol: tcp, ports: 443, from: 0.0.0.0/0}\n"
    alone = _labels(_render(f"version: 1\ngroups:\n  web:\n    ingress:\n{rule}"))
    other = "    - {protocol: tcp, ports: 22, from: 0.0.0.0/0}\n"
    assert set(alone) < set(_labels(_render(f"version: 1\ngroups:\n  web:\n    ingress:\n{other}{rule}")))


def test_groups_whose_names_terraform_cannot_tell_apart_have_resources_of_different_names():
    labels = _labels(_render("version: 1\ngroups:\n  a b: {}\n  a/b: {}\n  a_b: {}\n"))
    assert len(set(labels)) == 3


@pytest.mark.parametrize(
    ("group", "said"),
    [
        ("web: {ingress: [{protocol: all, from: 0.0.0.0/0}]}", r"\$.groups.web.ingress\[0\]: .* no protocol all"),
        ("web: {ingress: [{protocol: tcp, from: group app}]}", r"\$.groups.web.ingress\[0\].from: there is no group"),
        ("default: {sources: [10.0.0.0/8]}", r"\$.groups.default.sources: "),
    ],
)
def test_what_the_provider_cannot_say_is_refused_by_field(group, said):
    with pytest.raises(Invalid, match=said):
        _render(f"version: 1\ngroups:\n  {group}\n")


@pytest.mark.full
@pytest.mark.skipif(shutil.which("terraform") is None, reason="terraform is not here to read what is written for it")
def test_terraform_reads_every_text_as_it_is_and_would_lay_nothing_out_otherwise(tmp_path):
    rng = random.Random(7)
    texts = ["$${", "$$${x}", "%%{", "%{if true}", "\\${a}", "\u202e\x07\x85\u2028", "\U0001f600é"]
    texts += ["".join(rng.choice('$%{}\\"ab\n\t~') for _ in range(12)) for _ in range(count(reduced=20, stated=300))]
    lines = "".join(f"    {quote(text)},\n" for text in texts)
    (tmp_path / "texts.tf").write_text(f'output "texts" {{\n  value = [\n{lines}  ]\n}}\n', encoding="utf-8")
    (tmp_path / "policy").mkdir()
    (tmp_path / "policy" / "policy.tf").write_text(_render(POLICY), encoding="utf-8")
    _terraform(tmp_path, "fmt", "-check", "policy")
    _terraform(tmp_path, "apply", "-auto-approve")
    assert json.loads(_terraform(tmp_path, "output", "-json", "texts")) == texts


def _terraform(folder, *arguments):
    line = ["terraform", f"-chdir={folder}", *arguments]
    return subprocess.run(line, check=True, capture_output=True).stdout  # noqa: S603  the arguments are the test's own
