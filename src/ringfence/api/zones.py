"""list-zones: the only zone, and the URL of its API as this caller reaches it. The only operation without a signature.

Input: the headers of a request. Output: one zone. It knows no groups and no keys.
"""

import re
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address

from ringfence.api.exchange import Request, Response
from ringfence.wire.encode import encode_zones

_HOST = re.compile(r"(?:[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")
_SCHEMES = frozenset({"http", "https"})


@dataclass(frozen=True, slots=True)
class Origin:
    """How callers reach us. ``public_url`` wins; X-Forwarded headers count only from ``trusted_proxies``."""

    public_url: str | None = None
    trusted_proxies: tuple[IPv4Network | IPv6Network, ...] = ()

    def endpoint(self, request: Request) -> str:
        """Our base URL for this caller, with ``/v2``: exo sends every further request there."""
        base = self.public_url or f"{self._scheme(request)}://{self._host(request)}"
        return base.rstrip("/").removesuffix("/v2") + "/v2"

    def caller_address(self, request: Request) -> str | None:
        """Where the request comes from: the last address in X-Forwarded-For that is no trusted proxy's.

        Each proxy appends the address that it saw, so what stands before the last untrusted one is anybody's word.
        """
        address = request.address
        if not self._is_forwarded(request):
            return address
        for hop in reversed((request.get_header(b"x-forwarded-for") or "").split(",")):
            try:
                address = str(ip_address(hop.strip()))
            except ValueError:
                break
            if not self._is_trusted(address):
                break
        return address

    def _scheme(self, request: Request) -> str:
        forwarded = _first(request.get_header(b"x-forwarded-proto")) if self._is_forwarded(request) else ""
        return forwarded if forwarded in _SCHEMES else request.ends.scheme

    def _host(self, request: Request) -> str:
        forwarded = _first(request.get_header(b"x-forwarded-host")) if self._is_forwarded(request) else ""
        for host in (forwarded, request.get_header(b"host") or ""):
            if _HOST.fullmatch(host):
                return host
        return _own_address(request)

    def _is_forwarded(self, request: Request) -> bool:
        peer = request.ends.peer
        return bool(self.trusted_proxies) and peer is not None and self._is_trusted(peer[0])

    def _is_trusted(self, address: str) -> bool:
        peer = ip_address(address.partition("%")[0])
        return any(peer in network for network in self.trusted_proxies)


@dataclass(frozen=True, slots=True)
class ZoneList:
    """/v2/zone."""

    zone: str
    origin: Origin

    def on_get(self, request: Request, response: Response) -> None:
        response.data = encode_zones(self.zone, self.origin.endpoint(request))


def _first(header: str | None) -> str:
    """The value that the outermost proxy wrote, of a list."""
    return (header or "").split(",")[0].strip()


def _own_address(request: Request) -> str:
    """The address that the connection came in on, for callers that send no usable Host (HTTP/1.0)."""
    if request.ends.own is None:
        return "localhost"
    host, port = request.ends.own
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
