"""What the agent says of itself to the server: the revision its kernel was seen to hold, and what is wrong."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from ringfence.policy.values import Revision
from ringfence.wire.feed import Report


@dataclass(frozen=True, slots=True)
class Standing:
    """``problems`` by what they are about ("inventory", "kernel", ...), so that one is cleared without the others."""

    applied: Revision | None = None
    problems: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    def with_problem(self, about: str, text: str | None) -> "Standing":
        """The same standing with one problem set, or cleared by None."""
        others = {name: known for name, known in self.problems.items() if name != about}
        return replace(self, problems=MappingProxyType(others if text is None else {**others, about: text}))

    def with_applied(self, applied: Revision | None) -> "Standing":
        return replace(self, applied=applied)


def compose_report(standing: Standing) -> Report:
    """One report; problems in a stable order, each on its own."""
    texts = [standing.problems[about] for about in sorted(standing.problems)]
    return Report(standing.applied, "; ".join(texts) or None)
