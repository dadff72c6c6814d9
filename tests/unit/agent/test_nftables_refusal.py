"""What becomes of the kernel's refusals that are about no step: a transaction can fail as a whole, at its end."""

import errno

import pytest

from ringfence.agent.doors.nftables import _refused
from ringfence.nft import Batch
from ringfence.nft.netlink import Refusal

BATCH = Batch(b"", ("add chain first", "add chain last"))


@pytest.mark.parametrize("sequence", [0, 3], ids=["begin", "end"])
def test_what_fails_as_a_whole_is_blamed_on_no_object(sequence):
    error = _refused(BATCH, [Refusal(sequence, errno.ENOMEM, "")])
    assert error.words == {}
    assert "the transaction: Cannot allocate memory" in str(error)


def test_a_refused_step_is_blamed_on_its_object():
    assert set(_refused(BATCH, [Refusal(1, errno.ENOENT, "")]).words) == {"first"}
