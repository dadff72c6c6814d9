"""The demo's acts: the policy, the matrix of three columns, the cut, the refusal in words. Each prints its findings."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from statistics import median
from typing import Final
from uuid import UUID

from rich.text import Text

from ringfence.policy.errors import OperatorError
from ringfence.policy.values import GroupId, RuleId
from ringfence.world.demo_matrix import Cell, KernelCounters, Question, ask_all
from ringfence.world.demo_scene import (
    APP,
    BACKUP,
    CAST,
    DB,
    HOST,
    INTERNET,
    POSTGRES,
    SERVICES,
    apply_policy,
    count_rules,
)
from ringfence.world.demo_stage import Stage, step
from ringfence.world.operator import fetch_view
from ringfence.world.prober import Listeners, Probe
from ringfence.world.stream import Stream, heard_since, last_heard_s
from ringfence.world.topology import Node

_PAIRS: Final = tuple(
    (source, destination)
    for source in CAST
    for destination in CAST
    if source is not destination and destination is not BACKUP and (source is not BACKUP or destination is not INTERNET)
    if source.managed or destination.managed
)
_COLUMNS: Final = ("what the model says", "what a probe saw", "the kernel counted")
_WIDTHS: Final = tuple(max(2, len(str(service.port or "ping"))) for service in SERVICES)
_NAME_WIDTH: Final = 12
_FAMILIES: Final = (4, 6)
_STREAM_WARM_UP: Final = 50  # numbers heard at both ends before anything is cut
_WARM_UP_S: Final = 5.0
_POLL_S: Final = 0.005
_WATCH_S: Final = 1.0  # several retransmission timeouts: a stream that could still pass would have been heard
_READING_S: Final = 0.15  # what arrived just before the cut may be read a moment later; what leaks is heard for long


def play_policy(stage: Stage) -> dict[str, GroupId]:
    """Create the groups through the API; their ids by name."""
    with step(stage.console, "creating groups and rules through the API") as said:
        groups = apply_policy(stage.client)
        took_ms = stage.client.took_ms
        said.append(
            f"policy: {len(groups)} groups, {count_rules()} rules by {len(took_ms)} signed API calls; "
            f"in the kernel when the answer came, after {median(took_ms):.0f} ms (median)"
        )
    return groups


def play_matrix(stage: Stage) -> bool:
    """Print the matrix; whether all cells agree."""
    stage.operator.wait_applied(HOST, instances=sum(node.managed for node in CAST), timeout_s=_WARM_UP_S)
    view = fetch_view(stage.socket, stage.host)
    placed = stage.world.placed
    listeners, counters = Listeners(), KernelCounters(stage.world)
    listeners.start([one.namespace for one in placed.values()], SERVICES)
    control = Probe(placed[INTERNET.name].namespace, BACKUP.addresses[0], POSTGRES)
    questions = [
        Question(placed[source.name], placed[destination.name], service, family)
        for source, destination in _PAIRS
        for service in SERVICES
        for family in _FAMILIES
    ]
    try:
        _print_head(stage)
        cells = []
        answers = ask_all(questions, view, counters, control)
        for _, row in groupby(answers, key=lambda cell: (cell.question.source.node, cell.question.destination.node)):
            cells += (answered := list(row))
            stage.console.print(_row(answered), highlight=False)
    finally:
        counters.close()
        listeners.close()
    return _print_agreement(stage, cells)


@dataclass(frozen=True, slots=True)
class _Talk:
    """A pair of nodes that talk over both families."""

    source: Node
    destination: Node
    streams: tuple[Stream, ...]

    def __str__(self) -> str:
        return f"{self.source.name}→{self.destination.name}"

    def count(self) -> int:
        return sum(heard.count for stream in self.streams for heard in stream.heard())

    def close(self) -> None:
        for stream in self.streams:
            stream.close()


def play_cut(stage: Stage, groups: dict[str, GroupId]) -> bool:
    """Remove the rule of a live connection; whether exactly that one was cut. The rule is put back at the end."""
    rule = _rule_from(stage, groups["db"], groups["app"])
    talks = [_talk(stage, source, DB) for source in (APP, BACKUP)]
    try:
        passed = _cut(stage, groups["db"], RuleId(UUID(rule["id"])), *talks)
    finally:
        for talk in talks:
            talk.close()
    return passed


def play_explanation(stage: Stage) -> None:
    """Say in words why the cut connection cannot come back."""
    arguments = (APP.name, DB.name, str(POSTGRES))
    stage.console.print(f"\n[bold]$ ringfence explain {' '.join(arguments)}[/bold]")
    stage.console.print(stage.operator.explain(*arguments), highlight=False, markup=False)


def restore_rule(stage: Stage, groups: dict[str, GroupId]) -> None:
    """Put back the rule that ``play_cut`` removed."""
    port = POSTGRES.port
    peer = {"id": str(groups["app"])}
    ports = {"start-port": port, "end-port": port}
    rule = {
        "flow-direction": "ingress",
        "protocol": "tcp",
        "security-group": peer,
        "description": "from the application",
    }
    stage.client.add_rule(groups["db"], {**rule, **ports})


def _print_head(stage: Stage) -> None:
    names = " ".join(str(service.port or "ping").ljust(width) for service, width in zip(SERVICES, _WIDTHS, strict=True))
    width = len(names)
    services = ", ".join(str(service) for service in SERVICES)
    stage.console.print(f"\n[dim]{services}; 46: open over IPv4 and IPv6, ··: closed over both[/dim]", highlight=False)
    stage.console.print(Text(" " * _NAME_WIDTH + "".join(f"│{column:{width}}" for column in _COLUMNS), style="bold"))
    stage.console.print(Text(" " * _NAME_WIDTH + f"│{names}" * len(_COLUMNS), style="bold"))


def _row(cells: Sequence[Cell]) -> Text:
    """One line for one pair: the three columns side by side."""
    source, destination = cells[0].question.source.node.name, cells[0].question.destination.node.name
    line = Text(f"{source}→{destination}".ljust(_NAME_WIDTH))
    for column in range(len(_COLUMNS)):
        line.append("│")
        for index, width in enumerate(_WIDTHS):
            both = cells[index * len(_FAMILIES) : (index + 1) * len(_FAMILIES)]
            line.append_text(_marks(both, column, width))
            line.append(" " if index < len(_WIDTHS) - 1 else "")
    return line


def _marks(both: Iterable[Cell], column: int, width: int) -> Text:
    text = Text()
    for cell in both:
        answer = (cell.model, cell.outcome.passed, cell.kernel)[column]
        mark = "?" if answer is None else str(cell.question.family) if answer else "·"
        text.append(mark, style="bold red" if not cell.agrees else "green" if answer else "dim")
    text.append(" " * (width - len(text)))
    return text


def _print_agreement(stage: Stage, cells: Sequence[Cell]) -> bool:
    different = [cell for cell in cells if not cell.agrees]
    if not different:
        allowed = sum(cell.model for cell in cells)
        said = (
            f"{len(cells)} questions, {allowed} open and {len(cells) - allowed} closed: model, probe and kernel agree"
        )
        stage.console.print(f"[green]✓[/green] {said} in every one", highlight=False)
        return True
    stage.console.print(f"[bold red]✗ {len(different)} of {len(cells)} questions have different answers:[/bold red]")
    for cell in different:
        kernel = {None: "counted nothing", True: "let it pass", False: "refused it"}[cell.kernel]
        model = "open" if cell.model else "closed"
        expected, counted = ", ".join(sorted(cell.expected)) or "none", ", ".join(sorted(cell.counters)) or "none"
        stage.console.print(
            f"  {cell.question}: the model says {model}, the probe saw {cell.outcome.value}, the kernel {kernel} "
            f"(counters expected: {expected}; moved: {counted})",
            highlight=False,
            markup=False,
        )
    return False


def _rule_from(stage: Stage, group: GroupId, peer: GroupId) -> dict[str, str]:
    for rule in stage.client.rules(group):
        if rule.get("security-group", {}).get("id") == str(peer):
            return rule
    raise OperatorError("reading the group back", f"group {group} has no rule from group {peer}")


def _talk(stage: Stage, source: Node, destination: Node) -> _Talk:
    ends = stage.world.placed[source.name], stage.world.placed[destination.name]
    port = POSTGRES.port or 0
    streams = [Stream(*ends, ends[1].address(family), port) for family in _FAMILIES]
    deadline_s = time.monotonic() + _WARM_UP_S
    while not all(heard.count >= _STREAM_WARM_UP for stream in streams for heard in stream.heard()):
        if time.monotonic() > deadline_s:
            raise OperatorError(
                "warming up a live stream", f"{source.name} and {destination.name} do not hear each other"
            )
        time.sleep(_POLL_S)
    return _Talk(source, destination, tuple(streams))


def _cut(stage: Stage, group: GroupId, rule: RuleId, doomed: _Talk, other: _Talk) -> bool:
    stage.console.print(
        f"\n[bold]Live connections {doomed} and {other}[/bold], tcp/{POSTGRES.port} over IPv4 and IPv6; "
        f"now the rule that lets {doomed.source.name} in is removed",
        highlight=False,
    )
    before = other.count()
    called_s = time.monotonic()
    stage.client.delete_rule(group, rule)
    answered_s = time.monotonic()
    with stage.console.status("listening for anything that still passes …"):
        time.sleep(_WATCH_S)
    last_s = max(last_heard_s(stream) for stream in doomed.streams)
    is_cut = last_s < answered_s + _READING_S
    lives = all(heard_since(stream, time.monotonic() - _WATCH_S / 4) for stream in other.streams)
    cut_ms, answer_ms = (max(0.0, moment_s - called_s) * 1000 for moment_s in (last_s, answered_s))
    _print_check(
        stage,
        f"{doomed} was cut {cut_ms:.1f} ms after the call was sent, both ways (the API said success after "
        f"{answer_ms:.1f} ms); silent ever since"
        if is_cut
        else f"{doomed} was still heard {(last_s - answered_s) * 1000:.0f} ms after the API said success",
        passed=is_cut,
    )
    _print_check(
        stage,
        f"{other}, same port, another rule: lives on, {other.count() - before} messages meanwhile, none lost"
        if lives
        else f"{other} went silent too, though its rule is still there",
        passed=lives,
    )
    return is_cut and lives


def _print_check(stage: Stage, text: str, *, passed: bool) -> None:
    mark = "[green]✓[/green]" if passed else "[bold red]✗[/bold red]"
    stage.console.print(f"{mark} {text}", highlight=False)
