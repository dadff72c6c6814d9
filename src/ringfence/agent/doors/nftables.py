"""Our table in the kernel: change it in one transaction, read it back.

Input: steps of a delta. Output: nothing, a ``Reading``, or an ``OperatorError`` naming the step that was refused.
``nft`` does the packing; this is the socket and the exchange.
"""

import errno
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Final, Protocol

from ringfence.agent.doors.grace import wait_grace
from ringfence.agent.doors.legacy import read_legacy_tables
from ringfence.agent.doors.netlink import NetlinkSocket, explain_refusal
from ringfence.agent.doors.notices import KernelNotices
from ringfence.nft import (
    About,
    Batch,
    ForeignChain,
    Generation,
    Reading,
    Touched,
    encode_batch,
    find_lines,
    hits_in,
    read_about,
    read_foreign,
    read_table,
    read_tallies,
    read_touched,
    request_counters,
)
from ringfence.nft.messages import request_generation
from ringfence.nft.netlink import Refusal, number_of, parse
from ringfence.policy.errors import OperatorError
from ringfence.policy.program.names import TableFamily
from ringfence.policy.program.steps import DeleteLine, Step

_SHOWN_REFUSALS: Final = 3

_GENERATION_ID: Final = 1


class RulesRefused(OperatorError):
    """A transaction was refused and nothing was changed. ``words``: the kernel's reason, by object of the program.

    ``is_unsupported``: this kernel lacks a part of nf_tables that it needs.
    """

    def __init__(self, reason: str, words: Mapping[str, str], *, is_unsupported: bool = False) -> None:
        super().__init__("change the kernel's rules", f"refused as a whole, nothing was changed: {reason}")
        self.words = words
        self.is_unsupported = is_unsupported


class NftablesDoor(Protocol):
    """Every method raises ``OperatorError``; after a failed ``commit`` all or nothing of it is in force: read."""

    def commit(self, steps: Sequence[Step], *, generation: Generation, about: About | None) -> None:
        """All steps and the note in one transaction, lines stamped and compared with ``generation``."""
        ...

    def commit_pieces(self, pieces: Sequence[Sequence[Step]], *, generation: Generation) -> Iterator[None]:
        """Each piece in a transaction of its own, without a note; it yields whenever one is in force."""
        ...

    def drain(self) -> None:
        """Return when no packet is under way any more through the rules that the last ``commit`` replaced."""
        ...

    def read(self) -> Reading:
        """Everything in our table. O(table)."""
        ...

    def read_about(self) -> About | None:
        """Only the note that the last transaction left: its proof, at constant cost."""
        ...

    def read_touched(self, touched: Touched) -> Reading:
        """Only what is named in our table, and the note. O(that)."""
        ...

    def read_foreign(self) -> tuple[ForeignChain, ...]:
        """Other programs' base chains, those of iptables-legacy too, with whether they may drop. O(their lines)."""
        ...

    def read_hits(self) -> dict[str, int]:
        """The packets that each counter in our table has counted; may leave out those unchanged since the last call."""
        ...

    def read_tallies(self, names: Iterable[str]) -> dict[tuple[str, str], int]:
        """How many packets the tallies have counted, by tally and interface. O(interfaces)."""
        ...

    def count_changes(self) -> int:
        """The kernel's own number of transactions in this network namespace, anybody's; 32 bits, wraps."""
        ...


