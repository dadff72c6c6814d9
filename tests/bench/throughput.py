"""Bulk TCP by iperf3: reported, never judged, because it varies by 15 % on a machine with neighbours."""

import json
import shutil
import subprocess
from functools import partial

from bench.workload import ALLOWED_PORT, RECEIVER, SENDER
from ringfence.world.topology import World

_SECONDS = 1
_TIMEOUT_S = 20.0


def missing_iperf() -> str:
    return "" if shutil.which("iperf3") else "iperf3 is not installed"


def gigabits_per_s(world: World) -> float:
    """One stream from the sender to the receiver, whose nodes must be awake."""
    address = str(RECEIVER.addresses[0])
    server = world.placed[RECEIVER.name].namespace.run(partial(_listen, address))
    try:
        found = world.placed[SENDER.name].namespace.run(partial(_stream, address))
    finally:
        server.terminate()
        server.wait(_TIMEOUT_S)
    return float(found["end"]["sum_received"]["bits_per_second"]) / 1e9


def _listen(address: str) -> subprocess.Popen[str]:
    """Ready to be connected to when it returns."""
    server = subprocess.Popen(  # noqa: S603
        ("iperf3", "-s", "-1", "-B", address, "-p", str(ALLOWED_PORT), "--forceflush"),  # noqa: S607
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # that it was terminated
        text=True,
    )
    while "listening" not in (line := server.stdout.readline()):
        if not line:
            raise RuntimeError("iperf3 ended before it listened")
    return server


def _stream(address: str) -> dict[str, object]:
    done = subprocess.run(  # noqa: S603
        ("iperf3", "-c", address, "-p", str(ALLOWED_PORT), "-t", str(_SECONDS), "-J"),  # noqa: S607
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
        check=False,
    )
    return json.loads(done.stdout)
