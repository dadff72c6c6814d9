"""PURE: decodes a change of several commands, in which an operator names groups and instances by name or id.

Input: the raw body, look-ups of names, and ids for new objects. Output: ``ChangeOrder``, or an error that names the
field. An edit can name what earlier edits of the change create.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Annotated, Final, assert_never
from uuid import UUID

import msgspec
from msgspec import Meta

from ringfence.policy.commands import (
    AddRule,
    AddSource,
    Attach,
    CreateGroup,
    DeleteGroup,
    DeleteRule,
    Detach,
    Edit,
    GroupCommand,
    GroupReference,
    InstanceCommand,
    Observe,
    RemoveSource,
    RuleDraft,
)
from ringfence.policy.errors import Invalid
from ringfence.policy.insight.services import SERVICE
from ringfence.policy.named import GROUP
from ringfence.policy.values import (
    MAX_PORT,
    Cidr,
    Direction,
    GroupId,
    Icmp,
    InstanceId,
    Protocol,
    RuleId,
    parse_address,
    parse_cidr,
)
from ringfence.wire.decode import MAX_TEXT, convert
from ringfence.wire.document import parse_document

MAX_EDITS: Final = 100_000
MAX_EXPIRES_S: Final = 10 * 365 * 24 * 3600
MAX_CONFIRM_S: Final = 24 * 3600
TrialTime = Annotated[int, Meta(ge=1, le=MAX_CONFIRM_S)]
_MAX_ICMP: Final = 254
_ADDRESS: Final = re.compile(r"[0-9A-Fa-f:.]*[:.][0-9A-Fa-f:.]*(/\d+)?")
_Name = Annotated[str, Meta(min_length=1, max_length=MAX_TEXT)]
_Text = Annotated[str, Meta(max_length=MAX_TEXT)]


class _Edit(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="kebab", tag_field="edit"):
    """One command; a group or an instance is its name or id."""


class _CreateGroup(_Edit, frozen=True, tag="create-group"):
    name: _Name
    description: _Text | None = None


class _DeleteGroup(_Edit, frozen=True, tag="delete-group"):
    group: str


class _AddRule(_Edit, frozen=True, tag="add-rule"):
    group: str
    service: str
    from_: str | None = msgspec.field(name="from", default=None)
    to: str | None = None
    description: _Text | None = None
    expires_s: Annotated[int, Meta(ge=1, le=MAX_EXPIRES_S)] | None = None


class _DeleteRule(_Edit, frozen=True, tag="delete-rule"):
    group: str
    rule: str


class _AddSource(_Edit, frozen=True, tag="add-source"):
    group: str
    source: str


class _RemoveSource(_Edit, frozen=True, tag="remove-source"):
    group: str
    source: str


class _Attach(_Edit, frozen=True, tag="attach"):
    group: str
    instance: str


class _Detach(_Edit, frozen=True, tag="detach"):
    group: str
    instance: str


class _Observe(_Edit, frozen=True, tag="observe"):
    observe: bool
    instance: str | None = None
    group: str | None = None


_EditShape = (
    _CreateGroup | _DeleteGroup | _AddRule | _DeleteRule | _AddSource | _RemoveSource | _Attach | _Detach | _Observe
)


class _ChangeShape(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="kebab"):
    edits: Annotated[tuple[_EditShape, ...], Meta(min_length=1, max_length=MAX_EDITS)]
    dry_run: bool = False
    confirm_s: TrialTime | None = None
    force: bool = False


class _AllowanceShape(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="kebab"):
    target: str
    service: str
    expires_s: Annotated[int, Meta(ge=1, le=MAX_EXPIRES_S)]
    address: str | None = None


@dataclass(frozen=True, slots=True)
class Allowance:
    """A temporary rule, ``draft``, for ``lasts_s`` seconds; ``target``: the group or instance, by name or id."""

    target: str
    draft: RuleDraft
    lasts_s: int


@dataclass(frozen=True, slots=True)
class Directory:
    """Look-ups by name or id. Each gets the field to name in ``NotFound``; a peer may also be a public group."""

    group: Callable[[str, str], GroupId]
    peer: Callable[[str, str], GroupReference]
    instance: Callable[[str, str], InstanceId]
    wearers: Callable[[GroupId], tuple[InstanceId, ...]]


@dataclass(frozen=True, slots=True)
class ChangeOrder:
    """What an operator wants changed in one revision, or with ``dry_run`` only planned.

    ``confirm_s``: it is undone after so many seconds unless confirmed. ``force``: skip the lock-out guard.
    """

    edits: tuple[Edit, ...]
    dry_run: bool
    confirm_s: int | None
    force: bool


def decode_change(body: bytes, directory: Directory, new_id: Callable[[], UUID]) -> ChangeOrder:
    """The body of POST /admin/v1/change."""
    shape = convert(parse_document(body), _ChangeShape)
    reader = _Reader(directory, new_id)
    edits = tuple(reader.read(edit, f"$.edits[{n}]") for n, edit in enumerate(shape.edits))
    return ChangeOrder(edits, shape.dry_run, shape.confirm_s, shape.force)


def decode_allowance(body: bytes, caller: str | None) -> Allowance:
    """The body of POST /admin/v1/allow. Without an address the rule is for ``caller``, None if that is unknown."""
    shape = convert(parse_document(body), _AllowanceShape)
    peer = _caller(caller) if shape.address is None else _network(shape.address, "$.address")
    draft = parse_draft(shape.service, peer, Direction.INGRESS, field="$.service")
    return Allowance(shape.target, draft, shape.expires_s)


def parse_draft(service: str, peer: Cidr | GroupReference, direction: Direction, *, field: str) -> RuleDraft:
    """A rule for ``tcp/22``, ``tcp/80-90``, ``udp``, ``icmp``, ``icmp/8``, ``icmp/3/4``, ``esp``."""
    expected = f"expected a service such as tcp/443, tcp/80-90, udp, icmp/8, icmp/3/4 or esp, got {ascii(service)[:64]}"
    found = SERVICE.fullmatch(service)
    protocol = next((one for one in Protocol if found and one.value == found["protocol"]), None)
    if found is None or protocol is None:
        raise Invalid(expected, field=field)
    first, second = (None if found[name] is None else int(found[name]) for name in ("first", "second"))
    if first is None:
        return RuleDraft(direction, protocol, peer)
    if protocol.has_ports and found["mark"] != "/" and 1 <= first <= (second or first) <= MAX_PORT:
        return RuleDraft(direction, protocol, peer, first, first if second is None else second)
    if protocol.has_types and found["mark"] != "-" and max(first, second or 0) <= _MAX_ICMP:
        return RuleDraft(direction, protocol, peer, icmp=Icmp(first, -1 if second is None else second))
    raise Invalid(expected, field=field)


@dataclass(slots=True)
class _Reader:
    """Reads edits in their order. ``created``: the groups that the edits before would create, by name."""

    directory: Directory
    new_id: Callable[[], UUID]
    created: dict[str, GroupId] = field(default_factory=dict)

    def read(self, shape: _EditShape, path: str) -> Edit:
        new_id = self.new_id()
        command = self._command(shape, path)
        if isinstance(command, CreateGroup):
            self.created[command.name] = GroupId(new_id)
        return Edit(command, new_id)

    def _command(self, shape: _EditShape, path: str) -> GroupCommand | InstanceCommand:
        match shape:
            case _CreateGroup():
                return CreateGroup(shape.name, shape.description)
            case _Observe():
                return Observe(self._observed(shape, path), shape.observe)
            case _:
                return self._on_group(shape, self._group(shape.group, f"{path}.group"), path)

    def _on_group(
        self,
        shape: _DeleteGroup | _AddRule | _DeleteRule | _AddSource | _RemoveSource | _Attach | _Detach,
        group: GroupId,
        path: str,
    ) -> GroupCommand:
        match shape:
            case _DeleteGroup():
                return DeleteGroup(group)
            case _AddRule():
                return AddRule(group, self._draft(shape, path), shape.expires_s)
            case _DeleteRule():
                return DeleteRule(group, _rule_id(shape.rule, f"{path}.rule"))
            case _AddSource() | _RemoveSource():
                of_source = AddSource if isinstance(shape, _AddSource) else RemoveSource
                return of_source(group, _network(shape.source, f"{path}.source"))
            case _Attach() | _Detach():
                of_member = Attach if isinstance(shape, _Attach) else Detach
                return of_member(group, self.directory.instance(shape.instance, f"{path}.instance"))
            case _:
                assert_never(shape)

    def _observed(self, shape: _Observe, path: str) -> tuple[InstanceId, ...]:
        """The named instance, or all that wear the named group now."""
        if shape.instance is not None and shape.group is None:
            return (self.directory.instance(shape.instance, f"{path}.instance"),)
        if shape.group is not None and shape.instance is None:
            return self.directory.wearers(self.directory.group(shape.group, f"{path}.group"))
        raise Invalid("expected exactly one of instance and group", field=path)

    def _draft(self, shape: _AddRule, path: str) -> RuleDraft:
        given = {"from": shape.from_, "to": shape.to}
        if sum(value is not None for value in given.values()) != 1:
            raise Invalid("expected exactly one of from (ingress) and to (egress)", field=path)
        [(name, text)] = [(name, text) for name, text in given.items() if text is not None]
        direction = Direction.INGRESS if name == "from" else Direction.EGRESS
        peer = self._peer(text, f"{path}.{name}")
        draft = parse_draft(shape.service, peer, direction, field=f"{path}.service")
        return replace(draft, description=shape.description)

    def _group(self, text: str, path: str) -> GroupId:
        name = text.removeprefix(GROUP)
        return self.created.get(name) or self.directory.group(name, path)

    def _peer(self, text: str, path: str) -> Cidr | GroupReference:
        """A network or an address, or else a group's name or id; ``group:NAME`` is always a group."""
        name = text.removeprefix(GROUP)
        if name == text and _ADDRESS.fullmatch(text):
            return _network(text, path)
        created = self.created.get(name)
        return GroupReference(created, None) if created else self.directory.peer(name, path)


def _rule_id(text: str, path: str) -> RuleId:
    try:
        return RuleId(UUID(text))
    except ValueError:
        expected = f"expected the id of a rule, as ringfence rule list shows it, got {ascii(text)[:64]}"
        raise Invalid(expected, field=path) from None


def _caller(address: str | None) -> Cidr:
    if address is None:
        raise Invalid(
            "where you come from is not known here: give it, by --address at the command line", field="$.address"
        )
    try:
        return _network(address, "$.address")
    except Invalid as error:
        text = f"you come from {address}, which no rule can mean: give the address that the host will see"
        raise Invalid(text, field="$.address") from error


def _network(text: str, path: str) -> Cidr:
    """A network; a single address is the network of only that address."""
    if "/" in text:
        return parse_cidr(text, field=path)
    address = parse_address(text, field=path)
    return parse_cidr(f"{address}/{address.max_prefixlen}", field=path)
