"""Policies written in TOML for people to read: groups of rules in words, instances, and the ports under our care."""

import tomllib
from dataclasses import replace

from policies import group, instance, snapshot
from ringfence.policy.program.compile import LocalPorts


def load_policy(path):
    """The snapshot and the ports of a file; each rule carries its own words as its description."""
    text = tomllib.loads(path.read_text(encoding="utf-8"))
    groups = [_described(name, lines) for name, lines in text["groups"].items()]
    instances = [
        instance(name, *fields["addresses"], wears=fields["wears"], mac=fields.get("mac_is_known", True))
        for name, fields in text.get("instances", {}).items()
    ]
    return snapshot(*groups, *instances), LocalPorts(tuple(text["managed"]))


def _described(name, lines):
    made = group(name, *lines)
    words = [line for line in lines if not line.startswith("source ")]
    return replace(made, rules=tuple(replace(r, description=w) for r, w in zip(made.rules, words, strict=True)))
