"""The name of an instance or a group, or an address -> the single addresses meant: the ends of one packet."""

import re
from dataclasses import dataclass
from typing import Final

from ringfence.policy.errors import Invalid
from ringfence.policy.model import Group, Instance
from ringfence.policy.named import ANY, INTERNET, all_named, not_named, only_one
from ringfence.policy.snapshot import Snapshot
from ringfence.policy.values import Address, InstanceId, parse_address
from ringfence.policy.view import Endpoint, HostView
from ringfence.policy.wording import shown

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
    named = all_named(snapshot, text)
    if instances := [one for one in named if isinstance(one, Instance)]:
        return _places_of(view, only_one(instances, text, field))
    if groups := [one for one in named if isinstance(one, Group)]:
        return _places_in(view, only_one(groups, text, field), field)
    if re.fullmatch(r"[0-9a-fA-F:.]*[:.][0-9a-fA-F:.]*", text):
        return [_place_at(view, parse_address(text, field=field), field)]
    if text == ANY or "/" in text:
        many = f"{shown(text)} is more than one address, and one packet is judged"
        raise Invalid(f"{many}: name an address of it, or ask ringfence reach", field=field)
    raise not_named(snapshot, text, field=field, others=(INTERNET,))


def _places_of(view: HostView, instance: Instance) -> list[Place]:
    own = [endpoint for endpoint in view.endpoints if endpoint.instance == instance.id]
    return [Place(address, endpoint) for endpoint in own for address in endpoint.addresses]


def _places_in(view: HostView, group: Group, field: str) -> list[Place]:
    """A group's members, and one address of each external source."""
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
