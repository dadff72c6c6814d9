"""What the kernel tells of changes to its rules: which objects of our table they named, and who made them.

Pure: received octets in, ``Heard`` out. One transaction comes as one or several datagrams that name each object, and a
last one (NEWGEN) with the kernel's count of transactions and the process (nf_tables_api.c: nft_commit_notify,
nf_tables_gen_notify).
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from ringfence.nft.batch import PROTOCOL_FAMILY, TABLE
from ringfence.nft.netlink import SUBSYSTEM_NFTABLES, Attributes, number_of, pack_text, parse, text_of
from ringfence.policy.program.names import placed_name

_FRAME: Final = struct.Struct("=IHHIIB3x")  # nlmsghdr, and of nfgenmsg the family
_NEW_GENERATION: Final = 15
_OUR_NAME: Final = pack_text(1, TABLE)  # how every message about something in a table of our name begins
_TABLE_TYPES: Final = frozenset({0, 2, 26})
_CHAIN_TYPES: Final = frozenset({3, 5, 27})
_RULE_TYPES: Final = frozenset({6, 8, 28})
_SET_TYPES: Final = frozenset({9, 11, 12, 14, 29, 30})
_OBJECT_TYPES: Final = frozenset({18, 20, 31})
_RULING_TYPES: Final = _TABLE_TYPES | _CHAIN_TYPES | _RULE_TYPES
_TABLE_OF: Final = {family: table for table, family in PROTOCOL_FAMILY.items()}
_SHOWN_NAME: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-:/")
_SHOWN_OBJECTS: Final = 3
_COUNT_RANGE: Final = 1 << 32


@dataclass(frozen=True, slots=True)
class Touched:
    """Names of objects in our table that were made, changed or removed; maps are among the sets.

    ``table``: the table itself was: made, removed, or switched off.
    """

    table: bool = False
    chains: frozenset[str] = frozenset()
    sets: frozenset[str] = frozenset()
    counters: frozenset[str] = frozenset()

    def __or__(self, other: "Touched") -> "Touched":
        return Touched(
            self.table or other.table,
            self.chains | other.chains,
            self.sets | other.sets,
            self.counters | other.counters,
        )

    def __len__(self) -> int:
        return self.table + len(self.chains) + len(self.sets) + len(self.counters)

    @property
    def text(self) -> str:
        """For people: the first few names."""
        kinds = (("chain", self.chains), ("set", self.sets), ("counter", self.counters))
        named = ["table"] if self.table else []
        named += [f"{kind} {_shown(name)}" for kind, names in kinds for name in sorted(names)]
        more = len(named) - _SHOWN_OBJECTS
        return ", ".join(named[:_SHOWN_OBJECTS]) + (f" and {more} more" if more > 0 else "")


NOTHING: Final = Touched()


@dataclass(frozen=True, slots=True)
class Heard:
    """``authors``: the processes that touched our table. ``changes``: the kernel's count of transactions up to here.

    ``others``: tables, chains or lines that are not ours were made, changed or removed. ``lost``: there was more than
    the socket could hold, so anything may have been touched. ``more``: there is more to be taken at once.
    """

    touched: Touched = NOTHING
    authors: frozenset[str] = frozenset()
    changes: int | None = None
    others: bool = False
    lost: bool = False
    more: bool = False


class Notices:
    """Puts together what datagrams tell; ``take`` gives what came since it was last asked."""

    def __init__(self) -> None:
        self._done = NOTHING
        self._current = NOTHING  # of the transaction that is being told of
        self._is_ours = False  # it touches our table
        self._others = False
        self._authors: set[str] = set()
        self._changes: int | None = None
        self._last_end: bytes | None = (
            None  # read when it matters: of others' transactions only the last one's count does
        )
        self._known_until: int | None = None

    def feed(self, datagram: bytes) -> None:
        """Cheap for what concerns only others' tables. Raises ``ValueError`` when a length is impossible."""
        if len(datagram) < _FRAME.size:
            raise ValueError(f"a netlink datagram of {len(datagram)} octets")
        if _FRAME.unpack_from(datagram)[1] == SUBSYSTEM_NFTABLES << 8 | _NEW_GENERATION:
            self._last_end = datagram
            if self._is_ours:
                self._end_transaction()
            return
        self._others = self._others or _tells_of_others(datagram)
        if _OUR_NAME in datagram:
            self._end_transaction()  # the one before
            if self._is_told():
                named = _named_in(datagram)
                self._is_ours |= bool(named)
                self._current |= named

    def forget_until(self, changes: int) -> None:
        """What transactions up to this count did is known: they are told of no more."""
        self._known_until = changes

    def take(self, *, lost: bool = False, more: bool = False) -> Heard:
        """What was told so far, also of a transaction that is not told to its end yet."""
        self._end_transaction()
        touched, self._done = self._done, NOTHING
        if self._is_told():
            touched, self._current = touched | self._current, NOTHING
        heard = Heard(touched, frozenset(self._authors), self._changes, self._others, lost, more)
        self._authors.clear()
        self._others = False
        return heard

    def _end_transaction(self) -> None:
        if self._last_end is None:
            return
        attributes = parse(self._last_end[_FRAME.size :])
        self._last_end = None
        self._changes = number_of(attributes[1])
        if self._is_ours and self._is_news(self._changes):
            self._done |= self._current
            self._authors.add(_author(attributes))
        self._current = NOTHING
        self._is_ours = False

    def _is_told(self) -> bool:
        """Whether the transaction that is being told of is news."""
        return self._changes is None or self._is_news(self._changes + 1)

    def _is_news(self, changes: int) -> bool:
        """Counts are of 32 bits and come round."""
        return self._known_until is None or 0 < (changes - self._known_until) % _COUNT_RANGE < _COUNT_RANGE // 2


