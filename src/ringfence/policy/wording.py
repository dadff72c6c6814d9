"""Names of persons in our sentences: printable, whatever they contain."""


def shown(text: str) -> str:
    """A person's text in which what a terminal would obey, or end a line at, stands as its escape in Python."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)
