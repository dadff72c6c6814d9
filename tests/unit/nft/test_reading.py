"""The conversation of a reading, without a kernel: begun anew while our rules move, given up after five times."""

import pytest

from ringfence.nft import read_table
from ringfence.nft.netlink import NFPROTO_INET, pack_message, pack_number, pack_text, parse_messages
from ringfence.policy.program.names import TableFamily

NEW_GENERATION, NEW_TABLE, GET_TABLE, GET_GENERATION = 0x0A0F, 0x0A00, 0x0A01, 0x0A10


def generation(number):
    return pack_message(NEW_GENERATION, 0, 1, pack_number(1, number), family=NFPROTO_INET)


def asked(request):
    return next(iter(parse_messages(request))).type


def table(*, dormant):
    return pack_message(NEW_TABLE, 0, 1, pack_text(1, "ringfence") + pack_number(2, dormant), family=NFPROTO_INET)


def read_over(generations, shows=lambda _: b""):
    """A reading of a kernel whose generation is asked in turn, and how often a table was looked for.

    ``shows``: what the kernel says to that, for the how manieth time; of what is in a table it says nothing.
    """
    left, tables = iter(generations), 0
    conversation = read_table()
    request = next(conversation)
    try:
        while True:
            answer = generation(next(left)) if asked(request) == GET_GENERATION else b""
            if asked(request) == GET_TABLE:
                answer, tables = shows(tables), tables + 1
            request = conversation.send(answer)
    except StopIteration as end:
        return end.value, tables


def test_a_quiet_kernel_is_read_once():
    reading, tables = read_over([7, 7])
    assert reading.program is None
    assert (reading.kernel_generation, tables) == (7, len(TableFamily))


def test_a_change_in_between_begins_the_reading_anew():
    reading, tables = read_over([7, 8, 8, 8], lambda n: table(dormant=n < len(TableFamily)))
    assert (reading.dormant, reading.kernel_generation, tables) == (False, 8, 2 * len(TableFamily))


def test_a_kernel_that_never_rests_is_read_twice_and_what_came_since_is_not_called_known():
    reading, tables = read_over(range(100), lambda _: table(dormant=True))
    assert (reading.dormant, reading.kernel_generation, tables) == (True, 0, 2 * len(TableFamily))


def test_a_table_of_ours_that_never_rests_is_given_up():
    with pytest.raises(TimeoutError, match="our table changed during each of 5 readings"):
        read_over(range(100), lambda n: table(dormant=n // len(TableFamily) % 2 == 0))
