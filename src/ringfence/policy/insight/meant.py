"""What the ends of an assertion mean in one snapshot, by its index alone, without a population."""

from ringfence.policy.errors import CallerError
from ringfence.policy.index import Index
from ringfence.policy.insight.assertions import Assertion
from ringfence.policy.insight.ends import parse_network
from ringfence.policy.model import Group, Instance
from ringfence.policy.named import ANY, INTERNET, find_named
from ringfence.policy.snapshot import Snapshot
from ringfence.policy.values import InstanceId, Network, OrganisationId

Meant = str | Network | Group | Instance


def ends_of(snapshot: Snapshot, assertion: Assertion, owner: OrganisationId) -> tuple[Meant, Meant]:
    """Source and destination. Raises as ``find_named``."""

    def end_of(text: str) -> Meant:
        if text in (ANY, INTERNET):
            return text
        network = parse_network(text, field=assertion.field)
        return network or find_named(snapshot, text, field=assertion.field, owner=owner)

    return end_of(assertion.source), end_of(assertion.destination)


def is_clear(snapshot: Snapshot, assertion: Assertion, owner: OrganisationId) -> bool:
    """Whether both ends are known and unambiguous."""
    try:
        ends_of(snapshot, assertion, owner)
    except CallerError:
        return False
    return True


def means(end: Meant, index: Index, instance: Instance) -> bool:
    """Whether an end means some address of an instance."""
    if isinstance(end, str):
        return end == ANY
    if isinstance(end, Group):
        peer = index.peer(end.id)
        return end.id in instance.groups or any(address in peer for address in instance.addresses)
    if isinstance(end, Instance):
        return instance.id == end.id or any(address in end.addresses for address in instance.addresses)
    return any(address in end for address in instance.addresses)


def is_another(old: Meant, new: Meant) -> bool:
    """Whether a name means another object than before, or a group whose sources differ."""
    if isinstance(old, Group | Instance) and isinstance(new, Group | Instance):
        return old.id != new.id or sources_of(old) != sources_of(new)
    return False


def named_by(end: Meant, index: Index) -> set[InstanceId]:
    """The instances that an end means one by one."""
    if isinstance(end, Group):
        return {*index.wearers_of(end.id)}
    return {end.id} if isinstance(end, Instance) else set()


def sources_of(group: object) -> frozenset[Network]:
    """The external sources of ``group``; none if it is no group."""
    return frozenset(source.network for source in group.sources) if isinstance(group, Group) else frozenset()
