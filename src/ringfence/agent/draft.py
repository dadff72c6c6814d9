"""A first inventory for a machine that is to protect itself, from what it looks like: to read, and to correct. Pure.

Input: its links, and the connection over which its operator works. Output: TOML that the agent takes as it is.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from ringfence.policy.errors import OperatorError
from ringfence.policy.lockout import Connection
from ringfence.policy.values import Address, HostName

# What leads to containers, virtual machines and tunnels: judged at the uplinks, unless the way out is by one.
_INNER: Final = frozenset({"bridge", "dummy", "gre", "ipip", "sit", "tun", "veth", "vxlan", "wireguard"})
_NO_SESSION: Final = """
# What no group may close: your way in when all else is wrong. Say from where, and take the # away.
# [[failsafe]]
# port = 22
# protocol = "tcp"
# sources = ["198.51.100.0/24"]
"""


@dataclass(frozen=True, slots=True)
class Link:
    """``kind`` as `ip -details link` has it, None for a real interface; ``is_way_out``: a default route leads there."""

    name: str
    kind: str | None
    addresses: tuple[Address, ...]
    is_way_out: bool = False

    @property
    def is_uplink(self) -> bool:
        return self.is_way_out or self.kind not in _INNER


def draft_inventory(host: HostName, links: Sequence[Link], session: Connection | None) -> str:
    """The inventory of ``host`` as its own instance, with what was left out told in comments.

    Raises:
        OperatorError: no link has a lasting address.
    """
    reached = [link for link in links if link.addresses]
    uplinks = [link for link in reached if link.is_uplink] or reached
    if not uplinks:
        raise OperatorError("draft an inventory", "no interface here has an address that lasts and is not on loopback")
    left = ", ".join(f"{link.name} ({link.kind})" for link in reached if link not in uplinks)
    lines = [
        f"# Left out, so that nothing is filtered there: {left}." if left else "# Every interface that has an address.",
        f"host = {_text(host)}",
        'kind = "self"',
        "",
        "[[instance]]",
        f"name = {_text(host)}",
    ]
    for link in uplinks:
        addresses = ", ".join(_text(str(address)) for address in link.addresses)
        lines += ["", "[[instance.interface]]", f"name = {_text(link.name)}", f"addresses = [{addresses}]"]
    return "\n".join(lines) + "\n" + (_NO_SESSION if session is None else "\n".join(_failsafe(session)))


def _failsafe(session: Connection) -> Iterable[str]:
    client = session.client
    yield "\n# What no group may close: your way in when all else is wrong. By now where this SSH session comes from."
    yield "[[failsafe]]"
    yield f"port = {session.server_port}"
    yield 'protocol = "tcp"'
    yield f"sources = [{_text(f'{client}/{client.max_prefixlen}')}]\n"


def _text(text: str) -> str:
    """As a TOML string: JSON's are some of those."""
    return json.dumps(text)
