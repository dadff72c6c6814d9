"""The real agent on a host that filters itself, its server across the uplink: nobody who matters is shut out."""

import socket
import subprocess
import sys
import time
from contextlib import closing

import pytest

from ringfence.agent.doors.netlink import NetlinkSocket
from ringfence.agent.doors.nftables import KernelNftables
from ringfence.nft import encode_removal
from ringfence.policy.program.model import Within
from ringfence.world.stream import Stream, heard_since
from self_scene import HOST, OUTSIDE, QUICK_S, SHUT, Scene, open_scene, open_world, serving
from waiting import wait_until

pytestmark = pytest.mark.netns


@pytest.fixture
def scene(tmp_path):
    with open_world(tmp_path) as world, open_scene(world, tmp_path, "server") as made:
        yield made
        for process in made.processes:
            process.kill()
            process.wait()


@pytest.mark.long
def test_a_restored_server_is_followed_back_to_its_lower_revisions(tmp_path):
    """The agent has applied what the backup does not know; a restored store is another epoch, and is believed."""
    backup = tmp_path / "backup"
    with open_world(tmp_path) as world:
        outside = world.placed["outside"].namespace
        with open_scene(world, tmp_path, "server") as scene:
            scene.start()
            scene.until_applied()
            scene.enforce()
            shut = scene.group("shut", SHUT)
            scene.wear(shut)
            assert not scene.reaches(9000)
            _ringfence("server", "backup", backup, "--data", tmp_path / "server")
            scene.wear(shut, "detach")
            scene.until_applied()
            assert scene.reaches(9001)
            newest = scene.status["applied"]
            processes, key = scene.processes, scene.key
        _ringfence("server", "restore", backup, "--data", tmp_path / "again")
        with serving(outside, tmp_path / "again") as server:
            restored = Scene(world, server, tmp_path, key, processes)
            wait_until(lambda: restored.status["applied"] is not None, QUICK_S)
            restored.until_applied()
            assert restored.status["applied"] < newest
            assert not restored.reaches(9002)
            for process in processes:
                restored.kill(process)


def _ringfence(*arguments):
    command = (sys.executable, "-m", "ringfence", *map(str, arguments))
    subprocess.run(command, check=True, timeout=30, capture_output=True)  # noqa: S603  our own


def test_the_agent_reaches_its_server_when_no_group_lets_the_host_out(scene):
    process = scene.start()
    scene.until_applied()
    shut = scene.group("shut", SHUT)
    assert scene.wear(shut)["state"] == "success"
    assert scene.reaches(9000), "a host is born observed"
    scene.enforce()
    assert not scene.reaches(9001)
    for number in range(3):
        more = scene.group(f"more{number}", SHUT)
        assert scene.wear(more)["state"] == "success"
    scene.kill(process)
    scene.start()
    age_s = scene.status["age_s"]
    wait_until(lambda: scene.status["age_s"] < age_s, QUICK_S)
    assert scene.wear(shut, "detach")["state"] == "success"
    assert not scene.reaches(9002)


@pytest.mark.parametrize(
    ("address", "loose"),
    [(HOST.addresses[0], 1), (HOST.addresses[1], 1), (HOST.addresses[0], 0)],
    ids=["4", "6", "4-strict"],
)
def test_a_session_at_a_failsafe_port_survives_everything(scene, address, loose):
    """It is older than the agent, and than conntrack in this network: its first packet that is seen is in mid-stream.

    Such a one is taken up as a flow, in whatever direction it goes, or with ``loose`` 0 is one of no flow.
    """
    scene.world.router.write_sysctl("netfilter/nf_conntrack_tcp_loose", loose)
    with closing(Stream(scene.outside, scene.host, address, 22)) as session:

        def goes_on() -> None:
            now_s = time.monotonic()
            wait_until(lambda: heard_since(session, now_s), 5.0)

        goes_on()
        process = scene.start()
        door = scene.world.router.run(KernelNftables)
        with closing(door):
            wait_until(lambda: door.read_about() is not None, QUICK_S)
            goes_on()
            scene.until_applied()
            scene.enforce()
            goes_on()
            shut = scene.group("shut", SHUT)
            for how in ("attach", "detach", "attach"):
                scene.wear(shut, how)
                goes_on()
            scene.kill(process)
            goes_on()
            scene.start()
            wait_until(lambda: (scene.folder / "agent.log").read_text().count("agent runs") == 2, QUICK_S)
            scene.until_applied()
            goes_on()
            assert not scene.reaches(9003)
            with closing(Stream(scene.outside, scene.host, address, 22)) as another:
                wait_until(lambda: min(heard.count for heard in another.heard()) > 10, 5.0)


def test_the_table_at_boot_has_the_lifelines_with_a_kept_policy_and_without(scene):
    assert "this host is observed and nothing is dropped" in scene.boot()
    process = scene.start()
    scene.until_applied()
    scene.enforce()
    scene.until_applied()
    for name, kept in (("memory.json", b'"observed":false'), ("view.json", b'"observe":false')):
        file = scene.folder / "agent" / name
        wait_until(lambda file=file, kept=kept: file.exists() and kept in file.read_bytes(), QUICK_S)
    scene.kill(process)
    kernel = scene.world.router.run(NetlinkSocket)
    with closing(kernel):
        for lost in ((), ("view.json",)):
            for name in lost:
                (scene.folder / "agent" / name).unlink()
            assert not kernel.request(encode_removal().data).refusals
            assert ("every managed port is closed" if lost else "is enforced from disk") in scene.boot()
            with closing(Stream(scene.outside, scene.host, HOST.addresses[0], 22)) as session:
                wait_until(lambda session=session: min(heard.count for heard in session.heard()) > 10, 5.0)
            with pytest.raises(TimeoutError):
                scene.outside.namespace.run(lambda: socket.create_connection((str(HOST.addresses[0]), 23), 0.5))
            assert OUTSIDE.addresses[0] in _addresses_let_out(scene)


def _addresses_let_out(scene):
    with closing(scene.world.router.run(KernelNftables)) as door:
        lines = door.read().program.chains["lifeline_out"].lines
    return {part.network.network_address for line in lines for part in line.parts if isinstance(part, Within)}
