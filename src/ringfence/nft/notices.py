"""The kernel's notifications about changes to its rules: which objects of our table were changed, and by whom.

Pure: received octets in, ``Heard`` out. A transaction comes as one or several datagrams that name each object, and a
last one (NEWGEN) with the kernel's count of transactions and the process (nf_tables_api.c: nft_commit_notify,
nf_tables_gen_notify).
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from ringfence.nft import messages
from ringfence.nft.messages import NEW_GENERATION, PROTOCOL_FAMILY, TABLE, message_type
from ringfence.nft.netlink import Attributes, number_of, pack_text, parse, text_of
from ringfence.policy.program.names import placed_name

_FRAME: Final = struct.Struct("=IHHIIB3x")  # nlmsghdr, and of nfgenmsg the family
_OUR_NAME: Final = pack_text(1, TABLE)  # how every message about something in a table of our name begins
_TABLE_TYPES: Final = frozenset({messages.NEW_TABLE, messages.DELETE_TABLE, messages.DESTROY_TABLE})
_CHAIN_TYPES: Final = frozenset({messages.NEW_CHAIN, messages.DELETE_CHAIN, messages.DESTROY_CHAIN})
_RULE_TYPES: Final = frozenset({messages.NEW_RULE, messages.DELETE_RULE, messages.DESTROY_RULE})
_ELEMENT_TYPES: Final = frozenset({messages.NEW_ELEMENTS, messages.DELETE_ELEMENTS, messages.DESTROY_ELEMENTS})
_SET_TYPES: Final = _ELEMENT_TYPES | {messages.NEW_SET, messages.DELETE_SET, messages.DESTROY_SET}
_OBJECT_TYPES: Final = frozenset({messages.NEW_OBJECT, messages.DELETE_OBJECT, messages.DESTROY_OBJECT})
_RULING_TYPES: Final = _TABLE_TYPES | _CHAIN_TYPES | _RULE_TYPES
_TABLE_OF: Final = {family: table for table, family in PROTOCOL_FAMILY.items()}
_SHOWN_NAME: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-:/")
_SHOWN_OBJECTS: Final = 3
_COUNT_RANGE: Final = 1 << 32


@dataclass(frozen=True, slots=True)
class Touched:
    """Names of objects in our table that were added, changed or deleted; maps are among the sets.

    ``table``: the table itself was added, deleted or switched off.
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
    """What was heard since the last time.

    ``authors``: the processes that touched our table. ``changes``: the kernel's count of transactions up to here.
    ``others``: tables, chains or lines outside our table were changed. ``lost``: the socket overflowed, so anything may
    have been touched. ``more``: more is waiting to be taken.
    """

    touched: Touched = NOTHING
    authors: frozenset[str] = frozenset()
    changes: int | None = None
    others: bool = False
    lost: bool = False
    more: bool = False


class Notices:
    """Collects what datagrams say; ``take`` returns what came since the last time."""

    def __init__(self) -> None:
        self._done = NOTHING
        self._current = NOTHING  # of the transaction whose datagrams are coming
        self._is_ours = False  # that transaction touches our table
        self._others = False
        self._authors: set[str] = set()
        self._changes: int | None = None
        # The last NEWGEN. It is parsed only when needed: of other programs' transactions only the last count matters.
        self._last_end: bytes | None = None
        self._known_until: int | None = None

    def feed(self, datagram: bytes) -> None:
        """Takes in a datagram; cheap if it is about other tables. Raises ``ValueError`` when a length is impossible."""
        if len(datagram) < _FRAME.size:
            raise ValueError(f"a netlink datagram of {len(datagram)} octets")
        if _FRAME.unpack_from(datagram)[1] == message_type(NEW_GENERATION):
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
        """Transactions up to this count are known already, and are not reported any more."""
        self._known_until = changes

    def take(self, *, lost: bool = False, more: bool = False) -> Heard:
        """All that was heard since the last time, including a transaction whose end has not come yet."""
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
        """Whether the transaction whose datagrams are coming is news."""
        return self._changes is None or self._is_news(self._changes + 1)

    def _is_news(self, changes: int) -> bool:
        """Whether a transaction is newer than the last known one; counts have 32 bits and wrap around."""
        return self._known_until is None or 0 < (changes - self._known_until) % _COUNT_RANGE < _COUNT_RANGE // 2


def _tells_of_others(datagram: bytes) -> bool:
    """Whether it names tables, chains or lines that are not ours; sets are left out, for nothing is read of those."""
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
    """Name and pid of the process. It may call itself anything, terminal controls included."""
    return f"{_shown(text_of(attributes.get(3, b'')))} (pid {number_of(attributes.get(2, b''))})"


def _shown(name: str) -> str:
    return "".join(letter if letter in _SHOWN_NAME else "?" for letter in name) or "?"
