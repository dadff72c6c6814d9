"""PURE: a program as nfnetlink octets and as nft text, and the kernel's answers read back into a program.

It opens no socket: ``agent/doors/nftables.py`` carries the octets to the kernel and back.
"""

from ringfence.nft.batch import ABOUT, About, Batch, encode_batch, encode_removal
from ringfence.nft.foreign import ForeignChain, read_foreign
from ringfence.nft.generation import (
    BLOCK,
    DEFAULT_MASK,
    Generation,
    block_of,
    largest_generation,
    mark_of,
    next_generation,
)
from ringfence.nft.members import kernel_set
from ringfence.nft.messages import TABLE
from ringfence.nft.netlink import Refusal, parse_messages, parse_refusal
from ringfence.nft.notices import Heard, Notices, Touched
from ringfence.nft.reading import (
    Reading,
    find_lines,
    hits_in,
    read_about,
    read_counters,
    read_table,
    read_tallies,
    read_touched,
    request_counters,
)
from ringfence.nft.text import render_line, render_text

__all__ = [
    "ABOUT",
    "BLOCK",
    "DEFAULT_MASK",
    "TABLE",
    "About",
    "Batch",
    "ForeignChain",
    "Generation",
    "Heard",
    "Notices",
    "Reading",
    "Refusal",
    "Touched",
    "block_of",
    "encode_batch",
    "encode_removal",
    "find_lines",
    "hits_in",
    "kernel_set",
    "largest_generation",
    "mark_of",
    "next_generation",
    "parse_messages",
    "parse_refusal",
    "read_about",
    "read_counters",
    "read_foreign",
    "read_table",
    "read_tallies",
    "read_touched",
    "render_line",
    "render_text",
    "request_counters",
]
