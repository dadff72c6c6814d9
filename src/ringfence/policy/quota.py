"""Quotas: how much of each thing an organisation may have, by default or as an operator sets it.

They bound what one organisation can cost the others on a server; the defaults are above what an ordinary one needs.
"""

from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType
from typing import Final

from ringfence.policy.errors import QuotaReached


class Quota(Enum):
    """What is limited, spelled as in the API and the command line; ``instance`` and ``iam-key`` are Exoscale's."""

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
    """Raises ``QuotaReached``, naming the quota and its value, when ``used`` leaves no room for one more.

    ``of`` names the organisation, group or instance that the quota is counted in, for the message.
    """
    if limit != UNLIMITED and used >= limit:
        raise QuotaReached(
            f"quota {quota.value} of {of} is reached: {used} of {limit}; remove some, "
            "or ask the operator of the server to raise it"
        )
