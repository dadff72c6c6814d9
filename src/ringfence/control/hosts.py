"""The presence of hosts (last heard, applied revision, problems), and the decisions to add, invite and remove one.

What a host has applied is kept in memory only: the truth is in that host's kernel, and it reports it again within
seconds of a restart of the server. A stored value would be stale when it matters, and cost a write per host and change.
"""

import hmac
import secrets
from collections.abc import Collection, Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Final

from ringfence.control.lookup import find_host
from ringfence.control.quotas import require_room_for_host
from ringfence.nft.foreign import ForeignChain
from ringfence.policy.errors import Conflict, Invalid
from ringfence.policy.facts import Fact, HostAdded, HostInvited, HostJoined, HostRemoved, InstancePlaced
from ringfence.policy.local import Failsafe
from ringfence.policy.model import Host, Invitation
from ringfence.policy.snapshot import Snapshot, index_of
from ringfence.policy.values import HostName, Revision, parse_label
from ringfence.store import HostSaid
from ringfence.wire.hostauth import KEY_SIZE_BYTES, derive_public_key
from ringfence.wire.join import JoinRequest, hash_secret, refuse_token

LONGEST_INVITATION_S: Final = 24 * 3600  # tokens tend to stay in scripts and shell histories

_NOTHING: Final = HostSaid()
_NONE: Final = Invitation(bytes(KEY_SIZE_BYTES), 0)


@dataclass(frozen=True, slots=True)
class HostStatus:
    """``wanted`` and ``applied`` are revisions, ``age_s`` the time since the host was last heard, None if never.

    ``foreign``: other programs' base chains on the host that may drop packets; None: not known.
    """

    host: HostName
    wanted: Revision
    applied: Revision | None
    age_s: float | None
    error: str | None
    notice: str | None = None
    foreign: tuple[ForeignChain, ...] | None = None


@dataclass(frozen=True, slots=True)
class AddedHost:
    """``private_key`` is the raw Ed25519 key (32 bytes) if it was made here; it is stored nowhere."""

    host: Host
    private_key: bytes | None

    def __repr__(self) -> str:
        return f"AddedHost(host={self.host.name!r})"  # a private key never reaches a log


class Presence:
    """Who is live. Times are monotonic seconds; reading is safe from the writer's thread."""

    def __init__(self, live_s: float) -> None:
        self._live_s = live_s
        self._heard_s: dict[HostName, float] = {}
        self._said: dict[HostName, HostSaid] = {}
        self._errors: dict[HostName, str] = {}

    def seen(self, hosts: Iterable[HostName], now_s: float) -> None:
        """Takes note that authenticated messages of ``hosts`` came in."""
        heard_s = self._heard_s
        for host in hosts:
            heard_s[host] = max(now_s, heard_s.get(host, now_s))

    def report(self, hosts: Collection[HostName], said: HostSaid) -> dict[HostName, str]:
        """Stores what ``hosts`` reported; returns the errors that they reported before, for those that did."""
        before = {host: self._errors.pop(host) for host in hosts if host in self._errors} if self._errors else {}
        self._said |= dict.fromkeys(hosts, said)
        if said.error is not None:
            self._errors |= dict.fromkeys(hosts, said.error)
        return before

    def forget(self, host: HostName) -> None:
        """Forgets a removed host, so that a new one of the same name starts afresh."""
        for known in (self._heard_s, self._said, self._errors):
            known.pop(host, None)

    def errors(self, hosts: AbstractSet[HostName]) -> dict[HostName, str]:
        """The errors that ``hosts`` last reported, for those that did. O(errors of all hosts)."""
        return {host: error for host, error in self._errors.items() if host in hosts}

    def failsafe(self, host: HostName) -> tuple[Failsafe, ...] | None:
        """The host's failsafe ports, as it reported them; None: not known."""
        return self._said.get(host, _NOTHING).failsafe

    def is_live(self, host: HostName, now_s: float) -> bool:
        return not self.offline((host,), now_s)

    def offline(self, hosts: Iterable[HostName], now_s: float) -> frozenset[HostName]:
        """The hosts among ``hosts`` that are not live."""
        heard_s, since_s = self._heard_s, now_s - self._live_s
        return frozenset([host for host in hosts if heard_s.get(host, since_s) <= since_s])

    def status(self, host: HostName, wanted: Revision, now_s: float) -> HostStatus:
        said = self._said.get(host, _NOTHING)
        heard_s = self._heard_s.get(host)
        age_s = None if heard_s is None else now_s - heard_s
        return HostStatus(host, wanted, said.applied, age_s, said.error, said.notice, said.foreign)


def mint_key() -> tuple[bytes, bytes]:
    """A new Ed25519 key: private and public part, raw."""
    private = secrets.token_bytes(KEY_SIZE_BYTES)
    return private, derive_public_key(private)


def mint_secret() -> str:
    """The secret of an invitation: 256 bits in base64url."""
    return secrets.token_urlsafe(32)


def decide_invite(snapshot: Snapshot, host: Host) -> tuple[Fact, ...]:
    """An invitation for a new host, or for an existing one that is to get another key."""
    if host.invitation is not None and host.name in snapshot.hosts:
        return (HostInvited(host.name, host.invitation),)
    _check_name(snapshot, host)
    return (HostAdded(host),)


def decide_join(snapshot: Snapshot, request: JoinRequest, now_s: int) -> tuple[Fact, ...]:
    """Registers the host's own key; no facts when this key has used this token before.

    So a request whose answer was lost can be repeated.
    """
    host = snapshot.hosts.get(request.host)
    check_invitation(host, request, now_s)
    if host is not None and host.invitation is not None and host.invitation.used:
        return ()
    return (HostJoined(request.host, request.public_key),)


def check_invitation(host: Host | None, request: JoinRequest, now_s: int) -> None:
    """Raises ``Denied``, always with the same text, unless the token is valid for this key."""
    invitation = (host and host.invitation) or _NONE
    is_known = hmac.compare_digest(invitation.secret_hash, hash_secret(request.secret))
    is_spent = invitation.used and (host is None or host.public_key != request.public_key)
    if not is_known or is_spent or now_s >= invitation.expires_at:
        raise refuse_token()


def decide_add_host(snapshot: Snapshot, host: Host) -> tuple[Fact, ...]:
    """Adds a host; its name must be free, and fit into a header and a file name."""
    if len(host.public_key) != KEY_SIZE_BYTES:
        raise Invalid(f"expected a raw Ed25519 key of {KEY_SIZE_BYTES} bytes", field="$.public-key")
    _check_name(snapshot, host)
    return (HostAdded(host),)


def _check_name(snapshot: Snapshot, host: Host) -> None:
    parse_label(host.name, field="$.name")
    if host.name in snapshot.hosts:
        raise Conflict(f"a host named {host.name} already exists")
    require_room_for_host(snapshot, host.organisation)


def decide_remove_host(snapshot: Snapshot, name: HostName) -> tuple[Fact, ...]:
    """Removes a host. Its instances keep id, name and groups, and lose their host and addresses."""
    find_host(snapshot, name)
    released = (
        InstancePlaced(instance.id, instance.name, None, (), instance.realm) for instance in index_of(snapshot).on(name)
    )
    return (*released, HostRemoved(name))
