"""Whatever a document says, its file says it too."""

from dataclasses import replace
from ipaddress import ip_network

from hypothesis import given
from hypothesis import strategies as st

from generated import snapshots
from policies import ORGANISATION, group_id
from ringfence.policy.commands import GroupReference, RuleDraft
from ringfence.policy.desired import DEFAULT, DesiredGroup, DesiredInstance, Document, snapshot_of
from ringfence.policy.export import document_of
from ringfence.policy.model import Organisation
from ringfence.policy.values import V4_MAPPED, Cidr, Direction, HostName, Icmp, Protocol, Visibility
from ringfence.wire.policy_file import read_policy, write_policy

names = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12)
texts = st.none() | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
_addresses = st.ip_addresses().filter(lambda one: one not in V4_MAPPED)  # which no policy has
cidrs = _addresses.map(ip_network).map(lambda network: Cidr(str(network), network))
peers = cidrs | st.builds(GroupReference, st.none(), names, st.sampled_from(Visibility))
ports = st.tuples(st.integers(1, 65535), st.integers(1, 65535)).map(sorted).map(tuple) | st.just((None, None))


@st.composite
def drafts(draw):
    protocol = draw(st.sampled_from(Protocol))
    start, end = draw(ports) if protocol.has_ports else (None, None)
    type_ = draw(st.none() | st.integers(0, 254))
    code = draw(st.none() | st.integers(0, 254)) if type_ is not None else None
    icmp = Icmp(type_, code) if protocol.has_types and type_ is not None else None
    return RuleDraft(draw(st.sampled_from(Direction)), protocol, draw(peers), start, end, icmp, draw(texts))


def _by_direction(rules):
    return tuple(sorted(rules, key=lambda rule: rule.direction is Direction.EGRESS))


groups = st.builds(
    DesiredGroup,
    names,
    texts,
    st.sampled_from(Visibility),
    st.lists(cidrs, max_size=3).map(tuple),
    st.lists(drafts(), max_size=4).map(_by_direction),
)
instances = st.builds(
    DesiredInstance,
    names,
    st.lists(names, max_size=3).map(tuple),
    st.lists(st.ip_addresses(network="192.0.2.0/24"), max_size=2).map(tuple),
    st.none() | names.map(HostName),
    st.booleans(),
    public_groups=st.lists(names, max_size=2).map(tuple),
) | st.builds(DesiredInstance, names)


@given(
    st.builds(
        Document,
        st.lists(groups, max_size=4, unique_by=lambda one: one.key).map(
            lambda found: tuple(sorted(found, key=lambda one: one.visibility is Visibility.PUBLIC))
        ),
        st.lists(instances, max_size=3, unique_by=lambda one: one.name).map(tuple),
        st.lists(st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=20), max_size=3).map(tuple),
    )
)
def test_what_is_written_reads_back_and_is_written_the_same(document):
    text = write_policy(document)
    assert read_policy(text, "policy.yaml").document == document
    assert write_policy(read_policy(text, "policy.yaml").document) == text


@given(snapshots(), st.randoms(use_true_random=False))
def test_an_export_does_not_depend_on_the_order_of_things_and_is_exported_the_same(snapshot, rng):
    snapshot = replace(snapshot, organisations={ORGANISATION: Organisation(ORGANISATION, "first", group_id("default"))})
    shuffled = replace(
        snapshot,
        groups={
            group.id: replace(group, rules=_mixed(rng, group.rules), sources=_mixed(rng, group.sources))
            for group in _mixed(rng, snapshot.groups.values())
        },
        instances={one.id: replace(one, groups=_mixed(rng, one.groups)) for one in snapshot.instances.values()},
    )
    text = write_policy(_with_default(document_of(snapshot, ORGANISATION)))
    assert write_policy(_with_default(document_of(shuffled, ORGANISATION))) == text
    read = snapshot_of(read_policy(text, "policy.yaml").document)
    assert write_policy(document_of(read, next(iter(read.organisations)))) == text


def _mixed(rng, things):
    return tuple(rng.sample(list(things), len(things)))


def _with_default(document):
    """With the group that every policy has and a snapshot of a test may lack."""
    return replace(document, groups=tuple(sorted((*document.groups, DesiredGroup(DEFAULT)), key=lambda one: one.name)))
