"""Recorded exchanges, played again here: ids translated, signatures renewed, everything else as recorded."""

import json
import re
import time
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path

from contract.running import Answered, Running
from ringfence.wire.signature import SCHEME, SignedRequest, sign_request

CAPTURES = Path(__file__).parent / "captures"
KEY, SECRET = "EXOtest", "s3cr3t"  # of the recordings
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_SKIPPED = {"authorization", "content-length", "host"}


@dataclass(frozen=True)
class Exchange:
    """One line of a capture."""

    method: str
    path: str
    headers: dict[str, str]
    body: str
    status: int
    response: object

    @property
    def authorization(self) -> str | None:
        return {name.lower(): value for name, value in self.headers.items()}.get("authorization")


def load_client(name: str) -> list[Exchange]:
    lines = (CAPTURES / "clients" / f"{name}.jsonl").read_text().splitlines()
    return [Exchange(**json.loads(line)) for line in lines]


@dataclass
class Replay:
    """Plays exchanges in order. ``ids`` maps recorded ids to ours, learnt from the answers."""

    server: Running
    ids: dict[str, str] = field(default_factory=dict)

    def play(self, exchange: Exchange) -> Answered:
        path, body = self._translate(exchange.path), self._translate(exchange.body).encode()
        if exchange.method == "DELETE" and exchange.status == 200:
            self._delete_rules_that_name(path)
        answer = self._send(exchange, path, body)
        if answer.status == exchange.status == 200:
            self._learn(exchange.response, answer.json)
        return answer

    def _delete_rules_that_name(self, path: str) -> None:
        """As Terraform did before: the recording keeps only one of its many alike exchanges."""
        for group in self.server.call("GET", "/security-group").json["security-groups"]:
            for rule in group.get("rules", ()):
                peer = rule.get("security-group", {}).get("id")
                if path == f"/v2/security-group/{peer}" and peer != group["id"]:
                    self.server.call("DELETE", f"/security-group/{group['id']}/rules/{rule['id']}")

    def _translate(self, text: str) -> str:
        return _UUID.sub(lambda found: self._ours(found[0], text), text)

    def _ours(self, recorded: str, text: str) -> str:
        """Our id for a recorded one. Rules are deleted by ids that no recorded answer shows: take the group's first."""
        if recorded not in self.ids and f"/rules/{recorded}" in text:
            group = self.server.call(
                "GET", text.removeprefix("/v2").partition("/rules/")[0].replace(*self._group(text))
            )
            self.ids[recorded] = group.json["rules"][0]["id"]
        return self.ids.get(recorded, recorded)

    def _group(self, text: str) -> tuple[str, str]:
        recorded = _UUID.search(text)[0]
        return recorded, self.ids.get(recorded, recorded)

    def _send(self, exchange: Exchange, path: str, body: bytes) -> Answered:
        """On a plain connection, with the client's own headers in their order, hop-by-hop ones too."""
        connection = HTTPConnection(*self.server.address, timeout=10)
        connection.putrequest(exchange.method, path, skip_accept_encoding=True)
        for name, value in exchange.headers.items():
            if name.lower() not in _SKIPPED:
                connection.putheader(name, value)
        if "content-length" in {name.lower() for name in exchange.headers}:
            connection.putheader("Content-Length", str(len(body)))
        if exchange.authorization:
            connection.putheader("Authorization", self._renew(exchange, path, body))
        connection.endheaders(body or None)
        answer = connection.getresponse()
        answered = Answered(answer.status, dict(answer.getheaders()), answer.read())
        connection.close()
        return answered

    def _renew(self, exchange: Exchange, path: str, body: bytes) -> str:
        """A signature made now, the way this client signs; one that was wrong when recorded stays as it is."""
        if exchange.status == 403:
            return exchange.authorization
        request = SignedRequest(exchange.method, path.encode(), body)
        if "signed-query-args" not in exchange.authorization:  # Java never signs the query
            request = SignedRequest(exchange.method, path.partition("?")[0].encode(), body)
        ahead_s = 0 if "Java" in exchange.headers.get("User-Agent", "") else 600
        return sign_request(self.server.key, self.server.secret, request, int(time.time()) + ahead_s)

    def _learn(self, recorded: object, ours: object) -> None:
        """Pairs the ids of two answers of one shape."""
        match recorded, ours:
            case dict(), dict():
                for name in recorded.keys() & ours.keys():
                    self._learn(recorded[name], ours[name])
            case list(), list():
                for one in recorded:
                    self._learn(one, _find_twin(one, ours))
            case str(), str() if _UUID.fullmatch(recorded) and _UUID.fullmatch(ours):
                self.ids[recorded] = ours


def _find_twin(recorded: object, ours: list[object]) -> object:
    return next((other for other in ours if _is_twin(recorded, other)), None)


def _is_twin(recorded: object, ours: object) -> bool:
    """Whether two list items show the same thing: by name, or a rule by what it says."""
    if not isinstance(recorded, dict) or not isinstance(ours, dict):
        return False
    if "name" in recorded:
        return recorded["name"] == ours.get("name")
    fields = ("flow-direction", "protocol", "network", "start-port", "end-port", "icmp", "description")
    return "protocol" in recorded and all(recorded.get(name) == ours.get(name) for name in fields)


def recorded_signature(exchange: Exchange) -> tuple[str, SignedRequest, int]:
    """The header, the request and the ``expires`` of a recorded signature."""
    fields = dict(part.split("=", 1) for part in exchange.authorization.removeprefix(SCHEME + " ").split(","))
    request = SignedRequest(exchange.method, exchange.path.encode(), exchange.body.encode())
    return exchange.authorization, request, int(fields["expires"])


def shape_differences(recorded: object, ours: object, path: str = "$") -> list[str]:
    """Where our answer lacks something of the recorded one, or has another type.

    Recorded empty lists may be absent, and so may what the stub showed of listed instances and openapi.json does not.
    """
    match recorded, ours:
        case dict(), dict():
            wanted = {name for name, value in recorded.items() if value and not (name == "disk-size" and "[]" in path)}
            lacking = [f"{path}.{name} is absent" for name in sorted(wanted - ours.keys())]
            inner = [shape_differences(recorded[name], ours[name], f"{path}.{name}") for name in recorded.keys() & ours]
            return lacking + [text for texts in inner for text in texts]
        case list(), list():
            twins = [(one, _find_twin(one, ours)) for one in recorded]
            found = [(one, twin) for one, twin in twins if twin is not None]
            return [text for one, twin in found for text in shape_differences(one, twin, f"{path}[]")]
        case _:
            same = isinstance(ours, type(recorded))
            return [] if same else [f"{path} is {type(ours).__name__}, recorded {type(recorded).__name__}"]
