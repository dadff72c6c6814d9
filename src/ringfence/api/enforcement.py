"""What a server adds to an explanation: which hosts enforce it, at which revision, and the rule's count."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from ringfence.control.hosts import HostStatus
from ringfence.control.plane import ControlPlane
from ringfence.control.questions import Answer
from ringfence.nft.foreign import ForeignChain, meets
from ringfence.policy.values import Direction, HostName, Kind, RuleId
from ringfence.wire.counters import RuleCount


def tell_who_enforces(plane: ControlPlane, answer: Answer) -> Answer:
    """The answer of ``Questions.explain`` with each side's host: its revisions and the deciding rule's count there."""
    sides: Any = answer["sides"]
    packet: Any = answer["packet"]
    text = [str(answer["text"])]
    told = []
    version = 6 if ":" in packet["source"] else 4
    for side in sides:
        host = side["host"]
        if host is None:
            text.append(f"  no host enforces {side['instance']} yet")
            told.append(side)
            continue
        status = plane.status_of(HostName(host))
        rule = side["rule"]
        count = None if rule is None else plane.evidence.counts(HostName(host)).get(RuleId(UUID(rule["id"])))
        text += _sentences(side["instance"], status, count, has_rule=rule is not None)
        others = [chain.text for chain in status.foreign or () if _meets(chain, side, version)]
        text += [f"  {host} has other rules that may drop it all the same: {other}" for other in others]
        told.append(
            {
                **side,
                "wanted": status.wanted,
                "applied": status.applied,
                "counted": _show_count(count),
                "others_drop": others,
            }
        )
    return {**answer, "text": "\n".join(text), "sides": told}


def _sentences(instance: str, status: HostStatus, count: RuleCount | None, *, has_rule: bool) -> Iterator[str]:
    if status.error:
        yield f"  {status.host} enforces {instance}, and reports: {status.error}"
    elif status.applied is None:
        yield f"  {status.host} is to enforce {instance}, and was not heard yet"
    elif status.applied < status.wanted:
        yield f"  {status.host} enforces {instance}, still at revision {status.applied} of {status.wanted}"
    else:
        yield f"  {status.host} enforces {instance}, at revision {status.applied}, which is the newest"
    if has_rule:
        yield f"  there the rule {_counted(count)}"


def _meets(chain: ForeignChain, side: Mapping[str, str], version: int) -> bool:
    return meets(chain, Direction(side["direction"]), version=version, kind=Kind(side["kind"]))


def _counted(count: RuleCount | None) -> str:
    if count is None:
        return "has not been counted yet"
    if count.last_hit is None:
        return f"has allowed nothing since {_time(count.since)}"
    what = f"{count.judged} packets" if count.connections is None else f"{count.connections} connections"
    return f"has allowed {what} since {_time(count.since)}, the last at {_time(count.last_hit)}"


def _show_count(count: RuleCount | None) -> Answer | None:
    if count is None:
        return None
    return {"judged": count.judged, "connections": count.connections, "last-hit": count.last_hit, "since": count.since}


def _time(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M} UTC"
