"""How a host comes in: the operator's token for it, and the one request that the token is good for.

Input: a wish on the operator's socket; a token and a public key on the public listeners. Output: the token, shown this
once; a host whose key is its own.
"""

from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated

import msgspec

from ringfence.api.authority import Authority
from ringfence.api.exchange import Request, Response, put_json
from ringfence.control.hosts import LONGEST_INVITATION_S
from ringfence.control.plane import ControlPlane
from ringfence.policy.errors import NotFound
from ringfence.wire.decode import convert
from ringfence.wire.document import parse_document
from ringfence.wire.hostauth import parse_host_name
from ringfence.wire.join import JoinToken, decode_join


class _TokenShape(msgspec.Struct, frozen=True, rename="kebab"):
    ttl_s: Annotated[int, msgspec.Meta(ge=1, le=LONGEST_INVITATION_S)]


@dataclass(frozen=True, slots=True)
class Join:
    """/agent/v1/join, unsigned: GET the own CA's certificate, POST a token and the host's public key."""

    plane: ControlPlane
    authority: Authority | None

    def on_get(self, _: Request, response: Response) -> None:
        if self.authority is None:
            raise NotFound("this server's certificate is from no CA of its own")
        response.content_type = "application/x-pem-file"
        response.data = self.authority.pem()

    async def on_post(self, request: Request, response: Response) -> None:
        wanted = decode_join(request.body)
        await self.plane.enrolment.join_host(wanted, address=request.address, request_id=request.request_id)
        request.caller = f"host:{wanted.host}"
        response.status = HTTPStatus.NO_CONTENT


@dataclass(frozen=True, slots=True)
class Invitations:
    """/admin/v1/hosts/{host}/token: a token for a new host, or for one that is to have another key."""

    plane: ControlPlane
    authority: Authority | None

    async def on_post(self, request: Request, response: Response, host: str) -> None:
        shape = convert(parse_document(request.body), _TokenShape)
        name = parse_host_name(host, field="host")
        secret = await self.plane.enrolment.invite_host(name, shape.ttl_s, request.get_param("organisation"))
        fingerprint = self.authority.fingerprint() if self.authority else None
        put_json(response, {"name": name, "token": JoinToken(name, secret, fingerprint).text, "ttl-s": shape.ttl_s})
