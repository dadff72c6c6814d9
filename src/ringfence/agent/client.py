"""The server as the agent calls it: claim, report and feed, over HTTP or a unix socket, every request signed.

Input: values. Output: values, or an ``OperatorError`` saying what the server or the network answered. It tries once;
when to try again is ``link``'s to decide.
"""

import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from ipaddress import ip_address
from typing import Final, Protocol

import httpcore
import httpx
import msgspec

from ringfence.agent.channel import ServerPlace
from ringfence.agent.credential import HostCredential
from ringfence.agent.doors.clock import Clock
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
ANSWER_TIMEOUT_S: Final = 10.0
SILENCE_S: Final = 45.0  # three heartbeats missed: the feed is dead though nobody closed it
_MAX_LINE_BYTES: Final = 256 << 20
_SHOWN: Final = 300
_FEED: Final = "ringfence-feed"  # the protocol that the connection is upgraded to
_CHUNK_BYTES: Final = 64 << 10
_UNIX: Final = "unix:"
_PORTS: Final = {"http": 80, "https": 443}


class _Problem(msgspec.Struct, frozen=True):
    message: str


class HostRefused(OperatorError):
    """The server answers, but does not take this host for one of its own."""


class Server(Protocol):
    """What the agent asks of the server. Every method raises ``OperatorError`` when it cannot be had.

    It is ``HostRefused`` when the server is there and does not know the credential.
    """

    async def claim(self, claim: ClaimInstances) -> Claimed: ...

    async def report(self, report: Report) -> None: ...

    async def flows(self, report: FlowReport) -> None: ...

    async def counters(self, counts: tuple[RuleCount, ...]) -> None: ...

    def feed(self) -> AsyncGenerator[FeedView | Heartbeat]:
        """The present view, then newer ones and heartbeats, until the connection breaks."""
        ...


class HttpServer:
    """The server at a URL or ``unix:PATH``; made by ``open_server``."""

    def __init__(self, client: httpx.AsyncClient, credential: HostCredential, clock: Clock) -> None:
        self._client = client
        self._credential = credential
        self._clock = clock
        self._reader = FeedReader()  # kept over reconnects: what did not change meanwhile is known
        self._stream: httpcore.AsyncNetworkStream | None = None  # of the open feed

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
            await self._stream.write(encode_report(report) + b"\n", timeout=ANSWER_TIMEOUT_S)

    async def counters(self, counts: tuple[RuleCount, ...]) -> None:
        await self._send("POST", "/agent/v1/counters", encode_counts(counts))

    async def flows(self, report: FlowReport) -> None:
        await self._send("POST", "/agent/v1/flows", encode_flow_report(report))

    async def feed(self) -> AsyncGenerator[FeedView | Heartbeat]:
        base = self._reader.base
        request = self._signed("GET", "/agent/v1/feed" + (f"?{render_base(base)}" if base else ""), b"")
        request.headers["Connection"], request.headers["Upgrade"] = "upgrade", _FEED
        request.extensions = {"timeout": httpx.Timeout(ANSWER_TIMEOUT_S, read=SILENCE_S).as_dict()}
        with network_errors("follow the feed"):
            answer = await self._client.send(request, stream=True)
            try:
                if answer.is_error:
                    await answer.aread()
                    _check(answer, "follow the feed")
                if answer.status_code != httpx.codes.SWITCHING_PROTOCOLS:
                    raise OperatorError("follow the feed", "whoever answers there does not switch to ringfence's feed")
                self._stream = answer.extensions["network_stream"]
                async for line in _lines(_chunks(self._stream)):
                    yield self._read(line)
            finally:
                self._stream = None
                await answer.aclose()

    def _read(self, line: bytes) -> FeedView | Heartbeat:
        try:
            return self._reader.decode_line(line)
        except Invalid as error:
            raise OperatorError("read the feed", f"{error}; the rules in force stay") from error

    async def _send(self, method: str, path: str, body: bytes) -> httpx.Response:
        step = f"{method} {path}"
        with network_errors(step):
            answer = await self._client.send(self._signed(method, path, body))
        _check(answer, step)
        return answer

    def _signed(self, method: str, path: str, body: bytes) -> httpx.Request:
        request = self._client.build_request(method, path, content=body)
        if body:
            request.headers["Content-Type"] = "application/json"
        host, key = self._credential.host, self._credential.private_key
        expires = int(self._clock.now()) + SIGNATURE_LIFE_S
        target = request.url.raw_path.decode("ascii")
        request.headers["Authorization"] = sign_request(key, host, method, target, body, expires)
        return request


