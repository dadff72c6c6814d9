"""PURE: what ``aws ec2 describe-security-groups`` prints -> a policy document (API EC2, SecurityGroup)."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import msgspec

from ringfence.policy.commands import GroupReference, RuleDraft
from ringfence.policy.desired import DesiredGroup, Document
from ringfence.policy.errors import Invalid
from ringfence.policy.values import (
    ANY,
    MAX_PORT,
    PROTOCOL_NUMBER,
    Cidr,
    Direction,
    Icmp,
    Protocol,
    parse_cidr,
)
from ringfence.wire.decode import MAX_TEXT, convert

NOBODY: Final = "nobody"  # a group that nobody wears: a rule that names it allows nothing
_ALL: Final = "-1"
_NUMBERS: Final = {str(number): protocol for protocol, number in PROTOCOL_NUMBER.items()}
_OPEN: Final = frozenset(("0.0.0.0/0", "::/0"))


class _Shape(msgspec.Struct, frozen=True, rename="pascal"):
    """A part of the answer; fields that do not affect who may talk to whom are ignored."""


class _Range(_Shape, frozen=True):
    cidr_ip: str | None = None
    cidr_ipv6: str | None = msgspec.field(default=None, name="CidrIpv6")
    description: str | None = None


class _Pair(_Shape, frozen=True):
    group_id: str
    user_id: str | None = None
    peering_status: str | None = None
    description: str | None = None


class _Permission(_Shape, frozen=True):
    ip_protocol: str
    from_port: int | None = None
    to_port: int | None = None
    ip_ranges: tuple[_Range, ...] = ()
    ipv6_ranges: tuple[_Range, ...] = msgspec.field(default=(), name="Ipv6Ranges")
    prefix_list_ids: tuple[object, ...] = ()
    user_id_group_pairs: tuple[_Pair, ...] = ()


class _Group(_Shape, frozen=True):
    group_name: str
    group_id: str
    description: str | None = None
    owner_id: str | None = None
    ip_permissions: tuple[_Permission, ...] = ()
    ip_permissions_egress: tuple[_Permission, ...] = ()


class _Answer(_Shape, frozen=True):
    security_groups: tuple[_Group, ...]


@dataclass(frozen=True, slots=True)
class Imported:
    """A document, and what is to be told about it."""

    document: Document
    notes: tuple[str, ...]


def read_aws(value: object, *, spell_out: bool) -> Imported:
    """Every group with its rules. ``spell_out``: write a rule for each known protocol instead of one for all.

    AWS lets out what a rule names, and nothing without one; here all may leave a group without egress rules. So a group
    that lets everything out gets none, and one that lets nothing out gets a rule to a group that nobody wears.

    Raises:
        Invalid: no rule can express a permission; the field is its path.
    """
    answer = convert(value, _Answer)
    notes: list[str] = []
    reader = _Reader(_names(answer), notes, spell_out)
    groups = [reader.group(group, f"$.SecurityGroups[{n}]") for n, group in enumerate(answer.security_groups)]
    if any(isinstance(rule.peer, GroupReference) and rule.peer.name == NOBODY for one in groups for rule in one.rules):
        groups.append(DesiredGroup(NOBODY, "worn by nobody: rules that name it allow nothing"))
    return Imported(Document(tuple(groups)), tuple(dict.fromkeys(notes)))


def _names(answer: _Answer) -> dict[str, str]:
    """A unique name for each group's id: in AWS, groups of different networks may have the same name."""
    count = Counter(group.group_name for group in answer.security_groups)
    return {
        group.group_id: group.group_name if count[group.group_name] == 1 else f"{group.group_name} ({group.group_id})"
        for group in answer.security_groups
    }


