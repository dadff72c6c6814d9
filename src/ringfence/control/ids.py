"""New ids: random UUIDs, with randomness drawn for many of them at once.

Drawing randomness releases the interpreter lock, and under load the event loop would each time have to wait for the
writer's thread to get it back. A forked process does not share the drawn ids.
"""

import os
from typing import Final
from uuid import UUID

_DRAWN_AT_ONCE: Final = 256
_SIZE_BYTES: Final = 16

_drawn: list[UUID] = []
os.register_at_fork(after_in_child=_drawn.clear)


def new_id() -> UUID:
    """As ``uuid.uuid4``."""
    if not _drawn:
        drawn = os.urandom(_DRAWN_AT_ONCE * _SIZE_BYTES)
        parts = (drawn[at : at + _SIZE_BYTES] for at in range(0, len(drawn), _SIZE_BYTES))
        _drawn.extend(UUID(bytes=part, version=4) for part in parts)
    return _drawn.pop()
