"""What ``doctor`` finds of the server that this host has joined: whether it answers and takes the host; its clock."""

from collections.abc import Callable, Iterator
from typing import Final

from ringfence.agent.client import SIGNATURE_LIFE_S
from ringfence.agent.credential import HostCredential
from ringfence.agent.doctor import Finding, State
from ringfence.agent.doors.server import Answered, NotTrusted
from ringfence.policy.errors import OperatorError
from ringfence.policy.values import HostName
from ringfence.wire.hostauth import LEEWAY_S

_FEW_DAYS: Final = 14.0
_STEP_S: Final = 10.0  # clocks that differ by less do no harm
_REFUSED_S: Final = SIGNATURE_LIFE_S + LEEWAY_S  # by how much a clock may be behind


def examine_server(credential: HostCredential, ask: Callable[[str, HostCredential], Answered]) -> Iterator[Finding]:
    """Findings about ``credential.server``; none for one that is reached by a unix socket or said elsewhere."""
    url = credential.server
    if url is None or not url.startswith("http"):
        yield Finding("server", State.SKIPPED, "not looked at: this host's folder names no URL of a server")
        return
    try:
        answered = ask(url, credential)
    except NotTrusted as error:
        yield Finding("certificate", State.PROBLEM, f"{url} shows one that is refused: {error.reason}", error.advice)
        return
    except OperatorError as error:
        yield Finding(
            "server", State.PROBLEM, f"{url} is of no use: {error.reason}", "what was enforced last stays in force"
        )
        return
    yield Finding("server", State.OK, f"{url} answers")
    yield _host(credential.host, answered.refusal)
    if answered.days_left is not None:
        yield _certificate(answered.days_left)
    if answered.ahead_s is not None:
        yield _clock(answered.ahead_s)


def _host(name: HostName, refusal: str | None) -> Finding:
    if refusal is None:
        return Finding("host", State.OK, f"the server takes this host as {name}")
    text = f"the server does not take this host as {name}: {refusal}"
    advice = (
        f"if no clock is wrong it was removed, or joined again elsewhere: ringfence host token {name} on the server,"
        " and join again; what was enforced stays in force"
    )
    return Finding("host", State.PROBLEM, text, advice)


def _certificate(days_left: float) -> Finding:
    text = f"the server's is good for {days_left:.0f} more days"
    if days_left > _FEW_DAYS:
        return Finding("certificate", State.OK, text)
    return Finding("certificate", State.WARNING, text, "renew it; ringfence's own CA does so by itself")


def _clock(ahead_s: float) -> Finding:
    """Signatures carry the time: a clock that is wrong by minutes shuts a host out."""
    way = "behind" if ahead_s > 0 else "ahead of"
    if abs(ahead_s) < _STEP_S:
        return Finding("clock", State.OK, "this host's clock agrees with the server's")
    text = f"this host's clock is {abs(ahead_s):.0f} s {way} the server's"
    state = State.PROBLEM if abs(ahead_s) >= _REFUSED_S else State.WARNING
    return Finding("clock", state, text, "run a time service on both: what is signed at another time is refused")
