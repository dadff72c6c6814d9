"""Who asks for a change, and whether they may."""

from enum import Enum
from typing import TYPE_CHECKING, Final, NamedTuple

from ringfence.policy.errors import Denied
from ringfence.policy.values import GroupId, HostName, OrganisationId

if TYPE_CHECKING:
    from ringfence.policy.lockout import Connection  # not loaded for the command line, which only needs roles

OPERATOR_NAME: Final = "operator"  # whoever may open the control socket; no key id and no host has this name


class Role(Enum):
    """What an API key may do: an owner everything that the API offers, an operator all but read the history.

    A reader may read everything but the history, and change nothing.
    """

    OWNER = "owner"
    OPERATOR = "operator"
    READER = "reader"


class Actor(NamedTuple):  # made for every request, in a third of a dataclass's time
    """``name`` is a key id, ``host:NAME`` or ``operator``; address and request id go to the audit line.

    ``connection`` is what the actor's own change must not cut.

    ``scope`` has the only groups that it may change, None for all; ``label`` is the name that its key was given.
    """

    organisation: OrganisationId
    name: str
    role: Role
    address: str | None = None
    request_id: str | None = None
    scope: frozenset[GroupId] | None = None
    label: str | None = None
    connection: "Connection | None" = None

    @property
    def is_operator(self) -> bool:
        """Whether this is the operator of the server: public groups are theirs alone."""
        return self.name == OPERATOR_NAME


def operator_of(
    organisation: OrganisationId, request_id: str | None = None, connection: "Connection | None" = None
) -> Actor:
    """The operator, acting for an organisation."""
    return Actor(organisation, OPERATOR_NAME, Role.OPERATOR, request_id=request_id, connection=connection)


def host_actor(organisation: OrganisationId, host: HostName) -> Actor:
    """A host, claiming its instances."""
    return Actor(organisation, f"host:{host}", Role.READER)


def require_writer(actor: Actor) -> None:
    """Raises ``Denied`` for an actor that may only read."""
    if actor.role is Role.READER:
        raise Denied(f"key {actor.name} may only read: use a key with role owner or operator")


def require_owner(actor: Actor) -> None:
    """Raises ``Denied`` for an actor that may not read the history."""
    if actor.role is not Role.OWNER:
        raise Denied(f"key {actor.name} may not read the history: use a key with role owner")