def _tells_of_others(datagram: bytes) -> bool:
    """Whether it names others' tables, chains or lines. What is in their sets decides nothing that we tell of."""
    return any(
        type_ in _RULING_TYPES and not (family in _TABLE_OF and payload.startswith(_OUR_NAME))
        for type_, family, payload in _messages(datagram)
    )


def _named_in(datagram: bytes) -> Touched:
    chains: set[str] = set()
    sets: set[str] = set()
    counters: set[str] = set()
    table = False
    for type_, family, payload in _messages(datagram):
        place = _TABLE_OF.get(family)
        if place is None or not payload.startswith(_OUR_NAME):
            continue
        if type_ in _TABLE_TYPES:
            table = True
        elif type_ in _CHAIN_TYPES:
            chains.add(placed_name(place, text_of(parse(payload)[3])))
        elif type_ in _RULE_TYPES:
            chains.add(placed_name(place, text_of(parse(payload)[2])))
        elif type_ in _SET_TYPES:
            sets.add(placed_name(place, text_of(parse(payload)[2])))
        elif type_ in _OBJECT_TYPES:
            counters.add(placed_name(place, text_of(parse(payload)[2])))
    return Touched(table, frozenset(chains), frozenset(sets), frozenset(counters))


def _messages(datagram: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Type within nf_tables, family and attributes of each message."""
    offset = 0
    while offset + _FRAME.size <= len(datagram):
        length, type_, _, _, _, family = _FRAME.unpack_from(datagram, offset)
        if length < _FRAME.size or offset + length > len(datagram):
            raise ValueError(f"netlink message of {length} octets at {offset} of {len(datagram)}")
        yield type_ & 0xFF, family, datagram[offset + _FRAME.size : offset + length]
        offset += (length + 3) & ~3


def _author(attributes: Attributes) -> str:
    """A process may call itself anything, terminal controls included."""
    return f"{_shown(text_of(attributes.get(3, b'')))} (pid {number_of(attributes.get(2, b''))})"


def _shown(name: str) -> str:
    return "".join(letter if letter in _SHOWN_NAME else "?" for letter in name) or "?"
