"""The host's credential for the server: its name and its Ed25519 private key, from the environment or a file.

Input: environment variables, or DIR/credential in the same form, as ``ringfence host add NAME -o env`` prints it.
Output: a ``HostCredential``, or an ``OperatorError`` that says what to run. No key appears in an error or a log.
"""

from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from ringfence.agent.doors.files import read_secret
from ringfence.policy.errors import Invalid, OperatorError
from ringfence.policy.values import HostName
from ringfence.wire.hostauth import KEY_SIZE_BYTES, parse_host_name

HOST_VARIABLE: Final = "RINGFENCE_HOST"
KEY_VARIABLE: Final = "RINGFENCE_HOST_KEY"
SERVER_VARIABLE: Final = "RINGFENCE_SERVER"
CA_VARIABLE: Final = "RINGFENCE_CA"
_HOW: Final = "run `ringfence agent join` with a token of `ringfence host token NAME`, made where the server is"


class Damaged(OperatorError):
    """There is a file, and no credential in it."""


@dataclass(frozen=True, slots=True)
class HostCredential:
    host: HostName
    private_key: bytes = field(repr=False)  # 32 bytes
    server: str | None = None  # where the host has joined
    ca: bytes | None = field(default=None, repr=False)  # in DER: what the server's certificate is verified by


def load_credential(folder: Path, environment: Mapping[str, str], *, name: str = "credential") -> HostCredential:
    """From ``environment`` if it has both variables, else from a file in ``folder`` that only its owner may read."""
    present = [name for name in (HOST_VARIABLE, KEY_VARIABLE) if environment.get(name)]
    if len(present) == 1:
        missing = HOST_VARIABLE if present == [KEY_VARIABLE] else KEY_VARIABLE
        raise OperatorError("read the credential", f"{present[0]} is set and {missing} is not; {_HOW}")
    if present:
        return _credential(environment[HOST_VARIABLE], environment[KEY_VARIABLE], "the environment")
    path = folder / name
    lines = _assignments(path)
    if HOST_VARIABLE not in lines or KEY_VARIABLE not in lines:
        raise Damaged(f"read {path}", f"expected the lines {HOST_VARIABLE}=... and {KEY_VARIABLE}=...; {_HOW}")
    found = _credential(lines[HOST_VARIABLE], lines[KEY_VARIABLE], str(path))
    try:
        ca = b64decode(lines.get(CA_VARIABLE, ""), validate=True) or None
    except ValueError as error:
        raise Damaged(f"read {path}", f"{CA_VARIABLE} is not base64; {_HOW}") from error
    return replace(found, server=lines.get(SERVER_VARIABLE), ca=ca)


def render_credential(credential: HostCredential) -> bytes:
    """The file's content."""
    lines = {HOST_VARIABLE: credential.host, KEY_VARIABLE: b64encode(credential.private_key).decode()}
    if credential.server is not None:
        lines[SERVER_VARIABLE] = credential.server
    if credential.ca is not None:
        lines[CA_VARIABLE] = b64encode(credential.ca).decode()
    return "".join(f"{name}={value}\n" for name, value in lines.items()).encode()


def _assignments(path: Path) -> dict[str, str]:
    content = read_secret(path)
    if content is None:
        raise OperatorError(
            "read the credential", f"neither {HOST_VARIABLE} and {KEY_VARIABLE} are set nor is there {path}; {_HOW}"
        )
    lines = content.decode(errors="replace").splitlines()
    assignments = (line.strip().removeprefix("export ").partition("=") for line in lines)
    return {name: value.strip("'\"") for name, _, value in assignments}


def _credential(host: str, key: str, source: str) -> HostCredential:
    try:
        name = parse_host_name(host, field=HOST_VARIABLE)
        private_key = b64decode(key, validate=True)
    except (Invalid, ValueError) as error:
        raise Damaged(f"read the credential from {source}", str(error)) from error
    if len(private_key) != KEY_SIZE_BYTES:
        raise Damaged(
            f"read the credential from {source}",
            f"{KEY_VARIABLE} is {len(private_key)} bytes in base64, expected {KEY_SIZE_BYTES}; {_HOW}",
        )
    return HostCredential(name, private_key)
