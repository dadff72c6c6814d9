"""``ringfence server``: the API and the truth behind it."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from ringfence.cli.options import DataOption, check_url, refuse_before_verb
from ringfence.cli.output import Format, FormatOption, show, show_rows
from ringfence.policy.errors import Invalid

if TYPE_CHECKING:
    from ringfence.api.authority import TlsFiles

_ZONE: Final = re.compile(r"[A-Za-z0-9._-]{1,63}")
_LISTEN = ["127.0.0.1:8443"]


app = typer.Typer(invoke_without_command=True)


@app.callback()
def server(
    context: typer.Context,
    data: DataOption,
    listen: Annotated[
        list[str] | None,
        typer.Option(
            metavar="HOST:PORT|unix:PATH",
            help="Where to accept requests; repeat for more. Port 0 takes a free one. A unix socket is mode 0600.",
            show_default=_LISTEN[0],
        ),
    ] = None,
    zone: Annotated[str, typer.Option(help="The one zone that list-zones shows.")] = "ch-dk-2",
    public_url: Annotated[
        str | None, typer.Option(help="The API's URL as clients reach it, when a proxy stands before it.")
    ] = None,
    trusted_proxy: Annotated[
        list[str] | None, typer.Option(metavar="CIDR", help="Whose X-Forwarded headers to believe; repeat for more.")
    ] = None,
    rate_limit: Annotated[
        int, typer.Option(min=0, help="Calls a second of one key; of one address twice as many. 0: any number.")
    ] = 1000,
    keep_history: Annotated[
        str, typer.Option(metavar="TIME", help="How long changes stay in the history: 90d, 400d; 0d: for ever.")
    ] = "400d",
    *,
    database: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            envvar="RINGFENCE_DATABASE",
            help="postgresql://[USER@]HOST[:PORT]/NAME, for several servers on one database; remembered in the folder. "
            "The password comes from PGPASSFILE, a service file or PGPASSWORD, never from here.",
            show_default="SQLite in the folder",
        ),
    ] = None,
    alone: Annotated[
        str,
        typer.Option(
            metavar="TIME",
            help="How long reads are answered while the database of several servers does not run, and how long agents' "
            "feeds stay open without it. While it is silent, reads are answered for one second.",
        ),
    ] = "30s",
    offer_all_protocol: Annotated[
        bool, typer.Option("--offer-all-protocol", help="Accept rules of protocol all; the Java SDK cannot read them.")
    ] = False,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Serve plain HTTP, on other addresses than loopback too.")
    ] = False,
    tls_cert: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Your own certificate with its chain, in PEM; re-read on change."),
    ] = None,
    tls_key: Annotated[Path | None, typer.Option(metavar="FILE", help="Its private key, in PEM.")] = None,
) -> None:
    """Serve the Exoscale Security Group API; one line on stdout says when requests are accepted. SIGTERM ends it.

    Beyond loopback it is TLS, with the certificate of [bold]ringfence server init[/bold] or with yours.
    Example: [bold]ringfence server --data /var/lib/ringfence --listen 127.0.0.1:8443 --listen unix:/run/rf.sock[/bold]
    """
    if refuse_before_verb(context):
        return
    import sys

    import uvloop

    from ringfence.api.app import ApiOptions
    from ringfence.api.gathered_lines import GatheredLines
    from ringfence.api.listen import parse_listen
    from ringfence.api.rates import RateLimits
    from ringfence.api.server import ServeOptions, serve
    from ringfence.api.zones import Origin
    from ringfence.cli.credentials import save_endpoint
    from ringfence.control.settings import Settings
    from ringfence.log import configure_log
    from ringfence.policy.values import parse_cidr, parse_duration
    from ringfence.pulse import tell_ready

    def announce(urls: list[str]) -> None:
        save_endpoint(data, [url for url in urls if url.startswith("http")], zone)
        show(f"ringfence server ready: {' '.join(urls)}")
        tell_ready()

    _check(zone, public_url)
    configure_log(sys.stderr, GatheredLines)
    listens = [parse_listen(text) for text in listen or _LISTEN]
    keep_s = parse_duration(keep_history, field="--keep-history") or None
    alone_s = parse_duration(alone, field="--alone", most="24h")
    settings = Settings(zone=zone, offer_all_protocol=offer_all_protocol, keep_history_s=keep_s, alone_s=alone_s)
    proxies = tuple(parse_cidr(text, field="--trusted-proxy").network for text in trusted_proxy or [])
    rates = RateLimits(key=rate_limit, address=2 * rate_limit)
    api = ApiOptions(origin=Origin(public_url, proxies), rates=rates)
    tls = _tls_files(tls_cert, tls_key, insecure=insecure)
    options = ServeOptions(api, tls, insecure=insecure, database=database)
    uvloop.run(serve(data, listens, settings, announce, options))


@app.command("init")
def init(
    data: DataOption,
    name: Annotated[
        list[str] | None,
        typer.Option(
            help="A name or address that callers use for this server; repeat for more.", show_default="its own"
        ),
    ] = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """Make a certificate authority for this server, and a certificate by it that the server renews by itself.

    Said again it keeps the authority, and makes a certificate for the names of this time; a running server takes it up.
    Example: [bold]ringfence server init --data /var/lib/ringfence --name ringfence.example --name 192.0.2.1[/bold]
    """
    import socket
    from datetime import UTC, datetime

    from ringfence.api.authority import authority_of

    authority = authority_of(data)
    authority.make(name or list(dict.fromkeys((socket.getfqdn(), socket.gethostname()))), datetime.now(UTC))
    row = {
        "ca": str(authority.certificate),
        "sha256": authority.fingerprint(),
        "names": authority.names(),
        "ends-at": int(authority.ends().timestamp()),
    }
    show_rows([row], list(row), output)


def _tls_files(certificate: Path | None, key: Path | None, *, insecure: bool) -> "TlsFiles | None":
    from ringfence.api.authority import TlsFiles

    if (certificate is None) != (key is None):
        raise Invalid("give both or neither", field="--tls-cert and --tls-key")
    if certificate is None or key is None:
        return None
    if insecure:
        raise Invalid("contradicts --tls-cert: it has plain HTTP served", field="--insecure")
    return TlsFiles(certificate, key)


def _check(zone: str, public_url: str | None) -> None:
    if not _ZONE.fullmatch(zone):
        raise Invalid("expected letters, digits, dots and dashes, like ch-dk-2", field="--zone")
    if public_url is not None:
        check_url(public_url, field="--public-url")


@app.command("backup")
def backup(data: DataOption, file: Annotated[Path, typer.Argument(help="The file to make, mode 0600.")]) -> None:
    """Write the whole store into one file, while servers run or not, from SQLite or PostgreSQL.

    The file holds the seal key, and so every secret: keep it as the folder itself.
    Example: [bold]ringfence server backup --data /var/lib/ringfence /backup/ringfence-monday[/bold]
    """
    from ringfence.store.copies import back_up

    show(f"{file}: {back_up(data, file)} bytes; it holds every secret of the store")


@app.command("restore")
def restore(
    data: DataOption,
    file: Annotated[Path, typer.Argument(help="What ringfence server backup wrote.", exists=True, dir_okay=False)],
    database: Annotated[
        str | None, typer.Option(metavar="URL", help="An empty PostgreSQL database; SQLite in the folder if not given.")
    ] = None,
) -> None:
    """Put a backup into a folder without a store, and check that all of it came back.

    Revisions of the restored store are of another epoch: no agent takes one for what it had before.
    Example: [bold]ringfence server restore --data /var/lib/ringfence-new /backup/ringfence-monday[/bold]
    """
    from ringfence.store.copies import bring_back

    _tell(bring_back(file, data, database))


@app.command("reseal")
def reseal(data: DataOption) -> None:
    """Seal all secrets of a stopped server with a new secret.key, all or none; the old key opens nothing any more.

    Servers that share its database end themselves: copy the new key to them, and start them.
    Example: [bold]ringfence server reseal --data /var/lib/ringfence[/bold]
    """
    import time

    from ringfence.control.actor import OPERATOR_NAME
    from ringfence.store.reseal import reseal as seal_anew

    count = seal_anew(data, actor=OPERATOR_NAME, now_s=int(time.time()))
    show(f"the secrets of {count} API keys are sealed with a new {data / 'secret.key'}; the old one opens none of them")


@app.command("move")
def move(
    data: DataOption,
    to: Annotated[str, typer.Option("--to", metavar="URL", help="An empty PostgreSQL database.")],
) -> None:
    """Copy the SQLite store of a stopped server into PostgreSQL, check it, and use that from then on.

    Example: [bold]ringfence server move --data /var/lib/ringfence --to postgresql://ringfence@db.example/ringfence[/bold]
    """
    from ringfence.store.copies import move as move_store

    _tell(move_store(data, to))


def _tell(tallies: dict[str, list[object]]) -> None:
    for table, (count, digest) in tallies.items():
        show(f"{table}: {count} rows, {str(digest)[:16]}")
    show("all rows are there, and their hashes are equal; revisions go on in a new epoch")
