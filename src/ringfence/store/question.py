"""A question to PostgreSQL that an event loop asks itself, over a connection of its own.

What a question to a near database costs is the way through another thread, not the database.
"""

from typing import TYPE_CHECKING, Final

import psycopg
from psycopg.pq import ExecStatus

from ringfence.store.database import DatabaseFault, Values

if TYPE_CHECKING:
    from psycopg.pq.abc import PGresult

_NAME: Final = b"question"


class PostgresQuestion:
    """``sql`` has one row, of one number."""

    def __init__(self, connection: "psycopg.Connection[Values]", sql: str) -> None:
        self._connection = connection
        self._libpq = connection.pgconn
        self._answers: list[PGresult] = []
        prepared = self._libpq.prepare(_NAME, sql.encode())
        if prepared.status != ExecStatus.COMMAND_OK:
            raise DatabaseFault(prepared.error_message.decode(errors="replace"))
        self._libpq.nonblocking = 1
        self.fileno = self._libpq.socket

    def ask(self) -> None:
        try:
            self._libpq.send_query_prepared(_NAME, None)
            self._libpq.flush()  # all of it: it is some dozens of bytes
        except psycopg.Error as error:
            raise DatabaseFault(str(error)) from error

    def hear(self) -> int | None:
        """The end of the answer may come later than its row, and libpq would wait for it."""
        try:
            self._libpq.consume_input()
            while not self._libpq.is_busy():
                if (answer := self._libpq.get_result()) is None:
                    return self._heard()
                self._answers.append(answer)
        except psycopg.Error as error:
            raise DatabaseFault(str(error)) from error
        return None

    def _heard(self) -> int:
        answers, self._answers = self._answers, []
        if len(answers) != 1 or answers[0].status != ExecStatus.TUPLES_OK:
            raise DatabaseFault("the question was not answered")
        return int(answers[0].get_value(0, 0) or b"")

    def close(self) -> None:
        self._connection.close()
