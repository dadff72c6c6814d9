"""A batch as bytes: framed, numbered, every message told in words, and never an element too many in one."""

import sys

import pytest

from policies import address, cidr
from ringfence.nft import TABLE, About, Generation, encode_batch, encode_removal, parse_messages
from ringfence.nft.batch import parse_about
from ringfence.nft.netlink import F_ACK, parse, parse_list, text_of
from ringfence.policy.addresses import merge_networks
from ringfence.policy.program.model import ElementType, NamedSet
from ringfence.policy.program.names import numbered_set
from ringfence.policy.program.steps import AddChain, AddCounter, AddElements, AddSet, AddTable, DeleteSet

BATCH_BEGIN, BATCH_END, NEW_ELEMENTS = 0x10, 0x11, 0x0A0C
SHAPE = NamedSet((ElementType.IPV4,), interval=True)
STEPS = (AddTable(), AddCounter("closed"), AddSet("s", SHAPE), AddChain("allow", None))


def batch(*steps, about=None):
    return encode_batch(steps, generation=Generation(1), about=about)


def test_a_batch_is_framed_and_its_messages_are_numbered_from_one():
    made = batch(*STEPS)
    messages = list(parse_messages(made.data))
    assert (messages[0].type, messages[-1].type) == (BATCH_BEGIN, BATCH_END)
    assert [message.sequence for message in messages[1:-1]] == [1, 2, 3, 4]
    assert made.last_sequence == 4


def test_each_message_is_told_in_words():
    assert batch(*STEPS).steps == ("add table inet ringfence", "add counter closed", "add set s", "add chain allow")


def test_only_the_last_message_asks_for_an_answer():
    asking = [message.sequence for message in parse_messages(batch(*STEPS).data) if message.flags & F_ACK]
    assert asking == [4]


def test_every_message_names_our_table_and_no_other():
    messages = list(parse_messages(batch(*STEPS, about=About(1, "e")).data))[1:-1]
    assert {text_of(parse(message.payload)[1]) for message in messages} == {TABLE}


def test_the_note_is_the_last_thing_in_the_batch():
    made = batch(AddTable(), about=About(12, "abc-1"))
    assert made.steps[1:] == ("add chain about", "flush chain about", "note revision=12 epoch=abc-1")


@pytest.mark.parametrize("number", [1, 500, 501, 1700])
def test_elements_are_split_into_messages_of_a_bounded_size(number):
    networks = [cidr(f"10.{n // 250}.{n % 250}.0/25").network for n in range(number)]
    elements = tuple(sorted(merge_networks(networks, 4)))
    messages = list(parse_messages(batch(AddElements("s", SHAPE, elements)).data))[1:-1]
    assert all(message.type == NEW_ELEMENTS for message in messages)
    assert all(len(message.payload) < 1 << 16 for message in messages)
    encoded = [element for message in messages for element in parse_list(parse(message.payload)[3])]
    assert len(encoded) == 2 * number, "a start and an end each"


def test_an_interval_up_to_the_last_address_has_no_end():
    elements = tuple(merge_networks([cidr("255.0.0.0/8").network], 4))
    (message,) = list(parse_messages(batch(AddElements("s", SHAPE, elements)).data))[1:-1]
    assert len(list(parse_list(parse(message.payload)[3]))) == 1


def test_nothing_to_do_is_an_empty_batch():
    assert batch().steps == ()


def test_the_removal_deletes_our_table_alone():
    made = encode_removal()
    (message,) = list(parse_messages(made.data))[1:-1]
    assert made.steps == ("delete table inet ringfence",)
    assert text_of(parse(message.payload)[1]) == TABLE


@pytest.mark.parametrize("epoch", ["", "a", "0f3c9a10-1111-4222-8333-444455556666", "z" * 64])
def test_what_the_table_holds_is_noted_and_read_again(epoch):
    assert parse_about(About(3, epoch).text) == About(3, epoch)


@pytest.mark.parametrize("epoch", ["A", "a b", 'x"', "z" * 65, "a\n", "é", "x;"])
def test_an_epoch_that_text_could_break_out_of_is_refused(epoch):
    with pytest.raises(ValueError, match="an epoch is at most 64 of"):
        About(1, epoch)


@pytest.mark.parametrize("text", ["", "revision=x epoch=a", "revision=1", "revision=1 epoch=A", "x revision=1 epoch=a"])
def test_a_note_of_somebody_else_is_none_of_ours(text):
    assert parse_about(text) is None


def test_members_of_all_groups_lie_in_one_set_behind_their_groups_number():
    member = NamedSet((ElementType.IPV4,))
    steps = [
        step
        for number in (1, 0x8000000000000002)
        for name in (numbered_set(number, 4),)
        for step in (AddSet(name, member), AddElements(name, member, ((address("10.0.0.1"),),)))
    ]
    messages = list(parse_messages(batch(*steps).data))[1:-1]
    assert [message.type for message in messages] == [NEW_ELEMENTS, NEW_ELEMENTS]
    assert {text_of(parse(message.payload)[2]) for message in messages} == {"members_4"}
    keys = [parse(parse(element)[1])[1] for m in messages for _, element in parse_list(parse(m.payload)[3])]
    words = [tuple(int.from_bytes(key[at : at + 4], sys.byteorder) for at in (0, 4)) for key in keys]
    assert words == [(0, 1), (0x80000000, 2)]
    assert {key[8:] for key in keys} == {bytes([10, 0, 0, 1])}


def test_deleting_a_member_set_deletes_no_set_of_the_kernels():
    assert batch(DeleteSet(numbered_set(1, 6))).steps == ()
