"""Hosts are added with a key, invited with a secret, join, and are removed.

Lives in the event loop's thread. Writes go through the store's writer.
"""

from collections.abc import Callable
from dataclasses import dataclass

from ringfence.control.actor import host_actor, operator_of
from ringfence.control.commits import Commits
from ringfence.control.hosts import AddedHost, check_invitation, mint_key, mint_secret
from ringfence.control.lookup import find_host
from ringfence.control.owners import Owners
from ringfence.control.use_cases import UseCases
from ringfence.policy.model import Host, Invitation
from ringfence.policy.snapshot import Snapshot
from ringfence.policy.values import HostName
from ringfence.wire.join import JoinRequest, hash_secret


@dataclass(frozen=True, slots=True)
class Enrolment:
    """``snapshot`` returns the newest snapshot, ``now_s`` the time of day; a host belongs to one of the ``owners``."""

    snapshot: Callable[[], Snapshot]
    now_s: Callable[[], int]
    commits: Commits
    use_cases: UseCases
    owners: Owners

    async def add_host(self, name: HostName, public_key: bytes | None, organisation: str | None = None) -> AddedHost:
        """Adds a host with the given Ed25519 key, or with one made here, whose private part is returned only now."""
        private_key = None
        if public_key is None:
            private_key, public_key = mint_key()
        host = Host(name, self.owners.named(organisation).id, public_key, self.now_s())
        await self.commits.run(self.use_cases.add_host(host, self.owners.asked(operator_of(host.organisation))))
        return AddedHost(host, private_key)

    async def invite_host(self, name: HostName, life_s: int, organisation: str | None = None) -> str:
        """The secret with which the host may join within ``life_s``; it is not stored, and replaces earlier ones."""
        secret, now_s = mint_secret(), self.now_s()
        invitation = Invitation(hash_secret(secret), now_s + life_s)
        host = Host(name, self.owners.named(organisation).id, b"", now_s, invitation)
        await self.commits.run(self.use_cases.invite_host(host, self.owners.asked(operator_of(host.organisation))))
        return secret

    async def join_host(self, request: JoinRequest, *, address: str | None, request_id: str | None) -> None:
        """Makes the key of ``request`` the host's own. Asking again with the same token and key changes nothing.

        Raises:
            Denied: the token does not count, whatever the reason.
        """
        host = self.snapshot().hosts.get(request.host)
        check_invitation(host, request, self.now_s())  # checked here, too, so that guessing does not load the writer
        organisation = host.organisation if host else self.owners.first.id
        actor = host_actor(organisation, request.host)._replace(address=address, request_id=request_id)
        await self.commits.run(self.use_cases.join_host(request, self.owners.asked(actor)))

    async def remove_host(self, name: HostName) -> None:
        """Removes a host; when this returns, its requests are refused and its feeds have ended."""
        actor = operator_of(find_host(self.snapshot(), name).organisation)
        await self.commits.run(self.use_cases.remove_host(name, self.owners.asked(actor)))
