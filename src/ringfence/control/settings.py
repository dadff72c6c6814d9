"""The operator's settings of the control plane; units are in the names."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Settings:
    """``settle_wait_s`` is how long a first answer waits for the hosts, so that clients need not poll for seconds."""

    settle_wait_s: float = 0.25
    operation_timeout_s: float = 30.0
    live_s: float = 45.0  # a host is live this long after its last authenticated message
    alone_s: float = 30.0  # how long reads are answered while a shared database does not run, and feeds stay open
    keep_history_s: int | None = None  # for ever; only a server is told otherwise, no command that opens the store
    offer_all_protocol: bool = False  # the Java SDK fails on reading a rule with protocol "all"
    zone: str = "ch-dk-2"
