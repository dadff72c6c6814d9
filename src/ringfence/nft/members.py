"""Where the kernel holds a member set: all groups' members are in one set for each family, behind the group's number.

The program has one set per group, but the kernel would walk the list of all sets at every reference to one. A group's
number is two constants of 32 bits; nft text can only load one as the packet's mark, masked to nothing, with the
constant put in.
"""

from typing import Final

from ringfence.nft.fields import HOST_ORDER
from ringfence.policy.addresses import Family
from ringfence.policy.program.names import MEMBERS, numbered_set, parse_numbered_set

WORDS: Final = 2  # registers of 32 bits that a number takes
FAMILY_OF: Final[dict[str, Family]] = {name: family for family, name in MEMBERS.items()}
_LOW: Final = 0xFFFFFFFF


def kernel_set(name: str) -> tuple[str, tuple[int, ...]]:
    """The kernel's set with a set's elements, and the constants before each of them there; none for other sets."""
    if not name.startswith("m_") or (found := parse_numbered_set(name)) is None:
        return name, ()
    number, family = found
    return MEMBERS[family], (number >> 32, number & _LOW)


def member_set_of(words: tuple[int, ...], family: Family) -> str:
    """The inverse of ``kernel_set``."""
    return numbered_set(words[0] << 32 | words[1], family)


def word_octets(word: int) -> bytes:
    """A constant as octets of an element or a register."""
    return word.to_bytes(4, HOST_ORDER)