@dataclass(frozen=True, slots=True)
class _Reader:
    names: Mapping[str, str]
    notes: list[str]
    spell_out: bool

    def group(self, group: _Group, path: str) -> DesiredGroup:
        name = self.names[group.group_id]
        ingress = self._rules(group.ip_permissions, Direction.INGRESS, f"{path}.IpPermissions")
        rules = [*ingress, *self._egress(group, name, f"{path}.IpPermissionsEgress")]
        return DesiredGroup(name, group.description or None, rules=tuple(dict.fromkeys(rules)))

    def _egress(self, group: _Group, name: str, path: str) -> list[RuleDraft]:
        if not group.ip_permissions_egress:
            return [RuleDraft(Direction.EGRESS, Protocol.TCP, GroupReference(None, NOBODY))]
        opened = {
            one.cidr_ip or one.cidr_ipv6
            for permission in group.ip_permissions_egress
            if permission.ip_protocol == _ALL
            for one in (*permission.ip_ranges, *permission.ipv6_ranges)
        } & _OPEN
        if "0.0.0.0/0" in opened:
            if len(opened) < len(_OPEN):
                self.notes.append(f"group {name}: AWS lets it send IPv4 anywhere and no IPv6; here it may send both")
            return []
        return list(self._rules(group.ip_permissions_egress, Direction.EGRESS, path))

    def _rules(self, permissions: tuple[_Permission, ...], way: Direction, path: str) -> Iterator[RuleDraft]:
        for n, permission in enumerate(permissions):
            at = f"{path}[{n}]"
            for protocol in self._protocols(permission.ip_protocol, at):
                for peer, description in self._peers(permission, at):
                    yield _rule(permission, protocol, way, (peer, description), at)

    def _protocols(self, text: str, path: str) -> list[Protocol]:
        if text == _ALL:
            if self.spell_out:
                self.notes.append(f"{path}: of all protocols only those that rules can name")
                return list(PROTOCOL_NUMBER)
            hint = "a server takes it with --offer-all-protocol only; or --spell-out"
            self.notes.append(f"{path}: protocol all ({hint})")
            return [Protocol.ALL]
        found = next((one for one in PROTOCOL_NUMBER if one.value == text), _NUMBERS.get(text))
        if found is None:
            raise Invalid(f"no rule can name protocol {ascii(text)[:64]}", field=f"{path}.IpProtocol")
        return [found]

    def _peers(self, permission: _Permission, path: str) -> Iterator[tuple[Cidr | GroupReference, str | None]]:
        if permission.prefix_list_ids:
            raise Invalid("a prefix list is known to AWS alone: write out its networks", field=f"{path}.PrefixListIds")
        for key, ranges in (("IpRanges", permission.ip_ranges), ("Ipv6Ranges", permission.ipv6_ranges)):
            for n, one in enumerate(ranges):
                text = one.cidr_ip or one.cidr_ipv6 or ""
                yield parse_cidr(text, field=f"{path}.{key}[{n}]"), one.description
        for n, pair in enumerate(permission.user_id_group_pairs):
            if pair.group_id not in self.names:
                told = f"group {ascii(pair.group_id)[:64]} is not in the file: describe all groups, of one account"
                raise Invalid(told, field=f"{path}.UserIdGroupPairs[{n}].GroupId")
            yield GroupReference(None, self.names[pair.group_id]), pair.description


def _rule(
    permission: _Permission,
    protocol: Protocol,
    way: Direction,
    peer: tuple[Cidr | GroupReference, str | None],
    path: str,
) -> RuleDraft:
    first, last = permission.from_port, permission.to_port
    ports: tuple[int | None, int | None] = (None, None)
    icmp = None
    if permission.ip_protocol == _ALL:
        pass
    elif protocol.has_types and first not in (None, ANY):
        icmp = Icmp(first, None if last in (None, ANY) else last)
    elif protocol.has_ports and first is not None and last is not None and (first, last) != (0, MAX_PORT):
        ports = max(first, 1), last
        if not 0 <= first <= last or not last:
            raise Invalid(f"expected ports from 1 to {MAX_PORT}, got {first}-{last}", field=f"{path}.FromPort")
    description = peer[1][:MAX_TEXT] if peer[1] else None
    return RuleDraft(way, protocol, peer[0], *ports, icmp, description)
