"""PURE: a policy document as Terraform configuration for the provider exoscale/exoscale.

Input: a document. Output: HCL with ``exoscale_security_group`` and ``exoscale_security_group_rule`` resources, laid out
as ``terraform fmt`` does (schema: terraform-provider-exoscale, pkg/resources/security_group). The same text for the
same document; a rule's resource is named for what it says, so that no other is renamed when one comes or goes.
"""

import re
from collections.abc import Iterator
from hashlib import blake2b
from typing import Final

from ringfence.policy.commands import GroupReference, RuleDraft
from ringfence.policy.desired import DEFAULT, DesiredGroup, Document, peer_field, rule_field
from ringfence.policy.errors import Invalid
from ringfence.policy.export import meaning_of
from ringfence.policy.values import ANY, MAX_PORT, Cidr, Protocol, Visibility

_HEAD: Final = """\
terraform {
  required_providers {
    exoscale = {
      source = "exoscale/exoscale"
    }
  }
}
"""
_NO_LABEL: Final = re.compile(r"[^A-Za-z0-9_-]+")
_ESCAPES: Final = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
_TEMPLATE: Final = re.compile(r"[$%](?=\{)")  # begins what HCL would evaluate
_Value = str | int


def render_terraform(document: Document) -> str:
    """The document's groups, sources and rules; who wears a group is no resource of its own, and is left out.

    Public groups are the cloud's own: rules name them, and there is no resource for them. The group ``default`` is
    there from the beginning, and is looked up. Ports 1 to 65535 stand for all: the provider knows no port 0.

    Raises:
        Invalid: the provider has no way of saying what the document says: protocol all, sources of the group default.
        NotFound: a rule names a group that the document has not.
    """
    labels = _labels(document)
    blocks = [_HEAD]
    for group in document.groups:
        if group.visibility is Visibility.PRIVATE:
            blocks.append(_group(group, labels[group.name]))
            blocks += _rules(group, labels)
    return "\n".join(blocks)


def _labels(document: Document) -> dict[str, str]:
    """A name for each group's resource: its own as far as Terraform allows, made different where two are alike."""
    private = sorted(group.name for group in document.groups if group.visibility is Visibility.PRIVATE)
    plain = {name: _NO_LABEL.sub("_", name) for name in private}
    plain = {name: label if re.match(r"[A-Za-z_]", label) else f"_{label}" for name, label in plain.items()}
    taken = list(plain.values())
    return {name: label if taken.count(label) == 1 else f"{label}_{_digest(name)}" for name, label in plain.items()}


def _address(name: str, label: str) -> str:
    return f"{'data.' if name == DEFAULT else ''}exoscale_security_group.{label}"


def _group(group: DesiredGroup, label: str) -> str:
    if group.name == DEFAULT:
        if group.sources:
            told = "the group default is there before Terraform is, which therefore cannot give it sources"
            raise Invalid(f"{told}: leave them out, or import the group by hand", field=f"{group.field}.sources")
        return _block("data", "exoscale_security_group", label, [("name", quote(DEFAULT))])
    fields: list[tuple[str, _Value]] = [("name", quote(group.name))]
    if group.description:
        fields.append(("description", quote(group.description)))
    if group.sources:
        fields.append(("external_sources", f"[{', '.join(quote(source.text) for source in group.sources)}]"))
    return _block("resource", "exoscale_security_group", label, fields)


def _rules(group: DesiredGroup, labels: dict[str, str]) -> Iterator[str]:
    own = labels[group.name]
    for n, rule in enumerate(group.rules):
        if rule.protocol is Protocol.ALL:
            raise Invalid("the provider has no protocol all: write a rule per protocol", field=rule_field(group, n))
        fields: list[tuple[str, _Value]] = [
            ("security_group_id", f"{_address(group.name, own)}.id"),
            ("type", quote(rule.direction.value.upper())),
            ("protocol", quote(rule.protocol.value.upper().replace("ICMPV6", "ICMPv6"))),
            _peer(rule.peer, labels, peer_field(group, n)),
            *_service(rule),
        ]
        if rule.description:
            fields.append(("description", quote(rule.description)))
        label = f"{own}_{rule.direction.value}_{_digest(repr((group.name, meaning_of(rule))))}"
        yield _block("resource", "exoscale_security_group_rule", label, fields)


def _peer(peer: Cidr | GroupReference, labels: dict[str, str], field: str) -> tuple[str, _Value]:
    if isinstance(peer, Cidr):
        return "cidr", quote(peer.text)
    name = peer.name or ""
    if peer.visibility is Visibility.PUBLIC:
        return "public_security_group", quote(name)
    if name not in labels:
        raise Invalid(f"there is no group {ascii(name)[:64]} in the document", field=field)
    return "user_security_group_id", f"{_address(name, labels[name])}.id"


def _service(rule: RuleDraft) -> list[tuple[str, _Value]]:
    """What the provider demands with a protocol: both ports, or ICMP's type and code."""
    if rule.protocol.has_ports:
        first, last = rule.start_port or rule.end_port or 1, rule.end_port or rule.start_port or MAX_PORT
        return [("start_port", first), ("end_port", last)]
    if rule.protocol.has_types:
        numbers = (None, None) if rule.icmp is None else (rule.icmp.type, rule.icmp.code)
        type_, code = (ANY if number is None else number for number in numbers)
        return [("icmp_type", type_), ("icmp_code", code)]
    return []


def _block(kind: str, type_: str, label: str, fields: list[tuple[str, _Value]]) -> str:
    width = max(len(name) for name, _ in fields)
    lines = [f"  {name.ljust(width)} = {value}" for name, value in fields]
    return "\n".join([f'{kind} "{type_}" "{label}" {{', *lines, "}", ""])


def quote(text: str) -> str:
    """A quoted HCL string that means ``text`` and nothing else: no template in it is evaluated."""
    escaped = "".join(_ESCAPES.get(letter) or _printable(letter) for letter in text)
    return f'"{_TEMPLATE.sub(lambda found: found[0] * 2, escaped)}"'


def _printable(letter: str) -> str:
    if letter.isprintable():
        return letter
    number = ord(letter)
    return f"\\u{number:04x}" if number < 1 << 16 else f"\\U{number:08x}"


def _digest(text: str) -> str:
    return blake2b(text.encode(), digest_size=6).hexdigest()
