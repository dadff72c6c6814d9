"""The inventory: which interfaces of this host belong to which instances, as its operator declares in a TOML file.

Input: the file's text. Output: an ``Inventory``, or an ``OperatorError`` naming file, instance and field. It knows no
server, which may refuse parts of it later.
"""

import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Final, TypeVar
from uuid import UUID

import msgspec

from ringfence.policy.commands import ClaimInstances, InstanceClaim
from ringfence.policy.errors import Invalid, OperatorError
from ringfence.policy.local import Failsafe
from ringfence.policy.model import Interface
from ringfence.policy.values import (
    MAX_PORT,
    HostName,
    InstanceId,
    InterfaceName,
    Kind,
    Protocol,
    parse_address,
    parse_cidr,
    parse_interface,
    parse_interface_pattern,
    parse_mac,
)
from ringfence.policy.view import Endpoint
from ringfence.wire.hostauth import parse_host_name

VERSION: Final = 1
_MAX_NAME: Final = 255
_NO_ID: Final = InstanceId(UUID(int=0))


class Logged(Enum):
    """What the flow log contains: nothing, what is refused, or also every connection that is allowed."""

    OFF = "off"
    DROPS = "drops"
    ALL = "all"


@dataclass(frozen=True, slots=True)
class Inventory:
    """``managed``: patterns of interfaces that are closed until programmed; those of instances always are.

    With ``kind`` SELF the only instance is the host itself, and ``failsafe`` are its ports that no group closes.
    """

    host: HostName
    managed: tuple[str, ...] = ()
    instances: tuple[InstanceClaim, ...] = ()
    kind: Kind = Kind.ROUTED
    failsafe: tuple[Failsafe, ...] = ()
    flow_log: Logged = Logged.DROPS

    @property
    def claim(self) -> ClaimInstances:
        return ClaimInstances(self.instances)

    @property
    def ports(self) -> frozenset[InterfaceName]:
        """The interfaces of declared instances that are to be filtered."""
        return frozenset(
            interface.name for claim in self.instances for interface in claim.interfaces if interface.managed
        )


