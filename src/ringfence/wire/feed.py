"""PURE: the JSON that a server and its agents exchange: views of the feed, claims of an inventory, reports.

Encodes values of the model, and decodes bytes from the other side; ``Invalid`` names the place of what is wrong. Every
field is always written, and a document with a missing field is refused whole, because a missing list must never be
taken for "everything". ``formats`` says how unknown fields are treated.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Annotated, Final, TypeVar
from uuid import UUID

import msgspec

from ringfence.nft.foreign import ForeignChain
from ringfence.policy.commands import ClaimInstances, InstanceClaim
from ringfence.policy.errors import Invalid
from ringfence.policy.local import Failsafe
from ringfence.policy.values import MAX_PORT, GroupId, InstanceId, Protocol, Revision, parse_cidr
from ringfence.policy.view import HostView
from ringfence.policy.view_changes import (
    DIGEST_SIZE_BYTES,
    Digest,
    ViewChange,
    add_digests,
    apply_changes,
    diff_views,
    digest_difference,
    digest_view,
)
from ringfence.wire.deltas import ChangeShape, change_shape, read_change
from ringfence.wire.formats import FORMAT, Lenient, decode, decode_formatted, is_delta
from ringfence.wire.shapes import (
    Count,
    EndpointShape,
    InterfaceShape,
    PeerShape,
    RuleShape,
    Shape,
    encode,
    endpoint_shape,
    peer_shape,
    read_endpoint,
    read_interface,
    read_peer,
    read_rules,
    rules_shape,
)

HEARTBEAT: Final = b'{"heartbeat":true}\n'

_MAX_NAME: Final = 255
_MOST_WRITTEN: Final = 4096  # encoded parts of views that are cached
_MAX_ERROR: Final = 4096  # a report's error is cut to this many characters
_MOST_FOREIGN: Final = 64
_MOST_FAILSAFE: Final = 32  # ports; a report must fit into a line that a server takes
_MOST_SOURCES: Final = 16  # of each


@dataclass(frozen=True, slots=True)
class FeedView:
    """The view after a line of the feed; ``epoch`` identifies the store whose revisions it counts by."""

    epoch: str
    view: HostView
    digest: Digest = field(default=Digest(0), compare=False)


@dataclass(frozen=True, slots=True)
class Base:
    """Identifies the view that an agent holds, so that the server can send only what is new."""

    epoch: str
    revision: Revision
    digest: Digest


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """A line of the feed that only says that the connection is alive."""


@dataclass(frozen=True, slots=True)
class Claimed:
    """The answer to a claim: names and ids of accepted instances, names of refused ones with reasons.

    ``revision``: the one in which the claim is in effect.
    """

    accepted: tuple[tuple[str, InstanceId], ...]
    refused: tuple[tuple[str, str], ...]
    revision: Revision


@dataclass(frozen=True, slots=True)
class Report:
    """What a host enforces: the revision that its kernel was seen to hold (None: none yet), and what is wrong.

    ``notice``: what an operator should know but is over, so that no operation fails by it. ``foreign``: base chains of
    other programs' tables that may drop what ours lets pass; None: not read yet. ``failsafe``: the failsafe ports;
    None: not reported.
    """

    applied: Revision | None
    error: str | None
    notice: str | None = None
    foreign: tuple[ForeignChain, ...] | None = None
    failsafe: tuple[Failsafe, ...] | None = None


_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=_MAX_NAME)]
_Word = Annotated[str, msgspec.Meta(max_length=_MAX_NAME)]
_Hash = Annotated[str, msgspec.Meta(pattern=rf"^[0-9a-f]{{{2 * DIGEST_SIZE_BYTES}}}\Z")]
_Epoch = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-z-]{1,64}\Z")]  # it is written into the kernel's table


class _ViewShape(Shape, frozen=True):
    endpoints: tuple[EndpointShape, ...]
    rules: dict[UUID, tuple[RuleShape, ...]]
    peers: dict[UUID, PeerShape]


class _WholeShape(Shape, frozen=True):
    format: int
    epoch: _Epoch
    revision: Count
    hash: _Hash
    view: _ViewShape


class _WrittenView(Shape, frozen=True):
    """As ``_ViewShape``, with parts that are already encoded."""

    endpoints: tuple[EndpointShape, ...]
    rules: dict[GroupId, msgspec.Raw]
    peers: dict[GroupId, msgspec.Raw]


class _WrittenWhole(Shape, frozen=True):
    format: int
    epoch: _Epoch
    revision: Count
    hash: _Hash
    view: _WrittenView


class _DeltaShape(Shape, frozen=True):
    format: int
    epoch: _Epoch
    base: Count
    revision: Count
    hash: _Hash
    changes: tuple[ChangeShape, ...]


class _BaseShape(Shape, frozen=True):
    epoch: _Epoch
    revision: Count
    hash: _Hash


class _InstanceShape(Shape, frozen=True):
    name: _Name
    id: UUID | None
    realm: _Name
    interfaces: tuple[InterfaceShape, ...]


class _ClaimShape(Shape, frozen=True):
    format: int
    instances: tuple[_InstanceShape, ...]


class _AcceptedShape(Lenient, frozen=True):
    name: str
    id: UUID


class _RefusedShape(Lenient, frozen=True):
    name: str
    reason: str


class _ClaimedShape(Lenient, frozen=True):
    accepted: tuple[_AcceptedShape, ...]
    refused: tuple[_RefusedShape, ...]
    revision: Count


class _ForeignShape(Lenient, frozen=True):
    family: _Word
    table: _Word
    chain: _Word
    hook: _Word
    priority: int
    policy_drops: bool
    drops: bool


class _FailsafeShape(Lenient, frozen=True):
    protocol: Protocol
    port: Annotated[int, msgspec.Meta(ge=1, le=MAX_PORT)]
    sources: Annotated[tuple[_Word, ...], msgspec.Meta(max_length=_MOST_SOURCES)]


class _ReportShape(Lenient, frozen=True):
    """``foreign`` and ``failsafe`` may be missing in the report of an older agent."""

    format: int
    applied: Count | None
    error: str | None
    notice: str | None
    foreign: Annotated[tuple[_ForeignShape, ...], msgspec.Meta(max_length=_MOST_FOREIGN)] | None = None
    failsafe: Annotated[tuple[_FailsafeShape, ...], msgspec.Meta(max_length=_MOST_FAILSAFE)] | None = None


_P = TypeVar("_P")


def encode_whole(epoch: str, view: HostView) -> bytes:
    """A line of the feed with a whole view, newline included. O(size of the view)."""
    return WholeEncoder(epoch).encode(view, digest_view(view))


class WholeEncoder:
    """Encodes whole views of many hosts; the parts about a group are the same for all, and are encoded once."""

    def __init__(self, epoch: str) -> None:
        self._epoch = epoch
        self._written: dict[tuple[str, GroupId], tuple[object, msgspec.Raw]] = {}

    def encode(self, view: HostView, digest: Digest) -> bytes:
        """As ``encode_whole``, for a view whose digest is known."""
        if len(self._written) > _MOST_WRITTEN:
            self._written.clear()
        rules = {group: self._part("rules", group, view.rules[group], rules_shape) for group in sorted(view.rules)}
        peers = {group: self._part("peer", group, view.peers[group], peer_shape) for group in sorted(view.peers)}
        endpoints = tuple(map(endpoint_shape, view.endpoints))
        shape = _WrittenView(endpoints, rules, peers)
        return encode(_WrittenWhole(FORMAT, self._epoch, view.revision, _hex(digest), shape)) + b"\n"

    def _part(self, kind: str, group: GroupId, part: _P, shape_of: Callable[[_P], object]) -> msgspec.Raw:
        known = self._written.get((kind, group))
        if known is None or known[0] is not part:
            known = self._written[(kind, group)] = part, msgspec.Raw(encode(shape_of(part)))
        return known[1]


def encode_changes(changes: Iterable[ViewChange]) -> bytes:
    """The changes of a delta, which are the same for every host whose view changes alike."""
    return encode([change_shape(change) for change in changes])


def encode_delta(epoch: str, base: Revision, revision: Revision, digest: Digest, changes: bytes) -> bytes:
    """A line of the feed that turns the view of ``base`` into that of ``revision``, with that digest."""
    head = (
        f'{{"format":{FORMAT},"epoch":"{epoch}","base":{base},"revision":{revision},"hash":"{_hex(digest)}","changes":'
    )
    return b"".join((head.encode(), changes, b"}\n"))


def decode_whole(line: bytes) -> FeedView:
    """The inverse of ``encode_whole``; ``Invalid`` for anything else, and for a view that does not fit its hash."""
    return _whole(decode_formatted(line, _WholeShape, writer="server"))


class FeedReader:
    """Reads a feed line by line, each in O(its changes), and accepts only views that fit their hashes.

    What a line does not change stays the same object, by which ``policy.program.compile`` sees that it is unchanged.
    """

    def __init__(self) -> None:
        self._held: FeedView | None = None

    @property
    def base(self) -> Base | None:
        """What the next delta may build on; None if a whole view is needed."""
        held = self._held
        return None if held is None else Base(held.epoch, held.view.revision, held.digest)

    def hold(self, view: FeedView) -> None:
        """Continues from this view, as if it had been read."""
        self._held = view

    def decode_line(self, line: bytes) -> FeedView | Heartbeat:
        """The view after one line of the feed, or a heartbeat.

        Raises:
            Invalid: it is malformed, of another format, or does not fit what was read before. From then on ``base`` is
                None, and a whole view must be asked for.
        """
        if line.strip() == HEARTBEAT.strip():
            return Heartbeat()
        held, self._held = self._held, None
        if not is_delta(line):
            found = _whole(decode_formatted(line, _WholeShape, writer="server"))
            if held is not None:
                view = apply_changes(held.view, diff_views(held.view, found.view), found.view.revision)
                found = replace(found, view=view)
        else:
            found = _next(held, decode_formatted(line, _DeltaShape, writer="server"))
        self._held = found
        return found


def render_base(base: Base | None) -> str:
    """The query by which an agent asks for the feed: the format that it reads, and the view that it holds."""
    asked = f"format={FORMAT}"
    return asked if base is None else f"{asked}&epoch={base.epoch}&revision={base.revision}&hash={_hex(base.digest)}"


def parse_base(epoch: str, revision: str, hash_: str) -> Base:
    """The inverse of ``render_base``; ``Invalid`` for anything else."""
    try:
        given = {"epoch": epoch, "revision": int(revision), "hash": hash_}
        shape = msgspec.convert(given, _BaseShape)
    except ValueError as error:  # msgspec's are
        raise Invalid(f"expected the epoch, revision and hash of a view, as a feed tells them: {error}") from error
    return Base(shape.epoch, Revision(shape.revision), Digest(int(shape.hash, 16)))


def encode_claim(claim: ClaimInstances) -> bytes:
    """The body of ``PUT /agent/v1/inventory``."""
    return encode(_ClaimShape(FORMAT, tuple(_instance_shape(instance) for instance in claim.instances)))


def decode_claim(body: bytes) -> ClaimInstances:
    """The whole inventory that a host claims; ``Invalid`` names the field. Names are unique, interfaces too."""
    shape = decode_formatted(body, _ClaimShape, writer="agent")
    claims = tuple(_claim(instance, f"$.instances[{n}]") for n, instance in enumerate(shape.instances))
    _check_unique([claim.name for claim in claims], "instance name")
    _check_unique([interface.name for claim in claims for interface in claim.interfaces], "interface")
    return ClaimInstances(claims)


def encode_claimed(claimed: Claimed) -> bytes:
    """The answer to a claim."""
    accepted = tuple(_AcceptedShape(name, id_) for name, id_ in claimed.accepted)
    refused = tuple(_RefusedShape(name, reason) for name, reason in claimed.refused)
    return encode(_ClaimedShape(accepted, refused, claimed.revision))


def decode_claimed(body: bytes) -> Claimed:
    shape = decode(body, _ClaimedShape)
    accepted = tuple((item.name, InstanceId(item.id)) for item in shape.accepted)
    refused = tuple((item.name, item.reason) for item in shape.refused)
    return Claimed(accepted, refused, Revision(shape.revision))


def encode_report(report: Report) -> bytes:
    """A line of the feed to the server. Errors and notices are cut at 4,096 characters.

    At most 64 foreign chains are reported, and at most 32 failsafe ports, each with at most 16 networks.
    """
    foreign = None if report.foreign is None else tuple(map(_foreign_shape, report.foreign[:_MOST_FOREIGN]))
    failsafe = None if report.failsafe is None else tuple(map(_failsafe_shape, report.failsafe[:_MOST_FAILSAFE]))
    return encode(_ReportShape(FORMAT, report.applied, _cut(report.error), _cut(report.notice), foreign, failsafe))


@lru_cache(maxsize=64)  # after a change all hosts report the same
def decode_report(body: bytes) -> Report:
    shape = decode_formatted(body, _ReportShape, writer="agent")
    applied = None if shape.applied is None else Revision(shape.applied)
    foreign = None if shape.foreign is None else tuple(map(_read_foreign, shape.foreign))
    failsafe = None if shape.failsafe is None else tuple(map(_read_failsafe, shape.failsafe))
    return Report(applied, _cut(shape.error), _cut(shape.notice), foreign, failsafe)


def _foreign_shape(chain: ForeignChain) -> _ForeignShape:
    family, table, name, hook = (word[:_MAX_NAME] for word in (chain.family, chain.table, chain.chain, chain.hook))
    return _ForeignShape(family, table, name, hook, chain.priority, chain.policy_drops, chain.drops)


def _read_foreign(shape: _ForeignShape) -> ForeignChain:
    return ForeignChain(**msgspec.structs.asdict(shape))


def _failsafe_shape(one: Failsafe) -> _FailsafeShape:
    return _FailsafeShape(one.protocol, one.port, tuple(map(str, one.sources[:_MOST_SOURCES])))


def _read_failsafe(shape: _FailsafeShape) -> Failsafe:
    sources = tuple(parse_cidr(text, field="$.failsafe").network for text in shape.sources)
    return Failsafe(shape.protocol, shape.port, sources)


def _cut(text: str | None) -> str | None:
    """Cut to size, and encodable: messages of the kernel and the file system need not be UTF-8."""
    return None if text is None else text[:_MAX_ERROR].encode(errors="replace").decode()


def _whole(shape: _WholeShape) -> FeedView:
    path = "$.view"
    view = HostView(
        revision=Revision(shape.revision),
        endpoints=tuple(read_endpoint(one, f"{path}.endpoints[{n}]") for n, one in enumerate(shape.view.endpoints)),
        rules={GroupId(group): read_rules(rules, f"{path}.rules.{group}") for group, rules in shape.view.rules.items()},
        peers={GroupId(group): read_peer(peer, f"{path}.peers.{group}") for group, peer in shape.view.peers.items()},
    )
    _check_hash(digest_view(view), shape.hash)
    return FeedView(shape.epoch, view, digest_view(view))


def _next(held: FeedView | None, shape: _DeltaShape) -> FeedView:
    if held is None or (held.epoch, held.view.revision) != (shape.epoch, shape.base):
        raise Invalid(f"it builds on revision {shape.base}, which is not the one held here", field="$.base")
    changes = tuple(read_change(change, f"$.changes[{n}]") for n, change in enumerate(shape.changes))
    view = apply_changes(held.view, changes, Revision(shape.revision))
    digest = add_digests((held.digest, digest_difference(held.view, view)))
    _check_hash(digest, shape.hash)
    return FeedView(shape.epoch, view, digest)


def _check_hash(digest: Digest, said: str) -> None:
    if _hex(digest) != said:
        raise Invalid("the view that it makes is not the one that it is to make", field="$.hash")


def _hex(digest: Digest) -> str:
    return f"{digest:0{2 * DIGEST_SIZE_BYTES}x}"


def _instance_shape(claim: InstanceClaim) -> _InstanceShape:
    interfaces = tuple(
        InterfaceShape(
            interface.name, tuple(map(str, interface.addresses)), interface.mac, interface.managed, interface.kind
        )
        for interface in claim.interfaces
    )
    return _InstanceShape(claim.name, claim.id, claim.realm, interfaces)


def _claim(shape: _InstanceShape, path: str) -> InstanceClaim:
    if not shape.name.isprintable() or not shape.realm.isprintable():
        raise Invalid("expected printable characters only", field=path)
    return InstanceClaim(
        name=shape.name,
        id=None if shape.id is None else InstanceId(shape.id),
        interfaces=tuple(read_interface(item, f"{path}.interfaces[{n}]") for n, item in enumerate(shape.interfaces)),
        realm=shape.realm,
    )


def _check_unique(names: list[str], what: str) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise Invalid(f"{what} {name!r} occurs twice", field="$.instances")
        seen.add(name)
