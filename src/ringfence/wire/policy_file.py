"""PURE: a policy file (YAML) <-> the values of ``policy.desired``; errors name file, line and field.

It accepts the part of YAML that people write without thinking of YAML: maps, lists, text, whole numbers, booleans.
Aliases and tags are refused. ``no``, ``12:30`` and dates are text, unlike in YAML 1.1.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Final

import msgspec
import yaml
from msgspec import Meta

from ringfence.policy.commands import GroupReference, RuleDraft
from ringfence.policy.desired import GROUPS, PEER_WAY, DesiredGroup, DesiredInstance, Document
from ringfence.policy.errors import CallerError, Invalid
from ringfence.policy.values import (
    MAX_PORT,
    Cidr,
    Direction,
    HostName,
    Icmp,
    Kind,
    Protocol,
    Visibility,
    parse_address,
    parse_cidr,
)
from ringfence.wire.decode import MAX_TEXT, convert, parse_choice
from ringfence.wire.document import JsonValue

VERSION: Final = 1
_MAX_DEPTH: Final = 12
_PORTS: Final = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?")
_BARE_COLONS: Final = re.compile(r"[:,{\[-]\s*::")
_GROUP: Final = re.compile(r"(public )?group (.+)", re.DOTALL)

_Name = Annotated[str, Meta(min_length=1, max_length=MAX_TEXT)]
_Text = Annotated[str, Meta(max_length=MAX_TEXT)]
_IcmpNumber = Annotated[int, Meta(ge=-1, le=254)]
_Values = dict[str, object]


class _Shape(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A part of the file. Unknown names are refused: a misspelled one must not silently leave out a rule."""


class _FileShape(_Shape, frozen=True, rename="kebab"):
    version: int
    groups: _Values = {}
    public_groups: _Values = {}
    instances: _Values = {}
    assertions: list[str] = []


class _GroupShape(_Shape, frozen=True):
    description: _Text | None = None
    sources: list[str] = []
    ingress: list[object] = []
    egress: list[object] = []


class _RuleShape(_Shape, frozen=True, rename={"from_": "from"}):
    protocol: str
    ports: int | str | None = None
    type: _IcmpNumber | None = None
    code: _IcmpNumber | None = None
    from_: str | None = None
    to: str | None = None
    description: _Text | None = None


class _InstanceShape(_Shape, frozen=True, rename="kebab"):
    groups: list[str] | None = None
    public_groups: list[str] | None = None
    addresses: list[str] = []
    host: str | None = None
    observe: bool | None = None
    kind: str = Kind.ROUTED.value


