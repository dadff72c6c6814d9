"""PURE: what ``terraform show -json PLAN`` prints, as edits of security groups, and what of it cannot be judged.

Input: the document (format 0.x or 1.x), as text. Output: edits as POST /admin/v1/change takes them, each with the
resource it is of, and sentences about the rest. A plan lacks what is known only after apply: the group of a rule,
where it is new, is found by what the configuration refers to, through variables and outputs of modules.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

import msgspec

from ringfence.policy.errors import CallerError, Invalid
from ringfence.wire.terraform_json import Call, Change, Module, Output, Plan, Resource, Values

GROUP: Final = "exoscale_security_group"
RULE: Final = "exoscale_security_group_rule"
_WORN: Final = "security_group_ids"  # the attribute of whatever wears groups
_PEERS: Final = ("cidr", "user_security_group_id", "public_security_group", "user_security_group")
_SAID: Final = (*_PEERS, "type", "protocol", "start_port", "end_port", "icmp_type", "icmp_code", "security_group_id")
_TYPED: Final = ("icmp", "icmpv6")
_PORTED: Final = ("tcp", "udp")
_ANY: Final = -1
_EDIT: Final = re.compile(r"\bedits\[(\d+)\]")
_INDEXES: Final = frozenset({"each.key", "count.index"})
_STEP: Final = re.compile(r'([^.\[\]]+)(\[(?:\d+|"(?:[^"\\]|\\.)*")\])?')
_KNOWN_FORMATS: Final = ("0", "1")
Path = tuple[str, ...]  # of a module in the configuration


@dataclass(slots=True)
class TerraformChange:
    """``addresses``: the resource of each of the ``edits``; ``left_out``: what could not be judged, and why."""

    edits: list[Values] = field(default_factory=list)
    addresses: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    def locate(self, error: CallerError) -> CallerError:
        """The error, which a server said of one of the edits, with the resource that it is of."""
        found = _EDIT.search(f"{error.field} {error}")
        if found is None and len(self.addresses) > 1:
            return error
        return CallerError(f"{self.addresses[int(found[1]) if found else 0]}: {error}")


def read_terraform(text: str, name: str) -> TerraformChange:
    """What the plan ``text``, the content of the file ``name``, does to security groups.

    Raises:
        Invalid: it is no such document, or of a version that is not known.
    """
    try:
        plan = msgspec.json.decode(text, type=Plan)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise Invalid(f"{name}: expected what terraform show -json prints of a plan: {error}") from error
    if plan.format_version.partition(".")[0] not in _KNOWN_FORMATS:
        raise Invalid(f"{name}: expected format_version 0 or 1, got {plan.format_version!a}")
    return _Reader(plan).read()


class _LeftOut(Exception):
    """Why a resource cannot be judged."""


_Step = Callable[[Resource], Iterator[Values]]


class _Reader:
    """One plan, resource by resource."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._found = TerraformChange()
        self._created = [one for one in plan.resource_changes if one.type == GROUP and "create" in one.change.actions]

    def read(self) -> TerraformChange:
        """Takes away first, adds then: so a group can be replaced by one of the same name."""
        if self._plan.errored or not self._plan.complete:
            self._found.left_out.append("the plan is not complete: terraform says so")
        managed = [one for one in self._plan.resource_changes if one.mode == "managed"]
        groups = [one for one in managed if one.type == GROUP]
        rules = [one for one in managed if one.type == RULE]
        for step, resources in (
            (self._end_rule, rules),
            (self._end_sources, groups),
            (self._end_group, groups),
            (self._begin_group, groups),
            (self._begin_sources, groups),
            (self._begin_rule, rules),
        ):
            for one in resources:
                self._try(step, one)
        self._found.left_out = [*dict.fromkeys(self._found.left_out)]
        self._tell_others([one for one in managed if one.type not in (GROUP, RULE)])
        return self._found

    def _try(self, step: _Step, one: Resource) -> None:
        try:
            edits = [*step(one)]
        except _LeftOut as reason:
            self._found.left_out.append(f"{one.address}: {reason}")
            return
        self._found.edits += edits
        self._found.addresses += [one.address] * len(edits)

    def _end_rule(self, one: Resource) -> Iterator[Values]:
        before, after = one.change.before or {}, one.change.after or {}
        if "delete" in one.change.actions:
            yield {"edit": "delete-rule", "group": _text(before, "security_group_id"), "rule": _text(before, "id")}
        elif one.change.actions == ["update"] and any(before.get(name) != after.get(name) for name in _SAID):
            raise _LeftOut("it is changed in place, which no rule can be")

    def _end_sources(self, one: Resource) -> Iterator[Values]:
        if one.change.actions == ["update"]:
            group, gone = _text(one.change.before, "id"), _sources(one.change.before) - self._wanted_sources(one)
            for source in sorted(gone):
                yield {"edit": "remove-source", "group": group, "source": source}

    def _end_group(self, one: Resource) -> Iterator[Values]:
        if "delete" in one.change.actions:
            yield {"edit": "delete-group", "group": _text(one.change.before, "id")}

    def _begin_group(self, one: Resource) -> Iterator[Values]:
        if "create" in one.change.actions:
            edit: Values = {"edit": "create-group", "name": self._name(one)}
            described = (one.change.after or {}).get("description")
            yield {**edit, "description": described} if isinstance(described, str) and described else edit

    def _begin_sources(self, one: Resource) -> Iterator[Values]:
        actions = one.change.actions
        if "create" in actions:
            group, known = self._name(one), frozenset[str]()
        elif actions == ["update"]:
            group, known = _text(one.change.before, "id"), _sources(one.change.before)
        else:
            return
        for source in sorted(self._wanted_sources(one) - known):
            yield {"edit": "add-source", "group": group, "source": source}

    def _begin_rule(self, one: Resource) -> Iterator[Values]:
        if "create" not in one.change.actions:
            return
        after = one.change.after or {}
        way = {"INGRESS": "from", "EGRESS": "to"}.get(_text(after, "type").upper())
        if way is None:
            raise _LeftOut(f"its type is {after.get('type')!a}, and neither INGRESS nor EGRESS")
        edit = {"edit": "add-rule", "group": self._group_of(one, "security_group_id"), "service": _service(one.change)}
        described = after.get("description")
        more = {"description": described} if isinstance(described, str) and described else {}
        yield {**edit, way: self._peer(one), **more}

    def _peer(self, one: Resource) -> str:
        """The one that is configured: of a rule to be made the provider calls all others unknown, too."""
        expressions = self._configured(one)
        given = [name for name in _PEERS if name in expressions or isinstance((one.change.after or {}).get(name), str)]
        if given == ["cidr"]:
            if one.change.is_unknown("cidr"):
                raise _LeftOut("its cidr is known only after apply")
            return _text(one.change.after, "cidr")
        if given == ["user_security_group_id"]:
            return f"group:{self._group_of(one, 'user_security_group_id')}"
        raise _LeftOut(f"expected a cidr or a user_security_group_id, got {', '.join(given) or 'neither'}")

    def _group_of(self, one: Resource, name: str) -> str:
        """The id of a group that is there, or the name of one that the plan makes."""
        known = (one.change.after or {}).get(name)
        if isinstance(known, str):
            return known
        path = _path_of(one.module_address)
        expression = self._configured(one).get(name)
        found = [*self._referred(path, _references(expression), one)]
        if len(found) != 1:
            said = ", ".join(_references(expression)) or "nothing that the plan tells"
            raise _LeftOut(f"its {name} is known only after apply, and refers to {said}")
        return self._name(found[0])

    def _referred(self, path: Path, references: list[str], one: Resource) -> Iterator[Resource]:
        """The groups to be made that references within a module mean; none where a value may come from several."""
        implied = {reference for reference in references if any(_goes_on(reference, other) for other in references)}
        whole = {*references} - implied - _INDEXES
        if len(whole) != 1:
            return
        match _steps(whole.pop()):
            case [(kind, _), (label, index), *_] if kind == GROUP:
                alike = self._named(path, label, one)
                if index:
                    alike = (group for group in alike if group.address.endswith(index))
                elif _INDEXES & {*references}:
                    alike = (group for group in alike if group.index == one.index)
                yield from alike
            case [("var", _), (variable, _), *_] if path:
                call = self._module(path[:-1]).module_calls.get(path[-1], Call())
                yield from self._referred(path[:-1], _references(call.expressions.get(variable)), one)
            case [("module", _), (module, _), (output, _), *_]:
                within = (*path, module)
                found = self._module(within).outputs.get(output, Output())
                yield from self._referred(within, _references(found.expression), one)

    def _named(self, path: Path, label: str, one: Resource) -> Iterator[Resource]:
        """The instances of one resource that is to be made."""
        for group in self._created:
            if (_path_of(group.module_address), group.name) == (path, label) and _is_near(group, one):
                yield group

    def _configured(self, one: Resource) -> Values:
        resources = self._module(_path_of(one.module_address)).resources
        return next((found.expressions for found in resources if (found.type, found.name) == (one.type, one.name)), {})

    def _module(self, path: Path) -> Module:
        module = self._plan.configuration.root_module
        for name in path:
            module = module.module_calls.get(name, Call()).module
        return module

    def _name(self, group: Resource) -> str:
        if group.change.is_unknown("name"):
            raise _LeftOut(f"the name of {group.address} is known only after apply")
        return _text(group.change.after, "name")

    def _wanted_sources(self, one: Resource) -> frozenset[str]:
        if one.change.is_unknown("external_sources"):
            raise _LeftOut("its external_sources are known only after apply")
        return _sources(one.change.after)

    def _tell_others(self, others: list[Resource]) -> None:
        """Who wears groups is no matter of Terraform here, and what else it does none of ours; but it is said."""
        passed = Counter[str]()
        for one in others:
            before, after = one.change.before or {}, one.change.after or {}
            if {*one.change.actions} <= {"no-op", "read"}:
                continue
            if one.change.is_unknown(_WORN) or before.get(_WORN) != after.get(_WORN):
                self._found.left_out.append(f"{one.address}: which groups it wears; here hosts' instances wear them")
            else:
                passed[one.type] += 1
        if passed:
            told = ", ".join(f"{number} {type_}" for type_, number in sorted(passed.items()))
            self._found.left_out.append(f"resources that are no security groups: {told}")


