"""The same policy in the hands of others: what people use today, and the floor that nobody can get under.

Each judges only what is forwarded to an instance. None checks who may send what, none can take away a live flow's
permission, and nft's lines do not even count. Where one searches in order, the receiver is in the middle.
"""

import shutil
import subprocess
from collections.abc import Callable, Iterable, Iterator
from functools import partial

from bench.workload import Workload
from ringfence.policy.model import GroupPeer, Rule
from ringfence.world.namespaces import Namespace

_TIMEOUT_S = 300.0


def load_empty(_load: Workload, router: Namespace) -> None:
    """Conntrack, and nothing asked of it: what every stateful filter pays at least."""
    _feed(router, "nft", "-f", "-", lines=_nft_table(()))


def load_nft_linear(load: Workload, router: Namespace) -> None:
    """A set for each group, and a line for each rule of each instance, in one chain."""
    _feed(router, "nft", "-f", "-", lines=_nft_table(_nft_lines(load), sets=_nft_sets(load)))


def load_iptables_linear(load: Workload, router: Namespace) -> None:
    """An ipset for each group, and a line for each rule of each instance, all in FORWARD."""
    _fill_ipsets(load, router)
    lines = (
        line
        for instance in range(load.groups)
        for line in (
            *(f"-A FORWARD -o {load.port_of(instance)} {_iptables(rule)}" for rule in _rules(load, instance)),
            f"-A FORWARD -o {load.port_of(instance)} -j DROP",
        )
    )
    _feed(router, "iptables-restore", lines=_iptables_table(lines, ()))


def load_iptables_chains(load: Workload, router: Namespace) -> None:
    """An ipset for each group, a chain for each instance, and a line in FORWARD that leads there."""
    _fill_ipsets(load, router)
    lines = (
        line
        for instance in range(load.groups)
        for line in (
            f"-A FORWARD -o {load.port_of(instance)} -j i{instance}",
            *(f"-A i{instance} {_iptables(rule)}" for rule in _rules(load, instance)),
            f"-A i{instance} -j DROP",
        )
    )
    chains = (f":i{instance} - [0:0]" for instance in range(load.groups))
    _feed(router, "iptables-restore", lines=_iptables_table(lines, chains))


RIVALS: dict[str, Callable[[Workload, Namespace], None]] = {
    "empty": load_empty,
    "nft-linear": load_nft_linear,
    "iptables-linear": load_iptables_linear,
    "iptables-chains": load_iptables_chains,
}


def missing_for(rival: str) -> list[str]:
    """The programs that a rival needs and that this machine lacks."""
    needed = ("iptables-restore", "ipset") if rival.startswith("iptables") else ("nft",)
    return [program for program in needed if shutil.which(program) is None]


def _rules(load: Workload, instance: int) -> Iterator[Rule]:
    for group in load.worn(instance):
        yield from load.rules_of(group)


def _set_of(rule: Rule) -> str | None:
    return f"m{rule.peer.group.int - 1}" if isinstance(rule.peer, GroupPeer) else None


def _nft_table(lines: Iterable[str], sets: Iterable[str] = ()) -> Iterator[str]:
    yield "table inet rival {"
    yield from sets
    yield "chain forward { type filter hook forward priority 0; policy accept;"
    yield "ct state established,related accept"
    yield from lines
    yield "}"
    yield "}"


def _nft_sets(load: Workload) -> Iterator[str]:
    for group in range(load.groups):
        members = ", ".join(map(str, load.members_of(group)))
        yield f"set m{group} {{ type ipv4_addr; elements = {{ {members} }}; }}"


def _nft_lines(load: Workload) -> Iterator[str]:
    for instance in range(load.groups):
        port = load.port_of(instance)
        for rule in _rules(load, instance):
            members = _set_of(rule)
            peer = f"@{members}" if members else rule.peer.network
            yield f'oifname "{port}" {rule.protocol.value} dport {rule.start_port} ip saddr {peer} accept'
        yield f'oifname "{port}" drop'


def _iptables_table(lines: Iterable[str], chains: Iterable[str]) -> Iterator[str]:
    yield "*filter"
    yield ":FORWARD ACCEPT [0:0]"
    yield from chains
    yield "-A FORWARD -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT"
    yield from lines
    yield "COMMIT"


def _iptables(rule: Rule) -> str:
    members = _set_of(rule)
    peer = f"-m set --match-set {members} src" if members else f"-s {rule.peer.network}"
    protocol = rule.protocol.value
    return f"-p {protocol} -m {protocol} --dport {rule.start_port} {peer} -j ACCEPT"


def _fill_ipsets(load: Workload, router: Namespace) -> None:
    lines = (
        line
        for group in range(load.groups)
        for line in (
            f"create m{group} hash:ip family inet maxelem 200000",
            *(f"add m{group} {member}" for member in load.members_of(group)),
        )
    )
    _feed(router, "ipset", "restore", lines=lines)


def _feed(namespace: Namespace, *command: str, lines: Iterator[str]) -> None:
    text = "\n".join(lines) + "\n"
    namespace.run(partial(_run, command, text))


def _run(command: tuple[str, ...], text: str) -> None:
    done = subprocess.run(  # noqa: S603  the rival's own program
        command, input=text, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{command[0]}: {done.stderr[:500]}")