class _Loader(yaml.CSafeLoader):  # five times as fast as SafeLoader; every wheel of PyYAML has it
    """Reads scalars as YAML 1.2's core schema does, without fractions."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012  PyYAML's own way


_Loader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile(r"(?:null|~|)\Z"), ["n", "~", ""])
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"(?:true|false)\Z"), ["t", "f"])
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"-?(?:0|[1-9][0-9]{0,18})\Z"), list("-0123456789"))


@dataclass(frozen=True, slots=True)
class PolicyFile:
    """A file that was read: as a document, as plain values, which a server accepts too, and the line of each field."""

    name: str
    document: Document
    value: JsonValue = field(repr=False)
    _lines: dict[str, int] = field(repr=False)

    def locate(self, error: CallerError) -> Invalid:
        """The error about a field of this file, with the file and the line of that field before it."""
        return _located(self.name, self._lines, error)

    def locate_answer(self, error: CallerError) -> CallerError:
        """As ``locate``, for what a server said of the document: the field stands at the beginning of its text."""
        text = f"$.{error}"
        fields = (path for path in self._lines if text.startswith(path) and text[len(path) :][:1] in (":", ".", "["))
        field = max(fields, key=len, default=None)
        return error if field is None else type(error)(f"{self.name}, line {self._lines[field]}: {error}")


def read_policy(text: str, name: str) -> PolicyFile:
    """Reads ``text``, the content of the file ``name``.

    Raises:
        Invalid: it is not YAML, or not a policy; the message begins with file and line.
    """
    lines: dict[str, int] = {}
    try:
        value = _Reader(lines).plain(_compose(text), "$")
        return PolicyFile(name, decode_policy(value), value, lines)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        at = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
        hint = _hint(text.splitlines()[mark.line]) if mark and mark.line < len(text.splitlines()) else ""
        raise Invalid(f"{name}{at}: no YAML: {problem}{hint}") from error
    except CallerError as error:
        raise _located(name, lines, error) from error


def _hint(line: str) -> str:
    """What a person most likely overlooked in a line that is not YAML."""
    if "\t" in line[: len(line) - len(line.lstrip())]:
        return "; write blanks: a tab does not indent"
    if _BARE_COLONS.search(line):
        return "; put what begins with colons into quotes, as '::/0'"
    return ""


def _located(name: str, lines: dict[str, int], error: CallerError) -> Invalid:
    path = error.field or "$"
    while path not in lines and path != "$":
        path = path[: max(path.rfind("."), path.rfind("["), 1)]
    text = str(error).removeprefix("$: ").removeprefix("$.")  # where the document begins is no field of the file
    return Invalid(f"{name}, line {lines.get(path, 1)}: {text}")


def _compose(text: str) -> yaml.Node:
    node = yaml.compose(text, Loader=_Loader)
    if node is None:
        raise Invalid("expected a policy, and the file is empty", field="$")
    return node


@dataclass(slots=True)
class _Reader:
    """Nodes -> plain values, noting the line of each path."""

    lines: dict[str, int]
    _seen: set[int] = field(default_factory=set)

    def plain(self, node: yaml.Node, path: str, depth: int = 0) -> JsonValue:
        self.lines[path] = node.start_mark.line + 1
        if depth > _MAX_DEPTH:
            raise Invalid(f"expected at most {_MAX_DEPTH} levels", field=path)
        if not isinstance(node, yaml.ScalarNode):
            if id(node) in self._seen:
                raise Invalid("expected no alias (*name): write it out", field=path)
            self._seen.add(id(node))
        match node:
            case yaml.MappingNode():
                return dict(self._pairs(node, path, depth))
            case yaml.SequenceNode():
                return [self.plain(one, f"{path}[{n}]", depth + 1) for n, one in enumerate(node.value)]
            case _:
                return _scalar(node, path)

    def _pairs(self, node: yaml.MappingNode, path: str, depth: int) -> Iterator[tuple[str, JsonValue]]:
        names: set[str] = set()
        for key, value in node.value:
            name = key.value
            if not isinstance(key, yaml.ScalarNode):
                raise Invalid("expected a name before the colon", field=path)
            at = f"{path}.{name}"
            if name in names:
                self.lines[at] = key.start_mark.line + 1
                raise Invalid("is there twice", field=at)
            names.add(name)
            yield name, self.plain(value, at, depth + 1)
            self.lines[at] = key.start_mark.line + 1


def _scalar(node: yaml.Node, path: str) -> JsonValue:
    text = str(node.value)
    match node.tag.removeprefix("tag:yaml.org,2002:"):
        case "str":
            if "\0" in text:
                raise Invalid("expected text without NUL", field=path)
            return text
        case "int":
            return int(text)
        case "bool":
            return text == "true"
        case "null":
            return None
        case _:
            raise Invalid(f"expected plain text or a number, not the type {node.tag}", field=path)


def decode_policy(value: object) -> Document:
    """A policy from plain values, as a file or a request contains them; ``Invalid`` names the field."""
    shape = convert(value, _FileShape)
    if shape.version != VERSION:
        raise Invalid(f"expected {VERSION}, got {shape.version}: written for another ringfence", field="$.version")
    return Document(
        (
            *(_group(name, one, Visibility.PRIVATE) for name, one in shape.groups.items()),
            *(_group(name, one, Visibility.PUBLIC) for name, one in shape.public_groups.items()),
        ),
        tuple(_instance(name, one) for name, one in shape.instances.items()),
        tuple(shape.assertions),
    )


def _group(name: str, value: object, visibility: Visibility) -> DesiredGroup:
    at = f"$.{GROUPS[visibility]}.{name}"
    _require_name(name, at)
    shape = convert({} if value is None else value, _GroupShape, at=at)
    rules = [
        _rule(one, direction, f"{at}.{direction.value}[{n}]")
        for direction, given in ((Direction.INGRESS, shape.ingress), (Direction.EGRESS, shape.egress))
        for n, one in enumerate(given)
    ]
    return DesiredGroup(
        name,
        shape.description,
        visibility,
        tuple(parse_cidr(one, field=f"{at}.sources[{n}]") for n, one in enumerate(shape.sources)),
        tuple(rules),
    )


def _require_name(name: str, at: str) -> None:
    if not 1 <= len(name) <= MAX_TEXT:
        raise Invalid(f"expected a name of 1 to {MAX_TEXT} characters", field=at)


def _rule(value: object, direction: Direction, at: str) -> RuleDraft:
    shape = convert(value, _RuleShape, at=at)
    protocol = parse_choice(shape.protocol, Protocol, field=f"{at}.protocol")
    start, end = _ports(shape.ports, protocol, f"{at}.ports")
    return RuleDraft(
        direction=direction,
        protocol=protocol,
        peer=_peer(shape, direction, at),
        start_port=start,
        end_port=end,
        icmp=_icmp(shape, protocol, at),
        description=shape.description,
    )


def _ports(given: int | str | None, protocol: Protocol, at: str) -> tuple[int | None, int | None]:
    if given is None:
        return None, None
    if not protocol.has_ports:
        raise Invalid(f"expected only with protocol tcp or udp, not {protocol.value}", field=at)
    found = _PORTS.fullmatch(str(given))
    first, last = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
    if not 1 <= first <= last <= MAX_PORT:
        raise Invalid(f"expected a port such as 443 or a range such as 8000-8100, got {ascii(given)[:64]}", field=at)
    return first, last


def _icmp(shape: _RuleShape, protocol: Protocol, at: str) -> Icmp | None:
    if shape.type is None and shape.code is None:
        return None
    if not protocol.has_types:
        name = "code" if shape.type is None else "type"
        raise Invalid(f"expected only with protocol icmp or icmpv6, not {protocol.value}", field=f"{at}.{name}")
    icmp = Icmp(shape.type, shape.code)
    if icmp.any_type and not icmp.any_code:
        raise Invalid(f"a code ({icmp.code}) needs a type from 0 to 254", field=f"{at}.code")
    return icmp


def _peer(shape: _RuleShape, direction: Direction, at: str) -> Cidr | GroupReference:
    peers = {"from": shape.from_, "to": shape.to}
    way = PEER_WAY[direction]
    given = peers.pop(way)
    if any(peers.values()):
        raise Invalid(f"expected {way}, because this is {direction.value}", field=f"{at}.{next(iter(peers))}")
    if given is None:
        raise Invalid(f"expected {way}: a network, or group NAME", field=at)
    if found := _GROUP.fullmatch(given):
        return GroupReference(None, found[2], Visibility.PUBLIC if found[1] else Visibility.PRIVATE)
    try:
        return parse_cidr(given, field=f"{at}.{way}")
    except Invalid as error:
        refusal = Invalid(f"{error}, or group NAME")
        refusal.field = error.field  # the message names it already
        raise refusal from error


def _instance(name: str, value: object) -> DesiredInstance:
    at = f"$.instances.{name}"
    _require_name(name, at)
    shape = convert({} if value is None else value, _InstanceShape, at=at)
    is_left = shape.groups is None and shape.public_groups is None
    groups, public_groups = tuple(shape.groups or ()), tuple(shape.public_groups or ())
    addresses = tuple(parse_address(one, field=f"{at}.addresses[{n}]") for n, one in enumerate(shape.addresses))
    host = None if shape.host is None else HostName(shape.host)
    kind = parse_choice(shape.kind, Kind, field=f"{at}.kind")
    return DesiredInstance(name, None if is_left else groups, addresses, host, shape.observe, kind, public_groups)


def write_policy(document: Document) -> str:
    """The file that reads as ``document``; equal documents give equal text."""
    value = encode_policy(document)
    return yaml.dump(
        value, Dumper=yaml.CSafeDumper, sort_keys=False, default_flow_style=None, allow_unicode=True, width=100_000
    )


def encode_policy(document: Document) -> dict[str, object]:
    """The inverse of ``decode_policy``."""
    value: dict[str, object] = {"version": VERSION}
    for visibility, name in GROUPS.items():
        if groups := {one.name: _show_group(one) for one in document.groups if one.visibility is visibility}:
            value[name] = groups
    if document.instances:
        value["instances"] = {one.name: _show_instance(one) for one in document.instances}
    if document.assertions:
        value["assertions"] = list(document.assertions)
    return value


def _show_group(group: DesiredGroup) -> dict[str, object]:
    rules = {
        direction.value: [_show_rule(rule) for rule in group.rules if rule.direction is direction]
        for direction in Direction
    }
    return _without_empty(
        {
            "description": group.description,
            "sources": [source.text for source in group.sources],
            **rules,
        }
    )


def _show_rule(rule: RuleDraft) -> dict[str, object]:
    first = rule.start_port if rule.start_port is not None else rule.end_port
    last = rule.end_port if rule.end_port is not None else first
    icmp = rule.icmp or Icmp(None, None)
    return _without_empty(
        {
            "protocol": rule.protocol.value,
            "ports": first if first == last else f"{first}-{last}",
            "type": icmp.type,
            "code": icmp.code,
            PEER_WAY[rule.direction]: _show_peer(rule.peer),
            "description": rule.description,
        }
    )


def _show_peer(peer: Cidr | GroupReference) -> str:
    if isinstance(peer, Cidr):
        return peer.text
    return f"public group {peer.name}" if peer.visibility is Visibility.PUBLIC else f"group {peer.name}"


def _show_instance(one: DesiredInstance) -> dict[str, object]:
    shown: dict[str, object] = {} if one.groups is None else {"groups": list(one.groups)}
    return shown | _without_empty(
        {
            "public-groups": list(one.public_groups),
            "addresses": [str(address) for address in one.addresses],
            "host": one.host,
            "kind": None if one.kind is Kind.ROUTED else one.kind.value,
            "observe": one.observe,
        }
    )


def _without_empty(value: dict[str, object]) -> dict[str, object]:
    return {name: one for name, one in value.items() if one is not None and one != []}
