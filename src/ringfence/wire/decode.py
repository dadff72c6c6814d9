"""PURE: decodes requests of the security group API into commands; ``Invalid`` names the field and what was expected.

Input: the raw body, path segments and query of a request. Output: values of ``policy.commands``. It knows no state:
``control`` decides whether a group exists. Shapes and limits are those of the official openapi.json. Unknown fields are
ignored, because official clients send some (Go attaches with a zero ``created-at``).
"""

import re
from dataclasses import dataclass
from enum import Enum
from typing import Annotated, Final, TypeVar
from uuid import UUID

import msgspec
from msgspec import UNSET, Meta, UnsetType

from ringfence.policy.commands import CreateGroup, GroupReference, RuleDraft
from ringfence.policy.errors import Invalid, NotFound
from ringfence.policy.model import Instance
from ringfence.policy.values import (
    Address,
    Cidr,
    Direction,
    GroupId,
    Icmp,
    InstanceId,
    Protocol,
    Visibility,
    parse_address,
    parse_cidr,
)
from ringfence.policy.wording import suggestion
from ringfence.wire.document import parse_document

_INSTANCE_ARGUMENTS: Final = frozenset({"ip-address", "labels", "manager-id", "manager-type"})
_MANAGER: Final = "instance-pool"

MAX_TEXT: Final = 255  # characters of a name or description (openapi.json)

_UUID_SIZE = 36  # characters, with hyphens; msgspec also accepts UUIDs without
_MISSING = re.compile(r"Object missing required field `([A-Za-z-]+)`")
_UNKNOWN = re.compile(r"[Oo]bject contains unknown field (.*)", re.DOTALL)
_LENGTH = re.compile(r"Expected `str` of length (<=|>=) ([0-9]+)")
_E = TypeVar("_E", bound=Enum)
_S = TypeVar("_S")

_Name = Annotated[str, Meta(min_length=1, max_length=MAX_TEXT)]
_Text = Annotated[str, Meta(max_length=MAX_TEXT)]
_Port = Annotated[int, Meta(ge=1, le=65535)]
_IcmpNumber = Annotated[int, Meta(ge=-1, le=254)]


class _Shape(msgspec.Struct, frozen=True, rename="kebab"):
    """A request body: null is refused where openapi.json does not say nullable, so that None never opens all ports."""


class _GroupShape(_Shape, frozen=True):
    name: _Name
    description: _Text | UnsetType = UNSET


class _IcmpShape(_Shape, frozen=True):
    type: _IcmpNumber | None = None
    code: _IcmpNumber | None = None


class _PeerShape(_Shape, frozen=True):
    id: str | UnsetType = UNSET
    name: str | UnsetType = UNSET
    visibility: str | UnsetType = UNSET


class _RuleShape(_Shape, frozen=True):
    flow_direction: str
    protocol: str
    network: str | UnsetType = UNSET
    security_group: _PeerShape | UnsetType = UNSET
    start_port: _Port | UnsetType = UNSET
    end_port: _Port | UnsetType = UNSET
    icmp: _IcmpShape | UnsetType | None = UNSET
    description: _Text | UnsetType = UNSET


class _SourceShape(_Shape, frozen=True):
    cidr: str


class _InstanceShape(_Shape, frozen=True):
    id: str


class _WornShape(_Shape, frozen=True):
    instance: _InstanceShape


def decode_group(body: bytes) -> CreateGroup:
    """The body of create-security-group."""
    shape = convert(parse_document(body), _GroupShape)
    return CreateGroup(shape.name, _given(shape.description))


def decode_rule(body: bytes) -> RuleDraft:
    """The body of add-rule-to-security-group, as given: no defaults are filled in."""
    shape = convert(parse_document(body), _RuleShape)
    protocol = parse_choice(shape.protocol, Protocol, field="$.protocol")
    start, end = _ports(shape, protocol)
    return RuleDraft(
        direction=parse_choice(shape.flow_direction, Direction, field="$.flow-direction"),
        protocol=protocol,
        peer=_peer(shape),
        start_port=start,
        end_port=end,
        icmp=_icmp(shape, protocol),
        description=_given(shape.description),
    )