class _InterfaceShape(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    addresses: list[str]
    mac: str | None = None
    managed: bool = True


class _InstanceShape(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    interface: str | list[_InterfaceShape]
    id: UUID | None = None
    addresses: list[str] | None = None
    mac: str | None = None


class _FailsafeShape(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    port: int
    protocol: str
    sources: list[str]


class _FileShape(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    host: str
    version: int = VERSION
    kind: str = Kind.ROUTED.value
    flow_log: str = Logged.DROPS.value
    realm: str = "default"
    managed: list[str] = []
    instance: list[dict[str, object]] = []
    failsafe: list[dict[str, object]] = []


_S = TypeVar("_S", bound=msgspec.Struct)


def parse_inventory(text: bytes, *, file: str) -> Inventory:
    """The inventory that ``text`` declares; ``file`` is its name for error texts.

    Raises:
        OperatorError: not TOML, an unknown or missing field, a wrong value, or two instances that claim the same thing.
    """
    try:
        return _parse(_load(text))
    except Invalid as error:
        raise OperatorError(f"inventory {file}", str(error)) from error


def declared_endpoints(inventory: Inventory) -> tuple[Endpoint, ...]:
    """The endpoints as the inventory alone declares them, without groups."""
    return tuple(
        Endpoint(
            claim.id or _NO_ID,
            claim.name,
            interface.name,
            interface.addresses,
            interface.mac,
            groups=(),
            kind=inventory.kind,
        )
        for claim in inventory.instances
        for interface in claim.interfaces
        if interface.managed
    )


def find_reassigned(before: Inventory, inventory: Inventory) -> frozenset[InterfaceName]:
    """The ports that both inventories declare, for different instances."""
    owners = {end.interface: end for end in declared_endpoints(before)}
    present = {end.interface: end for end in declared_endpoints(inventory)}
    return frozenset(port for port in owners.keys() & present.keys() if not _same_owner(owners[port], present[port]))


def given_free(inventory: Inventory) -> frozenset[str]:
    """The interfaces that the inventory declares unmanaged."""
    return frozenset(
        str(interface.name) for claim in inventory.instances for interface in claim.interfaces if not interface.managed
    )


def _same_owner(one: Endpoint, other: Endpoint) -> bool:
    both_have_ids = _NO_ID not in (one.instance, other.instance)
    return one.instance == other.instance if both_have_ids else one.name == other.name


def _load(text: bytes) -> dict[str, object]:
    try:
        return tomllib.loads(text.decode())
    except (ValueError, RecursionError) as error:  # a number too long, or lists too deep, among them
        raise Invalid(f"not TOML: {error}") from error


def _parse(table: dict[str, object]) -> Inventory:
    shape = _convert(table, _FileShape, "")
    _check_version(shape)
    kind = Kind(_one_of(Kind, shape.kind, "kind"))
    instances = tuple(
        _instance(table, n, realm=shape.realm, kind=kind) for n, table in enumerate(shape.instance, start=1)
    )
    _check_distinct(instances)
    if kind is Kind.SELF and len(instances) > 1:
        raise Invalid("the host is one instance; its uplinks are interfaces of that one", field="instance")
    return Inventory(
        host=parse_host_name(shape.host, field="host"),
        managed=tuple(parse_interface_pattern(text, field=f"managed[{n}]") for n, text in enumerate(shape.managed)),
        instances=instances,
        kind=kind,
        failsafe=_failsafes(shape.failsafe, kind),
        flow_log=Logged(_one_of(Logged, shape.flow_log, "flow_log")),
    )


def _check_version(shape: _FileShape) -> None:
    if shape.version != VERSION:
        raise Invalid(f"expected {VERSION}, got {shape.version}: written for another ringfence", field="version")
    _check_name(shape.realm, "realm")


def _one_of(offered: type[Enum], text: str, field: str) -> str:
    values = [one.value for one in offered]
    if text not in values:
        raise Invalid(f"expected {', '.join(map(repr, values))}, got {text[:_MAX_NAME]!r}", field=field)
    return text


def _failsafes(tables: list[dict[str, object]], kind: Kind) -> tuple[Failsafe, ...]:
    if tables and kind is not Kind.SELF:
        text = f"only for kind = 'self'; the ports of {kind.value} instances are matters of their groups alone"
        raise Invalid(text, field="failsafe")
    return tuple(_failsafe(table, f"failsafe number {n}") for n, table in enumerate(tables, start=1))


def _failsafe(table: dict[str, object], where: str) -> Failsafe:
    shape = _convert(table, _FailsafeShape, where)
    if not 0 < shape.port <= MAX_PORT:
        raise Invalid(f"expected 1 to {MAX_PORT}, got {shape.port}", field=f"{where}: port")
    protocols = {protocol.value: protocol for protocol in Protocol if protocol.has_ports}
    if shape.protocol not in protocols:
        expected = " or ".join(map(repr, protocols))
        raise Invalid(f"expected {expected}, got {shape.protocol[:_MAX_NAME]!r}", field=f"{where}: protocol")
    if not shape.sources:
        raise Invalid("expected at least one network; from none nobody could use it", field=f"{where}: sources")
    sources = tuple(parse_cidr(text, field=f"{where}: sources[{n}]").network for n, text in enumerate(shape.sources))
    return Failsafe(protocols[shape.protocol], shape.port, sources)


def _instance(table: dict[str, object], number: int, *, realm: str, kind: Kind) -> InstanceClaim:
    name = table.get("name")
    where = f"instance {name!r}" if isinstance(name, str) else f"instance number {number}"
    shape = _convert(table, _InstanceShape, where)
    _check_name(shape.name, f"{where}: name")
    interfaces = tuple(_interface(item, f"{where}: {place}", kind) for item, place in _interfaces(shape, where))
    return InstanceClaim(shape.name, None if shape.id is None else InstanceId(shape.id), interfaces, realm)


def _interfaces(shape: _InstanceShape, where: str) -> list[tuple[_InterfaceShape, str]]:
    """The interfaces of either form, each with the place it has in error texts."""
    if isinstance(shape.interface, str):
        if shape.addresses is None:
            raise Invalid("missing", field=f"{where}: addresses")
        return [(_InterfaceShape(shape.interface, shape.addresses, shape.mac), "")]
    if shape.addresses is not None or shape.mac is not None:
        raise Invalid("with [[instance.interface]], addresses and mac stand there", field=where)
    if not shape.interface:
        raise Invalid("expected at least one", field=f"{where}: interface")
    return [(item, f"interface {item.name!r}: ") for item in shape.interface]


def _interface(shape: _InterfaceShape, where: str, kind: Kind) -> Interface:
    if shape.managed and not shape.addresses:
        raise Invalid("expected at least one; an interface without any could send nothing", field=f"{where}addresses")
    if shape.managed and kind is Kind.BRIDGED and shape.mac is None:
        raise Invalid(
            "missing; behind a bridge a port is known by it, so that every one declares it", field=f"{where}mac"
        )
    return Interface(
        name=parse_interface(shape.name, field=f"{where}interface"),
        addresses=tuple(parse_address(text, field=f"{where}addresses[{n}]") for n, text in enumerate(shape.addresses)),
        mac=None if shape.mac is None else parse_mac(shape.mac, field=f"{where}mac"),
        managed=shape.managed,
        kind=kind,
    )


def _check_name(name: str, field: str) -> None:
    if not 0 < len(name) <= _MAX_NAME or not name.isprintable():
        raise Invalid(f"expected 1 to {_MAX_NAME} printable characters", field=field)


def _check_distinct(instances: tuple[InstanceClaim, ...]) -> None:
    """No two instances share a name or an id, no two interfaces a name or an address."""
    interfaces = [(claim.name, interface) for claim in instances for interface in claim.interfaces]
    _check_once("name", ((claim.name, claim.name) for claim in instances))
    _check_once("id", ((claim.name, str(claim.id)) for claim in instances if claim.id is not None))
    _check_once("interface", ((name, str(interface.name)) for name, interface in interfaces))
    addresses = ((name, str(address)) for name, interface in interfaces for address in interface.addresses)
    _check_once("addresses", addresses)


def _check_once(field: str, owned: Iterable[tuple[str, str]]) -> None:
    owners: dict[str, str] = {}
    for owner, value in owned:
        if value in owners:
            raise Invalid(
                f"{value} occurs twice (first in instance {owners[value]!r})", field=f"instance {owner!r}: {field}"
            )
        owners[value] = owner


def _convert(table: dict[str, object], shape: type[_S], where: str) -> _S:
    try:
        return msgspec.convert(table, shape)
    except msgspec.ValidationError as error:
        key, text = _in_our_words(str(error))
        raise Invalid(text, field=": ".join(part for part in (where, key) if part) or None) from error


def _in_our_words(text: str) -> tuple[str, str]:
    """The key and what is wrong with it, from msgspec's message."""
    words, _, place = text.partition(" - at `$.")
    path = place.removesuffix("`")
    if found := re.fullmatch(r"Object missing required field `(.+)`", words):
        return f"{path}.{found[1]}" if path else found[1], "missing"
    if found := re.fullmatch(r"Object contains unknown field `(.*)`", words, re.DOTALL):
        return path, f"unknown key {found[1]!r}"
    if found := re.match(r"Expected `([a-z |]+)`", words):
        return path, f"expected {_expected(found[1].split(' | '), path.rpartition('.')[2])}"
    return path, "expected a UUID" if words == "Invalid UUID" else words


def _expected(kinds: list[str], key: str) -> str:
    return _LISTS.get(key, "a list") if "array" in kinds else _KINDS.get(kinds[0], kinds[0])


_KINDS: Final = {
    "str": "a text in quotes",
    "int": "a whole number",
    "bool": "true or false",
    "object": "a table",
    "uuid": "a UUID",
}
_LISTS: Final = {
    "addresses": "a list of addresses",
    "managed": "a list of interface names",
    "instance": "[[instance]] tables",
    "failsafe": "[[failsafe]] tables",
    "sources": "a list of networks",
    "interface": "the name of an interface, or [[instance.interface]] tables",
}
