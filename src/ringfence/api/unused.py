"""GET /admin/v1/unused?window-s=N&organisation=NAME: rules without a hit, with the window in which that was counted."""

from dataclasses import dataclass

from ringfence.api.exchange import Request, Response, put_json
from ringfence.control.plane import ControlPlane
from ringfence.control.unused import Unused
from ringfence.policy.errors import Invalid
from ringfence.policy.rule_words import describe_rule
from ringfence.policy.snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class UnusedResource:
    """``safe``: every host that enforces the rule counted it for the whole window."""

    plane: ControlPlane

    async def on_get(self, request: Request, response: Response) -> None:
        window_s, name = _window_s(request), request.get_param("organisation")
        owner = self.plane.owners.named(name).id if name else None
        now_s, found = await self.plane.evidence.unused()
        snapshot = self.plane.snapshot
        wanted = [one for one in found if owner in (None, one.group.organisation)]
        put_json(response, {"unused": [_show(snapshot, one, now_s, window_s) for one in wanted]})


def _window_s(request: Request) -> int:
    given = request.get_param("window-s") or ""
    if not given.isdecimal():
        raise Invalid("expected seconds, a whole number", field="?window-s")
    return int(given)


def _show(snapshot: Snapshot, one: Unused, now_s: float, window_s: int) -> dict[str, object]:
    return {
        "group": one.group.name,
        "group-id": str(one.group.id),
        "rule": str(one.rule.id),
        "description": describe_rule(snapshot, one.rule),
        "created-at": one.created_at,
        "since-at": None if one.since is None else int(one.since),
        "hosts": list(one.hosts),
        "silent": list(one.silent),
        "safe": one.is_safe(now_s, window_s),
    }
