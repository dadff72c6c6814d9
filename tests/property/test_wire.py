"""Whatever bytes come in, they are understood or refused as the caller's fault; what is understood is echoed."""

import json
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ringfence.policy.errors import CallerError, Denied, Invalid
from ringfence.policy.model import Group, GroupPeer, Rule
from ringfence.policy.values import Cidr, Protocol
from ringfence.wire.decode import decode_group, decode_rule, decode_source, decode_worn
from ringfence.wire.document import parse_document
from ringfence.wire.encode import encode_group
from ringfence.wire.signature import SignedRequest, sign_request, verify_request

ID = "5a3ca769-0fdb-4c4a-bc3b-b13b7b687cf3"
PEER = "8a497d5b-6929-40ef-bba5-60bf03274ceb"
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.sampled_from(
    ["flow-direction", "protocol", "network", "security-group", "start-port", "icmp", "name", "id"]
)
NEARLY = st.dictionaries(FIELDS, JSON | st.dictionaries(FIELDS, JSON, max_size=3), max_size=8)
TEXT = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), max_size=255)


@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_any_bytes_are_a_document_or_invalid(body):
    try:
        value = parse_document(body)
    except Invalid:
        return
    assert json.loads(body) == value


@given(NEARLY)
def test_nearly_a_request_is_a_request_or_the_callers_fault(document):
    body = json.dumps(document).encode()
    for decode in (decode_group, decode_rule, decode_source, decode_worn):
        with suppress(CallerError):
            decode(body)


@given(
    st.text(max_size=300) | st.from_regex(r"EXO2-HMAC-SHA256 [a-z=,;0-9-]{0,80}", fullmatch=True),
    st.binary(max_size=50),
)
def test_no_header_signs_anything_by_chance(header, target):
    with pytest.raises(Denied, match=r"^the request is not signed, or not with a valid signature$"):
        verify_request(header, SignedRequest("GET", target, b""), now=1.7e9, secrets_of={"EXO": ("s",)}.__getitem__)


@given(
    st.sampled_from(["GET", "POST", "PUT", "DELETE"]),
    st.from_regex(rb"/v2/[a-z0-9/:%-]{0,40}(\?visibility=[a-z%0-9]{0,10})?", fullmatch=True),
    st.binary(max_size=100),
)
def test_what_is_signed_verifies_and_any_change_of_a_bit_does_not(method, target, body):
    request = SignedRequest(method, target, body)
    header = sign_request("EXO", "s3cr3t", request, 1_700_000_600)
    secrets = {"EXO": ("s3cr3t",)}.__getitem__
    assert verify_request(header, request, now=1.7e9, secrets_of=secrets) == "EXO"
    for changed in (SignedRequest(method, target, body + b"\0"), SignedRequest(method + "X", target, body)):
        with pytest.raises(Denied):
            verify_request(header, changed, now=1.7e9, secrets_of=secrets)


def ports():
    pair = st.tuples(st.integers(1, 65535), st.integers(1, 65535)).map(sorted)
    return st.one_of(
        pair.map(lambda both: {"start-port": both[0], "end-port": both[1]}),
        st.integers(1, 65535).map(lambda port: {"start-port": port}),
        st.integers(1, 65535).map(lambda port: {"end-port": port}),
        st.just({}),
    )


def icmp():
    typed = st.fixed_dictionaries({"type": st.integers(0, 254)}, optional={"code": st.integers(-1, 254)})
    return st.one_of(typed, st.just({"type": -1, "code": -1}), st.just({})).map(lambda value: {"icmp": value})


PROTOCOLS = st.one_of(
    st.tuples(st.sampled_from(["tcp", "udp"]), ports()),
    st.tuples(st.sampled_from(["icmp", "icmpv6"]), icmp() | st.just({})),
    st.tuples(st.sampled_from(["esp", "ah", "gre", "ipip", "all"]), st.just({})),
)
NETWORKS = st.one_of(
    st.ip_addresses(v=4).flatmap(lambda ip: st.integers(0, 32).map(lambda n: f"{ip}/{n}")),
    st.ip_addresses(v=6)
    .filter(lambda ip: ip.ipv4_mapped is None)
    .flatmap(lambda ip: st.integers(0, 128).map(lambda n: f"{ip}/{n}".upper())),
)
PEERS = st.one_of(NETWORKS.map(lambda text: {"network": text}), st.just({"security-group": {"id": PEER}}))


@settings(max_examples=200)
@given(st.sampled_from(["ingress", "egress"]), PROTOCOLS, PEERS, st.none() | TEXT)
def test_every_well_formed_rule_is_shown_exactly_as_it_was_given(direction, matched, peer, description):
    protocol, match = matched
    body = {"flow-direction": direction, "protocol": protocol, **match, **peer}
    if description is not None:
        body["description"] = description
    draft = decode_rule(json.dumps(body).encode())
    assert draft.protocol is Protocol(protocol)
    peer_value = draft.peer if isinstance(draft.peer, Cidr) else GroupPeer(draft.peer.id)
    rule = Rule(
        ID, draft.direction, draft.protocol, peer_value, draft.start_port, draft.end_port, draft.icmp, draft.description
    )
    shown = json.loads(encode_group(Group(ID, ID, "g", rules=(rule,)), {}))["rules"][0]
    assert shown == {**body, "id": ID}
