"""The questions about a policy, answered alike by a server and for a policy file: one method for each question.

Input: a snapshot and the arguments of the question, as text. Output: values for JSON. Pure, with a cache.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final

from ringfence.control.lookup import find_instance_of, find_organisation
from ringfence.policy.errors import Invalid, NotFound
from ringfence.policy.export import document_of
from ringfence.policy.insight.assertions import Result, check, examples, parse_assertions
from ringfence.policy.insight.explain import explain, parse_service
from ringfence.policy.insight.intervals import Intervals
from ringfence.policy.insight.lint import Finding
from ringfence.policy.insight.lint_reach import lint
from ringfence.policy.insight.matrix import draw_matrix
from ringfence.policy.insight.portray import Row, portray_matrix, portray_reach, portray_witness
from ringfence.policy.insight.reach import Reachability
from ringfence.policy.insight.services import parse_services
from ringfence.policy.named import ANY
from ringfence.policy.packet import Packet
from ringfence.policy.rule_words import describe_rule, group_name
from ringfence.policy.snapshot import Snapshot
from ringfence.policy.values import OrganisationId
from ringfence.policy.verdict import Allowance, SideVerdict
from ringfence.wire.policy_file import encode_policy

Query = Mapping[str, str]
Answer = dict[str, object]


@dataclass(slots=True)
class Questions:
    """Keeps the last snapshot prepared, for it is asked about more often than it changes."""

    _prepared: Reachability | None = None

    def explain(self, snapshot: Snapshot, query: Query) -> Answer:
        """``source``, ``destination``, ``service``, ``organisation``: the verdict on a first packet, in words."""
        organisation = query.get("organisation")
        source, destination = (_end(snapshot, _given(query, name), organisation) for name in ("source", "destination"))
        service = parse_service(_given(query, "service"))
        found = explain(snapshot, source, destination, service)
        packet = _show_packet(found.packet, str(service))
        sides = [_show_side(snapshot, side) for side in (found.verdict.egress, found.verdict.ingress) if side]
        return {"allowed": found.verdict.allowed, "text": found.text, "packet": packet, "sides": sides}

    def reach(self, snapshot: Snapshot, query: Query) -> Answer:
        """``from``, ``to``, ``service``: who reaches whom, exactly; without ends, from every group to every group."""
        source, destination, service = (query.get(name) for name in ("from", "to", "service"))
        services = None if service is None else parse_services(service, field="?service")
        ends = None
        if source is not None or destination is not None:
            ends = ANY if source is None else source, ANY if destination is None else destination
        return {"reach": [show_row(row) for row in self._rows(snapshot, ends, services)]}

    def check(self, snapshot: Snapshot, query: Query) -> Answer:
        """``assertions``, one a line, in names of ``organisation``: whether each holds, or a packet that proves not.

        Without ``assertions``, those that the organisation holds (by default the first). ``probe-from``: addresses from
        which example packets could be sent.
        """
        owner, texts = _owner(snapshot, query), query.get("assertions")
        if texts is None and owner is None:
            owner = next(iter(snapshot.organisations))
        held = snapshot.organisations[owner].assertions if texts is None and owner else ()
        asked = parse_assertions(held if texts is None else texts.splitlines())
        prepared = self._ready(snapshot)
        here = [ip_address(text) for text in query.get("probe-from", "").split()]
        return {
            "assertions": [
                show_result(snapshot, check(prepared, one, owner=owner), owner)
                | {
                    "examples": [
                        _show_packet(it.packet, it.service) for it in examples(prepared, one, here, owner=owner)
                    ]
                }
                for one in asked
            ]
        }

    def lint(self, snapshot: Snapshot, query: Query) -> Answer:
        """``organisation``: the findings about its groups, or about all, the gravest first."""
        owner = _owner(snapshot, query)
        found = lint(self._ready(snapshot))
        wanted = [one for one in found if owner in (None, snapshot.groups[one.group].organisation)]
        return {"findings": [show_finding(snapshot, one) for one in wanted]}

    def export(self, snapshot: Snapshot, query: Query) -> Answer:
        """``organisation``: its policy as a policy file."""
        owner = _owner(snapshot, query) or next(iter(snapshot.organisations))
        return encode_policy(document_of(snapshot, owner))

    def _rows(self, snapshot: Snapshot, ends: tuple[str, str] | None, services: Intervals | None) -> list[Row]:
        prepared = self._ready(snapshot)
        if ends is not None:
            return portray_reach(prepared, prepared.ask(*ends, services))
        return [*portray_matrix(snapshot, draw_matrix(prepared.grants), services)]

    def _ready(self, snapshot: Snapshot) -> Reachability:
        prepared = self._prepared
        if prepared is None or prepared.snapshot is not snapshot:
            prepared = self._prepared = Reachability(snapshot)
        return prepared


ANSWERS: Final[Mapping[str, Callable[[Questions, Snapshot, Query], Answer]]] = {
    "explain": Questions.explain,
    "export": Questions.export,
    "reach": Questions.reach,
    "check": Questions.check,
    "lint": Questions.lint,
}


def _owner(snapshot: Snapshot, query: Query) -> OrganisationId | None:
    """The organisation that the question names; None when it names none."""
    name = query.get("organisation")
    return find_organisation(snapshot, name).id if name else None


def _end(snapshot: Snapshot, text: str, organisation: str | None) -> str:
    """An end as it was given, or the id of the organisation's instance of that name."""
    if not organisation:
        return text
    find_organisation(snapshot, organisation)
    try:
        return str(find_instance_of(snapshot, text, organisation).id)
    except NotFound:
        return text


def _given(query: Query, name: str) -> str:
    if not (value := query.get(name)):
        raise Invalid("required, but not given", field=f"?{name}")
    return value


def _show_side(snapshot: Snapshot, side: SideVerdict) -> Answer:
    """The verdict of one side; ``host`` enforces it, ``rule`` is the one that allows."""
    instance = snapshot.instances[side.endpoint.instance]
    said = {
        "direction": side.direction.value,
        "instance": instance.name,
        "instance-id": str(instance.id),
        "host": instance.host,
        "kind": side.endpoint.kind.value,
        "allowed": side.allowed,
        "observed": side.endpoint.observe,
    }
    if not isinstance(side.reason, Allowance):
        return {**said, "reason": side.reason.value, "rule": None}
    rule, group = side.reason.rule, side.reason.group
    shown = {"id": str(rule.id), "group": group_name(snapshot, group), "rule": describe_rule(snapshot, rule)}
    return {**said, "reason": "rule", "rule": shown}


def show_row(row: Row) -> Answer:
    return {
        "from": list(row.sources),
        "to": list(row.destinations),
        "services": row.services,
        "rules": list(row.rules),
    }


def show_finding(snapshot: Snapshot, finding: Finding) -> Answer:
    return {
        "severity": finding.severity.value,
        "code": finding.code.value,
        "group": group_name(snapshot, finding.group),
        "group-id": str(finding.group),
        "rule": None if finding.rule is None else str(finding.rule),
        "what": finding.what,
        "proof": finding.proof,
        "advice": finding.advice,
    }


def show_result(snapshot: Snapshot, result: Result, owner: OrganisationId | None) -> Answer:
    witness = result.witness
    return {
        "assertion": str(result.assertion),
        "holds": witness is None,
        "about-nobody": result.about_nobody,
        "packet": None if witness is None else _show_packet(witness.packet, witness.service),
        "proof": [] if witness is None else portray_witness(snapshot, witness, owner=owner),
    }


def _show_packet(packet: Packet, service: str) -> Answer:
    return {"source": str(packet.source), "destination": str(packet.destination), "service": service}
