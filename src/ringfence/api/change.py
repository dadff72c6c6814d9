"""POST /admin/v1/change: several commands as one change, by names or ids; or, as a dry run, what they would do."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from ringfence.api.exchange import Request, Response, put_json
from ringfence.api.operations import show_operation
from ringfence.api.operator import operator
from ringfence.control.actor import Actor
from ringfence.control.allow import allow_edits
from ringfence.control.ids import new_id
from ringfence.control.lookup import find_group_named, find_peer_named
from ringfence.control.plane import ControlPlane, Preview
from ringfence.control.safety import Safety
from ringfence.control.use_cases import Changed
from ringfence.policy.named import find_instance_named
from ringfence.policy.rule_words import describe_rule
from ringfence.policy.snapshot import Snapshot, index_of
from ringfence.policy.values import InstanceId, OrganisationId
from ringfence.wire.change import Directory, decode_allowance, decode_change


@dataclass(frozen=True, slots=True)
class ChangeResource:
    """The answer has the operation, in words what was done, and of each edit the id of what it asked to create."""

    plane: ControlPlane

    async def on_post(self, request: Request, response: Response) -> None:
        actor = operator(self.plane, request)
        organisation = actor.organisation
        order = decode_change(request.body, directory_of(self.plane.snapshot, organisation), new_id)
        if order.dry_run:
            preview = await self.plane.preview(order.edits, actor)
            put_json(response, await show_preview(self.plane, preview, organisation))
            return
        safety = Safety(order.confirm_s, order.force)
        changed = await self.plane.change(order.edits, actor, action="Change", safety=safety)
        ids = [str(edit.new_id) for edit in order.edits]
        put_json(response, {**show_changed(changed, self.plane.snapshot), "ids": ids})


@dataclass(frozen=True, slots=True)
class RulesResource:
    """GET /admin/v1/rules?organisation=NAME&group=NAME: rules in words, with their ids, and until when they last."""

    plane: ControlPlane

    def on_get(self, request: Request, response: Response) -> None:
        snapshot, name = self.plane.snapshot, request.get_param("group")
        organisation = self.plane.owners.named(request.get_param("organisation")).id
        groups = [group for group in snapshot.groups.values() if group.organisation == organisation]
        if name:
            groups = [find_group_named(snapshot, name, organisation, field="?group")]
        shown = [
            {
                "group": group.name,
                "rule": str(rule.id),
                "allows": describe_rule(snapshot, rule),
                "expires-at": rule.expires_at,
            }
            for group in groups
            for rule in group.rules
        ]
        put_json(response, {"rules": shown})


@dataclass(frozen=True, slots=True)
class GroupsResource:
    """GET /admin/v1/security-groups?organisation=NAME: its groups, with how many rules and wearers each has."""

    plane: ControlPlane

    def on_get(self, request: Request, response: Response) -> None:
        snapshot, organisation = self.plane.snapshot, self.plane.owners.named(request.get_param("organisation")).id
        shown = [
            {
                "name": group.name,
                "id": str(group.id),
                "rules": len(group.rules),
                "worn-by": len(index_of(snapshot).wearers_of(group.id)),
                "sources": [str(source.network) for source in group.sources],
                "visibility": group.visibility.value,
                "description": group.description,
            }
            for group in snapshot.groups.values()
            if group.organisation == organisation
        ]
        put_json(response, {"groups": shown})


@dataclass(frozen=True, slots=True)
class AllowResource:
    """POST /admin/v1/allow: lets an address, by default the caller's, reach a group or an instance for a time.

    It serves the operator and callers with a key; ``actor`` tells which.
    """

    plane: ControlPlane
    actor: Callable[[Request], Actor]

    async def on_post(self, request: Request, response: Response) -> None:
        actor = self.actor(request)
        allowance = decode_allowance(request.body, _address_of(actor))
        edits = allow_edits(self.plane.snapshot, actor.organisation, allowance, new_id)
        changed = await self.plane.change(edits, actor, action="AllowMe")
        put_json(response, show_changed(changed, self.plane.snapshot))


async def show_preview(
    plane: ControlPlane, preview: Preview, organisation: OrganisationId, assertions: Sequence[str] = ()
) -> dict[str, object]:
    """What a change would do. ``guard``: why the lock-out guard would refuse it, unless it is forced."""
    plan = await plane.foresee(preview, organisation, assertions)
    return {"dry-run": True, "would": preview.would, "plan": plan, "guard": [cut.text for cut in preview.cuts]}


def _address_of(actor: Actor) -> str | None:
    """Where a signed call comes from, as trusted proxies say it, or else the session of the operator."""
    if actor.address is not None:
        return actor.address
    return None if actor.connection is None else str(actor.connection.client)


def show_changed(changed: Changed, snapshot: Snapshot) -> dict[str, object]:
    """The outcome of a change, and until when it must be confirmed, if at all."""
    operation = changed.operation
    shown: dict[str, object] = {"operation": show_operation(operation), "did": changed.did}
    organisation = snapshot.organisations.get(operation.organisation)
    trial = organisation.trial if organisation else None
    if trial is None or trial.revision != operation.revision:
        return shown
    return {**shown, "trial": {"revision": trial.revision, "ends-at": trial.ends_at}}


def directory_of(snapshot: Snapshot, organisation: OrganisationId) -> Directory:
    """The look-ups of names for an organisation."""
    own = {id_: one for id_, one in snapshot.instances.items() if one.organisation == organisation}
    instances = replace(snapshot, instances=own)

    def instance(text: str, field: str) -> InstanceId:
        return find_instance_named(instances, text, field=field).id

    return Directory(
        group=lambda text, field: find_group_named(snapshot, text, organisation, field=field).id,
        peer=lambda text, field: find_peer_named(snapshot, text, organisation, field=field),
        instance=instance,
        wearers=lambda group: tuple(sorted(index_of(snapshot).wearers_of(group))),
    )
