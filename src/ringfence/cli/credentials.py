"""What ``ringfence env`` needs of the data folder: a key for this machine's clients, and where the server listens."""

import json
import os
from pathlib import Path
from typing import Final

from ringfence.cli.admin_client import Ask, ask
from ringfence.policy.errors import OperatorError
from ringfence.world.client import Credentials

_KEY_FILE: Final = "client.json"
_ENDPOINT_FILE: Final = "endpoint"
_NAME: Final = "ringfence env"


def load_or_create_key(folder: Path) -> Credentials:
    """The kept key, or a new one when there is none or it was revoked. The file is readable by its owner only."""
    path = folder / _KEY_FILE
    if path.exists():
        kept = json.loads(path.read_text(encoding="utf-8"))
        if kept["id"] in {key["id"] for key in ask(folder, Ask("GET", "/keys"))["keys"]}:
            return Credentials(kept["id"], kept["secret"])
    made = ask(folder, Ask("POST", "/keys", {"name": _NAME}))
    _write_owned(path, json.dumps({"id": made["id"], "secret": made["secret"]}))
    return Credentials(made["id"], made["secret"])


def save_endpoint(folder: Path, urls: list[str]) -> None:
    """Remember the first HTTP address that the server accepts requests at."""
    for url in urls[:1]:
        (folder / _ENDPOINT_FILE).write_text(url + "\n", encoding="utf-8")


def load_endpoint(folder: Path) -> str:
    """Where the server last listened; OperatorError when it never ran."""
    try:
        return (folder / _ENDPOINT_FILE).read_text(encoding="utf-8").strip()
    except FileNotFoundError as error:
        reason = f"no server has listened yet with {folder}: start ringfence server, or say --endpoint URL"
        raise OperatorError("finding the API", reason) from error


def _write_owned(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as opened:
        opened.write(text)