def _service(change: Change) -> str:
    after = change.after or {}
    protocol = _text(after, "protocol").lower()
    if protocol in _PORTED:
        return f"{protocol}/{_number(change, 'start_port')}-{_number(change, 'end_port')}"
    if protocol not in _TYPED:
        return protocol
    type_, code = _number(change, "icmp_type"), _number(change, "icmp_code")
    if type_ == _ANY and code != _ANY:
        raise _LeftOut(f"it allows code {code} of every type, which no rule here can say")
    return protocol if type_ == _ANY else f"{protocol}/{type_}" if code == _ANY else f"{protocol}/{type_}/{code}"


def _number(change: Change, name: str) -> int:
    value = (change.after or {}).get(name)
    if isinstance(value, bool) or not isinstance(value, int):
        raise _LeftOut(f"its {name} is known only after apply, or not given")
    return value


def _text(values: Mapping[str, object] | None, name: str) -> str:
    value = (values or {}).get(name)
    if not isinstance(value, str):
        raise _LeftOut(f"its {name} is known only after apply, or not given")
    return value


def _sources(values: Mapping[str, object] | None) -> frozenset[str]:
    given = (values or {}).get("external_sources")
    return frozenset(map(str, given)) if isinstance(given, list) else frozenset()


def _references(expression: object) -> list[str]:
    found = expression.get("references") if isinstance(expression, dict) else None
    return [one for one in found if isinstance(one, str)] if isinstance(found, list) else []


def _goes_on(reference: str, other: str) -> bool:
    """Whether ``other`` is the same reference, further on: Terraform lists every step of one."""
    return other.startswith((f"{reference}.", f"{reference}["))


def _steps(reference: str) -> list[tuple[str, str]]:
    """``module.net[0].id`` -> module, net with [0], id."""
    return _STEP.findall(reference)


def _path_of(address: str) -> Path:
    """``module.net[0].module.web["a"]`` -> net, web."""
    return tuple(name for name, _ in _steps(address)[1::2])


def _is_near(group: Resource, one: Resource) -> bool:
    """Whether both are of the same instances of the modules that they share."""
    for step, other in zip(_steps(group.module_address), _steps(one.module_address), strict=False):
        if step[0] != other[0]:
            return True
        if step != other:
            return False
    return True
