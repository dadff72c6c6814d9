"""The conversation of a reading, without a kernel: begun anew while the rules move, given up after five times."""

import pytest

from ringfence.nft import read_table
from ringfence.nft.netlink import NFPROTO_INET, pack_message, pack_number, parse_messages
from ringfence.policy.program.names import TableFamily

NEW_GENERATION, GET_TABLE, GET_GENERATION = 0x0A0F, 0x0A01, 0x0A10


def generation(number):
    return pack_message(NEW_GENERATION, 0, 1, pack_number(1, number), family=NFPROTO_INET)


def asked(request):
    return next(iter(parse_messages(request))).type


def read_over(generations):
    """A reading of a kernel without our tables whose generation is asked in turn; how often a table was looked for."""
    left, tables = iter(generations), 0
    conversation = read_table()
    request = next(conversation)
    try:
        while True:
            tables += asked(request) == GET_TABLE
            request = conversation.send(generation(next(left)) if asked(request) == GET_GENERATION else b"")
    except StopIteration as end:
        return end.value, tables


def test_a_quiet_kernel_is_read_once():
    reading, tables = read_over([7, 7])
    assert reading.program is None
    assert (reading.kernel_generation, tables) == (7, len(TableFamily))


def test_a_change_in_between_begins_the_reading_anew():
    reading, tables = read_over([7, 8, 8, 9, 9, 9])
    assert (reading.kernel_generation, tables) == (9, 3 * len(TableFamily))


def test_a_kernel_that_never_rests_is_given_up():
    with pytest.raises(TimeoutError, match="changed during each of 5 readings"):
        read_over(range(100))
