"""What a kill cannot show: that an acknowledgement comes only after the disk was told to keep the change."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("group_writers.py")
CALL = re.compile(r"\b(pwrite64|fdatasync|fsync|write)\(([^,)]*)")
GROUPS = 20  # each is created and given a rule: two acknowledgements


def test_every_acknowledgement_follows_a_sync_of_what_was_written(tmp_path):
    """The calls of one writer, seen by strace: written, then synced, then said."""
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed: apt install strace")
    trace = tmp_path / "trace"
    watched = [strace, "-f", "-y", "-e", "trace=pwrite64,fdatasync,fsync,write", "-o", trace]
    program = [sys.executable, PROGRAM, tmp_path / "store", "traced", "1", str(GROUPS)]
    done = subprocess.run([*watched, *program], capture_output=True, check=False, timeout=60)  # noqa: S603  our own
    if b"ptrace" in done.stderr:
        pytest.skip(f"no permission to trace: {done.stderr.decode().strip()}")
    calls = _calls(trace)
    assert calls.count("said") == 2 * GROUPS, done.stderr.decode()
    last = "said"
    for call in calls:
        assert call != "said" or last == "synced", "an acknowledgement came before the sync"
        if not (call == "synced" and last == "said"):  # a sync without news, as a checkpoint makes
            last = call


def _calls(trace):
    """What matters of the trace, in order: the log written, the log synced, an acknowledgement said."""
    found = []
    for line in trace.read_text(errors="replace").splitlines():
        match = CALL.search(line)
        if match is None:
            continue
        name, what = match.groups()
        if "-wal" in what:
            found.append("written" if name == "pwrite64" else "synced")
        elif name == "write" and what.startswith("1<"):
            found.append("said")
    return found
