"""PURE: groups as JSON, of which one that did not change is written out once, and so is a list.

What is kept is found by the very objects that it was made of, which never change. A group is shown with the names of
the groups that its rules name, and these neither change nor end while they are named.
"""

from collections.abc import Hashable, Iterable
from typing import Final

from ringfence.policy.model import Group
from ringfence.policy.values import GroupId  # noqa: TC001  as everywhere
from ringfence.wire.encode import Groups, encode_group

MOST_KEPT_BYTES: Final = 64 * 2**20  # of groups, and again of lists


class GroupEncoder:
    """As ``encode_group``, and the answer of list-security-groups."""

    def __init__(self) -> None:
        self._groups: dict[GroupId, tuple[Group, bytes]] = {}
        self._groups_bytes = 0
        self._of: Groups | None = None
        self._lists: dict[Hashable, bytes] = {}

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
        """A list of some of ``groups``; one of the same ``name`` and the same ``groups`` is the same list."""
        if self._of is not groups:
            self._of = groups
            self._lists.clear()
        known = self._lists.get(name)
        if known is None:
            known = b'{"security-groups":[%b]}' % b",".join(self.one(group, groups) for group in listed)
            if sum(map(len, self._lists.values())) + len(known) <= MOST_KEPT_BYTES:
                self._lists[name] = known
        return known
