"""Chooses the next generation, so that no live flow still carries it from an earlier use.

A generation is a few bits of the connection mark, so its values recur. Before one is used again, every flow that still
carries it must be deleted from conntrack. That is done ahead of time: on entering a block of 256 generations, the next
block is swept. A sweep that fails is reported and does not stop a change.
"""

import logging
from collections.abc import Iterator
from typing import Final

from ringfence.agent.doors.conntrack import ConntrackDoor
from ringfence.nft import BLOCK, DEFAULT_MASK, Generation, block_of, largest_generation, mark_of, next_generation
from ringfence.policy.errors import OperatorError

_log: Final = logging.getLogger("ringfence.agent")


class Generations:
    """Knows which block of generations is swept ahead. ``problem`` says why the last sweep failed, if it did."""

    def __init__(self, conntrack: ConntrackDoor, mask: int = DEFAULT_MASK) -> None:
        self._conntrack = conntrack
        self._mask = mask
        self._swept: int | None = None
        self.problem: str | None = None

    def begin(self, last_block: int | None) -> Generation:
        """The generation for a new table: flows may carry anything, so its block is swept at once.

        ``last_block`` is a hint: the block after it is the one whose flows are oldest.
        """
        blocks = largest_generation(self._mask) // BLOCK + 1
        block = 1 % blocks if last_block is None else (last_block + 1) % blocks
        self._sweep(block)
        return Generation(max(block * BLOCK, 1))

    def follow(self, present: Generation) -> Generation:
        """The generation after ``present``; its block is swept now if it was not swept ahead."""
        following = next_generation(present, self._mask)
        block = block_number(following)
        if block != block_number(present) and self._swept != block:
            self._sweep(block)
        return following

    def sweep_ahead(self, present: Generation) -> None:
        """Sweeps the block after that of ``present``, once; to be called when nobody waits."""
        last_of_block = Generation(block_number(present) * BLOCK + BLOCK - 1)
        following = block_number(next_generation(last_of_block, self._mask))
        if self._swept != following:
            self._sweep(following)

    def _sweep(self, block: int) -> None:
        try:
            for mark, mask in _selectors(block, self._mask):
                self._conntrack.delete(mark, mask)
        except OperatorError as error:
            self.problem = f"{error}; flows from {BLOCK} changes ago or more may pass unjudged when a mark comes round"
            _log.warning("old flows could not be swept", extra={"fields": {"block": block, "reason": str(error)}})
        else:
            self._swept = block
            self.problem = None


def block_number(generation: Generation) -> int:
    """The number of the block of 256 generations that this one is in."""
    return generation // BLOCK


def _selectors(block: int, mask: int) -> Iterator[tuple[int, int]]:
    """Marks and masks that select every flow of the block, but not generation 0: such flows are not ours."""
    if block > 0:
        yield block_of(Generation(block * BLOCK), mask)
        return
    first = 1
    while first < BLOCK:  # 1, 2-3, 4-7, ... 128-255: together the block without 0
        yield mark_of(Generation(first), mask), mask & ~mark_of(Generation(first - 1), mask)
        first *= 2