class KernelNftables:
    """nf_tables of the network namespace in which it is made."""

    def __init__(self) -> None:
        self._netlink = NetlinkSocket()
        self._counted: frozenset[bytes] = frozenset()  # the parts of the last answer about counters

    def close(self) -> None:
        self._netlink.close()

    def commit(self, steps: Sequence[Step], *, generation: Generation, about: About | None) -> None:
        self._commit(encode_batch(self._numbered(steps), generation=generation, about=about))

    def commit_pieces(self, pieces: Sequence[Sequence[Step]], *, generation: Generation) -> Iterator[None]:
        if len(pieces) <= 1:  # as in nearly every change: no thread is worth it
            for piece in pieces:
                self.commit(piece, generation=generation, about=None)
                yield
            return
        with ThreadPoolExecutor(1, thread_name_prefix="pack") as beside:  # the kernel works without the interpreter
            packed = None
            for piece in (*pieces, ()):
                following = beside.submit(encode_batch, piece, generation=generation, about=None)
                if packed is not None:
                    self._commit(packed.result())
                    yield
                packed = following

    def _commit(self, batch: Batch) -> None:
        if not batch.steps:
            return
        answers = self._netlink.request(batch.data)
        if answers.refusals:
            raise _refused(batch, answers.refusals)
        if batch.last_sequence not in answers.acknowledged:
            raise OperatorError("change the kernel's rules", "the kernel did not say whether it took the transaction")

    def _numbered(self, steps: Sequence[Step]) -> Sequence[Step]:
        """The steps with the kernel's handles of lines to delete; without one for a line the kernel refuses all."""
        doomed = [step for step in steps if isinstance(step, DeleteLine)]
        if not doomed:
            return steps
        handles = self._netlink.converse(find_lines(doomed))
        return [replace(step, handle=handles.get(step, 0)) if isinstance(step, DeleteLine) else step for step in steps]

    def drain(self) -> None:
        wait_grace()

    def read(self) -> Reading:
        return self._netlink.converse(read_table())

    def read_about(self) -> About | None:
        return self._netlink.converse(read_about())

    def read_touched(self, touched: Touched) -> Reading:
        return self._netlink.converse(read_touched(touched))

    def read_foreign(self) -> tuple[ForeignChain, ...]:
        return (*self._netlink.converse(read_foreign()), *read_legacy_tables())

    def listen(self) -> KernelNotices:
        """The kernel's notices of what others change from now on."""
        return KernelNotices(self._netlink)

    def read_hits(self) -> dict[str, int]:
        """Only the parts of the answer that differ from the last one's are parsed: on a quiet host none."""
        found, counted = dict[str, int](), frozenset[bytes]()
        for table in TableFamily:
            fresh, known = self._netlink.dump_fresh(request_counters(table), self._counted)
            counted |= known
            for part in fresh:
                found |= hits_in(part, table)
        self._counted = counted
        return found

    def read_tallies(self, names: Iterable[str]) -> dict[tuple[str, str], int]:
        return self._netlink.converse(read_tallies(names))

    def count_changes(self) -> int:
        answers = self._netlink.request(request_generation())
        if answers.refusals or not answers.messages:
            reason = "; ".join(explain_refusal(refusal.errno, refusal.text) for refusal in answers.refusals)
            raise OperatorError("ask the kernel for nf_tables", reason or "no answer")
        return number_of(parse(answers.messages[0].payload)[_GENERATION_ID])


def _refused(batch: Batch, refusals: Sequence[Refusal]) -> RulesRefused:
    if refusals[0].errno == errno.EPERM and refusals[0].sequence > 0:  # for want of a right no step is looked at
        return RulesRefused(_OWNED, {})
    shown = "; ".join(_told(batch, refusal) for refusal in refusals[:_SHOWN_REFUSALS])
    more = len(refusals) - _SHOWN_REFUSALS
    rest = f"; and {more} more" if more > 0 else ""
    # The last word of a step's description is the object's name; what fails only at the end names no step.
    words = {
        step.split()[-1]: _told(batch, refusal) for refusal in reversed(refusals) if (step := _step_of(batch, refusal))
    }
    return RulesRefused(f"{shown}{rest}", words, is_unsupported=refusals[0].errno == errno.EOPNOTSUPP)


def _step_of(batch: Batch, refusal: Refusal) -> str | None:
    return batch.steps[refusal.sequence - 1] if 0 < refusal.sequence <= len(batch.steps) else None


def _told(batch: Batch, refusal: Refusal) -> str:
    step = _step_of(batch, refusal) or "the transaction"
    hint = _HINTS.get(refusal.errno, "")
    return f"{step}: {explain_refusal(refusal.errno, refusal.text)}{hint}"


_OWNED: Final = (
    "another program made the table ringfence for itself alone (flags owner) and holds it until it ends;"
    " `nft list tables` shows that, `nft monitor` who changes it"
)
_HINTS: Final = {
    errno.EOPNOTSUPP: " (this kernel lacks a part of nf_tables that the rules need)",
    errno.ENOENT: " (something it refers to is missing: changed by another program, or a module such as nft_ct)",
}
