"""The history: who did what, when and from where. A hash chain: each line's hash covers the hash of the line before.

A line that was changed, removed or inserted later does not fit its neighbours. The oldest lines are deleted in time;
the hash of the last one deleted is kept as the anchor of those that follow. The newest line is never deleted.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, fields
from hashlib import sha256
from typing import Any, Final
from uuid import UUID

import msgspec

from ringfence.policy.errors import NotFound
from ringfence.policy.facts import Fact
from ringfence.policy.values import OrganisationId, RuleId
from ringfence.store.database import Database, Values
from ringfence.store.journal import decode_facts

ANCHOR: Final = "history-anchor"  # in the table meta: number and hash of the last line deleted
_COLUMNS: Final = (
    "number, at, organisation, actor, actor_name, address, request_id, action, subject,"
    " revision_before, revision_after, result"
)
_KEPT_FROM: Final = (
    "coalesce((SELECT min(number) FROM audit WHERE at >= ?), (SELECT max(number) FROM audit))"  # the first that stays
)
_CANONICAL: Final = json.JSONEncoder(sort_keys=True, separators=(",", ":"))
_QUICK: Final = msgspec.json.Encoder(order="sorted")  # takes a fifth of the time
_DELETE: Final = b"\x7f"
SET_ANCHOR: Final = (
    f"INSERT INTO meta (name, value) SELECT '{ANCHOR}', number || ' ' || coalesce(hash, '') FROM audit"  # noqa: S608  our own words
    f" WHERE number = (SELECT max(number) FROM audit WHERE number < {_KEPT_FROM})"
    " ON CONFLICT (name) DO UPDATE SET value = excluded.value"
)
FORGET: Final = f"DELETE FROM audit WHERE number < {_KEPT_FROM}"  # noqa: S608  our own words
FORGET_UNDO: Final = (
    "UPDATE revision SET undo = NULL WHERE undo IS NOT NULL AND at < ? AND number NOT IN"
    " (SELECT trial_revision FROM organisation WHERE trial_revision IS NOT NULL)"
)


@dataclass(frozen=True, slots=True)
class HistoryLine:
    """One change. ``actor``: a key id, ``host:NAME`` or ``operator``. ``actor_name``: the key's name at that time."""

    number: int
    at: int  # seconds since the epoch
    organisation: str
    actor: str
    actor_name: str | None
    address: str | None
    request_id: str | None
    action: str
    subject: str
    revision_before: int
    revision_after: int
    result: str
    previous: str  # the hash of the line before
    hash: str | None


_FIELDS: Final = tuple(field.name for field in fields(HistoryLine))[:-1]  # all that the hash covers


@dataclass(frozen=True, slots=True)
class HistoryQuery:
    """Lines numbered above ``after``, at or after ``since`` and before ``until`` (seconds since the epoch).

    Of one organisation, or of all. The oldest ``limit`` of them, or the newest if ``newest``, in ascending order.
    """

    after: int = 0
    since: int = 0
    until: int | None = None
    organisation: OrganisationId | None = None
    limit: int = 1000
    newest: bool = False


@dataclass(frozen=True, slots=True)
class Checked:
    """How many lines of a chain fit, and the number of the first one that does not, None if all do.

    ``unchained`` counts lines without a hash, from before there was a chain; they come before all others.
    """

    lines: int
    unchained: int
    broken: int | None


@dataclass(slots=True)
class Chain:
    """The end of the chain, where a batch of changes is appended."""

    number: int
    hash: str

    def link(self, values: Values) -> Values:
        """Number, ``values`` and hash of the next line; ``values`` are all other columns in their order."""
        self.number += 1
        self.hash = _hash_of(dict(zip(_FIELDS, (self.number, *values, self.hash), strict=True)))
        return (self.number, *values, self.hash)


def load_chain(database: Database) -> Chain:
    """The end of the chain as it is stored."""
    for number, hash_ in database.query("SELECT number, hash FROM audit ORDER BY number DESC LIMIT 1"):
        return Chain(number, hash_ or "")
    return Chain(0, "")


def hash_of(line: Mapping[str, Any]) -> str:
    """The hash of a line: SHA-256 of its JSON without ``hash``, keys sorted, no spaces, ASCII."""
    return _hash_of({name: line[name] for name in line if name != "hash"})


def _hash_of(hashed: Mapping[str, Any]) -> str:
    encoded = _QUICK.encode(hashed)
    if not encoded.isascii() or _DELETE in encoded:  # only these does the quick encoder write differently
        encoded = _CANONICAL.encode(hashed).encode()
    return sha256(encoded).hexdigest()


