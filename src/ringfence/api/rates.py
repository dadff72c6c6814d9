"""How often a key, a host or an address may ask: beyond that it is 429 with ``Retry-After``, and nothing is done.

Input: who asks, and a monotonic time. Output: nothing, or ``TooMany``. What it remembers is bounded, whoever comes.
"""

import math
from collections import OrderedDict
from dataclasses import dataclass
from ipaddress import IPv6Address
from typing import Final, NoReturn

from ringfence.policy.errors import TooMany
from ringfence.policy.meter import MAX_NAMES, Meter
from ringfence.policy.values import HostName, KeyId

KEY_RATE: Final = 1000.0  # calls a second: some times what ten parallel calls of Terraform come to
HOST_RATE: Final = 50.0  # calls a second: an agent makes four at most, for an inventory that changes all the time
REPORT_RATE: Final = 100.0  # reports a second of a host over its feeds: one or two for each view that it is sent
FAILURE_RATE: Final = 10.0  # refused signatures a second of one address
BURST_S: Final = 2.0  # how many seconds' worth may come at once
FAILURE_BURST_S: Final = 10.0
LONGEST_TURN_S: Final = 10.0  # until the last turn that is given: no longer, as who is refused need not come again
_OWN_NET_BITS: Final = 64  # of an IPv6 address: whoever has one has them all


@dataclass(frozen=True, slots=True)
class RateLimits:
    """Calls a second of a key, an address and a host, and refused signatures of an address. 0: no limit."""

    key: float = KEY_RATE
    address: float = 2 * KEY_RATE
    failures: float = FAILURE_RATE
    host: float = HOST_RATE


class Gate:
    """The rate limits of one app.

    Signatures are verified before a refusal is counted, so that nobody is kept out by what others behind the same
    address get wrong.
    """

    def __init__(self, limits: RateLimits) -> None:
        self._keys = _Limit(limits.key)
        self._addresses = _Limit(limits.address)
        self._hosts = _Limit(limits.host)
        self._failures = _Limit(limits.failures, FAILURE_BURST_S)

    def admit_address(self, address: str | None, now_s: float) -> None:
        """Raises ``TooMany`` when the address, None for a unix socket, asks too often."""
        if address is not None and (wait_s := self._addresses.take(_owner(address), now_s)):
            _refuse(wait_s, "this address sends more calls than it may")

    def admit_key(self, key: KeyId, now_s: float) -> None:
        """Raises ``TooMany`` when the key is used too often."""
        if wait_s := self._keys.take(key, now_s):
            _refuse(wait_s, f"key {key} sends more calls than it may")

    def admit_host(self, host: HostName, now_s: float) -> None:
        """Raises ``TooMany`` when the host asks too often."""
        if wait_s := self._hosts.take(host, now_s):
            _refuse(wait_s, f"host {host} sends more calls than it may")

    def note_failure(self, address: str | None, now_s: float) -> None:
        """Counts a refused signature; raises ``TooMany`` after too many of one address."""
        if address is not None and (wait_s := self._failures.take(_owner(address), now_s)):
            _refuse(wait_s, "too many requests of this address were not signed rightly")


class _Limit:
    """A rate of each name. Each call that is refused is given a turn of its own, after those given before.

    A hundred callers that were all told to come again in a second would meet then, be refused again, and give up.
    """

    def __init__(self, rate: float, burst_s: float = BURST_S) -> None:
        self._meter = Meter(rate, max(1.0, rate * burst_s))
        self._turns_s: OrderedDict[object, float] = OrderedDict()  # the last turn that each name was given

    def take(self, name: object, now_s: float) -> float:
        """0 when ``name`` may go on, which is then counted; else the seconds until its turn."""
        soonest_s = self._meter.take(name, now_s)
        if not soonest_s:
            return 0.0
        next_s = self._turns_s.get(name, 0.0) + 1 / self._meter.rate - now_s
        wait_s = max(soonest_s, min(next_s, LONGEST_TURN_S))
        self._turns_s[name] = now_s + wait_s
        self._turns_s.move_to_end(name)
        if len(self._turns_s) > MAX_NAMES:
            self._turns_s.popitem(last=False)
        return wait_s


def _refuse(wait_s: float, text: str) -> NoReturn:
    after_s = math.ceil(wait_s)
    raise TooMany(f"{text}: try again in {after_s} s", retry_after_s=after_s)


def _owner(address: str) -> object:
    if ":" not in address:
        return address
    return int(IPv6Address(address.partition("%")[0])) >> (128 - _OWN_NET_BITS)
