"""The caller on the control socket: the operator, acting for an organisation, with the origin of their session."""

from typing import Final

from ringfence.api.exchange import Request
from ringfence.control.actor import Actor, operator_of
from ringfence.control.plane import ControlPlane
from ringfence.policy.lockout import parse_session

SESSION_HEADER: Final = "X-Ringfence-Session"  # as SSH_CONNECTION: the client's address and port, the server's
_SESSION: Final = SESSION_HEADER.lower().encode()


def operator(plane: ControlPlane, request: Request) -> Actor:
    """The operator, acting for the organisation that the query names, by default the first."""
    organisation = plane.owners.named(request.get_param("organisation"))
    session = parse_session(request.get_header(_SESSION) or "")
    return operator_of(organisation.id, request.request_id, session)
