"""What the demo tells people to type."""

import sys

import pytest

from ringfence.world.demo import program


@pytest.mark.parametrize(
    ("argument", "path", "typed"),
    [
        ("/clone/.venv/bin/ringfence", "/nowhere", "/clone/.venv/bin/ringfence"),
        ("/clone/src/ringfence/__main__.py", "/nowhere", "ringfence"),
        ("/clone/.venv/bin/ringfence", "{here}", "ringfence"),
    ],
)
def test_a_program_that_is_on_no_path_is_named_whole(monkeypatch, tmp_path, argument, path, typed):
    (tmp_path / "ringfence").touch(mode=0o755)
    monkeypatch.setattr(sys, "argv", [argument])
    monkeypatch.setenv("PATH", path.format(here=tmp_path))
    assert program() == typed
