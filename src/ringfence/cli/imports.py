"""``ringfence import``: the rules of another firewall as a policy file, exactly or not at all."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ringfence.cli.output import complain
from ringfence.cli.questions import name_of, read_text
from ringfence.policy.errors import Invalid

if TYPE_CHECKING:
    from ringfence.policy.addresses import Family
    from ringfence.policy.desired import Document
    from ringfence.wire.document import JsonValue
    from ringfence.wire.imports.chains import Accepted

app = typer.Typer(
    help="Other firewalls' rules as a policy file: exactly what they let in, or a refusal that names the line.",
    no_args_is_help=True,
)
GroupOption = Annotated[str, typer.Option("--group", help="The name of the group that gets the rules.")]
InterfaceOption = Annotated[
    str | None, typer.Option("--interface", help="Import what comes in by this interface, where lines ask for one.")
]
LeaveOption = Annotated[
    bool, typer.Option("--leave-out", help="Go on without accepting lines that no rule can say; each is told.")
]
SpellOption = Annotated[
    bool, typer.Option("--spell-out", help="A rule per protocol that rules can name, in place of protocol all.")
]
InputOption = Annotated[
    bool, typer.Option("--input-only", help="Import input although output is restricted: all may then leave.")
]


@app.command("iptables-save")
def iptables_save(
    source: Annotated[Path, typer.Argument(help="What iptables-save printed; - is standard input.")],
    ipv6: Annotated[Path | None, typer.Option("--ipv6", help="What ip6tables-save printed.")] = None,
    group: GroupOption = "imported",
    interface: InterfaceOption = None,
    *,
    leave_out: LeaveOption = False,
    spell_out: SpellOption = False,
    input_only: InputOption = False,
) -> None:
    """Import the chains that judge what comes in, of every table, following jumps.

    Example: [bold]iptables-save | ringfence import iptables-save - > policy.yaml[/bold]
    """
    from ringfence.wire.imports.chains import Leave
    from ringfence.wire.imports.iptables import Wanted, accepted_by_tables, read_tables

    found: list[Accepted] = []
    families: list[tuple[Path, Family]] = [(source, 4), *([(ipv6, 6)] if ipv6 else [])]  # type: ignore[list-item]  # literals
    for path, family in families:
        wanted = Wanted(name_of(path), family, interface)
        tables = read_tables(read_text(path), wanted)
        found.append(accepted_by_tables(tables, wanted, Leave(leave_out, spell_out), input_only=input_only))
    _write(group, found)
    if ipv6 is None:
        complain("nothing of IPv6 is let in: give what ip6tables-save prints with --ipv6")


@app.command("nft")
def nft(
    source: Annotated[Path, typer.Argument(help="What nft -j list ruleset printed; - is standard input.")],
    group: GroupOption = "imported",
    interface: InterfaceOption = None,
    *,
    leave_out: LeaveOption = False,
    spell_out: SpellOption = False,
    input_only: InputOption = False,
) -> None:
    """Import the chains that judge what comes in, of every table but ringfence's own, following jumps.

    Example: [bold]nft -j list ruleset | ringfence import nft - > policy.yaml[/bold]
    """
    from ringfence.wire.imports.chains import Leave
    from ringfence.wire.imports.nftables import accepted_by_ruleset

    leave = Leave(leave_out, spell_out)
    value = _read_json(source)
    _write(group, [accepted_by_ruleset(value, name_of(source), leave, interface=interface, input_only=input_only)])


@app.command("ufw")
def ufw(
    source: Annotated[Path, typer.Argument(help="ufw's folder.")] = Path("/etc/ufw"),
    group: GroupOption = "imported",
    interface: InterfaceOption = None,
    *,
    leave_out: LeaveOption = False,
    spell_out: SpellOption = False,
    input_only: InputOption = False,
) -> None:
    """Import ufw's rules, and what ufw lets in by itself, from the files that it loads.

    Example: [bold]ringfence import ufw > policy.yaml[/bold]
    """
    from ringfence.wire.imports.chains import Leave
    from ringfence.wire.imports.iptables import Wanted, accepted_by_tables
    from ringfence.wire.imports.ufw import DEFAULTS, FILES, read_ufw

    paths = {name: source / name for names in FILES.values() for name in names} | {DEFAULTS: source.parent / DEFAULTS}
    files = {name: read_text(path) for name, path in paths.items() if path.exists()}
    found: list[Accepted] = []
    for family in FILES:
        wanted = Wanted(str(source), family, interface)
        tables = read_ufw(files, wanted)
        found.append(accepted_by_tables(tables, wanted, Leave(leave_out, spell_out), input_only=input_only))
    _write(group, found)


@app.command("aws")
def aws(
    source: Annotated[
        Path, typer.Argument(help="What aws ec2 describe-security-groups printed, as JSON; - is standard input.")
    ],
    *,
    spell_out: SpellOption = False,
) -> None:
    """Import the security groups of an AWS account.

    Example: [bold]aws ec2 describe-security-groups | ringfence import aws - > policy.yaml[/bold]
    """
    from ringfence.wire.imports.aws import read_aws

    value = _read_json(source)
    try:
        found = read_aws(value, spell_out=spell_out)
    except Invalid as error:
        raise Invalid(f"{name_of(source)}: {error}") from error
    _print(found.document, found.notes)


@app.command("exoscale")
def exoscale(
    source: Annotated[
        str, typer.Argument(metavar="URL", envvar="EXOSCALE_API_ENDPOINT", help="The API's URL, /v2 included.")
    ],
) -> None:
    """Import the security groups and instances of an account at Exoscale, or at a ringfence server, by its own API.

    The key is taken from EXOSCALE_API_KEY and EXOSCALE_API_SECRET; it need only read.
    Example: [bold]ringfence import exoscale https://api-ch-gva-2.exoscale.com/v2[/bold]
    """
    from ringfence.wire.imports.exoscale import read_exoscale
    from ringfence.world.client import ApiClient, environment_credentials

    client = ApiClient(environment_credentials(), source)
    try:
        private = client.fetch("/security-group")
        public = client.fetch("/security-group", visibility="public")
        instances = client.fetch("/instance")
    finally:
        client.close()
    _print(read_exoscale(private, public, instances), ())


def _read_json(source: Path) -> "JsonValue":
    from ringfence.wire.document import parse_document

    try:
        return parse_document(read_text(source).encode())
    except Invalid as error:
        raise Invalid(f"{name_of(source)}: {error}") from error


def _write(group: str, found: "Iterable[Accepted]") -> None:
    from ringfence.policy.desired import DesiredGroup, Document

    rules = tuple(rule for one in found for rule in one.rules)
    _print(Document((DesiredGroup(group, rules=rules),)), [note for one in found for note in one.notes])


def _print(document: "Document", notes: Iterable[str]) -> None:
    from ringfence.wire.policy_file import write_policy

    for note in notes:
        complain(note)
    typer.echo(write_policy(document), nl=False)
