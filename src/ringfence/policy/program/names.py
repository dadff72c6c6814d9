"""The names of all kernel objects of ringfence: made of ids and fixed words, never of a person's text.

Whatever is in our table and not in the desired program gets deleted. Names contain whole ids, so that no two collide
and a reader of ``nft list`` can search for one.
"""

import re
from collections.abc import Iterable
from enum import Enum
from functools import lru_cache
from hashlib import blake2b
from typing import Final, NewType
from uuid import UUID

from ringfence.policy.addresses import Family
from ringfence.policy.values import Direction, GroupId, RuleId

ProfileId = NewType("ProfileId", str)  # stands for one combination of groups; equal combinations share their chains

PORTS: Final = "ports"  # managed interfaces, programmed or not
OWN_IPV4: Final = "own_ipv4"  # the source addresses that an interface may use: MAC and IP together
OWN_IPV6: Final = "own_ipv6"
OWN_MAC: Final = "own_mac"
ANY_MAC: Final = "any_mac"  # interfaces whose MAC address nobody declared, and their source addresses
ANY_MAC_IPV4: Final = "any_mac_ipv4"
ANY_MAC_IPV6: Final = "any_mac_ipv6"
ANY_LINK_LOCAL: Final = "any_link_local"
UPLINKS: Final = "uplinks"  # interfaces of a self host
HOST_IPV4: Final = "host_ipv4"  # its addresses, which nobody outside may use as source
HOST_IPV6: Final = "host_ipv6"
EGRESS_MAP: Final = "egress"  # interface -> chain of what its instance may send
INGRESS_MAP: Final = "ingress"  # interface -> chain of what its instance may receive
# The same for instances behind a bridge, where IP sees the bridge and not the port: by address.
INSTANCES4: Final = "instances_ipv4"
INSTANCES6: Final = "instances_ipv6"
EGRESS4_MAP: Final = "egress_ipv4"
EGRESS6_MAP: Final = "egress_ipv6"
INGRESS4_MAP: Final = "ingress_ipv4"
INGRESS6_MAP: Final = "ingress_ipv6"
OBSERVED: Final = "observed"  # interfaces of observed instances: nothing is dropped, only logged
OBSERVED4: Final = "observed_ipv4"  # the same behind a bridge
OBSERVED6: Final = "observed_ipv6"
DROPS: Final = "drops"  # tallies by interface, made by packets: what was dropped
WOULD_DROPS: Final = "would_drops"  # and what would have been, were the instance not observed

ALLOW: Final = "allow"
FRESH: Final = "fresh"  # its only element is the present generation: a flow with this mark need not be judged again

# The members of all groups, by family, each with its group's number. One set, because the kernel finds a set by walking
# the list of all sets at every reference: with one for each of ten thousand groups, that took longer than all the rest.
MEMBERS: Final[dict[Family, str]] = {4: "members_4", 6: "members_6"}
_NUMBER_MASK: Final = (1 << 64) - 1
_MEMBER_SET: Final = re.compile(r"m_([0-9a-f]{16})_([46])")

# What just added rules allow until their lines are in place (``hasten``), by direction and family.
LATE: Final[dict[tuple[Direction, Family], str]] = {
    (Direction.INGRESS, 4): "late_in_4",
    (Direction.INGRESS, 6): "late_in_6",
    (Direction.EGRESS, 4): "late_out_4",
    (Direction.EGRESS, 6): "late_out_6",
}

CLOSED_COUNTER: Final = "closed"
SPOOFED_COUNTER: Final = "spoofed"
ROGUE_COUNTER: Final = "rogue"
STRAY_COUNTER: Final = "stray"
LINK_COUNTER: Final = "link"
MARTIAN_COUNTER: Final = "martian"


class TableFamily(Enum):
    """Which of our tables: ``table inet ringfence`` sees packets, ``table bridge ringfence`` the frames of bridges."""

    INET = "inet"
    BRIDGE = "bridge"


BRIDGE: Final = "bridge:"  # prefix of the names of objects in the bridge table; the kernel's name is the rest

FRAME_PORTS: Final = f"{BRIDGE}ports"
FRAME_PROGRAMMED: Final = f"{BRIDGE}programmed"  # the ports with a programmed instance
FRAME_OWN_MAC: Final = f"{BRIDGE}own_mac"
FRAME_OWN_IPV4: Final = f"{BRIDGE}own_ipv4"
FRAME_OWN_IPV6: Final = f"{BRIDGE}own_ipv6"
FRAME_DROPS: Final = f"{BRIDGE}drops"  # as DROPS, of the frames that are logged
FRAME_CLOSED_COUNTER: Final = f"{BRIDGE}closed"
FRAME_SPOOFED_COUNTER: Final = f"{BRIDGE}spoofed"
FRAME_ROGUE_COUNTER: Final = f"{BRIDGE}rogue"
FRAME_ALIEN_COUNTER: Final = f"{BRIDGE}alien"  # neither IPv4, IPv6 nor ARP, or tagged
FRAME_FLOODED_COUNTER: Final = f"{BRIDGE}flooded"  # sent to a port that it is not meant for

