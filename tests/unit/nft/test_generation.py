"""Generations in a connection mark: counting, wrapping round, and the blocks that are swept before a reuse."""

import pytest

from ringfence.nft import BLOCK, DEFAULT_MASK, Generation, block_of, largest_generation, mark_of, next_generation
from ringfence.nft.generation import generation_of

MASKS = [DEFAULT_MASK, 0xFFFFFFFF, 0x0FFF0000, 0x0000FFFF, 0x00FFFF00]


@pytest.mark.parametrize(("mask", "largest"), [(DEFAULT_MASK, 0xFFFF), (0x0FFF0000, 0xFFF), (0xFFFFFFFF, 0xFFFFFFFF)])
def test_the_largest_generation_fills_the_mask(mask, largest):
    assert largest_generation(mask) == largest


@pytest.mark.parametrize("mask", MASKS)
def test_generations_count_up_and_wrap_to_one_never_to_zero(mask):
    largest = largest_generation(mask)
    assert next_generation(Generation(1), mask) == 2
    assert next_generation(Generation(largest - 1), mask) == largest
    assert next_generation(Generation(largest), mask) == 1


def test_after_nothing_was_ever_judged_comes_one():
    assert next_generation(Generation(0)) == 1


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("generation", [1, 2, 255, 256, 4095])
def test_a_generation_survives_its_mark_and_touches_no_bit_outside_the_mask(mask, generation):
    mark = mark_of(Generation(generation), mask)
    assert mark & ~mask == 0
    assert generation_of(mark, mask) == generation
    assert generation_of(mark | (~mask & 0xFFFFFFFF), mask) == generation


def test_the_default_leaves_the_low_half_of_the_mark_to_others():
    assert mark_of(Generation(1)) == 0x0001_0000
    assert mark_of(Generation(0xFFFF)) == 0xFFFF_0000


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("generation", [1, 255, 256, 511, 4095])
def test_a_block_selects_exactly_the_generations_of_its_block(mask, generation):
    value, block_mask = block_of(Generation(generation), mask)
    first = generation - generation % BLOCK
    for other in (first, first + 1, first + BLOCK - 1, first + BLOCK, first - 1):
        if 0 <= other <= largest_generation(mask):
            selected = mark_of(Generation(other), mask) & block_mask == value
            assert selected == (other // BLOCK == generation // BLOCK), other


def test_a_block_selects_whatever_others_keep_in_their_bits():
    value, block_mask = block_of(Generation(300))
    assert block_mask & ~DEFAULT_MASK == 0
    assert (mark_of(Generation(300)) | 0xABCD) & block_mask == value
