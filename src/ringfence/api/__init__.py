"""HTTP: the API of the official clients, the agents' protocol and the operator's socket: from bytes to bytes.

This package authenticates and decodes requests, hands a command to ``control`` and encodes the result. It decides
nothing about policy, touches no store, and is the only package that knows of HTTP servers.
"""

from ringfence.api.admin import build_admin_app
from ringfence.api.app import ApiOptions, build_app
from ringfence.api.listen import Listen, parse_listen
from ringfence.api.server import CONTROL_SOCKET, ServeOptions, serve

__all__ = [
    "CONTROL_SOCKET",
    "ApiOptions",
    "Listen",
    "ServeOptions",
    "build_admin_app",
    "build_app",
    "parse_listen",
    "serve",
]
