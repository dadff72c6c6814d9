"""A grant: what one rule, or one default, lets a set of subjects send to, or receive from, a set of peers."""

from enum import Enum
from typing import NamedTuple

from ringfence.policy.addresses import Family
from ringfence.policy.insight.boxes import Box
from ringfence.policy.insight.crowds import Crowd
from ringfence.policy.insight.intervals import Intervals
from ringfence.policy.insight.population import Span
from ringfence.policy.values import Direction, GroupId
from ringfence.policy.verdict import Allowance


class Standing(Enum):
    """Why a side allows without a rule; the value completes "because …"."""

    OUTSIDE = "no instance is at that end"
    EGRESS_OPEN = "none of its groups has an egress rule"
    OBSERVED = "it is observed, and nothing of it is dropped"


Because = Allowance | Standing


class Grant(NamedTuple):
    """``subjects`` may send to (egress) or receive from (ingress) ``peers``; ``naming`` is how the peers were named."""

    subjects: Crowd
    peers: Crowd
    services: Intervals
    because: Because
    family: Family
    naming: GroupId | Span | None = None

    @property
    def key(self) -> tuple[object, ...]:
        """Identifies it across versions of a population: grants of one key differ in subjects and peers alone.

        Plain numbers and words, because tens of thousands of them get hashed.
        """
        because = self.because
        if isinstance(because, Allowance):
            return because.group.int, because.rule.id.int, self.family, self.services.toggles
        return because.value, self.family

    def box(self, subjects: int, peers: int, direction: Direction) -> Box:
        """The packets that it allows between some of its subjects and peers."""
        ends = (peers, subjects) if direction is Direction.INGRESS else (subjects, peers)
        return Box(*ends, self.services)
