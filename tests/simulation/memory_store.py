"""The store without a disk: decisions are committed in the order in which they come, and outlive any server."""

from dataclasses import replace

from ringfence.policy.errors import RingfenceError
from ringfence.policy.snapshot import Snapshot
from ringfence.policy.values import Revision
from ringfence.store import Committed, DatabaseFault, OperationSettled, StoredOperation


class MemoryStore:
    """``history`` has every snapshot by its revision."""

    def __init__(self, epoch: str = "e1") -> None:
        self.epoch = epoch
        self.snapshot = Snapshot()
        self.history = {Revision(0): self.snapshot}
        self.wanted = {}
        self.keys = ()
        self.is_shared = False
        self.unheard_s = 0.0
        self._operations = {}

    @property
    def operations(self):
        return tuple(self._operations.values())

    def ask(self, decide, settle) -> None:
        try:
            decision = decide(self.snapshot)
        except RingfenceError as error:
            settle(error)
            return
        if decision.after is not None:
            self.snapshot = decision.after
            self.history[decision.after.revision] = decision.after
            self.wanted = {host: self.wanted.get(host, decision.after.revision) for host in decision.after.hosts}
            self.wanted |= dict.fromkeys(decision.touched, decision.after.revision)
        if decision.operation is not None:
            self._operations[decision.operation.id] = StoredOperation(decision.operation, decision.offline)
        for record in decision.records:
            if isinstance(record, OperationSettled):
                id_ = record.operation.id
                self._operations[id_] = replace(self._operations[id_], operation=record.operation)
        settle(Committed(decision, self.snapshot))

    def follow(self, hear, lost) -> None:
        """Nobody else writes here."""

    def open_question(self):
        raise DatabaseFault("nobody else writes here: there is nothing to ask")

    def close(self) -> None:
        """What was committed stays."""
