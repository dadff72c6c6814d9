"""The units of packaging/systemd under a real systemd: installed as docs/operations.md says, killed, booted."""

import os
import re
from pathlib import Path

import pytest

from machine import NSPAWN, Unbootable, open_machine
from waiting import wait_until

pytestmark = [
    pytest.mark.netns,
    pytest.mark.long,
    pytest.mark.skipif(NSPAWN is None, reason="systemd-nspawn (Debian package systemd-container) is not installed"),
    pytest.mark.skipif(os.geteuid() != 0, reason="a machine is booted by root alone"),
]
PAGE = Path(__file__).parents[2] / "docs" / "operations.md"
DRAFTED = "ringfence agent inventory h1"  # which finds no uplink in this machine
QUICK_S = 20.0
INVENTORY = """
host = "h1"
managed = ["veth*"]
[[instance]]
name = "a"
interface = "veth-a"
addresses = ["10.9.0.2"]
"""
# Shows what is in force when the network may begin, then begins it.
NETWORK = """
[Unit]
DefaultDependencies=no
Wants=network-pre.target network.target
After=network-pre.target
Before=network.target
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh -c 'nft list table inet ringfence > /root/at-network'
ExecStart=/bin/sh -c 'ip link set lo up && ip link add veth-a type veth peer name far && ip link set veth-a up'
[Install]
WantedBy=multi-user.target
"""


@pytest.fixture
def machine(tmp_path):
    try:
        with open_machine(tmp_path / "machine") as opened:
            opened.boot()
            _install(opened)
            yield opened
    except Unbootable as error:
        pytest.skip(f"no machine boots here: {error}")


def _install(machine):
    """The two blocks of the page as they stand there, but for the program, the token and the inventory."""
    server, host = _blocks("## Install")[1:3]
    machine.write("/etc/systemd/system/begin-network.service", NETWORK)
    machine.run("systemctl enable begin-network; ip link set lo up; echo 127.0.0.1 ringfence.example >> /etc/hosts")
    said = machine.run(f"cd /opt\n{server}")
    token = re.search(r"^token +(\S+)", said, re.MULTILINE)[1]
    machine.write("/root/inventory.toml", INVENTORY)
    machine.run(f"cd /opt\n{host.replace('TOKEN', token).replace(DRAFTED, 'cat /root/inventory.toml')}")


def _blocks(heading):
    """What a shell is given below a heading of the page, block by block."""
    part = PAGE.read_text(encoding="utf-8").partition(f"\n{heading}")[2].partition("\n## ")[0]
    return re.findall(r"^```sh\n(.*?)^```", part, re.DOTALL | re.MULTILINE)


def test_the_units_serve_and_enforce_come_back_from_kills_and_close_a_boot(machine):
    machine.run("ringfence rule add default tcp/443 --from 0.0.0.0/0 --data /var/lib/ringfence")
    _until_applied(machine)
    for _ in range(3):
        machine.run("kill -KILL $(systemctl show --property=MainPID --value ringfence-server ringfence-agent)")
        _until_applied(machine)
    assert "10.9.0.2" in machine.run("ringfence instance list --data /var/lib/ringfence")
    for unit in ("ringfence-server", "ringfence-agent"):
        _until_a_hanging_one_is_back(machine, unit)
    _until_applied(machine)
    machine.run("systemctl stop ringfence-agent")
    held = machine.run("nft list table inet ringfence")
    assert "443" in held
    machine.power_off()

    machine.boot()
    assert machine.run("systemctl --failed --no-legend") == ""
    assert "443" in machine.run("cat /root/at-network"), "the last policy was in force before the network"
    _until_applied(machine)
    machine.run("systemctl start ringfence-boot && systemctl restart ringfence-boot")
    assert "nothing to do" in machine.run("journalctl --no-pager -b -u ringfence-boot")

    _remove(machine)
    assert "ringfence" not in machine.run("nft list tables")
    assert machine.run("find /etc /var/lib /var/log /run /usr/lib -xdev -name '*ringfence*'") == ""


def _until_a_hanging_one_is_back(machine, unit):
    number = f"systemctl show --property=MainPID --value {unit}"
    machine.run(f"""
        mkdir -p /run/systemd/system/{unit}.service.d
        printf '%s\\n' '[Service]' WatchdogSec=5 > /run/systemd/system/{unit}.service.d/sooner.conf
        systemctl daemon-reload && systemctl restart {unit}
    """)
    _until_applied(machine)
    hung = machine.run(f"{number}; kill -STOP $({number})")
    wait_until(lambda: machine.run(number) not in (hung, "0\n"), QUICK_S)
    log = machine.run(f"journalctl --no-pager -b -u {unit}")
    assert "Fatal Python error: Aborted" in log, "it says where it hung"
    machine.run(f"rm -r /run/systemd/system/{unit}.service.d && systemctl daemon-reload && systemctl restart {unit}")


def _remove(machine):
    """As docs/operations.md says, but for the program."""
    machine.run("""
        systemctl disable --now ringfence-agent ringfence-boot
        ringfence agent leave
        ringfence host remove h1 --data /var/lib/ringfence
        cd /etc/systemd/system && rm -r ringfence-agent.service ringfence-boot.service /var/lib/ringfence-agent
        systemctl disable --now ringfence-server
        rm -r ringfence-server.service /etc/ringfence /usr/lib/sysusers.d/ringfence.conf
        userdel ringfence
        rm -r /var/lib/ringfence && systemctl daemon-reload
    """)


def _until_applied(machine):
    def is_applied():
        try:
            shown = machine.run("ringfence host status --data /var/lib/ringfence").splitlines()[-1].split()
        except AssertionError:  # the server is not there yet
            return False
        return shown[:1] == ["h1"] and shown[1] == shown[2] and float(shown[3]) < 5

    wait_until(is_applied, QUICK_S)
