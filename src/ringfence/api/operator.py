"""The caller on the control socket: the operator, acting for an organisation, with the origin of their session."""

from typing import Final

from ringfence.api.exchange import Request
from ringfence.control.actor import Actor, operator_of
from ringfence.control.plane import ControlPlane
from ringfence.policy.lockout import Connection, parse_connection

SESSION_HEADER: Final = "X-Ringfence-Session"  # as SSH_CONNECTION: the client's address and port, the server's
_SESSION: Final = SESSION_HEADER.lower().encode()


def operator(plane: ControlPlane, request: Request) -> Actor:
    """The operator, acting for the organisation that the query names, by default the first."""
    organisation = plane.owners.named(request.get_param("organisation"))
    return operator_of(organisation.id, request.request_id, _session(request))


def _session(request: Request) -> Connection | None:
    words = (request.get_header(_SESSION) or "").split()
    if len(words) != 4 or not (words[1] + words[3]).isdigit():  # noqa: PLR2004  two ends, an address and a port each
        return None
    return parse_connection("your session", (words[0], int(words[1])), (words[2], int(words[3])))
