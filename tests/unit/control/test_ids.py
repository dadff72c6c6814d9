"""Ids are random, of version 4, and no two processes have the same."""

import os

from ringfence.control.ids import new_id


def test_ids_are_uuids_of_version_4_and_all_differ():
    made = [new_id() for _ in range(1000)]
    assert {one.version for one in made} == {4}
    assert len(set(made)) == 1000


def test_a_process_that_forks_shares_none_with_its_child():
    new_id()
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        os.write(writing, new_id().bytes)
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reading, 16) not in {new_id().bytes for _ in range(256)}
