"""Saves everything that an agent keeps, once: the process that ``test_agent_files`` kills."""

import sys
from pathlib import Path
from uuid import UUID

from ringfence.agent.cache import Cache, Memory
from ringfence.agent.counters import RuleCounts
from ringfence.agent.doors.files import SystemFiles
from ringfence.agent.flows import FILE
from ringfence.policy.program.names import rule_counter
from ringfence.policy.values import RuleId
from ringfence.wire.feed import FeedView
from views import GROUPS, endpoint, ingress, view

RULE = RuleId(UUID(int=1))
LINE = b'{"packets":1}\n'
MOST_BYTES = 3 * len(LINE)  # of the flow log


def save(folder: Path, number: int, *, lines: int) -> None:
    """The revision, the block and the octets of everything are the number; so is what the kernel counted, in tens."""
    files = SystemFiles()
    cache = Cache(files, folder, "h1")
    cache.save_view(FeedView("e1", view(number, endpoint("web", GROUPS[0]), rules={GROUPS[0]: (ingress(80),)})))
    cache.save_inventory(b"%d" % number)
    cache.save_memory(Memory(number))
    counts = counted(folder, number)
    counts.save()
    files.append(folder / FILE, lines * LINE, most_bytes=MOST_BYTES)


def counted(folder: Path, number: int) -> RuleCounts:
    """The totals that are kept, and what the kernel's counter grew by since."""
    counts = RuleCounts(SystemFiles(), folder)
    counts.load()
    counts.update({rule_counter(RULE): 10 * number}, float(number))
    return counts


if __name__ == "__main__":
    save(Path(sys.argv[1]), 2, lines=1)
