"""What ``ringfence env`` needs of the data folder: a key for this machine's clients, and where the server listens."""

import json
import os
import ssl
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from ringfence.agent.doors.files import SystemFiles
from ringfence.api.authority import Authority, find_authority
from ringfence.cli.admin_client import Ask, ask
from ringfence.policy.errors import OperatorError
from ringfence.world.client import Credentials

_KEY_FILE: Final = "client.json"
_ENDPOINT_FILE: Final = "endpoint.json"
_BUNDLE_FILE: Final = "trusted.pem"
_WILDCARDS: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  what they are called by instead
_NAME: Final = "ringfence env"
_PAUSE_S: Final = 0.05


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where the server last listened, ``url`` None when on unix sockets only, and the zone that it lists."""

    url: str | None
    zone: str


def load_or_create_key(folder: Path) -> Credentials:
    """The kept key, or a new one when there is none or it was revoked. The file is readable by its owner only."""
    path = folder / _KEY_FILE
    kept = _load_key(path)
    if kept is not None and kept.key in {key["id"] for key in ask(folder, Ask("GET", "/keys"))["keys"]}:
        return kept
    made = ask(folder, Ask("POST", "/keys", {"name": _NAME}))
    SystemFiles().replace(path, json.dumps({"id": made["id"], "secret": made["secret"]}).encode())
    return Credentials(made["id"], made["secret"])


def save_endpoint(folder: Path, urls: list[str], zone: str) -> None:
    """Remember where on HTTP the server accepts requests, and its zone: plain HTTP of loopback if there is any."""
    best = min(urls, key=lambda url: url.startswith("https"), default=None)
    url = None if best is None else _reachable(best, find_authority(folder))
    SystemFiles().replace(folder / _ENDPOINT_FILE, json.dumps(asdict(Endpoint(url, zone))).encode())


def _reachable(url: str, authority: Authority | None) -> str:
    """The URL with a name to call, where the server listens on all addresses: one of its certificate, or loopback."""
    parts = urlsplit(url)
    if parts.hostname not in _WILDCARDS:
        return url
    names = authority.names() if authority and parts.scheme == "https" else []
    host = names[0] if names else _WILDCARDS[parts.hostname]
    return parts._replace(netloc=f"[{host}]:{parts.port}" if ":" in host else f"{host}:{parts.port}").geturl()


def trust_variables(folder: Path, url: str) -> dict[str, str]:
    """What makes clients trust the server's own CA besides those that they trust already; nothing where none is needed.

    Go and OpenSSL read the one variable, Python's requests the other.
    """
    authority = find_authority(folder)
    if authority is None or not url.startswith("https:"):
        return {}
    bundle = (folder / _BUNDLE_FILE).resolve()
    said = os.environ.get("SSL_CERT_FILE")
    present = said if said and Path(said).resolve() != bundle else ssl.get_default_verify_paths().openssl_cafile
    others = SystemFiles().read(Path(present)) or b""
    SystemFiles().replace(bundle, others + b"\n" + authority.pem())
    return {"SSL_CERT_FILE": str(bundle), "REQUESTS_CA_BUNDLE": str(bundle)}


def await_endpoint(folder: Path, *, patience_s: float) -> Endpoint | None:
    """As ``load_endpoint``; of a folder without one it waits, because its first server may be just starting."""
    deadline_s = time.monotonic() + patience_s
    while (found := load_endpoint(folder)) is None and time.monotonic() < deadline_s:
        time.sleep(_PAUSE_S)
    return found


def load_endpoint(folder: Path) -> Endpoint | None:
    """Where the server last listened; None when it never ran, or what it left is damaged."""
    content = SystemFiles().read(folder / _ENDPOINT_FILE)
    try:
        kept = json.loads(content or b"")
        return Endpoint(None if kept["url"] is None else str(kept["url"]), str(kept["zone"]))
    except (ValueError, KeyError, TypeError):
        return None


def choose_url(folder: Path, found: Endpoint | None) -> str:
    """The API's URL as found; OperatorError when there is none."""
    if found is None:
        reason = f"no server has listened yet with {folder}: start ringfence server, or say --endpoint URL"
        raise OperatorError("finding the API", reason)
    if found.url is None:
        raise OperatorError("finding the API", "the server listens on unix sockets only: say --endpoint URL")
    return found.url


def _load_key(path: Path) -> Credentials | None:
    """The kept key; a damaged file counts as none."""
    try:
        kept = json.loads(SystemFiles().read(path) or b"")
        return Credentials(str(kept["id"]), str(kept["secret"]))
    except (ValueError, KeyError, TypeError):
        return None
