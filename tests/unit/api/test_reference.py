"""docs/reference/api.md says what the code does: its limits, its statuses, its operations."""

from pathlib import Path

import pytest

from ringfence.api.answers import STATUS
from ringfence.api.connection import (
    HEAD_TIME_S,
    KEEP_ALIVE_S,
    MAX_HEAD_BYTES,
    MOST_LARGE_BYTES,
    MOST_WAITING,
    SMALL_BYTES,
)
from ringfence.api.exchange import BodyLimits
from ringfence.api.feed_connection import HEARTBEAT_S
from ringfence.api.rates import BURST_S, FAILURE_BURST_S, FAILURE_RATE, KEY_RATE
from ringfence.control.settings import Settings
from ringfence.policy.quota import DEFAULT_LIMITS, Quota
from ringfence.wire.decode import MAX_TEXT
from ringfence.wire.document import MAX_DEPTH
from ringfence.wire.signature import HORIZON_S, LEEWAY_S

PAGE = (Path(__file__).parents[3] / "docs" / "reference" / "api.md").read_text()
SETTINGS = Settings()

SAID = [
    f"`expires` may lie {LEEWAY_S} s behind",
    {3600: "at most one hour ahead"}[HORIZON_S],
    f"{BodyLimits().size_bytes // 2**20} MiB, within {BodyLimits().time_s:.0f} s",
    f"nested at most {MAX_DEPTH} deep",
    f"over {SMALL_BYTES // 1024} KiB that come over TCP and are not whole | {MOST_LARGE_BYTES // 2**20} MiB together",
    f"{MAX_HEAD_BYTES // 1024} KiB, within {HEAD_TIME_S:.0f} s",
    f"come together on one connection | {MOST_WAITING}",
    f"1 to {MAX_TEXT} characters",
    f"{KEY_RATE:.0f} a second, {KEY_RATE * BURST_S:.0f} at once",
    f"{2 * KEY_RATE:.0f} a second, {2 * KEY_RATE * BURST_S:.0f} at once",
    f"{FAILURE_RATE:.0f} a second, {FAILURE_RATE * FAILURE_BURST_S:.0f} at once",
    f"closed after {KEEP_ALIVE_S} s",
    f"every {HEARTBEAT_S:.0f} s in between",
    f"within {SETTINGS.settle_wait_s * 1000:.0f} ms",
    f"`timeout` after {SETTINGS.operation_timeout_s:.0f} s",
    f"`{SETTINGS.zone}` unless `--zone`",
]


@pytest.mark.parametrize("text", SAID)
def test_a_figure_on_the_page_is_the_one_in_the_code(text):
    assert text in PAGE


@pytest.mark.parametrize("quota", Quota)
def test_every_quota_has_a_line_with_its_default(quota):
    assert f"\n| `{quota.value}` | {DEFAULT_LIMITS[quota]} | " in PAGE


@pytest.mark.parametrize("status", sorted({*STATUS.values(), 405, 408, 431}))
def test_every_status_has_a_line(status):
    assert f"\n| {int(status)} | " in PAGE
