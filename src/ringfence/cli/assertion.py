"""``ringfence assertion``: what every change of an organisation must keep true, as its server holds it."""

from pathlib import Path
from typing import Annotated

import typer

from ringfence.cli.options import DataOption, OrganisationOption, query_of
from ringfence.cli.output import Format, FormatOption, complain, show_rows
from ringfence.cli.questions import name_of, read_text
from ringfence.policy.errors import CallerError

app = typer.Typer(help="Assertions that every change must keep true: set, list, remove.", no_args_is_help=True)


@app.command("set")
def set_(
    data: DataOption,
    file: Annotated[Path, typer.Argument(help="The file with the assertions; they replace those that are held.")],
    *,
    accept_failing: Annotated[
        bool, typer.Option("--accept-failing", help="Hold those too that are wrong: no change may make them worse.")
    ] = False,
    organisation: OrganisationOption = None,
) -> None:
    """Hold the assertions of a file: whatever change would break one is refused, from whatever client.

    Example: [bold]ringfence assertion set must.yaml[/bold]
    """
    from ringfence.cli.admin_client import Ask, ask
    from ringfence.wire.policy_file import read_policy

    read = read_policy(read_text(file), name_of(file))
    body = {"assertions": list(read.document.assertions), "accept-failing": accept_failing}
    try:
        held = ask(data, Ask("PUT", "/assertions", body, query_of(organisation)))["assertions"]
    except CallerError as error:
        raise read.locate(error) if (error.field or "").startswith("$.assertions") else error from error
    count = "1 assertion is" if len(held) == 1 else f"{len(held)} assertions are"
    complain(f"{count} held: no change may break {'it' if len(held) == 1 else 'them'}")


@app.command("list")
def list_(data: DataOption, organisation: OrganisationOption = None, output: FormatOption = Format.TABLE) -> None:
    """The assertions that are held; [bold]ringfence check[/bold] says whether each is true.

    Example: [bold]ringfence assertion list[/bold]
    """
    from ringfence.cli.admin_client import Ask, ask

    held = ask(data, Ask("GET", "/assertions", query=query_of(organisation)))["assertions"]
    show_rows([{"assertion": text} for text in held], ("assertion",), output)


@app.command("remove")
def remove(data: DataOption, organisation: OrganisationOption = None) -> None:
    """Hold no assertions any more.

    Example: [bold]ringfence assertion remove[/bold]
    """
    from ringfence.cli.admin_client import Ask, ask

    ask(data, Ask("PUT", "/assertions", {"assertions": []}, query_of(organisation)))
    complain("no assertion is held any more")
