"""A rule, and the verdict of one side on a packet, in words for a person."""

from ringfence.policy.model import GroupPeer, Rule
from ringfence.policy.snapshot import Snapshot
from ringfence.policy.values import Direction, GroupId
from ringfence.policy.verdict import Allowance, SideVerdict
from ringfence.policy.wording import shown


def describe_side(snapshot: Snapshot, side: SideVerdict) -> str:
    """A side's verdict and why, e.g. "ingress of db-1 (wears db) denies it: no rule of its groups allows it in …"."""
    worn = ", ".join(group_name(snapshot, group) for group in side.endpoint.groups) or "no group"
    said = "allows it" if side.allowed else "would deny it, but is only observed" if side.passes else "denies it"
    head = f"{side.direction.value} of {shown(side.endpoint.name)} (wears {worn}) {said}"
    if isinstance(side.reason, Allowance):
        group = group_name(snapshot, side.reason.group)
        return f"{head}: rule {side.reason.rule.id} of group {group}, {describe_rule(snapshot, side.reason.rule)}"
    return f"{head}: {side.reason.value}"


def describe_rule(snapshot: Snapshot, rule: Rule) -> str:
    """A rule in words, e.g. "ingress tcp/5432 from group app (reads)"."""
    what = rule.protocol.value
    if rule.protocol.has_ports and rule.start_port is not None:
        what += (
            f"/{rule.ports.first}" if rule.ports.first == rule.ports.last else f"/{rule.ports.first}-{rule.ports.last}"
        )
    if rule.icmp is not None and not rule.icmp.any_type:
        what += f"/{rule.icmp.type}" if rule.icmp.any_code else f"/{rule.icmp.type}/{rule.icmp.code}"
    way = "from" if rule.direction is Direction.INGRESS else "to"
    peer = f"group {group_name(snapshot, rule.peer.group)}" if isinstance(rule.peer, GroupPeer) else rule.peer.text
    note = f" ({shown(rule.description)})" if rule.description else ""
    return f"{rule.direction.value} {what} {way} {peer}{note}"


def group_name(snapshot: Snapshot, group: GroupId) -> str:
    """The group's name, or its id when the snapshot has no such group."""
    return shown(snapshot.groups[group].name) if group in snapshot.groups else str(group)
