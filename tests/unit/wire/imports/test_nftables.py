"""`nft -j list ruleset`: what the input chains let in, and what no rule can say. The JSON is made by nft itself."""

import json
import shutil
import subprocess

import pytest

from ringfence.wire.imports.chains import Leave
from ringfence.wire.imports.nftables import accepted_by_ruleset

HOOK = "type filter hook input priority filter; policy drop;"
LEAVE = Leave()

pytestmark = pytest.mark.skipif(shutil.which("nft") is None, reason="nft is not here to print what it prints")


def listed(text):
    """What nft says of a ruleset that it checks and does not load."""
    line = ["nft", "--json", "--check", "--echo", "--file", "-"]
    made = subprocess.run(line, input=text, capture_output=True, text=True, check=False)  # noqa: S603  the test's own
    assert made.returncode == 0, made.stderr
    return {"nftables": [one.get("add", one) for one in json.loads(made.stdout)["nftables"]]}


def imported(*lines, family="inet", more="", leave=LEAVE, interface=None, input_only=False):
    rules = "\n".join(lines)
    text = f"table {family} t {{\n{more}\nchain input {{ {HOOK}\n{rules}\n}}\n}}\n"
    return accepted_by_ruleset(listed(text), "rules", leave, interface=interface, input_only=input_only)