def decode_source(body: bytes) -> Cidr:
    """The body of add- and remove-external-source."""
    return parse_cidr(convert(parse_document(body), _SourceShape).cidr, field="$.cidr")


def decode_worn(body: bytes) -> InstanceId:
    """The body of attach- and detach-instance: which instance."""
    return InstanceId(_uuid(convert(parse_document(body), _WornShape).instance.id, field="$.instance.id"))


def decode_visibility(arguments: tuple[tuple[str, str], ...]) -> Visibility:
    """Which groups list-security-groups was asked for; private ones unless it says otherwise."""
    refuse_arguments(arguments, known=frozenset({"visibility"}))
    values = [value for _, value in arguments]
    if len(values) > 1:
        raise Invalid("expected at most once", field="?visibility")
    return parse_choice(values[0], Visibility, field="?visibility") if values else Visibility.PRIVATE


@dataclass(frozen=True, slots=True)
class InstanceFilter:
    """Which instances list-instances was asked for. No instance here has labels or a manager."""

    address: Address | None = None
    nothing: bool = False

    def matches(self, instance: Instance) -> bool:
        return not self.nothing and (self.address is None or self.address in instance.addresses)


def decode_instance_filter(arguments: tuple[tuple[str, str], ...]) -> InstanceFilter:
    """What list-instances was asked for by its query arguments, all of openapi.json; all instances without any."""
    refuse_arguments(arguments, known=_INSTANCE_ARGUMENTS)
    given = dict(arguments)
    if len(given) < len(arguments):
        raise Invalid("expected each query argument at most once", field="?")
    text = given.pop("ip-address", None)
    address = None if text is None else parse_address(text, field="?ip-address")
    if "manager-id" in given:
        _uuid(given["manager-id"], field="?manager-id")
    if given.get("manager-type", _MANAGER) != _MANAGER:
        raise Invalid(f"expected {_MANAGER}, the only type of manager", field="?manager-type")
    return InstanceFilter(address, nothing=bool(given))


def refuse_arguments(arguments: tuple[tuple[str, str], ...], *, known: frozenset[str] = frozenset()) -> None:
    """Raises ``Invalid`` for an unknown query argument: to ignore a filter would be to answer another question."""
    for name, _ in arguments:
        if name not in known:
            allowed = f"; known here: {', '.join(sorted(known))}" if known else ""
            raise Invalid(f"no such query argument{allowed}", field=f"?{ascii(name)[1:-1][:64]}")


def parse_path_id(text: str, *, what: str) -> UUID:
    """A path segment as UUID; raises ``NotFound`` if it is none, because nothing can have such an id."""
    found = _find_uuid(text)
    if found is None:
        raise NotFound(f"there is no {what} {ascii(text)[:64]}: an id is a UUID")
    return found


def parse_choice(text: str, choices: type[_E], *, field: str) -> _E:
    """The member of ``choices`` whose value is exactly ``text``; ``Invalid`` lists the values."""
    for choice in choices:
        if choice.value == text:
            return choice
    spellings = ", ".join(sorted(str(choice.value) for choice in choices))
    raise Invalid(f"expected one of {spellings}, got {ascii(text)[:64]}", field=field)


def convert(value: object, shape: type[_S], *, at: str = "$") -> _S:
    """``value``, found at the path ``at``, as ``shape``; ``Invalid`` names the first field that does not fit."""
    if not isinstance(value, dict):
        raise Invalid("expected an object of names and values", field=at)
    try:
        return msgspec.convert(value, shape)
    except msgspec.ValidationError as error:
        refusal = _refusal(str(error), at)
        unknown = _UNKNOWN.search(str(refusal)) if refusal.field == at else None
        if unknown is None:
            raise refusal from error
        hint = suggestion(unknown[1], getattr(shape, "__struct_encode_fields__", ()))
        raise Invalid(f"{unknown[0]}{hint}", field=at) from error


