"""``ringfence key``: the API keys with which clients sign their requests."""

from typing import Annotated

import typer

from ringfence.cli.options import DataOption
from ringfence.cli.output import Format, FormatOption, KeyFormat, KeyFormatOption, complain, show_rows, show_secret
from ringfence.control.actor import Role
from ringfence.policy.errors import CallerError

app = typer.Typer(help="API keys: create, list, revoke.", no_args_is_help=True)
_VARIABLES = {"EXOSCALE_API_KEY": "id", "EXOSCALE_API_SECRET": "secret"}


@app.command("create")
def create(
    data: DataOption,
    name: Annotated[str | None, typer.Option(help="What the key is for; shown by list and in the audit log.")] = None,
    role: Annotated[
        Role, typer.Option(help="owner and operator may change things, reader may only look.")
    ] = Role.OWNER,
    output: KeyFormatOption = KeyFormat.TABLE,
) -> None:
    """Create a key. Its secret is shown this once and never again.

    Example: [bold]eval "$(ringfence key create --name laptop -o env | sed 's/^/export /')"[/bold]
    """
    from ringfence.cli.admin_client import Ask, ask

    body = {"role": role.value} if name is None else {"role": role.value, "name": name}
    show_secret(ask(data, Ask("POST", "/keys", body)), _VARIABLES, output)


@app.command("list")
def list_(data: DataOption, output: FormatOption = Format.TABLE) -> None:
    """The keys that may sign, without their secrets."""
    from ringfence.cli.admin_client import Ask, ask

    show_rows(ask(data, Ask("GET", "/keys"))["keys"], ("id", "name", "role", "created-at"), output)


@app.command("revoke")
def revoke(data: DataOption, key: Annotated[str, typer.Argument(help="The key's id, as list shows it.")]) -> None:
    """Revoke a key: no request signed with it is accepted once this command has returned."""
    from ringfence.cli.admin_client import Ask, ask

    if not key.isalnum():  # it becomes a part of a path
        raise CallerError(f"{key} is no key's id: ringfence key list shows them")
    ask(data, Ask("DELETE", f"/keys/{key}"))
    complain(f"key {key} is revoked")
