"""What Prometheus makes of ``ringfence metrics``, and of the alerts that docs/operations.md proposes.

Prometheus' own promtool is the judge of both; where it is not installed (Debian: prometheus) only names are compared.
"""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from ringfence.cli.metrics import _OF_HOSTS, _OF_RULES, _families

PAGE = Path(__file__).parents[2] / "docs" / "operations.md"
PROMTOOL = shutil.which("promtool")
HOST = {"host": "h 1", "wanted": 7, "applied": 5, "age_s": 1.5, "error": None, "others_drop": ["table ip filter"]}
NEW_HOST = {"host": 'h"2\\', "wanted": 7, "applied": None, "age_s": None, "error": None, "others_drop": []}
RULE = {"host": "h1", "group": "web", "rule": "r1", "direction": "ingress", "judged": 3, "connections": 2}
# What Prometheus has scraped of h1 to h4, every half minute, and which alerts it must then give.
CASES = """
rule_files: [rules.yml]
evaluation_interval: 30s
tests:
- interval: 30s
  input_series:
  - {series: 'ringfence_host_wanted_revision{host="h1"}', values: '5 7x400'}
  - {series: 'ringfence_host_applied_revision{host="h1"}', values: '5x401'}
  - {series: 'ringfence_host_wanted_revision{host="h2"}', values: '5 6 7 8 9 9x400'}
  - {series: 'ringfence_host_applied_revision{host="h2"}', values: '5 5 7 8 9 9x400'}
  - {series: 'ringfence_host_wanted_revision{host="h3"}', values: '5x400'}
  - {series: 'ringfence_host_heard_seconds{host="h1"}', values: '15 45 75x400'}
  - {series: 'ringfence_host_heard_seconds{host="h2"}', values: '15x400'}
  - {series: 'ringfence_host_failing{host="h1"}', values: '0 1x400'}
  - {series: 'ringfence_host_failing{host="h2"}', values: '0x400'}
  - {series: 'ringfence_host_foreign_chains{host="h1"}', values: '1x400'}
  - {series: 'ringfence_host_foreign_chains{host="h2"}', values: '0x200 2x200'}
  - {series: 'node_textfile_mtime_seconds{file="/var/lib/x/ringfence.prom"}', values: '0x400'}
  - {series: 'node_textfile_mtime_seconds{file="/var/lib/x/smart.prom"}', values: '0x400'}
  alert_rule_test:
  - {eval_time: 2m, alertname: HostBehind, exp_alerts: [{exp_labels: {host: h3}}]}
  - {eval_time: 5m, alertname: HostBehind, exp_alerts: [{exp_labels: {host: h1}}, {exp_labels: {host: h3}}]}
  - {eval_time: 30s, alertname: HostSilent, exp_alerts: []}
  - {eval_time: 2m, alertname: HostSilent, exp_alerts: [{exp_labels: {host: h1}}]}
  - {eval_time: 5m, alertname: HostFailing, exp_alerts: [{exp_labels: {host: h1}}]}
  - {eval_time: 5m, alertname: OthersDrop, exp_alerts: [{exp_labels: {host: h1}}]}
  - {eval_time: 70m, alertname: OthersDrop, exp_alerts: []}
  - {eval_time: 110m, alertname: OthersDrop, exp_alerts: [{exp_labels: {host: h2}}]}
  - {eval_time: 1m, alertname: ServerGone, exp_alerts: []}
  - {eval_time: 3m, alertname: ServerGone, exp_alerts: [{exp_labels: {file: /var/lib/x/ringfence.prom}}]}
"""
judged = pytest.mark.skipif(PROMTOOL is None, reason="no promtool is here: apt install prometheus")


def _alerts():
    return re.search(r"```yaml\n(groups:\n- name: ringfence\n.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)[1]


def _printed():
    lines = [*_families(_OF_HOSTS, [HOST, NEW_HOST], ("host",))]
    return [*lines, *_families(_OF_RULES, [RULE], ("host", "group", "rule", "direction"))]


def _promtool(*words, folder, given=""):
    command = (PROMTOOL, *words)
    said = subprocess.run(command, cwd=folder, input=given, text=True, capture_output=True, check=False)  # noqa: S603
    assert said.returncode == 0, said.stdout + said.stderr


def test_alerts_ask_only_for_what_is_printed():
    asked = set(re.findall(r"ringfence_\w+", _alerts()))
    assert len(asked) > 3
    assert asked <= {line.split()[2] for line in _printed() if line.startswith("# TYPE")}


@judged
def test_prometheus_has_nothing_to_say_against_the_metrics(tmp_path):
    _promtool("check", "metrics", folder=tmp_path, given="\n".join((*_printed(), "")))


@judged
def test_alerts_come_when_they_must_and_only_then(tmp_path):
    (tmp_path / "rules.yml").write_text(_alerts())
    (tmp_path / "cases.yml").write_text(CASES)
    _promtool("test", "rules", "cases.yml", folder=tmp_path)
