"""What ``ringfence env`` needs of the data folder: a key for this machine's clients, and where the server listens."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from ringfence.agent.doors.files import SystemFiles
from ringfence.cli.admin_client import Ask, ask
from ringfence.policy.errors import OperatorError
from ringfence.world.client import Credentials

_KEY_FILE: Final = "client.json"
_ENDPOINT_FILE: Final = "endpoint.json"
_NAME: Final = "ringfence env"


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
    """Remember the first HTTP address that the server accepts requests at, and its zone."""
    SystemFiles().replace(folder / _ENDPOINT_FILE, json.dumps(asdict(Endpoint(next(iter(urls), None), zone))).encode())


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
