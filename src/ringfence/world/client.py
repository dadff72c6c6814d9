"""A small client of the API that signs as the official ones do, and the shell lines that point the official ones here.

Only what the demo and the tests need: groups, rules, sources, membership, instances, and waiting for an operation.
"""

import json
import os
import shlex
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

import httpx

from ringfence.policy.errors import Invalid, OperatorError, without_number
from ringfence.policy.values import GroupId, InstanceId, KeyId, RuleId
from ringfence.wire.signature import SignedRequest, sign_request

DEFAULT_ZONE: Final = "ch-dk-2"
_SIGNATURE_LIFE_S: Final = 600
_TIMEOUT_S: Final = 10.0
_POLL_S: Final = 0.05
_UNTRUSTED: Final = "CERTIFICATE_VERIFY_FAILED"  # as OpenSSL has it
_OPERATION_TIMEOUT_S: Final = 40.0
Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Credentials:
    """An API key and its secret."""

    key: str
    secret: str = field(repr=False)


def environment_credentials() -> Credentials:
    """Those that ``export_lines`` would set."""
    key, secret = (os.environ.get(name, "") for name in ("EXOSCALE_API_KEY", "EXOSCALE_API_SECRET"))
    if not (key and secret):
        raise Invalid("expected an API key in EXOSCALE_API_KEY and its secret in EXOSCALE_API_SECRET")
    return Credentials(key, secret)


def export_lines(credentials: Credentials, endpoint: str, zone: str = DEFAULT_ZONE) -> str:
    """Shell lines with which exo, Terraform and the SDKs find ``endpoint`` (``/v2`` included) and may sign."""
    variables = {
        "EXOSCALE_API_KEY": credentials.key,
        "EXOSCALE_API_SECRET": credentials.secret,
        "EXOSCALE_API_ENDPOINT": endpoint,
        "EXOSCALE_ZONE": zone,
    }
    return render_exports(variables)


def render_exports(variables: Mapping[str, str]) -> str:
    """Shell lines that set and export the variables."""
    return "\n".join(f"export {name}={shlex.quote(value)}" for name, value in variables.items())


class ApiClient:
    """Signed requests to one endpoint. Every method raises OperatorError with the server's words when refused."""

    def __init__(self, credentials: Credentials, endpoint: str) -> None:
        self._credentials = credentials
        self._base = httpx.URL(endpoint)
        trusted = ssl.create_default_context()  # the system's authorities, or those that SSL_CERT_FILE names
        self._http = httpx.Client(timeout=_TIMEOUT_S, trust_env=False, verify=trusted)
        self.took_ms: list[float] = []  # how long each changing call took, until its answer was there

    def close(self) -> None:
        self._http.close()

    def create_group(self, name: str, description: str) -> GroupId:
        operation = self._change("POST", "/security-group", {"name": name, "description": description})
        return GroupId(UUID(operation["reference"]["id"]))

    def add_rule(self, group: GroupId, rule: Mapping[str, object]) -> None:
        self._change("POST", f"/security-group/{group}/rules", rule)

    def delete_rule(self, group: GroupId, rule: RuleId) -> None:
        self._change("DELETE", f"/security-group/{group}/rules/{rule}")

    def add_source(self, group: GroupId, network: str) -> None:
        self._change("PUT", f"/security-group/{group}:add-source", {"cidr": network})

    def attach(self, group: GroupId, instance: InstanceId) -> None:
        self._change("PUT", f"/security-group/{group}:attach", {"instance": {"id": str(instance)}})

    def rules(self, group: GroupId) -> list[Document]:
        found: list[Document] = self._send("GET", f"/security-group/{group}").get("rules", [])
        return found

    def fetch(self, path: str, **query: str) -> Document:
        """Reads one object, as the server shows it."""
        return self._send("GET", path, query=query)

    def allow(self, wanted: Mapping[str, object]) -> Document:
        """Lets an address reach a group or an instance for a time: what was done, and its operation."""
        return self._send("POST", "/admin/v1/allow", wanted)

    def instances(self) -> dict[str, InstanceId]:
        """Name -> id."""
        found = self._send("GET", "/instance")["instances"]
        return {instance["name"]: InstanceId(UUID(instance["id"])) for instance in found}

    def _change(self, method: str, path: str, body: Mapping[str, object] | None = None) -> Document:
        """The settled operation; records how long it took."""
        started_s = time.monotonic()
        operation = self._send(method, path, body)
        while operation["state"] == "pending" and time.monotonic() - started_s < _OPERATION_TIMEOUT_S:
            time.sleep(_POLL_S)
            operation = self._send("GET", f"/operation/{operation['id']}")
        if operation["state"] != "success":
            raise OperatorError(
                f"{method} {path}", f"{operation['state']}: {operation.get('message', 'no reason given')}"
            )
        self.took_ms.append((time.monotonic() - started_s) * 1000)
        return operation

    def _send(
        self,
        method: str,
        path: str,
        body: Mapping[str, object] | None = None,
        query: Mapping[str, str] | None = None,
    ) -> Document:
        content = b"" if body is None else json.dumps(body).encode()
        root = self._base.path.rstrip("/")
        root = root.removesuffix("/v2") if path.startswith("/admin/") else root  # which is our own, beside /v2
        url = self._base.copy_with(path=root + path, params=dict(query or {}) or None)
        signed = SignedRequest(method, url.raw_path, content)
        key, secret = KeyId(self._credentials.key), self._credentials.secret
        headers = {"Authorization": sign_request(key, secret, signed, int(time.time()) + _SIGNATURE_LIFE_S)}
        if content:
            headers["Content-Type"] = "application/json"
        try:
            response = self._http.request(method, url, content=content, headers=headers)
        except httpx.HTTPError as error:
            said = without_number(str(error)) or type(error).__name__
            hint = "; trust its CA: export SSL_CERT_FILE=ca.pem" if _UNTRUSTED in said else ""
            raise OperatorError(f"asking {self._base}", said + hint) from error
        document: Document = response.json() if response.content else {}
        if response.is_error:
            raise OperatorError(f"{method} {path}", f"{response.status_code}: {document.get('message', '')}")
        return document
