"""A snapshot that grows by deciding commands: the control room's pure part, without store, hosts or time."""

from ipaddress import ip_address
from itertools import count
from uuid import UUID

from ringfence.control.actor import Actor, Role, operator_of
from ringfence.control.decide import Given, decide
from ringfence.control.decide_claims import decide_claim
from ringfence.policy.commands import (
    AddInstance,
    AddRule,
    ClaimInstances,
    CreateGroup,
    GroupReference,
    InstanceClaim,
    RuleDraft,
)
from ringfence.policy.facts import GroupCreated, HostAdded, OrganisationCreated, apply_facts
from ringfence.policy.model import Group, Host, Interface, Organisation
from ringfence.policy.snapshot import Snapshot
from ringfence.policy.values import (
    Direction,
    GroupId,
    HostName,
    InstanceId,
    InterfaceName,
    Kind,
    OrganisationId,
    Protocol,
    Visibility,
    parse_cidr,
)
from ringfence.store import next_revision

ORGANISATION = OrganisationId(UUID(int=0xA))
STRANGERS = OrganisationId(UUID(int=0xB))
OWNER = Actor(ORGANISATION, "EXOowner", Role.OWNER)
STRANGER = Actor(STRANGERS, "EXOstranger", Role.OWNER)
OPERATOR = operator_of(ORGANISATION)
NOWHERE = UUID(int=0xDEAD)
H1, H2 = HostName("h1"), HostName("h2")


class Desk:
    def __init__(self) -> None:
        self.ids = count(0x1000)
        self.snapshot = Snapshot()
        for id_ in (ORGANISATION, STRANGERS):
            default = GroupId(self.new_id())
            self.apply(
                OrganisationCreated(Organisation(id_, str(id_), default)),
                GroupCreated(Group(default, id_, "default")),
            )
        self.apply(*(HostAdded(Host(name, ORGANISATION, bytes(32))) for name in (H1, H2)))

    def new_id(self):
        return UUID(int=next(self.ids))

    def apply(self, *facts):
        if facts:
            self.snapshot = apply_facts(self.snapshot, facts, revision=next_revision(self.snapshot))
        return facts

    def do(self, command, actor=OWNER, *, offer_all=False):
        """The facts that `command` led to; the snapshot has them."""
        return self.apply(*decide(self.snapshot, command, actor, Given(self.new_id(), 1000, offer_all)))

    def create(self, name, actor=OWNER, visibility=Visibility.PRIVATE):
        """The id of a new group."""
        return self.do(CreateGroup(name, visibility=visibility), actor)[0].group.id

    def add_rule(self, group, draft, actor=OWNER):
        """The id of a new rule."""
        return self.do(AddRule(group, draft), actor)[0].rule.id

    def add_instance(self, name, *addresses, actor=OWNER):
        """The id of a new instance without a host."""
        return self.do(AddInstance(instance(name, *addresses)), actor)[0].instance.id

    def claim(self, host, *claims):
        """The whole decision on an inventory; the snapshot has its facts."""
        ids = [InstanceId(self.new_id()) for _ in claims]
        decided = decide_claim(
            self.snapshot, ClaimInstances(claims), self.snapshot.hosts[host], new_ids=ids, now_s=1000
        )
        self.apply(*decided.facts)
        return decided

    def instance(self, name, host=None):
        """The one instance of that name, on that host when one is given."""
        (found,) = (
            one for one in self.snapshot.instances.values() if one.name == name and host in (None, one.bound_to)
        )
        return found

    @property
    def default(self):
        return self.snapshot.organisations[ORGANISATION].default_group


def instance(name, *addresses, id_=None, interface="veth0", managed=True, realm="default", kind=Kind.ROUTED):
    """A claim of one instance with one interface; without addresses it still has the interface."""
    port = Interface(InterfaceName(interface), tuple(map(ip_address, addresses)), managed=managed, kind=kind)
    return InstanceClaim(name, id_, (port,), realm)


def cidr(text):
    return parse_cidr(text, field="test")


def tcp(peer, port=22, **fields):
    """An ingress rule; the peer is a network as text, a group's id, or a reference."""
    if isinstance(peer, str):
        peer = cidr(peer)
    elif isinstance(peer, UUID):
        peer = GroupReference(peer, None)
    return RuleDraft(Direction.INGRESS, Protocol.TCP, peer, port, port, **fields)
