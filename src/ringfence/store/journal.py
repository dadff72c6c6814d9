"""What a commit changed, as JSON, from which another server brings its memory to the same state.

Input and output: ``Entry`` values and JSON. Values are built from the annotations of their dataclasses, so that a new
kind of fact needs no code here. It contains no secrets.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from functools import cache, partial
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from types import MappingProxyType, NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints
from uuid import UUID

import msgspec

from ringfence.policy.facts import Fact, OrganisationRemoved
from ringfence.policy.model import Operation
from ringfence.policy.values import HostName, Revision
from ringfence.store.decision import Decision, HostsSeen, OperationSettled

_Build = Callable[[Any], Any]
_FACTS = {fact.__name__: fact for fact in get_args(Fact)}


@dataclass(frozen=True, slots=True)
class Entry:
    """One decision. ``revision``: None if it made none. ``changes_keys``: whether API keys must be read again.

    Operations stand without their hosts, which follow from the facts, or are known already.
    """

    revision: Revision | None
    facts: tuple[Fact, ...] = ()
    operation: Operation | None = None
    offline: frozenset[HostName] = frozenset()
    settled: tuple[Operation, ...] = ()
    changes_keys: bool = False
    seen: tuple[HostsSeen, ...] = ()


def entry_of(decision: Decision[object]) -> Entry | None:
    """What other servers must know of a decision; None if nothing."""
    settled = tuple(_bare(record.operation) for record in decision.records if isinstance(record, OperationSettled))
    entry = Entry(
        revision=decision.after.revision if decision.after else None,
        facts=decision.facts,
        operation=None if decision.operation is None else _bare(decision.operation),
        offline=decision.offline,
        settled=settled,
        changes_keys=len(settled) < len(decision.records)
        or any(isinstance(fact, OrganisationRemoved) for fact in decision.facts),
        seen=decision.seen,
    )
    return None if entry == Entry(None) else entry


def _bare(operation: Operation) -> Operation:
    return replace(operation, hosts=frozenset())


def encode_entries(entries: list[Entry]) -> str:
    """One line of JSON; each fact goes under its name."""
    shown = [
        (entry.revision, [(type(fact).__name__, fact) for fact in entry.facts], entry.operation, entry.offline,
         entry.settled, entry.changes_keys, entry.seen)
        for entry in entries
    ]  # fmt: skip
    return msgspec.json.encode(shown, enc_hook=_plain).decode()


def encode_facts(facts: Iterable[Fact]) -> str:
    """One line of JSON; each fact goes under its name."""
    return msgspec.json.encode([(type(fact).__name__, fact) for fact in facts], enc_hook=_plain).decode()


def decode_facts(text: str) -> tuple[Fact, ...]:
    """The inverse of ``encode_facts`` of this ringfence or an older one; fields that are newer get their defaults."""
    return tuple(_builder(_FACTS[name])(fact) for name, fact in msgspec.json.decode(text))


def _plain(value: object) -> object:
    """Values that msgspec cannot encode itself: read-only mappings and addresses."""
    return dict(value) if isinstance(value, Mapping) else str(value)


def decode_entries(text: str) -> list[Entry]:
    """The inverse of ``encode_entries``.

    Raises:
        ValueError, TypeError, KeyError: another version of ringfence wrote facts that this one does not know.
    """
    entries = []
    for revision, facts, operation, offline, settled, changes_keys, seen in msgspec.json.decode(text):
        entries.append(
            Entry(
                revision=revision,
                facts=tuple(_builder(_FACTS[name])(fact) for name, fact in facts),
                operation=_builder(Operation | None)(operation),
                offline=frozenset(offline),
                settled=_builder(tuple[Operation, ...])(settled),
                changes_keys=changes_keys,
                seen=_builder(tuple[HostsSeen, ...])(seen),
            )
        )
    return entries


@cache
def _builder(kind: Any) -> _Build:
    """A function that makes a value of the annotated type ``kind`` from its JSON."""
    kind = getattr(kind, "__supertype__", kind)
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return _union(arguments)
    if origin in (tuple, frozenset):
        item = _builder(arguments[0])
        return lambda value: origin(map(item, value))
    if origin is not None:  # a mapping
        key, item = map(_builder, arguments)
        return lambda value: MappingProxyType({key(name): item(one) for name, one in value.items()})
    if dataclasses.is_dataclass(kind):
        return _dataclass(kind)
    return _scalar(kind)


def _scalar(kind: Any) -> _Build:
    if kind is bytes:
        return lambda value: msgspec.convert(value, bytes)
    if issubclass(kind, (IPv4Address, IPv6Address)):
        return ip_address
    if issubclass(kind, (IPv4Network, IPv6Network)):
        return ip_network
    if issubclass(kind, (Enum, UUID)):
        return partial(kind)
    return lambda value: value


def _dataclass(kind: Any) -> _Build:
    hints = get_type_hints(kind)
    fields = [(field.name, _builder(hints[field.name])) for field in dataclasses.fields(kind)]
    return lambda value: kind(**{name: build(value[name]) for name, build in fields if name in value})


def _union(kinds: tuple[Any, ...]) -> _Build:
    """Builds None, or the only other type, or the dataclass that has exactly the given fields."""
    some = [kind for kind in kinds if kind is not NoneType]
    if all(dataclasses.is_dataclass(kind) for kind in some):
        by_fields = {frozenset(field.name for field in dataclasses.fields(kind)): _builder(kind) for kind in some}
        return lambda value: None if value is None else by_fields[frozenset(value)](value)
    first = _builder(some[0])
    return lambda value: None if value is None else first(value)
