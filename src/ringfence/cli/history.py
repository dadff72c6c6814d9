"""``ringfence history``: who changed what, when and from where, as a chain that shows when it was tampered with."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from ringfence.cli.options import DataOption, FollowOption, SinceOption, query_of, since_query
from ringfence.cli.output import Format, FormatOption, complain, show, show_rows
from ringfence.policy.errors import CallerError

app = typer.Typer(invoke_without_command=True)
_COLUMNS = ("number", "time", "organisation", "who", "address", "action", "subject", "revision", "result")


@app.callback()
def history(
    context: typer.Context,
    data: DataOption,
    since: SinceOption = None,
    organisation: Annotated[str | None, typer.Option(help="Only what was done in this organisation.")] = None,
    *,
    follow: FollowOption = False,
    output: FormatOption = Format.TABLE,
) -> None:
    """Every change: who made it, from where, what, and the revisions before and after it.

    With -o json a line is one JSON object, as ringfence history verify FILE takes them.
    Example: [bold]ringfence history --since 7d[/bold], [bold]ringfence history -o json --follow >> audit.jsonl[/bold]
    """
    if context.invoked_subcommand is not None:
        return
    import json

    from ringfence.cli.admin_client import Ask, ask

    query = query_of(organisation) | since_query(since)
    for page in _pages(data, query, follow=follow):
        if output is Format.JSON:
            for line in page:
                show(json.dumps(line, sort_keys=True))
        else:
            names = {one["id"]: one["name"] for one in ask(data, Ask("GET", "/organisations"))["organisations"]}
            show_rows([_row(line, names) for line in page], _COLUMNS, output)


@app.command("verify")
def verify(
    data: DataOption,
    file: Annotated[
        Path | None, typer.Argument(help="Lines that were exported with -o json; the store's own if you give none.")
    ] = None,
) -> None:
    """Check that no line was changed, removed or put in: each carries the hash of the one before. Status 1 if one was.

    Compare the last hash with that of a copy kept elsewhere: who can write the database could make a whole new chain.
    Example: [bold]ringfence history verify audit.jsonl[/bold]
    """
    from ringfence.cli.admin_client import Ask, ask

    found = ask(data, Ask("GET", "/history/check")) if file is None else _check_file(file)
    unchained = f", {found['unchained']} older ones are from before there was a chain" if found["unchained"] else ""
    if found["broken"] is not None:
        raise CallerError(
            f"line {found['broken']} of the history is broken: it, or the one before it, is not what was written, "
            f"or lines between them are missing ({found['lines']} before it fit{unchained}); "
            "the lines of one organisation alone are no chain"
        )
    complain(f"the history is unbroken: {found['lines']} lines{unchained}")


def _pages(data: Path, query: dict[str, str], *, follow: bool) -> Iterator[list[dict[str, Any]]]:
    from ringfence.cli.admin_client import Ask, ask, wait_to_follow

    last = 0
    while True:
        page = ask(data, Ask("GET", "/history", query={**query, "after": str(last)}))["lines"]
        if page:
            last = page[-1]["number"]
            yield page
        elif follow:
            wait_to_follow(data)
        else:
            return


def _row(line: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    """A line with the names that a person knows."""
    from ringfence.policy.wording import moment_words

    before, after = line["revision_before"], line["revision_after"]
    return {
        **line,
        "time": moment_words(line["at"]),
        "organisation": names.get(line["organisation"], line["organisation"]),
        "who": f"{line['actor_name']} ({line['actor']})" if line["actor_name"] else line["actor"],
        "revision": str(after) if before == after else f"{before} -> {after}",
    }


def _check_file(file: Path) -> dict[str, Any]:
    from dataclasses import asdict

    from ringfence.store.history import check_lines

    with file.open(encoding="utf-8", errors="replace") as lines:
        found = asdict(check_lines(_parsed(lines, file)))
    if not any(found.values()):  # an export that failed, say
        raise CallerError(f"{file}: it is empty, which proves nothing: export it again by ringfence history -o json")
    return found


def _parsed(lines: Iterable[str], file: Path) -> Iterator[dict[str, Any]]:
    import json

    for n, text in enumerate(lines, start=1):
        try:
            line = json.loads(text)
            yield {**line, "number": line["number"], "previous": line["previous"], "hash": line["hash"]}
        except (ValueError, KeyError, TypeError) as error:
            raise CallerError(f"{file}, line {n}: expected a line as ringfence history -o json writes them") from error
