"""``ringfence key``: the API keys with which clients sign their requests."""

from typing import Annotated

import typer

from ringfence.cli.options import DataOption, OrganisationOption, query_of
from ringfence.cli.output import Format, FormatOption, KeyFormat, KeyFormatOption, complain, show_rows, show_secret
from ringfence.control.actor import Role
from ringfence.policy.errors import CallerError
from ringfence.policy.values import parse_duration

app = typer.Typer(help="API keys: create, list, rotate, revoke.", no_args_is_help=True)
_COLUMNS = ("id", "name", "organisation", "role", "groups", "created-at", "old-secret-until-at")
_VARIABLES = {"EXOSCALE_API_KEY": "id", "EXOSCALE_API_SECRET": "secret"}
KeyArgument = Annotated[str, typer.Argument(help="The key's id, as list shows it.")]


@app.command("create")
def create(
    data: DataOption,
    name: Annotated[str | None, typer.Option(help="What the key is for; shown by list and in the history.")] = None,
    role: Annotated[
        Role | None,
        typer.Option(help="owner: all, history too; operator: changes things; reader: looks.", show_default="owner"),
    ] = None,
    group: Annotated[
        list[str] | None,
        typer.Option(help="The only group that it may change, by name; repeat for more. It reads all. Role operator."),
    ] = None,
    organisation: OrganisationOption = None,
    output: KeyFormatOption = KeyFormat.TABLE,
) -> None:
    """Create a key. Its secret is shown this once and never again.

    Example: [bold]eval "$(ringfence key create --name laptop -o env | sed 's/^/export /')"[/bold]
    """
    from ringfence.cli.admin_client import Ask, ask

    chosen = role or (Role.OPERATOR if group else Role.OWNER)
    body = {"role": chosen.value, "groups": group or []} | ({} if name is None else {"name": name})
    show_secret(ask(data, Ask("POST", "/keys", body, query_of(organisation))), _VARIABLES, output)


@app.command("list")
def list_(
    data: DataOption,
    organisation: Annotated[str | None, typer.Option(help="Only the keys of this organisation.")] = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """The keys that may sign, without their secrets.

    Example: [bold]ringfence key list --organisation acme[/bold]
    """
    from ringfence.cli.admin_client import Ask, ask

    show_rows(ask(data, Ask("GET", "/keys", query=query_of(organisation)))["keys"], _COLUMNS, output)


@app.command("rotate")
def rotate(
    data: DataOption,
    key: KeyArgument,
    overlap: Annotated[
        str,
        typer.Option(metavar="TIME", help="How long the old secret signs besides: 90s, 30m, 24h, 7d; 0s: no longer."),
    ] = "24h",
    output: KeyFormatOption = KeyFormat.TABLE,
) -> None:
    """Give a key a new secret, shown this once; the old one is accepted until the overlap ends.

    Example: [bold]ringfence key rotate EXO0123456789 --overlap 1h -o env[/bold]
    """
    from ringfence.cli.admin_client import Ask, ask

    body = {"overlap-s": parse_duration(overlap, field="--overlap")}
    show_secret(ask(data, Ask("POST", f"/keys/{_checked(key)}", body)), _VARIABLES, output)


@app.command("revoke")
def revoke(data: DataOption, key: KeyArgument) -> None:
    """Revoke a key: no request signed with it is accepted once this command has returned.

    Example: [bold]ringfence key revoke EXO0123456789[/bold]
    """
    from ringfence.cli.admin_client import Ask, ask

    ask(data, Ask("DELETE", f"/keys/{_checked(key)}"))
    complain(f"key {key} is revoked")


def _checked(key: str) -> str:
    if not key.isalnum():  # it becomes a part of a path
        raise CallerError(f"{key} is no key's id: ringfence key list shows them")
    return key
