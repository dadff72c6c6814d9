"""Tampering with our rules by other programs: what was heard of it, what may have been missed, what to report.

Input: the kernel's notices and its count of transactions. Output: ``Heard`` to mend, whether the whole table should be
read, and a sentence for the operator. It changes no rules.
"""

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final

from ringfence.agent.doors.clock import Clock
from ringfence.agent.doors.notices import NoticesDoor
from ringfence.nft import Heard

SHOWN_S: Final = 300.0  # for so long after it happened, tampering is shown in the host's status
_TOLD_EVERY_S: Final = 1.0  # tampering without pause is not reported more often
_WHOLE_CHECK_S: Final = 1.0  # between two readings of the whole table at least, and 20 times what one takes
_WHOLE_CHECK_SHARE: Final = 20
_COUNT_RANGE: Final = 1 << 32


@dataclass(frozen=True, slots=True)
class Tampering:
    """``began`` is monotonic, ``at`` in seconds since 1970; ``mended_s`` and ``whole_s``: how long after ``began``."""

    by: str
    what: str
    began: float
    at: float
    mended_s: float
    whole_s: float | None = None
    times: int = 1

    @property
    def text(self) -> str:
        moment = datetime.fromtimestamp(self.at, UTC).isoformat(timespec="seconds")
        again = f" ({self.times} times so far)" if self.times > 1 else ""
        whole = "" if self.whole_s is None else f", whole after {self.whole_s * 1000:.0f} ms"
        return (
            f"{self.by} changed ringfence's own rules at {moment}{again}: {self.what};"
            f" closed or mended after {self.mended_s * 1000:.0f} ms{whole}"
        )


class Watch:
    """Owns what was heard. ``begin`` comes first, before the rules are read."""

    def __init__(self, notices: NoticesDoor, clock: Clock) -> None:
        self._notices = notices
        self._clock = clock
        self._heard_changes = 0  # the kernel's count of transactions up to which all notices were heard
        self._counted = 0  # the kernel's count at the last look
        self._whole_check_wanted = False
        self._whole_check_at = 0.0
        self._tampering: Tampering | None = None
        self._told: Tampering | None = None

    def begin(self, changes: int) -> None:
        self._heard_changes = self._counted = changes

    async def wait(self) -> None:
        """Until there may be something to hear."""
        await self._notices.wait()

    def hear(self, known_until: int | None) -> Heard:
        """What came since the last call, without transactions up to the count ``known_until``, which are known."""
        heard = self._notices.take(known_until)
        if heard.changes is not None:
            self._heard_changes = heard.changes
        self._whole_check_wanted |= heard.lost
        return heard

    def compare(self, changes: int) -> None:
        """Takes note of the kernel's count. What was counted at the last call must have been heard of by now."""
        if 0 < (self._counted - self._heard_changes) % _COUNT_RANGE < _COUNT_RANGE // 2:
            self._whole_check_wanted = True
            self._heard_changes = self._counted
        self._counted = changes

    def is_check_due(self) -> bool:
        """Whether the whole table should be read now, for something may have been missed."""
        return self._whole_check_wanted and self._clock.monotonic() >= self._whole_check_at

    def checked(self, began: float) -> None:
        """Takes note that the whole table was read, beginning at ``began``."""
        now = self._clock.monotonic()
        self._whole_check_wanted = False
        self._whole_check_at = now + max(_WHOLE_CHECK_S, _WHOLE_CHECK_SHARE * (now - began))

    def note_tampering(self, heard: Heard, began: float) -> None:
        """Takes note that others changed our rules: they are mended by now, or closed until the table is whole."""
        now = self._clock.monotonic()
        by = ", ".join(sorted(heard.authors)) or "another program"
        what = heard.touched.text or "unseen"
        times = self._tampering.times + 1 if self._tampering else 1
        self._tampering = Tampering(by, what, began, self._clock.now() - (now - began), now - began, None, times)

    def note_whole(self) -> None:
        """Takes note that the kernel holds what it should."""
        known = self._tampering
        if known is not None and known.whole_s is None:
            self._tampering = replace(known, whole_s=self._clock.monotonic() - known.began)

    @property
    def notice(self) -> str | None:
        """The sentence about tampering, for a while after it; it does not change more often than every second."""
        now = self._clock.monotonic()
        if self._tampering is not None and now - self._tampering.began > SHOWN_S:
            self._tampering = None
        told = self._told
        if self._tampering is None or told is None or now - told.began >= _TOLD_EVERY_S or told.whole_s is None:
            self._told = self._tampering
        return self._told.text if self._told else None
