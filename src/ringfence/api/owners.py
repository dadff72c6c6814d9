"""The operator's routes for organisations, their quotas, their keys and their history.

Input: JSON on the control socket. Output: JSON. A secret is shown once, in the answer that makes it.
"""

from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated

import msgspec

from ringfence.api.exchange import Request, Response, put_json
from ringfence.api.routes import App
from ringfence.control.actor import Role
from ringfence.control.keys import ApiKey, KeyWish
from ringfence.control.plane import ControlPlane
from ringfence.policy.errors import Invalid
from ringfence.policy.model import Organisation
from ringfence.policy.quota import Quota
from ringfence.policy.snapshot import Snapshot
from ringfence.policy.values import KeyId
from ringfence.store import HistoryQuery
from ringfence.wire.decode import convert, parse_choice
from ringfence.wire.document import JsonValue, parse_document

MAX_OVERLAP_S = 30 * 24 * 3600  # an old secret that signs for longer was not rotated
_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=255)]


class _OrganisationShape(msgspec.Struct, frozen=True):
    name: str


class _KeyShape(msgspec.Struct, frozen=True):
    name: _Name | None = None
    role: str = Role.OWNER.value
    groups: tuple[str, ...] = ()


class _RotationShape(msgspec.Struct, frozen=True, rename="kebab"):
    overlap_s: Annotated[int, msgspec.Meta(ge=0, le=MAX_OVERLAP_S)] = 0


@dataclass(frozen=True, slots=True)
class _Organisations:
    """/admin/v1/organisations."""

    plane: ControlPlane

    async def on_post(self, request: Request, response: Response) -> None:
        shape = convert(parse_document(request.body), _OrganisationShape)
        put_json(response, _show_organisation(await self.plane.owners.create(shape.name)))

    def on_get(self, _: Request, response: Response) -> None:
        organisations = self.plane.snapshot.organisations.values()
        put_json(response, {"organisations": [_show_organisation(one) for one in organisations]})


@dataclass(frozen=True, slots=True)
class _OneOrganisation:
    """/admin/v1/organisations/{name}: ended, with its keys, before the answer is given."""

    plane: ControlPlane

    async def on_delete(self, _: Request, response: Response, name: str) -> None:
        await self.plane.owners.remove(name)
        response.status = HTTPStatus.NO_CONTENT


@dataclass(frozen=True, slots=True)
class _Limits:
    """/admin/v1/organisations/{name}/quota: what is used of each limit; PUT sets limits by name, null the default."""

    plane: ControlPlane

    def on_get(self, _: Request, response: Response, name: str) -> None:
        usage = self.plane.owners.usage(self.plane.owners.named(name).id)
        put_json(
            response, {"quotas": [{"name": one.quota.value, "used": one.used, "limit": one.limit} for one in usage]}
        )

    async def on_put(self, request: Request, response: Response, name: str) -> None:
        document = parse_document(request.body)
        if not isinstance(document, dict):
            raise Invalid("expected an object of limits by name", field="$")
        limits = {parse_choice(quota, Quota, field="$"): _limit(value, quota) for quota, value in document.items()}
        await self.plane.owners.limit(name, limits)
        self.on_get(request, response, name)


class _AssertionsShape(msgspec.Struct, frozen=True, rename="kebab"):
    assertions: tuple[Annotated[str, msgspec.Meta(max_length=1000)], ...]
    accept_failing: bool = False


@dataclass(frozen=True, slots=True)
class _Assertions:
    """/admin/v1/assertions?organisation=NAME: what every change must keep true; PUT replaces all."""

    plane: ControlPlane

    def on_get(self, request: Request, response: Response) -> None:
        organisation = self.plane.owners.named(request.get_param("organisation"))
        put_json(response, {"assertions": organisation.assertions})

    async def on_put(self, request: Request, response: Response) -> None:
        wanted = convert(parse_document(request.body), _AssertionsShape)
        name = request.get_param("organisation")
        held = await self.plane.owners.hold(wanted.assertions, name, accept_failing=wanted.accept_failing)
        put_json(response, {"assertions": held.assertions})


