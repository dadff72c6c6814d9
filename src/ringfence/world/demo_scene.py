"""The demo's cast and policy: who is there, which groups and rules they get, all through the API.

web serves the world, app serves web, db serves app and an external backup site; app may send only to db and to its
resolver. internet and backup are unmanaged: nobody filters them.
"""

from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final

from ringfence.policy.values import Address, GroupId, Protocol
from ringfence.world.client import ApiClient
from ringfence.world.prober import Service
from ringfence.world.topology import Node, World

HOST: Final = "demo"


def _node(name: str, address4: str, address6: str, *, managed: bool = True) -> Node:
    return Node(name, (ip_address(address4), ip_address(address6)), managed)


WEB: Final = _node("web", "10.77.0.10", "fd77::10")
APP: Final = _node("app", "10.77.0.20", "fd77::20")
DB: Final = _node("db", "10.77.0.30", "fd77::30")
INTERNET: Final = _node("internet", "198.51.100.10", "2001:db8:1::10", managed=False)
BACKUP: Final = _node("backup", "203.0.113.20", "2001:db8:2::20", managed=False)
CAST: Final = (INTERNET, BACKUP, WEB, APP, DB)
ROUTER_ADDRESSES: Final[tuple[Address, ...]] = (ip_address("10.77.255.1"), ip_address("fd77:ffff::1"))

HTTPS: Final = Service(Protocol.TCP, 443)
BACKEND: Final = Service(Protocol.TCP, 8080)
POSTGRES: Final = Service(Protocol.TCP, 5432)
DNS: Final = Service(Protocol.UDP, 53)
ECHO: Final = Service(Protocol.ICMP)
SERVICES: Final = (HTTPS, BACKEND, POSTGRES, DNS, ECHO)

_EVERYBODY: Final = ("0.0.0.0/0", "::/0")
Rule = dict[str, object]


@dataclass(frozen=True, slots=True)
class _Plan:
    """A group as it shall be: ``rules`` name their peer groups by name."""

    name: str
    description: str
    rules: tuple[Rule, ...] = ()
    sources: tuple[str, ...] = ()
    wearer: str | None = None


def _rule(direction: str, service: Service, *, description: str, network: str = "", group: str = "") -> Rule:
    rule: Rule = {"flow-direction": direction, "protocol": service.protocol.value, "description": description}
    if service.port is not None:
        rule |= {"start-port": service.port, "end-port": service.port}
    return rule | ({"network": network} if network else {"security-group": {"name": group}})


def _echo(family: int) -> Rule:
    protocol, type_ = ("icmp", 8) if family == 4 else ("icmpv6", 128)  # noqa: PLR2004  the family's number
    icmp = {"type": type_, "code": 0}
    rule: Rule = {"flow-direction": "ingress", "protocol": protocol, "icmp": icmp, "description": "ping"}
    return rule | {"network": _EVERYBODY[0 if family == 4 else 1]}  # noqa: PLR2004  the family's number


_PLANS: Final = (
    _Plan(
        "web",
        "serves the world",
        (
            *(
                _rule("ingress", service, description=description, network=network)
                for service, description in ((Service(Protocol.TCP, 80), "http"), (HTTPS, "https"))
                for network in _EVERYBODY
            ),
            _echo(4),
            _echo(6),
        ),
        wearer="web",
    ),
    _Plan("backup", "the backup site outside", sources=tuple(f"{a}/{a.max_prefixlen}" for a in BACKUP.addresses)),
    _Plan(
        "app",
        "the application",
        (
            _rule("ingress", BACKEND, description="from the web tier", group="web"),
            _rule("egress", POSTGRES, description="to the database", group="db"),
            *(
                _rule("egress", DNS, description="to its resolver", network=f"{address}/{address.max_prefixlen}")
                for address in INTERNET.addresses
            ),
        ),
        wearer="app",
    ),
    _Plan(
        "db",
        "the database",
        (
            _rule("ingress", POSTGRES, description="from the application", group="app"),
            _rule("ingress", POSTGRES, description="dumps for the backup site", group="backup"),
        ),
        wearer="db",
    ),
)


def render_inventory(world: World) -> str:
    """The agent's inventory of the managed nodes, as TOML."""
    lines = [f'host = "{HOST}"', 'managed = ["veth*"]']
    for placed in world.placed.values():
        if placed.node.managed:
            addresses = ", ".join(f'"{address}"' for address in placed.node.addresses)
            lines += ["", "[[instance]]", f'name = "{placed.node.name}"', f'interface = "{placed.port}"']
            lines += [f"addresses = [{addresses}]", f'mac = "{placed.mac}"']
    return "\n".join(lines) + "\n"


def apply_policy(client: ApiClient) -> dict[str, GroupId]:
    """Create every group, rule, source and membership by API calls; the groups' ids by name."""
    groups = {plan.name: client.create_group(plan.name, plan.description) for plan in _PLANS}
    instances = client.instances()
    for plan in _PLANS:
        for rule in plan.rules:
            client.add_rule(groups[plan.name], _with_ids(rule, groups))
        for source in plan.sources:
            client.add_source(groups[plan.name], source)
        if plan.wearer is not None:
            client.attach(groups[plan.name], instances[plan.wearer])
    return groups


def count_rules() -> int:
    return sum(len(plan.rules) for plan in _PLANS)


def _with_ids(rule: Rule, groups: dict[str, GroupId]) -> Rule:
    peer = rule.get("security-group")
    return rule | {"security-group": {"id": str(groups[peer["name"]])}} if isinstance(peer, dict) else rule
