"""The generation of the rules that a live flow was last judged by, kept in some bits of its connection mark.

Moving to the next generation makes the next packet of every live flow, in either direction, be judged again. That cuts
exactly the flows that are no longer allowed, at the cost of one evaluation per live flow, without walking conntrack.
"""

from typing import Final, NewType

Generation = NewType("Generation", int)  # 1 .. the largest that the mask holds; 0 is "never judged"

DEFAULT_MASK: Final = 0xFFFF0000  # the high half; the low half is left to other users of connection marks
BLOCK: Final = 256  # generations that one masked conntrack deletion sweeps


def largest_generation(mask: int = DEFAULT_MASK) -> int:
    """The largest generation that the mask can hold."""
    return mask >> _shift(mask)


def next_generation(generation: Generation, mask: int = DEFAULT_MASK) -> Generation:
    """The following generation, from the largest back to 1. Sweep its block before it is used again."""
    return Generation(1 if generation >= largest_generation(mask) else generation + 1)


def mark_of(generation: Generation, mask: int = DEFAULT_MASK) -> int:
    """The connection mark's bits that stand for a generation."""
    return (generation << _shift(mask)) & mask


def generation_of(mark: int, mask: int = DEFAULT_MASK) -> Generation:
    """The generation in a connection mark; the inverse of ``mark_of``."""
    return Generation((mark & mask) >> _shift(mask))


def block_of(generation: Generation, mask: int = DEFAULT_MASK) -> tuple[int, int]:
    """The mark and mask that select every flow of the generation's block of ``BLOCK`` generations."""
    block_mask = mask & ~((BLOCK - 1) << _shift(mask))
    return mark_of(generation, mask) & block_mask, block_mask


def _shift(mask: int) -> int:
    """The number of the mask's lowest bit; the mask must be one run of bits."""
    return (mask & -mask).bit_length() - 1
