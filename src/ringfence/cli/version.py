"""``ringfence version``."""

from ringfence import __version__
from ringfence.cli.output import show


def version() -> None:
    """Print the version."""
    show(f"ringfence {__version__}")