def read_history(database: Database, wanted: HistoryQuery) -> list[HistoryLine]:
    """The lines that ``wanted`` describes, each with the hash of the line before it."""
    sql, values = _selection(wanted)
    found = [_line(row) for row in database.query(sql, values)]
    return found[::-1] if wanted.newest else found


def read_undo(database: Database, organisation: OrganisationId, after: int, until: int) -> tuple[Fact, ...]:
    """The facts that undo the organisation's revisions above ``after`` up to ``until``, newest first.

    Raises:
        NotFound: some of them are no longer stored, or the organisation is younger than ``after``.
    """
    query = "SELECT min(number) FROM revision WHERE organisation = ?"
    for (first,) in database.query(query, (str(organisation),)):
        if first is None or after < first:
            raise NotFound(f"the organisation is younger than revision {after}: it begins with revision {first}")
    found: list[Fact] = []
    for (text,) in database.query(
        "SELECT undo FROM revision WHERE organisation = ? AND number > ? AND number <= ? ORDER BY number DESC",
        (str(organisation), after, until),
    ):
        if text is None:
            raise NotFound(f"how it was at revision {after} is not known any more: see --keep-history of the server")
        found += decode_facts(text)
    return tuple(found)


def check_history(database: Database) -> Checked:
    """Checks the whole stored chain. It is read by one statement, so that lines deleted meanwhile do no harm."""
    anchor = f"(SELECT value FROM meta WHERE name = '{ANCHOR}')"  # noqa: S608  our own words
    with closing(database.query(f"SELECT {_COLUMNS}, hash, {anchor} FROM audit ORDER BY number")) as rows:  # noqa: S608  our own words
        return check_lines(_with_previous(rows))


def read_births(database: Database) -> dict[RuleId, int]:
    """When each rule was created, in seconds since the epoch, as far as the history goes back. O(history)."""
    found: dict[RuleId, int] = {}
    for at, undo in database.query("SELECT at, undo FROM revision WHERE undo LIKE '%\"RuleDeleted\"%' ORDER BY number"):
        found |= {RuleId(UUID(fact["rule"])): at for name, fact in json.loads(undo) if name == "RuleDeleted"}
    return found


def check_lines(lines: Iterable[Mapping[str, Any]]) -> Checked:
    """Checks that each line's hash is that of its content, and that ``previous`` is the hash of the line before.

    Lines are in the form in which they are exported; ``previous`` of the first one is not checked.
    """
    count = unchained = 0
    last: Mapping[str, Any] | None = None
    for line in lines:
        if line["hash"] is None and last is None:
            unchained += 1
            continue
        fits = last is None or line["previous"] == last["hash"]  # its number is in its own hash
        if not fits or line["hash"] != hash_of(line):
            return Checked(count, unchained, line["number"])
        count, last = count + 1, line
    return Checked(count, unchained, None)


def _with_previous(rows: Iterable[Values]) -> Iterator[dict[str, Any]]:
    """Stored lines in the exported form. ``previous`` of the first one is the hash of the anchor, which it must fit."""
    previous: str | None = None
    for *values, hash_, anchor in rows:
        if previous is None:
            previous = _anchored(anchor)
        yield asdict(HistoryLine(*(*values, previous, hash_)))
        previous = hash_ or ""


def _line(row: Values) -> HistoryLine:
    *values, hash_, before, anchor = row
    return HistoryLine(*(*values, before or _anchored(anchor), hash_))


def _anchored(anchor: str | None) -> str:
    """The hash of the last line deleted, "" if none was deleted or it had no hash."""
    return anchor.partition(" ")[2] if anchor else ""


def _selection(wanted: HistoryQuery) -> tuple[str, Values]:
    conditions = ["a.number > ?", "a.at >= ?"]
    values: list[object] = [wanted.after, wanted.since]
    if wanted.until is not None:
        conditions.append("a.at < ?")
        values.append(wanted.until)
    if wanted.organisation is not None:
        conditions.append("a.organisation = ?")
        values.append(str(wanted.organisation))
    columns = ", ".join(f"a.{name.strip()}" for name in _COLUMNS.split(","))
    order = "DESC" if wanted.newest else "ASC"
    sql = (
        f"SELECT {columns}, a.hash, b.hash, (SELECT value FROM meta WHERE name = '{ANCHOR}')"  # noqa: S608  our own words
        f" FROM audit AS a LEFT JOIN audit AS b ON b.number = a.number - 1"
        f" WHERE {' AND '.join(conditions)} ORDER BY a.number {order} LIMIT ?"
    )
    return sql, (*values, wanted.limit)
