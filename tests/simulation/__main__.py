"""Plays seeds and says which break a promise.

``PYTHONHASHSEED=0 PYTHONPATH=tests .venv/bin/python -m simulation FIRST COUNT``
"""

import logging
import sys

from simulation.fleet import play

if __name__ == "__main__":
    logging.disable()
    first, many = int(sys.argv[1]), int(sys.argv[2])
    failed = 0
    for seed in range(first, first + many):
        broken, trace = play(seed)
        if broken:
            failed += 1
            print(f"seed {seed}: {broken}", *trace[-60:], sep="\n")  # noqa: T201  its result
    print(f"{many} seeds, {failed} broken")  # noqa: T201  its result
    sys.exit(bool(failed))
