"""The name of an instance or a group, or an address -> the single addresses meant: the ends of one packet."""

import re
from dataclasses import dataclass
from typing import Final

from ringfence.policy.errors import Invalid, NotFound
from ringfence.policy.model import Group, Instance, Snapshot
from ringfence.policy.values import Address, InstanceId, parse_address
from ringfence.policy.view import Endpoint, HostView
from ringfence.policy.wording import shown, suggestion

ANY: Final = "any"
INTERNET: Final = "internet"
GROUP: Final = "group:"  # prefix of a group's name, where an instance may have the same
INSTANCE: Final = "instance:"  # prefix of an instance's name, where a group may have the same
INTERNET_ADDRESSES: Final = ("192.0.2.1", "2001:db8::1")  # documentation addresses: members of nothing by accident


@dataclass(frozen=True, slots=True)
class Place:
    """One address, and the endpoint that has it; None when no instance has."""

    address: Address
    endpoint: Endpoint | None
    is_anybody: bool = False  # it stands for the internet

    @property
    def subject(self) -> InstanceId | Address | None:
        """The instance or address that it stands for; None for the internet."""
        return None if self.is_anybody else self.endpoint.instance if self.endpoint else self.address

    def __str__(self) -> str:
        return f"{shown(self.endpoint.name)} ({self.address})" if self.endpoint else f"{self.address} (unmanaged)"


def find_places(snapshot: Snapshot, view: HostView, text: str, *, field: str) -> list[Place]:
    """The addresses that ``text`` stands for: an instance's, an address, "internet", a group's members and sources.

    Raises:
        NotFound: nobody is named so; the text suggests the nearest. ``Invalid``: a name or an address is ambiguous.
    """
    if text == INTERNET:
        return [Place(parse_address(one, field=field), None, is_anybody=True) for one in INTERNET_ADDRESSES]
    instances = [] if text.startswith(GROUP) else _instances(snapshot, text)
    named = () if text.startswith(INSTANCE) else snapshot.groups.values()
    groups = [one for one in named if text.removeprefix(GROUP) in (one.name, str(one.id))]
    if instances:
        return _places_of(view, _only(instances, text, field))
    if groups:
        return _places_in(view, groups, text, field)
    if re.fullmatch(r"[0-9a-fA-F:.]*[:.][0-9a-fA-F:.]*", text):
        return [_place_at(view, parse_address(text, field=field), field)]
    if text == ANY or "/" in text:
        many = f"{shown(text)} is more than one address, and one packet is judged"
        raise Invalid(f"{many}: name an address of it, or ask ringfence reach", field=field)
    kind, name = split_kind(text)
    known = {one.name for one in named}
    if not text.startswith(GROUP):
        known |= {one.name for one in snapshot.instances.values()}
    hint = suggestion(name, known | ({INTERNET} if name == text else set()))
    raise NotFound(f"no {kind} is named {name!a}{hint}", field=field)


def split_kind(text: str) -> tuple[str, str]:
    """The kind that the name of an end says it is of, for a sentence, and the name without that prefix."""
    for prefix, kind in ((GROUP, "group"), (INSTANCE, "instance")):
        if text.startswith(prefix):
            return kind, text.removeprefix(prefix)
    return "instance or group", text


def _places_of(view: HostView, instance: Instance) -> list[Place]:
    own = [endpoint for endpoint in view.endpoints if endpoint.instance == instance.id]
    return [Place(address, endpoint) for endpoint in own for address in endpoint.addresses]


def _places_in(view: HostView, groups: list[Group], text: str, field: str) -> list[Place]:
    """A group's members, and one address of each external source."""
    if len(groups) > 1:
        ids = ", ".join(str(group.id) for group in groups)
        raise Invalid(f"several groups are named {shown(text)}: say which by its id ({ids})", field=field)
    [group] = groups
    members = [Place(address, one) for one in view.endpoints if group.id in one.groups for address in one.addresses]
    outside = [Place(source.network.network_address, None) for source in group.sources]
    if not members and not outside:
        raise Invalid(f"group {shown(group.name)} has no members and no external sources", field=field)
    return [*members, *outside]


def _place_at(view: HostView, address: Address, field: str) -> Place:
    holders = [endpoint for endpoint in view.endpoints if address in endpoint.addresses]
    if len({endpoint.instance for endpoint in holders}) > 1:
        who = ", ".join(f"{shown(endpoint.name)} ({endpoint.instance})" for endpoint in holders)
        raise Invalid(f"several instances have the address {address}: say which by its id: {who}", field=field)
    return Place(address, holders[0] if holders else None)


def find_instance_named(snapshot: Snapshot, text: str, *, field: str = "instance") -> Instance:
    """The one instance of that name or id.

    Raises:
        NotFound: there is none; the text suggests the nearest.
        Invalid: several have the name.
    """
    if not (found := _instances(snapshot, text)):
        known = (instance.name for instance in snapshot.instances.values())
        raise NotFound(f"no instance is named {text!a}{suggestion(text, known)}", field=field)
    return _only(found, text, field)


def _only(found: list[Instance], text: str, field: str) -> Instance:
    if len(found) > 1:
        ids = ", ".join(str(instance.id) for instance in found)
        raise Invalid(f"several instances are named {shown(text)}: say which by its id ({ids})", field=field)
    return found[0]


def _instances(snapshot: Snapshot, text: str) -> list[Instance]:
    names = (text, text.removeprefix(INSTANCE))
    return [one for one in snapshot.instances.values() if one.name in names or str(one.id) in names]