def _refusal(text: str, at: str) -> Invalid:
    """Msgspec's message (``Expected `int`, got `bool` - at `$.start-port```) in the form of all our errors."""
    text, _, within = text.partition(" - at `")
    path = at + within.removesuffix("`").removeprefix("$")
    missing = _MISSING.fullmatch(text)
    if missing:
        return Invalid("required, but not given", field=f"{path}.{missing[1]}")
    sentence = _UNKNOWN.sub(_briefly, _LENGTH.sub(_bound, text).replace("`", ""))
    return Invalid(sentence[:1].lower() + sentence[1:], field=path)


def _briefly(unknown: re.Match[str]) -> str:
    return f"object contains unknown field {ascii(unknown[1])[1:-1][:64]}"


def _bound(length: re.Match[str]) -> str:
    side = "most" if length[1] == "<=" else "least"
    return f"expected at {side} {length[2]} {'character' if length[2] == '1' else 'characters'}"


def _given(value: _S | UnsetType) -> _S | None:
    return None if isinstance(value, UnsetType) else value


def _ports(shape: _RuleShape, protocol: Protocol) -> tuple[int | None, int | None]:
    start, end = _given(shape.start_port), _given(shape.end_port)
    if (start is not None or end is not None) and not protocol.has_ports:
        name = "start-port" if start is not None else "end-port"
        raise Invalid(f"expected ports only with protocol tcp or udp, not {protocol.value}", field=f"$.{name}")
    if start is not None and end is not None and start > end:
        raise Invalid(f"expected a port of at least start-port {start}, got {end}", field="$.end-port")
    return start, end


def _icmp(shape: _RuleShape, protocol: Protocol) -> Icmp | None:
    given = _given(shape.icmp)
    if given is None:
        return None
    if not protocol.has_types:
        raise Invalid(f"expected only with protocol icmp or icmpv6, not {protocol.value}", field="$.icmp")
    icmp = Icmp(given.type, given.code)
    if icmp.any_type and not icmp.any_code:
        raise Invalid(f"a code ({icmp.code}) needs a type from 0 to 254", field="$.icmp.type")
    return icmp


def _peer(shape: _RuleShape) -> Cidr | GroupReference:
    network, group = shape.network, shape.security_group
    if not isinstance(network, UnsetType) and isinstance(group, UnsetType):
        return parse_cidr(network, field="$.network")
    if not isinstance(group, UnsetType) and isinstance(network, UnsetType):
        return _reference(group)
    given = "neither" if isinstance(network, UnsetType) else "both"
    raise Invalid(f"expected exactly one of network and security-group, got {given}", field="$")


def _reference(shape: _PeerShape) -> GroupReference:
    """A private group by id, a public one by name, as exo sends it: public groups show no id."""
    name, id_ = _given(shape.name), _given(shape.id)
    chosen = parse_choice(_given(shape.visibility) or "private", Visibility, field="$.security-group.visibility")
    if chosen is Visibility.PUBLIC:
        if not name:
            raise Invalid("expected the name of a public group, which has no id", field="$.security-group.name")
        return GroupReference(None, name, chosen)
    if id_ is None:
        raise Invalid("expected the id of a group, or name and visibility public", field="$.security-group.id")
    return GroupReference(GroupId(_uuid(id_, field="$.security-group.id")), None, chosen)


def _uuid(text: str, *, field: str) -> UUID:
    found = _find_uuid(text)
    if found is None:
        raise Invalid(f"expected a UUID, got {ascii(text)[:64]}", field=field)
    return found


def _find_uuid(text: str) -> UUID | None:
    if len(text) != _UUID_SIZE:
        return None
    try:
        return msgspec.convert(text, UUID)
    except msgspec.ValidationError:
        return None
