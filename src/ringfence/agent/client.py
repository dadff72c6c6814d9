"""The server as the agent calls it: claim, report and feed, over HTTP or a unix socket, every request signed.

Input: values. Output: values, or an ``OperatorError`` saying what the server or the network answered. It tries once;
when to try again is ``link``'s to decide.
"""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, Protocol

from ringfence.agent.credential import HostCredential
from ringfence.agent.doors.clock import Clock
from ringfence.agent.doors.http_connection import Answer, Connection
from ringfence.agent.http import (
    SWITCHING_PROTOCOLS,
    UNAUTHORIZED,
    HttpClient,
    is_success,
    message_of,
    network_errors,
    open_client,
    trust,
)
from ringfence.policy.commands import ClaimInstances
from ringfence.policy.errors import Invalid, OperatorError
from ringfence.wire.counters import RuleCount, encode_counts
from ringfence.wire.feed import (
    Claimed,
    FeedReader,
    FeedView,
    Heartbeat,
    Report,
    decode_claimed,
    encode_claim,
    encode_report,
    render_base,
)
from ringfence.wire.flows import FlowReport, encode_flow_report
from ringfence.wire.hostauth import sign_request

SIGNATURE_LIFE_S: Final = 300
SILENCE_S: Final = 45.0  # three heartbeats missed: the feed is dead though nobody closed it
_MAX_LINE_BYTES: Final = 256 << 20
_FEED: Final = "ringfence-feed"  # the protocol that the connection is upgraded to


class HostRefused(OperatorError):
    """The server answers, but does not know this host or its key."""


class Server(Protocol):
    """What the agent asks of the server. Every method raises ``OperatorError`` when the server cannot be reached.

    It is ``HostRefused`` when the server answers but does not know the credential.
    """

    async def claim(self, claim: ClaimInstances) -> Claimed: ...

    async def report(self, report: Report) -> None: ...

    async def flows(self, report: FlowReport) -> None: ...

    async def counters(self, counts: tuple[RuleCount, ...]) -> None: ...

    def hold(self, view: FeedView) -> None:
        """Tells which view this host has already, so that the feed sends only what differs from it."""
        ...

    def feed(self) -> AsyncGenerator[FeedView | Heartbeat]:
        """The present view, then newer ones and heartbeats, until the connection breaks."""
        ...


class HttpServer:
    """The server at a URL or ``unix:PATH``; made by ``open_server``."""

    def __init__(self, client: HttpClient, credential: HostCredential, clock: Clock) -> None:
        self._client = client
        self._credential = credential
        self._clock = clock
        self._reader = FeedReader()  # kept over reconnects: what did not change meanwhile is known
        self._stream: Connection | None = None  # of the open feed

    async def claim(self, claim: ClaimInstances) -> Claimed:
        answer = await self._send("PUT", "/agent/v1/inventory", encode_claim(claim))
        try:
            return decode_claimed(answer.content)
        except Invalid as error:
            raise OperatorError("claim the inventory", str(error)) from error

    async def report(self, report: Report) -> None:
        if self._stream is None:
            raise OperatorError("report", "there is no connection to report over")
        with network_errors("report"):
            await self._stream.write(encode_report(report) + b"\n")

    async def counters(self, counts: tuple[RuleCount, ...]) -> None:
        await self._send("POST", "/agent/v1/counters", encode_counts(counts))

    async def flows(self, report: FlowReport) -> None:
        await self._send("POST", "/agent/v1/flows", encode_flow_report(report))

    def hold(self, view: FeedView) -> None:
        self._reader.hold(view)

    async def feed(self) -> AsyncGenerator[FeedView | Heartbeat]:
        path = f"/agent/v1/feed?{render_base(self._reader.base)}"
        headers = {"Connection": "upgrade", "Upgrade": _FEED, **self._signature("GET", path, b"")}
        step = f"follow the feed of {self._client.name}"
        with network_errors(step):
            async with self._client.upgrade(path, headers, silence_s=SILENCE_S) as (answer, stream):
                if answer.status != SWITCHING_PROTOCOLS:
                    _check(answer, step)
                    raise OperatorError(step, "whoever answers there does not switch to ringfence's feed")
                self._stream = stream
                try:
                    async for line in _lines(_chunks(stream)):
                        yield self._read(line)
                finally:
                    self._stream = None

    def _read(self, line: bytes) -> FeedView | Heartbeat:
        try:
            return self._reader.decode_line(line)
        except Invalid as error:
            raise OperatorError("read the feed", f"{error}; the rules in force stay") from error

    async def _send(self, method: str, path: str, body: bytes) -> Answer:
        step = f"{method} {path} at {self._client.name}"
        with network_errors(step):
            answer = await self._client.request(method, path, content=body, headers=self._signature(method, path, body))
        _check(answer, step)
        return answer

    def _signature(self, method: str, target: str, body: bytes) -> dict[str, str]:
        host, key = self._credential.host, self._credential.private_key
        expires = int(self._clock.now()) + SIGNATURE_LIFE_S
        return {"Authorization": sign_request(key, host, method, target, body, expires)}


@asynccontextmanager
async def open_server(
    address: str, credential: HostCredential, clock: Clock, *, insecure: bool = False
) -> AsyncIterator[HttpServer]:
    """The server at ``address``: https://HOST[:PORT], http:// on loopback only unless ``insecure``, or unix:PATH.

    Nothing is sent yet. Raises ``OperatorError`` for an address that cannot be used.
    """
    async with open_client(address, lambda: trust(credential.ca), insecure=insecure) as client:
        yield HttpServer(client, credential, clock)


def _check(answer: Answer, step: str) -> None:
    if is_success(answer):
        return
    if answer.status == UNAUTHORIZED:
        reason = f"the server refuses this host: {message_of(answer)}"
        raise HostRefused(step, f"{reason} (is it added there, with this key, and are the clocks right?)")
    raise OperatorError(step, f"the server answered {answer.status}: {message_of(answer)}")


async def _chunks(stream: Connection) -> AsyncIterator[bytes]:
    while chunk := await stream.read(SILENCE_S):
        yield chunk


async def _lines(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The lines of a stream, wherever its chunks are cut."""
    rest = bytearray()
    async for chunk in chunks:
        searched = len(rest)
        rest += chunk
        while (end := rest.find(b"\n", searched)) >= 0:
            line = bytes(rest[:end])
            del rest[: end + 1]
            searched = 0
            yield line
        if len(rest) > _MAX_LINE_BYTES:
            raise OperatorError("follow the feed", f"a view of more than {_MAX_LINE_BYTES} bytes")
