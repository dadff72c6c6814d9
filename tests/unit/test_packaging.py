"""The systemd units: in the order without which a machine would be open for a moment, with one right at most."""

import shutil
import subprocess
from pathlib import Path

import pytest
from typer.main import get_command

from ringfence.cli.app import app

FOLDER = Path(__file__).parents[2] / "packaging" / "systemd"
BOOT, AGENT, SERVER = (FOLDER / f"ringfence-{name}.service" for name in ("boot", "agent", "server"))
MOST_EXPOSED = {BOOT: 34, AGENT: 26, SERVER: 15}  # tenths of the 10 that systemd-analyze gives to who is free to do all
ANALYZE = shutil.which("systemd-analyze")


def _settings(unit):
    """Every setting's words, by section and name."""
    found, section = {}, ""
    for line in unit.read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            section = line.strip("[]")
        elif line and not line.startswith("#"):
            name, _, words = line.partition("=")
            assert (section, name) not in found or name == "SystemCallFilter", f"{name} is set twice"
            found[section, name] = words.split()
    return found


def test_the_ports_are_closed_before_the_network_and_after_whoever_flushes_at_boot():
    unit = _settings(BOOT)
    assert unit["Unit", "DefaultDependencies"] == ["no"]
    assert "network-pre.target" in unit["Unit", "Before"]
    assert "network-pre.target" in unit["Unit", "Wants"]
    assert {"local-fs.target", "nftables.service"} <= set(unit["Unit", "After"])
    assert "network.target" not in unit["Unit", "After"]
    assert unit["Install", "WantedBy"] == ["sysinit.target"]
    assert unit["Service", "Type"] == ["oneshot"]


def test_the_agent_starts_after_the_boot_and_always_again():
    unit = _settings(AGENT)
    assert "ringfence-boot.service" in unit["Unit", "After"]
    assert unit["Service", "Restart"] == ["always"]


@pytest.mark.parametrize("path", [BOOT, AGENT], ids=["boot", "agent"])
def test_nothing_undoes_the_rules_and_no_right_is_held_but_one(path):
    unit = _settings(path)
    assert not {name for _, name in unit} & {"ExecStop", "ExecStopPost", "ExecReload"}
    assert unit["Service", "CapabilityBoundingSet"] == ["CAP_NET_ADMIN"]
    assert unit["Service", "NoNewPrivileges"] == ["yes"]
    assert unit["Service", "ProtectSystem"] == ["strict"]


def test_the_server_has_no_right_at_all_and_starts_again_when_it_fails():
    unit = _settings(SERVER)
    assert unit["Service", "CapabilityBoundingSet"] == []
    assert unit["Service", "User"] == ["ringfence"]
    assert unit["Service", "StateDirectoryMode"] == ["0700"]
    assert unit["Service", "Restart"] == ["on-failure"]
    assert unit["Unit", "StartLimitIntervalSec"] == ["0"]


@pytest.mark.parametrize("path", [AGENT, SERVER], ids=["agent", "server"])
def test_a_start_ends_when_the_service_says_so_however_long_that_takes(path):
    unit = _settings(path)
    assert unit["Service", "Type"] == ["notify"]
    assert unit["Service", "TimeoutStartSec"] == ["infinity"]


@pytest.mark.parametrize("path", [BOOT, AGENT, SERVER], ids=["boot", "agent", "server"])
def test_the_command_is_one_that_there_is(path):
    _, verb, *options = _settings(path)["Service", "ExecStart"]
    known = {option for parameter in get_command(app).commands[verb].params for option in parameter.opts}
    assert {option for option in options if option.startswith("--")} <= known


@pytest.mark.skipif(ANALYZE is None, reason="systemd-analyze is not installed")
@pytest.mark.parametrize("path", [BOOT, AGENT, SERVER], ids=["boot", "agent", "server"])
def test_systemd_finds_nothing_wrong(path, tmp_path):
    text = path.read_text(encoding="utf-8").replace("/usr/bin/ringfence", "/bin/true")
    (tmp_path / path.name).write_text(text, encoding="utf-8")
    command = (ANALYZE, "verify", "--man=no", "--recursive-errors=no", tmp_path / path.name)
    said = subprocess.run(command, capture_output=True, check=False)  # noqa: S603  our own
    assert (said.returncode, said.stderr.decode()) == (0, "")


@pytest.mark.skipif(ANALYZE is None, reason="systemd-analyze is not installed")
@pytest.mark.parametrize("path", [BOOT, AGENT, SERVER], ids=["boot", "agent", "server"])
def test_no_unit_is_more_exposed_than_it_must_be(path):
    command = (ANALYZE, "security", "--offline=yes", f"--threshold={MOST_EXPOSED[path]}", path)
    said = subprocess.run(command, capture_output=True, check=False)  # noqa: S603  our own
    assert said.returncode == 0, said.stdout.decode()
