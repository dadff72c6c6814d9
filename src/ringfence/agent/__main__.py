"""``python -m ringfence.agent server=URL data=FOLDER inventory=FILE``: the process that ``ringfence agent`` becomes.

It loads what an agent needs and no more. ``ringfence agent`` has checked the command line; it is no command of its own.
"""

import asyncio
import logging
import os
import sys
from collections.abc import Coroutine, Sequence
from pathlib import Path

from ringfence.agent.credential import load_credential
from ringfence.agent.patient_lines import PatientLines
from ringfence.agent.service import run_agent
from ringfence.log import configure_log
from ringfence.policy.errors import RingfenceError
from ringfence.pulse import beat


def main(arguments: Sequence[str]) -> int:
    """Run the agent until it is told to end; returns the exit status."""
    configure_log(sys.stderr, PatientLines)
    given = dict(argument.split("=", 1) for argument in arguments)
    data, flow_file = Path(given["data"]), given.get("flow-file")
    try:
        agent = run_agent(
            given["server"],
            data,
            Path(given["inventory"]),
            load_credential(data, os.environ),
            insecure="insecure" in given,
            flow_file=Path(flow_file) if flow_file else None,
        )
        _run(agent)
    except RingfenceError as error:
        logging.getLogger("ringfence.agent").critical("%s", error)
        return 1
    finally:
        for handler in logging.getLogger().handlers:
            handler.flush()
    return 0


def _run(agent: Coroutine[object, object, None]) -> None:
    """As ``asyncio.run``, which would wait for threads that look up names: name servers may be silent for a minute."""
    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(_beating(agent))
    finally:
        loop.close()


async def _beating(agent: Coroutine[object, object, None]) -> None:
    beats = asyncio.ensure_future(beat())
    try:
        await agent
    finally:
        beats.cancel()


if __name__ == "__main__":
    status = main(sys.argv[1:])
    os._exit(status)  # the end of the interpreter would wait for those threads, too