@dataclass(frozen=True, slots=True)
class _Keys:
    """/admin/v1/keys?organisation=NAME: without it a key is made in the first, and all are listed."""

    plane: ControlPlane

    async def on_post(self, request: Request, response: Response) -> None:
        shape = convert(parse_document(request.body), _KeyShape)
        wish = KeyWish(shape.name, parse_choice(shape.role, Role, field="$.role"), shape.groups)
        put_json(response, _show_made(await self.plane.owners.create_key(wish, request.get_param("organisation"))))

    def on_get(self, request: Request, response: Response) -> None:
        owners, name = self.plane.owners, request.get_param("organisation")
        found = owners.keys.of(owners.named(name).id if name else None)
        snapshot = self.plane.snapshot
        shown = [_show_key(key, snapshot) for key in found if key.organisation in snapshot.organisations]
        put_json(response, {"keys": shown})


@dataclass(frozen=True, slots=True)
class _OneKey:
    """/admin/v1/keys/{key}: revoked before the answer is given; POST rotates it."""

    plane: ControlPlane

    async def on_delete(self, _: Request, response: Response, key: str) -> None:
        await self.plane.owners.revoke_key(KeyId(key))
        response.status = HTTPStatus.NO_CONTENT

    async def on_post(self, request: Request, response: Response, key: str) -> None:
        shape = convert(parse_document(request.body), _RotationShape)
        put_json(response, _show_made(await self.plane.owners.rotate_key(KeyId(key), shape.overlap_s)))


@dataclass(frozen=True, slots=True)
class _History:
    """GET /admin/v1/history?after=N&since=SECONDS&organisation=NAME: at most a thousand lines above N, oldest first."""

    plane: ControlPlane

    async def on_get(self, request: Request, response: Response) -> None:
        name = request.get_param("organisation")
        wanted = HistoryQuery(
            after=request.get_param_as_int("after", least=0) or 0,
            since=request.get_param_as_int("since", least=0) or 0,
            organisation=self.plane.owners.named(name).id if name else None,
        )
        put_json(response, {"lines": await self.plane.history.read(wanted)})


@dataclass(frozen=True, slots=True)
class _HistoryCheck:
    """GET /admin/v1/history/check: whether the chain of lines is unbroken."""

    plane: ControlPlane

    async def on_get(self, _: Request, response: Response) -> None:
        put_json(response, await self.plane.history.check())


def add_owner_routes(app: App, plane: ControlPlane) -> None:
    app.add_route("/admin/v1/organisations", _Organisations(plane))
    app.add_route("/admin/v1/organisations/{name}", _OneOrganisation(plane))
    app.add_route("/admin/v1/organisations/{name}/quota", _Limits(plane))
    app.add_route("/admin/v1/assertions", _Assertions(plane))
    app.add_route("/admin/v1/history", _History(plane))
    app.add_route("/admin/v1/history/check", _HistoryCheck(plane))
    app.add_route("/admin/v1/keys", _Keys(plane))
    app.add_route("/admin/v1/keys/{key}", _OneKey(plane))


def _limit(value: JsonValue, name: str) -> int | None:
    if value is None or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    raise Invalid("expected a whole number, -1 for no limit, or null for the default", field=f"$.{name}")


def _show_organisation(organisation: Organisation) -> dict[str, object]:
    return {"id": str(organisation.id), "name": organisation.name}


def _show_made(key: ApiKey) -> dict[str, object]:
    shown: dict[str, object] = {"id": key.id, "secret": key.secret, "name": key.name, "role": key.role.value}
    return shown if key.previous_until is None else {**shown, "old-secret-until-at": key.previous_until}


def _show_key(key: ApiKey, snapshot: Snapshot) -> dict[str, object]:
    groups = (
        None
        if key.scope is None
        else sorted(snapshot.groups[id_].name if id_ in snapshot.groups else str(id_) for id_ in key.scope)
    )
    return {
        "id": key.id,
        "name": key.name,
        "organisation": snapshot.organisations[key.organisation].name,
        "role": key.role.value,
        "groups": groups,
        "created-at": key.created_at,
        "old-secret-until-at": key.previous_until,
    }
