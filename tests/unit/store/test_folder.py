"""The data folder: whose the files in it are."""

import os

import pytest

from ringfence.cli.app import run

SERVER = 65534  # any user but root: who the server runs as


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes files for another user")
@pytest.mark.parametrize(
    "line",
    ["server init --name localhost", "key create", "server reseal", "server restore {backup}"],
)
def test_what_root_makes_in_the_servers_folder_is_the_servers(tmp_path, line):
    """The server could not open it otherwise, and would not start."""
    folder = tmp_path / "data"
    folder.mkdir(mode=0o700)
    os.chown(folder, SERVER, SERVER)
    if line == "server reseal":
        assert run(["key", "create", "--data", str(folder)]) == 0
    if "{backup}" in line:
        run(["key", "create", "--data", str(tmp_path / "old")])
        run(["server", "backup", str(tmp_path / "backup"), "--data", str(tmp_path / "old")])
    assert run([*line.format(backup=tmp_path / "backup").split(), "--data", str(folder)]) == 0
    made = {path.name: path.stat() for path in folder.rglob("*")}
    assert made
    assert {(found.st_uid, found.st_gid) for found in made.values()} == {(SERVER, SERVER)}, made.keys()
