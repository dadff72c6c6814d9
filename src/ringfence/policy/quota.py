"""How much an organisation may have: the name of each limit and its default. An operator may set others.

They bound what one owner can cost the others on a server; the defaults stand above what an ordinary one has.
"""

from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType
from typing import Final

from ringfence.policy.errors import QuotaReached


class Quota(Enum):
    """What is limited, spelled as the API and the command line name it; ``instance`` and ``iam-key`` are Exoscale's."""

    GROUPS = "security-group"
    RULES = "rule-per-group"
    SOURCES = "source-per-group"
    MEMBERS = "member-per-group"
    WORN = "group-per-instance"
    INSTANCES = "instance"
    HOSTS = "host"
    KEYS = "iam-key"


DEFAULT_LIMITS: Final[Mapping[Quota, int]] = MappingProxyType(
    {
        Quota.GROUPS: 10_000,
        Quota.RULES: 10_000,
        Quota.SOURCES: 10_000,
        Quota.MEMBERS: 10_000,
        Quota.WORN: 50,
        Quota.INSTANCES: 10_000,
        Quota.HOSTS: 1_000,
        Quota.KEYS: 1_000,
    }
)
UNLIMITED: Final = -1  # as openapi.json spells it


def require_room(quota: Quota, limit: int, used: int, *, of: str) -> None:
    """Raises ``QuotaReached``, naming the limit and its value, when ``used`` leaves no room for one more.

    ``of`` is what the limit is counted in: an organisation, a group or an instance, for the reader.
    """
    if limit != UNLIMITED and used >= limit:
        raise QuotaReached(
            f"quota {quota.value} of {of} is reached: {used} of {limit}; remove some, "
            "or ask the operator of the server to raise it"
        )
