"""``ringfence version``, and ``--version`` for who asks so."""

import typer

from ringfence import __version__
from ringfence.cli.output import show


def version() -> None:
    """Print the version.

    Example: [bold]ringfence version[/bold]
    """
    show(f"ringfence {__version__}")


def at_once(asked: bool) -> None:  # noqa: FBT001  called by typer
    if asked:
        version()
        raise typer.Exit
