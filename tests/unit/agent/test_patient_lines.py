"""The agent's log when nobody reads it: nothing waits for it, and nothing is lost without a word."""

import logging
import os
from contextlib import suppress

import pytest

from ringfence.agent.patient_lines import PatientLines
from waiting import wait_until


@pytest.fixture
def pipe():
    """Its reading end, and its writing end as a stream; it takes no octet more."""
    read, write = os.pipe()
    os.set_blocking(write, False)
    with suppress(BlockingIOError):
        while True:
            os.write(write, b"." * 4096)
    os.set_blocking(write, True)
    with os.fdopen(read, "rb", buffering=0) as reader, os.fdopen(write, "w") as writer:
        yield reader, writer


def test_who_logs_into_a_pipe_that_nobody_reads_goes_on_and_a_bounded_number_of_lines_waits(pipe, monkeypatch):
    monkeypatch.setattr("ringfence.agent.patient_lines._MOST_LINES", 5)
    monkeypatch.setattr("ringfence.agent.patient_lines._END_S", 0.01)
    reader, writer = pipe
    handler = PatientLines(writer)
    log = logging.Logger("patient")  # noqa: LOG001  of this test alone
    log.addHandler(handler)
    log.info("first")
    wait_until(lambda: not handler._waiting)  # the thread has it, and waits
    for number in range(8):
        log.info("line %d", number)
    handler.flush()
    heard = b""
    while b"line 4\n" not in heard:
        heard += reader.read(1 << 20)
    log.info("last")
    while b"last\n" not in heard:
        heard += reader.read(1 << 20)
    lines = heard.decode().lstrip(".").splitlines()
    assert [line for line in lines if "lost" not in line] == ["first", *(f"line {n}" for n in range(5)), "last"]
    assert sum(line.startswith("3 lines of this log") for line in lines) == 1


class Interrupting(str):
    """A line during whose counting another one is lost, as by another thread at that very moment."""

    __slots__ = ("lose",)

    def count(self, *searched):
        self.lose()
        return super().count(*searched)


def test_lines_that_are_lost_while_others_are_counted_as_lost_are_counted_as_well():
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as writer:
        handler = PatientLines(writer)
        text = Interrupting("could not be written")
        text.lose = lambda: handler._lose(1)
        handler._write([text])
        assert handler._lost == 2
        with suppress(OSError):
            writer.close()
