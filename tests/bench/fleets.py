"""Large stores for the benches: organisations with very many groups, hosts and instances, written to a data folder."""

from ipaddress import IPv4Address
from pathlib import Path
from random import Random
from uuid import UUID, uuid4

from ringfence.control.use_cases import found_organisation
from ringfence.policy.facts import Fact, GroupCreated, HostAdded, InstanceCreated, LimitSet, apply_facts
from ringfence.policy.model import Group, GroupPeer, Host, Instance, Interface, Rule
from ringfence.policy.quota import Quota
from ringfence.policy.values import (
    Direction,
    GroupId,
    HostName,
    InstanceId,
    InterfaceName,
    Protocol,
    RuleId,
    parse_cidr,
)
from ringfence.store import AuditLine, Decision, Store, next_revision, place_of

_BATCH = 2000  # facts in a transaction


def fill(folder: Path, *, hosts: dict[HostName, bytes], instances: int, groups: int, rules: int) -> None:
    """A new store: ``hosts`` (and their public keys) run ``instances`` evenly, each in the default group and two of
    ``groups``, which have ``rules`` rules each, every fifth of them for another group."""
    chance, names = Random(7), list(hosts)
    store = Store.open(folder, place_of(folder, None))
    try:
        store.submit(found_organisation(uuid4(), uuid4(), 0)).result()
        (organisation,) = store.snapshot.organisations.values()
        ids = [GroupId(UUID(int=chance.getrandbits(128))) for _ in range(groups)]
        facts: list[Fact] = [LimitSet(organisation.id, quota, -1) for quota in Quota]
        facts += [HostAdded(Host(name, organisation.id, key)) for name, key in hosts.items()]
        facts += [_group(ids, n, organisation.id, rules, chance) for n in range(groups)]
        worn = [(organisation.default_group, *chance.sample(ids, min(2, groups))) for _ in range(instances)]
        facts += [_instance(n, organisation.id, names[n % len(names)], worn[n], chance) for n in range(instances)]
        for start in range(0, len(facts), _BATCH):
            store.submit(_write(tuple(facts[start : start + _BATCH]), organisation.id)).result()
    finally:
        store.close()


def _write(facts, organisation):
    def decide(snapshot):
        after = apply_facts(snapshot, facts, revision=next_revision(snapshot))
        return Decision(None, facts=facts, after=after, audit=AuditLine(organisation, 0, "bench", "Fill", "all"))

    return decide


def _group(ids, number, organisation, rules, chance):
    """Rules name groups before this one, which are there already."""
    peers = [GroupPeer(ids[chance.randrange(number)]) if number and n % 5 == 4 else None for n in range(rules)]
    return GroupCreated(
        Group(
            id=ids[number],
            organisation=organisation,
            name=f"group-{number}",
            rules=tuple(
                Rule(
                    id=RuleId(UUID(int=chance.getrandbits(128))),
                    direction=Direction.INGRESS,
                    protocol=Protocol.TCP,
                    peer=peer or parse_cidr(f"10.{n}.{number % 250}.0/24", field="bench"),
                    start_port=1 + number % 60000,
                    end_port=1 + number % 60000,
                )
                for n, peer in enumerate(peers)
            ),
        )
    )


def _instance(number, organisation, host, groups, chance):
    interface = Interface(InterfaceName(f"veth{number}"), (IPv4Address((10 << 24) + 256 + number),))
    return InstanceCreated(
        Instance(
            id=InstanceId(UUID(int=chance.getrandbits(128))),
            organisation=organisation,
            name=f"instance-{number}",
            host=host,
            interfaces=(interface,),
            groups=groups,
            bound_to=host,
        )
    )
