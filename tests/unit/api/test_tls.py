"""The certificate in use, when another one is due and cannot be had."""

import asyncio
import contextlib
from datetime import UTC, datetime, timedelta

import pytest

from ringfence.api.authority import SERVER_LIFE, authority_of
from ringfence.api.tls import Certificate, own_certificate
from ringfence.policy.errors import OperatorError

DAY = timedelta(days=1)


@pytest.fixture
def authority(tmp_path):
    """One whose key is elsewhere, with a certificate that is to be renewed and lasts for ten days more."""
    authority = authority_of(tmp_path)
    authority.make(["rf.example"], datetime.now(UTC) - SERVER_LIFE + 10 * DAY)
    (authority.folder / "ca.key").unlink()
    return authority


def test_one_that_cannot_be_renewed_is_used_until_it_ends(authority, caplog):
    now = datetime.now(UTC)
    assert own_certificate(authority, now).context
    assert "the certificate in use stays" in caplog.text
    with pytest.raises(OperatorError, match=r"ca\.key"):
        own_certificate(authority, now + 11 * DAY)


def test_what_hinders_a_renewal_is_said_once_until_it_is_something_else(authority, caplog):
    looks = 0

    def now():
        nonlocal looks
        looks += 1
        if looks == 10:
            authority.server.certificate.rename(authority.folder / "elsewhere")
        return datetime.now(UTC)

    async def main():
        certificate = Certificate(authority.server, authority)
        keeping = asyncio.create_task(certificate.keep(now, look_s=0))
        while looks < 20:  # noqa: ASYNC110  it counts looks
            await asyncio.sleep(0)
        keeping.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await keeping

    asyncio.run(main())
    said = [record.getMessage() for record in caplog.records]
    assert [("ca.key" in text, "server.pem" in text) for text in said] == [(True, False), (False, True)]
