"""What ``doctor`` finds of the agent's folder: who the host is, what a boot would begin with, whether there is room."""

from base64 import b64encode

import pytest

from fake_doors import FakeMachine
from ringfence.agent.cache import Cache
from ringfence.agent.doctor import State
from ringfence.agent.doctor_folder import examine_folder, read_credential
from ringfence.agent.doors.files import SystemFiles
from ringfence.agent.doors.machine import Room
from ringfence.wire.feed import FeedView
from views import view


@pytest.fixture
def found(tmp_path):
    Cache(SystemFiles(), tmp_path, "h1").save_view(FeedView("e1", view(7)))
    machine = FakeMachine()

    def find(host="h1", declared="h1", room=machine.left):
        machine.left = room
        findings = examine_folder(tmp_path, host, declared, files=SystemFiles(), machine=machine)
        return {one.about: one for one in findings}

    return find


def test_a_healthy_folder_has_room_and_a_policy_for_the_next_boot(found):
    assert {one.state for one in found().values()} == {State.OK}
    assert "revision 7" in found()["kept policy"].text


@pytest.mark.parametrize(
    ("room", "state", "said"),
    [
        (None, State.PROBLEM, "cannot be written"),
        (Room(0, 100), State.PROBLEM, "room for 0 MiB"),
        (Room(1 << 30, 0), State.PROBLEM, "and 0 files"),
        (Room(9 << 20, 100), State.WARNING, "room for 9 MiB and 100 files more"),
    ],
)
def test_a_folder_that_takes_nothing_more_is_told(found, room, state, said):
    folder = found(room=room)["folder"]
    assert (folder.state, said in folder.text) == (state, True), folder


def test_a_kept_policy_that_is_damaged_or_not_there_is_told_before_the_boot_that_needs_it(found, tmp_path):
    (tmp_path / "view.json").write_bytes((tmp_path / "view.json").read_bytes()[:-1])
    assert found()["kept policy"].state is State.WARNING
    assert "damaged" in found()["kept policy"].text
    (tmp_path / "view.json").unlink()
    assert "none: with it every managed port" in found()["kept policy"].text


def test_the_inventory_of_another_host_is_told(found):
    (told,) = [one for one in found(declared="h2").values() if one.state is State.PROBLEM]
    assert "the inventory is that of host h2" in told.text
    assert found(declared=None).keys() == {"folder", "kept policy"}


@pytest.mark.parametrize(
    ("content", "mode", "said"),
    [
        (None, 0o600, "nor is there"),
        (b"", 0o600, "expected the lines"),
        (b"RINGFENCE_HOST=h1\nRINGFENCE_HOST_KEY=aaaa\n", 0o600, "is 3 bytes in base64"),
        (b"RINGFENCE_HOST=h1\nRINGFENCE_HOST_KEY=" + b64encode(bytes(32)), 0o644, "chmod 600"),
    ],
)
def test_a_credential_that_no_agent_could_use_is_a_finding_and_ends_nothing(tmp_path, content, mode, said):
    if content is not None:
        (tmp_path / "credential").write_bytes(content)
        (tmp_path / "credential").chmod(mode)
    credential, (finding,) = read_credential(tmp_path, {})
    assert credential is None
    assert finding.state is State.PROBLEM
    assert said in finding.text


def test_a_credential_that_is_given_by_the_environment_alone_is_one(tmp_path):
    environment = {"RINGFENCE_HOST": "h1", "RINGFENCE_HOST_KEY": b64encode(bytes(32)).decode()}
    credential, findings = read_credential(tmp_path, environment)
    assert (credential.host, findings) == ("h1", [])
