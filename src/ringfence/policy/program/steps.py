"""What a transaction is made of: each step makes, fills, empties or removes one thing of a program."""

from dataclasses import dataclass

from ringfence.policy.program.model import Element, ElementType, Hook, Line, NamedSet, Scalar
from ringfence.policy.program.names import TableFamily


@dataclass(frozen=True, slots=True)
class AddTable:
    """Nothing happens when it is there."""

    family: TableFamily = TableFamily.INET


@dataclass(frozen=True, slots=True)
class DeleteTable:
    """With everything in it. Of a delta only that of the bridge's table; else for one of which nothing is believed."""

    family: TableFamily = TableFamily.INET


@dataclass(frozen=True, slots=True)
class AddCounter:
    counter: str


@dataclass(frozen=True, slots=True)
class DeleteCounter:
    counter: str


@dataclass(frozen=True, slots=True)
class AddSet:
    """An empty set of the given shape; elements come in their own steps."""

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
    """``handle``: the kernel's number of the line, which the door finds; until then no line has it."""

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