@asynccontextmanager
async def open_client(
    address: str, verify: Callable[[], ssl.SSLContext], *, insecure: bool = False
) -> AsyncIterator[httpx.AsyncClient]:
    """HTTP to ``address``, as ``open_server`` takes it; ``verify`` is asked for unless it is a unix socket."""
    limits = httpx.Limits(keepalive_expiry=60)
    if address.startswith(_UNIX):
        transport = httpx.AsyncHTTPTransport(uds=address.removeprefix(_UNIX), limits=limits)
        base = "http://ringfence"
    else:
        base = _checked_url(address, insecure=insecure)
        transport = httpx.AsyncHTTPTransport(verify=verify(), limits=limits)
    async with httpx.AsyncClient(
        base_url=base, transport=transport, timeout=ANSWER_TIMEOUT_S, trust_env=False, follow_redirects=False
    ) as client:
        yield client


@asynccontextmanager
async def open_server(
    address: str, credential: HostCredential, clock: Clock, *, insecure: bool = False
) -> AsyncIterator[HttpServer]:
    """The server at ``address``: https://HOST[:PORT], http:// on loopback only unless ``insecure``, or unix:PATH.

    Nothing is sent yet. Raises ``OperatorError`` for an address that cannot be used.
    """
    async with open_client(address, lambda: trust(credential.ca), insecure=insecure) as client:
        yield HttpServer(client, credential, clock)


def trust(ca: bytes | None) -> ssl.SSLContext:
    """Verifies servers by this CA (DER) and no other, or by the system's store when there is none."""
    return ssl.create_default_context(cadata=ca) if ca else ssl.create_default_context()


def place_of(address: str) -> ServerPlace | None:
    """Where on the network the server at ``address`` is; None if it is nowhere there, as a unix socket is."""
    try:
        url = httpx.URL("" if address.startswith(_UNIX) else address)
    except httpx.InvalidURL:
        return None
    port = url.port or _PORTS.get(url.scheme)
    return ServerPlace(url.host, port) if url.host and port else None


def _checked_url(address: str, *, insecure: bool) -> str:
    step = f"use the server address {address!r}"
    try:
        url = httpx.URL(address)
    except httpx.InvalidURL as error:
        raise OperatorError(step, str(error)) from error
    if url.scheme not in ("http", "https") or not url.host:
        raise OperatorError(step, "expected https://HOST:PORT, http://127.0.0.1:PORT or unix:PATH")
    if url.path.rstrip("/") not in ("", "/v2") or url.query:
        raise OperatorError(step, "expected no path: agents have their own below it")
    if url.scheme == "http" and not (insecure or _is_loopback(url.host)):
        raise OperatorError(step, "over plain HTTP anybody on the way could send this host other rules; use https://")
    return str(url.copy_with(raw_path=b"/"))


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


class network_errors:  # noqa: N801  read as a with-statement
    """Turns what the network does into an ``OperatorError`` that names the step."""

    def __init__(self, step: str) -> None:
        self._step = step

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, httpx.TimeoutException | httpcore.TimeoutException):
            raise OperatorError(self._step, "the server did not answer in time") from error
        if isinstance(error, httpx.HTTPError | httpcore.NetworkError | OSError):
            raise OperatorError(self._step, str(error) or type(error).__name__) from error


def _check(answer: httpx.Response, step: str) -> None:
    if answer.is_success:
        return
    if answer.status_code == httpx.codes.UNAUTHORIZED:
        reason = f"the server refuses this host: {message_of(answer)}"
        raise HostRefused(step, f"{reason} (is it added there, with this key, and are the clocks right?)")
    raise OperatorError(step, f"the server answered {answer.status_code}: {message_of(answer)}")


def message_of(answer: httpx.Response) -> str:
    """The sentence in an error of the server's; of anybody else's error, which may be on the way, its beginning."""
    try:
        return msgspec.json.decode(answer.content, type=_Problem).message[:_SHOWN]
    except (msgspec.DecodeError, UnicodeDecodeError):
        return answer.text[:_SHOWN]


async def _chunks(stream: httpcore.AsyncNetworkStream) -> AsyncIterator[bytes]:
    while chunk := await stream.read(_CHUNK_BYTES, timeout=SILENCE_S):
        yield chunk


async def _lines(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Whole lines of a stream, however it is cut."""
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
