"""PURE: ufw's own rules files, as it loads them -> chains.

Taken are the files of ``/etc/ufw`` (before, user and after, for IPv4 and IPv6), which say exactly what is loaded;
``ufw status`` prints for people, in their language, and leaves out what it lets in by itself.
"""

import re
from collections.abc import Mapping
from typing import Final

from ringfence.policy.addresses import Family
from ringfence.policy.errors import Invalid
from ringfence.wire.imports.boxes import EVERYTHING
from ringfence.wire.imports.chains import Chain, Line, Verdict
from ringfence.wire.imports.iptables import Tables, Wanted, read_tables

FILES: Final[dict[Family, tuple[str, ...]]] = {
    4: ("before.rules", "user.rules", "after.rules"),
    6: ("before6.rules", "user6.rules", "after6.rules"),
}
DEFAULTS: Final = "default/ufw"  # beside ufw's folder: what becomes of everything else
_POLICIES: Final = {"ACCEPT": Verdict.ACCEPT, "DROP": Verdict.DROP, "REJECT": Verdict.DROP}
_SETTING: Final = re.compile(r"\s*DEFAULT_(INPUT|OUTPUT)_POLICY=[\"']?([A-Z]+)[\"']?\s*")


def read_ufw(files: Mapping[str, str], wanted: Wanted) -> Tables:
    """The filter table that ufw would load; ``files`` maps names (``user.rules``, ``default/ufw``) to their texts.

    Raises:
        Invalid: a file is missing, or is none of ufw's.
    """
    for name in (*FILES[wanted.family], DEFAULTS):
        if name not in files:
            raise Invalid(f"{wanted.name}: there is no {name}: expected ufw's folder, such as /etc/ufw")
    policies = _policies(files[DEFAULTS])
    own: dict[str, Chain] = {}
    for name in FILES[wanted.family]:
        within = Wanted(f"{wanted.name}/{name}", wanted.family, wanted.interface)
        own |= read_tables(files[name], within).get("filter", {})
    return {"filter": own | _frame(own, "ufw" if wanted.family == 4 else "ufw6", policies)}  # noqa: PLR2004  a family


def _policies(text: str) -> dict[str, str]:
    matches = filter(None, map(_SETTING.fullmatch, text.splitlines()))
    found: dict[str, str] = {match[1]: match[2] for match in matches}
    for way in ("INPUT", "OUTPUT"):
        if found.get(way) not in _POLICIES:
            raise Invalid(f"{DEFAULTS}: expected DEFAULT_{way}_POLICY to be one of {', '.join(_POLICIES)}")
    return found


def _frame(own: Mapping[str, Chain], prefix: str, policies: Mapping[str, str]) -> dict[str, Chain]:
    """What ufw puts around its files: which chains are asked in turn, and where they send a packet to the default."""
    frame = {f"{prefix}-logging-{word}": Chain() for word in ("deny", "allow")}
    for way, policy in policies.items():
        low, place = way.lower(), f"{DEFAULTS} (DEFAULT_{way}_POLICY)"
        end = Line(place, EVERYTHING, _POLICIES[policy])
        turns = [name for part in ("before", "user", "after") if (name := f"{prefix}-{part}-{low}") in own]
        asked = (Line(f"ufw's own jump to {name}", EVERYTHING, Verdict.JUMP, name) for name in turns)
        frame[f"{prefix}-skip-to-policy-{low}"] = Chain((end,))
        frame[way] = Chain(tuple(asked), _POLICIES[policy], place)
    return frame
