"""What the demo asks as the operator, over the server's control socket, and as the host, over its feed."""

import asyncio
import time
from base64 import b64decode
from pathlib import Path
from typing import Any, Final

import httpx

from ringfence.agent.client import open_server
from ringfence.agent.credential import HostCredential
from ringfence.agent.doors.clock import SystemClock
from ringfence.policy.errors import OperatorError
from ringfence.policy.values import HostName
from ringfence.policy.view import HostView
from ringfence.wire.feed import FeedView
from ringfence.world.client import Credentials

CONTROL_SOCKET: Final = "control.sock"
_TIMEOUT_S: Final = 10.0
_PAUSE_S: Final = 0.02


class Operator:
    """The few operator's calls that the demo makes. Every method raises OperatorError with the server's words."""

    def __init__(self, folder: Path) -> None:
        transport = httpx.HTTPTransport(uds=str(folder / CONTROL_SOCKET))
        self._http = httpx.Client(transport=transport, base_url="http://ringfence/admin/v1", timeout=_TIMEOUT_S)

    def close(self) -> None:
        self._http.close()

    def create_key(self, name: str) -> Credentials:
        made = self._ask("POST", "/keys", {"name": name})
        return Credentials(made["id"], made["secret"])

    def add_host(self, name: str) -> HostCredential:
        made = self._ask("POST", "/hosts", {"name": name})
        return HostCredential(HostName(name), b64decode(made["private-key"]))

    def observe(self, instance: str, *, observe: bool) -> None:
        """Have an instance observed, or enforced again; returns when its host has taken it over."""
        self._ask("PUT", f"/instances/{instance}", {"observe": observe})

    def flows(self) -> list[dict[str, Any]]:
        """The flows that hosts reported: refused and allowed ones."""
        return list(self._ask("GET", "/flows")["flows"])

    def drops(self) -> list[dict[str, Any]]:
        """The refused packets that hosts reported."""
        return list(self._ask("GET", "/drops")["drops"])

    def explain(self, source: str, destination: str, service: str) -> str:
        query = {"source": source, "destination": destination, "service": service}
        return str(self._ask("GET", "/explain", query=query)["text"])

    def wait_applied(self, host: str, *, instances: int, timeout_s: float) -> float:
        """Until ``host`` carries so many instances and enforces the newest revision; the seconds that took.

        Raises:
            OperatorError: with what the host last reported when that does not come in time.
        """
        started_s = time.monotonic()
        while True:
            status: dict[str, Any] = next(
                (one for one in self._ask("GET", "/hosts")["hosts"] if one["host"] == host), {}
            )
            carried = [one for one in self._ask("GET", "/instances")["instances"] if one["host"] == host]
            if len(carried) == instances and status.get("applied") == status.get("wanted"):
                return time.monotonic() - started_s
            if time.monotonic() - started_s > timeout_s:
                raise OperatorError("waiting for the agent", f"after {timeout_s:.0f} s the host's status is {status}")
            time.sleep(_PAUSE_S)

    def _ask(
        self, method: str, path: str, body: dict[str, Any] | None = None, *, query: dict[str, str] | None = None
    ) -> dict[str, Any]:
        try:
            response = self._http.request(method, path, json=body, params=query)
        except httpx.HTTPError as error:
            raise OperatorError(f"asking the server ({path})", str(error) or type(error).__name__) from error
        answer: dict[str, Any] = response.json() if response.content else {}
        if response.is_error:
            raise OperatorError(f"asking the server ({path})", str(answer.get("message", response.status_code)))
        return answer


def fetch_view(server: str, credential: HostCredential) -> HostView:
    """What the server wants of the host right now: the first line of its feed."""
    return asyncio.run(_first_view(server, credential))


async def _first_view(server: str, credential: HostCredential) -> HostView:
    async with open_server(server, credential, SystemClock()) as connection:
        feed = connection.feed()
        try:
            async for line in feed:
                if isinstance(line, FeedView):
                    return line.view
        finally:
            await feed.aclose()
    raise OperatorError("fetching the host's view", "the feed ended before it began")
