"""PURE: a cache of groups, and lists of groups, as JSON: what did not change is not encoded again.

A cached text is valid for the very object that it was made of, since objects never change. It contains the names of the
groups that the rules name, too; a group cannot be renamed, nor deleted while a rule names it.
"""

from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from operator import is_
from typing import Final
from weakref import ref

from ringfence.policy.model import Group
from ringfence.policy.values import GroupId  # noqa: TC001  as everywhere
from ringfence.wire.encode import Groups, encode_group

_BEGIN: Final = b'{"security-groups":['
_END: Final = b"]}"
MOST_KEPT_BYTES: Final = 64 * 2**20  # for groups, and again for lists


@dataclass(frozen=True, slots=True)
class _Listed:
    """An encoded list. The reference to ``groups`` is weak, because old versions keep all newer ones in memory."""

    groups: "ref[Groups]"
    shown: list[Group]
    parts: list[bytes]
    encoded: bytes


class GroupEncoder:
    """As ``encode_group``, and the answer of list-security-groups."""

    def __init__(self) -> None:
        self._groups: dict[GroupId, tuple[Group, bytes]] = {}
        self._groups_bytes = 0
        self._lists: dict[Hashable, _Listed] = {}

    def one(self, group: Group, groups: Groups) -> bytes:
        """One group; ``groups`` is where the names of peer groups are looked up."""
        known = self._groups.get(group.id)
        if known is not None and known[0] is group:
            return known[1]
        encoded = encode_group(group, groups)
        self._groups_bytes += len(encoded)
        if self._groups_bytes > MOST_KEPT_BYTES:
            self._groups.clear()
            self._groups_bytes = len(encoded)
        self._groups[group.id] = group, encoded
        return encoded

    def many(self, listed: Iterable[Group], groups: Groups, *, name: Hashable) -> bytes:
        """A list of some of ``groups``; the same ``name`` and the same ``groups`` must mean the same list.

        What a list has in common with the one before, from its beginning on, is not looked at again.
        """
        known = self._lists.get(name)
        if known is not None and known.groups() is groups:
            return known.encoded
        shown = list(listed)
        parts = [] if known is None else known.parts[: _count_alike(known.shown, shown)]
        parts += [self.one(group, groups) for group in shown[len(parts) :]]
        encoded = _join(parts)
        self._lists.pop(name, None)
        if sum(len(each.encoded) for each in self._lists.values()) + len(encoded) <= MOST_KEPT_BYTES:
            self._lists[name] = _Listed(ref(groups), shown, parts, encoded)
        return encoded


def _join(parts: list[bytes]) -> bytes:
    """All in one piece at once: of a long list, memory for another piece would cost more than copying."""
    if not parts:
        return _BEGIN + _END
    ends = [_BEGIN + parts[0], *parts[1:]]
    ends[-1] += _END
    return b",".join(ends)


def _count_alike(before: list[Group], after: list[Group]) -> int:
    """How many objects are identical from the beginning on."""
    alike = list(map(is_, before, after))
    return alike.index(False) if False in alike else len(alike)
