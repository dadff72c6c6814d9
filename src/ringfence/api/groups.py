"""The ten operations on security groups, as routes: decode, let control decide, encode.

Input: authenticated requests. Output: operations and groups as JSON. It holds no rule of policy.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ringfence.api.authentication import actor_of
from ringfence.api.exchange import Request, Response
from ringfence.api.routes import App
from ringfence.control.actor import Actor
from ringfence.control.plane import ControlPlane
from ringfence.policy.commands import (
    AddRule,
    AddSource,
    Attach,
    DeleteGroup,
    DeleteRule,
    Detach,
    GroupCommand,
    RemoveSource,
)
from ringfence.policy.errors import NotFound
from ringfence.policy.model import Group
from ringfence.policy.values import GroupId, RuleId, Visibility
from ringfence.wire.decode import (
    decode_group,
    decode_rule,
    decode_source,
    decode_visibility,
    decode_worn,
    parse_path_id,
    refuse_arguments,
)
from ringfence.wire.encode import encode_accepted
from ringfence.wire.group_encoder import GroupEncoder
from ringfence.wire.signature import parse_query


@dataclass(frozen=True, slots=True)
class _Resource:
    plane: ControlPlane

    async def _execute(self, request: Request, response: Response, command: GroupCommand) -> None:
        operation = await self.plane.execute(command, actor_of(request))
        response.data = encode_accepted(operation)


@dataclass(frozen=True, slots=True)
class GroupList(_Resource):
    """/v2/security-group: create-security-group, list-security-groups."""

    encoder: GroupEncoder

    def on_get(self, request: Request, response: Response) -> None:
        wanted = decode_visibility(parse_query(request.target))
        groups = self.plane.snapshot.groups
        actor = actor_of(request)
        listed = _list_shown(groups, actor, wanted)
        response.data = self.encoder.many(listed, groups, name=(actor.organisation, wanted))

    async def on_post(self, request: Request, response: Response) -> None:
        await self._execute(request, response, decode_group(request.body))


@dataclass(frozen=True, slots=True)
class OneGroup(_Resource):
    """/v2/security-group/{group}: get-security-group, delete-security-group."""

    encoder: GroupEncoder

    def on_get(self, request: Request, response: Response, group: str) -> None:
        refuse_arguments(parse_query(request.target))
        id_ = parse_group_id(group)
        groups = self.plane.snapshot.groups
        found = groups.get(id_)
        if found is None or not _is_shown(found, actor_of(request), Visibility.PRIVATE):
            raise NotFound(f"there is no security group {id_}")
        response.data = self.encoder.one(found, groups)

    async def on_delete(self, request: Request, response: Response, group: str) -> None:
        await self._execute(request, response, DeleteGroup(parse_group_id(group)))


@dataclass(frozen=True, slots=True)
class RuleList(_Resource):
    """/v2/security-group/{group}/rules: add-rule-to-security-group."""

    async def on_post(self, request: Request, response: Response, group: str) -> None:
        id_ = parse_group_id(group)
        await self._execute(request, response, AddRule(id_, decode_rule(request.body)))


@dataclass(frozen=True, slots=True)
class OneRule(_Resource):
    """/v2/security-group/{group}/rules/{rule_id}: delete-rule-from-security-group."""

    async def on_delete(self, request: Request, response: Response, group: str, rule: str) -> None:
        rule_id = RuleId(parse_path_id(rule, what="rule"))
        await self._execute(request, response, DeleteRule(parse_group_id(group), rule_id))


@dataclass(frozen=True, slots=True)
class AddedSource(_Resource):
    """/v2/security-group/{group}:add-source: add-external-source-to-security-group."""

    async def on_put(self, request: Request, response: Response, group: str) -> None:
        await self._execute(request, response, AddSource(parse_group_id(group), decode_source(request.body)))


@dataclass(frozen=True, slots=True)
class RemovedSource(_Resource):
    """/v2/security-group/{group}:remove-source: remove-external-source-from-security-group."""

    async def on_put(self, request: Request, response: Response, group: str) -> None:
        await self._execute(request, response, RemoveSource(parse_group_id(group), decode_source(request.body)))


@dataclass(frozen=True, slots=True)
class Attached(_Resource):
    """/v2/security-group/{group}:attach: attach-instance-to-security-group."""

    async def on_put(self, request: Request, response: Response, group: str) -> None:
        await self._execute(request, response, Attach(parse_group_id(group), decode_worn(request.body)))


@dataclass(frozen=True, slots=True)
class Detached(_Resource):
    """/v2/security-group/{group}:detach: detach-instance-from-security-group."""

    async def on_put(self, request: Request, response: Response, group: str) -> None:
        await self._execute(request, response, Detach(parse_group_id(group), decode_worn(request.body)))


def parse_group_id(text: str) -> GroupId:
    return GroupId(parse_path_id(text, what="security group"))


def _list_shown(groups: Mapping[GroupId, Group], actor: Actor, wanted: Visibility) -> Iterator[Group]:
    """A generator, because the encoder may have the list cached and then reads nothing of it."""
    for group in groups.values():
        if _is_shown(group, actor, wanted):
            yield group


def _is_shown(group: Group, actor: Actor, wanted: Visibility) -> bool:
    """Public groups are shown to everybody, private ones to their organisation."""
    return group.visibility is wanted and (wanted is Visibility.PUBLIC or group.organisation == actor.organisation)


def add_group_routes(app: App, plane: ControlPlane) -> None:
    encoder = GroupEncoder()
    app.add_route("/v2/security-group", GroupList(plane, encoder))
    app.add_route("/v2/security-group/{group}", OneGroup(plane, encoder))
    app.add_route("/v2/security-group/{group}/rules", RuleList(plane))
    app.add_route("/v2/security-group/{group}/rules/{rule}", OneRule(plane))
    app.add_route("/v2/security-group/{group}:add-source", AddedSource(plane))
    app.add_route("/v2/security-group/{group}:remove-source", RemovedSource(plane))
    app.add_route("/v2/security-group/{group}:attach", Attached(plane))
    app.add_route("/v2/security-group/{group}:detach", Detached(plane))
