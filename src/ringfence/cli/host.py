"""``ringfence host``: the machines whose agents may report to the server, and how far each has come."""

from typing import Annotated
from urllib.parse import quote

import typer

from ringfence.cli.flows import LimitOption, limit_query, show_flows
from ringfence.cli.options import DataOption, FollowOption, OrganisationOption, SinceOption, query_of, since_query
from ringfence.cli.output import (
    Format,
    FormatOption,
    KeyFormat,
    KeyFormatOption,
    complain,
    show_rows,
    show_secret,
)

app = typer.Typer(help="Hosts: register one, see what each enforces.", no_args_is_help=True)
_VARIABLES = {"RINGFENCE_HOST": "name", "RINGFENCE_HOST_KEY": "private-key"}
_COUNTER_COLUMNS = (
    *("host", "group", "rule", "description", "judged", "connections", "packets", "bytes", "last-hit", "since"),
)
_HostArgument = Annotated[str | None, typer.Argument(help="One host's name; all hosts if you give none.")]
_COLUMNS = ("host", "wanted", "applied", "age_s", "error", "notice", "others_drop")


@app.command("add")
def add(
    data: DataOption,
    name: Annotated[str, typer.Argument(help="The host's name, as its inventory says it.")],
    public_key: Annotated[
        str | None, typer.Option(help="The host's own Ed25519 public key in base64; one is minted if you give none.")
    ] = None,
    organisation: OrganisationOption = None,
    output: KeyFormatOption = KeyFormat.TABLE,
) -> None:
    """Register a host. A minted private key is shown this once: put it where the agent finds it.

    Example: [bold]ringfence host add h1 -o env | ssh h1 'umask 077; cat > /var/lib/ringfence-agent/credential'[/bold]
    """
    from ringfence.cli.admin_client import Ask, ask

    body = {"name": name} if public_key is None else {"name": name, "public-key": public_key}
    answer = ask(data, Ask("POST", "/hosts", body, query_of(organisation)))
    minted = {variable: field for variable, field in _VARIABLES.items() if field in answer}
    show_secret(answer, minted, output)


@app.command("token")
def token(
    data: DataOption,
    name: Annotated[str, typer.Argument(help="The host's name, as its inventory says it; new, or known already.")],
    ttl: Annotated[str, typer.Option(metavar="TIME", help="How long it may be used: 90s, 15m, at most 24h.")] = "15m",
    organisation: OrganisationOption = None,
    output: KeyFormatOption = KeyFormat.TABLE,
) -> None:
    """Make a token with which one host may join, once. It is shown this once; one made before for it counts no more.

    A host that is there already gets another key by it, and keeps its instances.
    On the host follows ringfence agent join. Example: [bold]ringfence host token h1 --ttl 10m[/bold]
    """
    from ringfence.cli.admin_client import Ask, ask
    from ringfence.policy.values import parse_duration

    body = {"ttl-s": parse_duration(ttl, field="--ttl", most="24h")}
    answer = ask(data, Ask("POST", f"/hosts/{quote(name, safe='')}/token", body, query_of(organisation)))
    show_secret(answer, {"RINGFENCE_JOIN_TOKEN": "token"}, output)


@app.command("remove")
def remove(data: DataOption, name: Annotated[str, typer.Argument(help="The host's name, as status shows it.")]) -> None:
    """Remove a host: none of its requests is accepted once this command has returned.

    Its instances keep their groups, and any host may claim them anew by their ids.
    Example: [bold]ringfence host remove h1[/bold]
    """
    from ringfence.cli.admin_client import Ask, ask

    ask(data, Ask("DELETE", f"/hosts/{quote(name, safe='')}"))
    complain(
        f"host {name} is removed; the rules on that machine stay in force until ringfence agent leave is said there"
    )


@app.command("status")
def status(data: DataOption, output: FormatOption = Format.TABLE) -> None:
    """For every host: the revision it should enforce, the one it does, how long ago it was heard, its last error.

    The notice is what happened and is over: tampering with its rules, say, that it has undone. Others drop: chains of
    other programs' tables on that machine that may drop what ringfence lets pass.
    Example: [bold]ringfence host status[/bold]
    """
    from ringfence.cli.admin_client import Ask, ask

    show_rows(ask(data, Ask("GET", "/hosts", of_hosts=True))["hosts"], _COLUMNS, output)


@app.command("counters")
def counters(
    data: DataOption,
    host: _HostArgument = None,
    group: Annotated[str | None, typer.Option(help="Only the rules of this group, by name or id.")] = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """What each rule has allowed on each host: packets that it judged, connections, and when it last did.

    The first packets of a connection are judged, until it is answered, and one after every change that takes something
    away: not all of its packets. Connections, and packets and bytes of those that ended, are counted where the host's
    inventory says flow_log = "all", the latter with net.netfilter.nf_conntrack_acct = 1; else they are empty.
    Example: [bold]ringfence host counters h1 --group web[/bold]
    """
    from ringfence.cli.admin_client import Ask, ask

    query = {name: value for name, value in {"host": host, "group": group}.items() if value}
    show_rows(ask(data, Ask("GET", "/counters", query=query, of_hosts=True))["counters"], _COUNTER_COLUMNS, output)


@app.command("drops")
def drops(
    data: DataOption,
    host: _HostArgument = None,
    since: SinceOption = None,
    limit: LimitOption = None,
    *,
    follow: FollowOption = False,
    output: FormatOption = Format.TABLE,
) -> None:
    """What hosts dropped, or would drop of observed instances: the newest that they told of since the server began.

    A host tells of ten packets a second for each interface at most, and how many more there were; its own file
    flows.jsonl goes further back.
    Example: [bold]ringfence host drops h1 --follow -o json[/bold]
    """
    show_flows(data, "drops", _query(host, since, limit), follow=follow, output=output)


@app.command("flows")
def flows(
    data: DataOption,
    host: _HostArgument = None,
    since: SinceOption = None,
    limit: LimitOption = None,
    *,
    follow: FollowOption = False,
    output: FormatOption = Format.TABLE,
) -> None:
    """What hosts allowed and dropped: connections as they begin, by which rule, and everything that drops shows.

    A host tells of connections where its inventory says flow_log = "all": twenty a second for each instance at most.
    Example: [bold]ringfence host flows h1 --follow -o json[/bold]
    """
    show_flows(data, "flows", _query(host, since, limit), follow=follow, output=output)


def _query(host: str | None, since: str | None, limit: int | None) -> dict[str, str]:
    """The part of a request that says of which packets: of one host or of all, from when on, how many."""
    return ({"host": host} if host else {}) | since_query(since) | limit_query(limit)