# By these a packet is taken for an instance's own before its rules are asked; in the bridge table also after.
OWN_SETS: Final = (OWN_IPV4, OWN_IPV6, OWN_MAC, ANY_MAC, ANY_MAC_IPV4, ANY_MAC_IPV6, ANY_LINK_LOCAL)
FRAME_SETS: Final = (FRAME_PORTS, FRAME_PROGRAMMED, FRAME_OWN_MAC, FRAME_OWN_IPV4, FRAME_OWN_IPV6)
# The sets of the inet table that say which packets are whose: a change of these may take a flow's permission.
PORT_SETS: Final = frozenset({PORTS, *OWN_SETS, UPLINKS, HOST_IPV4, HOST_IPV6, INSTANCES4, INSTANCES6})

_SHORT: Final = {Direction.INGRESS: "in", Direction.EGRESS: "out"}
_GROUP_CHAIN: Final = re.compile(r"g_([0-9a-f]{32})_(in|out)(?:_\d.*)?")  # with suffix: a chain of its tree (branches)


def place_of(name: str) -> tuple[TableFamily, str]:
    """The table that an object is in, and its name there."""
    if name.startswith(BRIDGE):
        return TableFamily.BRIDGE, name.removeprefix(BRIDGE)
    return TableFamily.INET, name


def bare_name(name: str) -> str:
    """An object's name in its table."""
    return place_of(name)[1]


def placed_name(family: TableFamily, name: str) -> str:
    """The inverse of ``place_of``."""
    return f"{BRIDGE}{name}" if family is TableFamily.BRIDGE else name


def profile_of(groups: Iterable[GroupId]) -> ProfileId:
    """The profile of a combination of groups; the order in which they are worn does not matter."""
    digest = blake2b(b"".join(group.bytes for group in sorted(groups)), digest_size=8)
    return ProfileId(digest.hexdigest())


def profile_chain(profile: ProfileId, direction: Direction) -> str:
    return f"p_{profile}_{_SHORT[direction]}"


def group_chain(group: GroupId, direction: Direction) -> str:
    return f"g_{group.hex}_{_SHORT[direction]}"


def parse_group_chain(name: str) -> tuple[GroupId, Direction] | None:
    """Group and direction of a chain with a group's rules for packets of a flow; None for any other chain."""
    found = _GROUP_CHAIN.fullmatch(name)
    if found is None:
        return None
    return GroupId(UUID(hex=found[1])), next(way for way, short in _SHORT.items() if short == found[2])


def late_chain(direction: Direction) -> str:
    """The chain for packets that no line of a group allowed, before they are refused (``late``)."""
    return f"late_{_SHORT[direction]}"


def untracked_group_chain(group: GroupId, direction: Direction) -> str:
    """The chain with a group's rules for packets that conntrack cannot place in a flow."""
    return f"{group_chain(group, direction)}_untracked"


def member_set(group: GroupId, family: Family) -> str:
    """The set of a group's member addresses; in the kernel all of these are elements of ``MEMBERS``."""
    return numbered_set(group.int & _NUMBER_MASK, family)


def numbered_set(number: int, family: Family) -> str:
    """The member set of the group with this number: the last 16 digits of its id, nearly all of them random."""
    return f"m_{number:016x}_{family}"


def parse_numbered_set(name: str) -> tuple[int, Family] | None:
    """Number and family of a member set; None for every other set."""
    found = _MEMBER_SET.fullmatch(name)
    return (int(found[1], 16), 4 if found[2] == "4" else 6) if found else None


def source_set(group: GroupId, family: Family) -> str:
    return f"x_{group.hex}_{family}"


def is_of_rules(set_: str) -> bool:
    """Whether a set holds a group's members or sources, or just added rules; the others are about ports."""
    return set_.startswith(("m_", "x_", "late_"))


def aside_set(set_: str, number: int) -> str:
    """The ``number``-th other name for a group's set. No group has it, for its id would not be valid (RFC 9562)."""
    found = parse_numbered_set(set_)
    return numbered_set((found[0] ^ 1 << 63) + number & _NUMBER_MASK, found[1]) if found else f"{set_}_aside_{number}"


def aside_chain(chain: str, number: int) -> str:
    """The ``number``-th other name for a chain of a profile or group."""
    return f"{chain}_aside_{number}"


@lru_cache(maxsize=64)  # all lines of a rule are compiled one after another
def rule_counter(rule: RuleId) -> str:
    return f"r_{rule.hex}"


def refusal_chain(reason: str, *, would: bool) -> str:
    """The chain for refused packets, or with ``would`` the one for those of observed instances."""
    return f"would_{reason}" if would else f"refuse_{reason}"


def would_counter(reason: str) -> str:
    """The counter of packets that would have been dropped, were their instance not observed."""
    return f"would_{reason}"


def parse_rule_counter(name: str) -> RuleId | None:
    """The rule that a counter of this name counts for; None for any other counter."""
    if not name.startswith("r_") or len(name) != 34:  # noqa: PLR2004  "r_" and 32 hexadecimal digits
        return None
    try:
        return RuleId(UUID(hex=name[2:]))
    except ValueError:
        return None


def denied_counter(profile: ProfileId, direction: Direction) -> str:
    return f"d_{profile}_{_SHORT[direction]}"


def open_counter(profile: ProfileId) -> str:
    """The counter of packets that leave by default, because no group of the profile has an egress rule."""
    return f"o_{profile}_out"


def is_of_policy(chain: str) -> bool:
    """Whether a chain belongs to a profile or a group; all others are fixed, and refuse what these do not allow."""
    return chain.startswith(("p_", "g_"))
