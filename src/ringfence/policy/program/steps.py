"""The steps of a transaction: each one adds, fills, empties or deletes one object of a program."""

from dataclasses import dataclass

from ringfence.policy.program.model import Element, ElementType, Hook, Line, NamedSet, Scalar
from ringfence.policy.program.names import TableFamily


@dataclass(frozen=True, slots=True)
class AddTable:
    """No error if the table exists."""

    family: TableFamily = TableFamily.INET


@dataclass(frozen=True, slots=True)
class DeleteTable:
    """Deletes the table with everything in it. A delta does so to the bridge table only, else only a reset does."""

    family: TableFamily = TableFamily.INET


@dataclass(frozen=True, slots=True)
class AddCounter:
    counter: str


@dataclass(frozen=True, slots=True)
class DeleteCounter:
    counter: str


@dataclass(frozen=True, slots=True)
class AddSet:
    """An empty set with the types and flags of ``shape``; its elements come in steps of their own."""

    set: str
    shape: NamedSet


@dataclass(frozen=True, slots=True)
class DeleteSet:
    set: str


@dataclass(frozen=True, slots=True)
class AddElements:
    set: str
    shape: NamedSet
    elements: tuple[Element, ...]


@dataclass(frozen=True, slots=True)
class DeleteElements:
    set: str
    shape: NamedSet
    elements: tuple[Element, ...]


@dataclass(frozen=True, slots=True)
class SetGeneration:
    """The generation of the transaction becomes the only element of ``names.FRESH``."""


@dataclass(frozen=True, slots=True)
class AddMap:
    map: str
    type: ElementType = ElementType.INTERFACE


@dataclass(frozen=True, slots=True)
class DeleteMap:
    map: str


@dataclass(frozen=True, slots=True)
class AddTargets:
    map: str
    targets: tuple[tuple[Scalar, str], ...]  # key, chain


@dataclass(frozen=True, slots=True)
class DeleteTargets:
    map: str
    targets: tuple[tuple[Scalar, str], ...]


@dataclass(frozen=True, slots=True)
class AddChain:
    chain: str
    hook: Hook | None


@dataclass(frozen=True, slots=True)
class FlushChain:
    chain: str


@dataclass(frozen=True, slots=True)
class DeleteChain:
    chain: str


@dataclass(frozen=True, slots=True)
class AddLine:
    chain: str
    line: Line


@dataclass(frozen=True, slots=True)
class DeleteLine:
    """``handle`` is the kernel's number of the line, 0 until ``agent/doors`` has looked it up."""

    chain: str
    line: Line
    handle: int = 0


Step = (
    AddTable
    | DeleteTable
    | AddCounter
    | DeleteCounter
    | AddSet
    | DeleteSet
    | AddElements
    | DeleteElements
    | SetGeneration
    | AddMap
    | DeleteMap
    | AddTargets
    | DeleteTargets
    | AddChain
    | FlushChain
    | DeleteChain
    | AddLine
    | DeleteLine
)
