"""The grammar of the command line in our own words: what ``--help`` calls things, and what is said of a wrong line."""

import re
from typing import Any, Final

import typer

Command = Any  # typer names no type for what it makes of our functions

HELP_OPTIONS: Final = ["-h", "--help"]
_EXAMPLE: Final = re.compile(r"Example: \[bold\](.*?)\[/bold\]", re.DOTALL)
_WORDS: Final = (  # what validation says -> what we say
    ("Value error, ", ""),
    ("Input should be a valid integer, unable to parse string as an integer", "expected a whole number"),
    ("Input should be greater than or equal to", "expected a number of at least"),
    ("requires an argument", "needs a value"),
)
_TEXT: Final = {"str": None, "Path": "FILE", "int": "N"}  # by type: None is the option's own name


def dress(command: Command) -> Command:
    """Call the arguments and options of a command, and of all below it, what the docs call them.

    Prose is wrapped where the terminal ends, not where our source does.
    """
    command.help = _wrapped(command.help)
    own_help = command.get_help_option(typer.Context(command, help_option_names=HELP_OPTIONS))
    for parameter in [*command.params, own_help]:
        if parameter.metavar is None:
            parameter.metavar = _name(parameter)
    for inner in getattr(command, "commands", {}).values():
        dress(inner)
    return command


def wrong_line(error: typer.TyperException) -> str:
    """What is wrong with a command line, how it is meant to look, and an example; empty where help was shown."""
    context = getattr(error, "ctx", None)
    if context is None:
        return _fault(error)
    if type(error).__name__ == "NoArgsIsHelpError":
        return ""
    command, path = context.command, context.command_path
    verb = path.partition(" ")[2]
    lines = [f"{verb}: {_fault(error)}" if verb else _fault(error)]
    pieces = " ".join(command.collect_usage_pieces(context))
    lines.append(f"  usage: {path} {pieces.replace('{', '').replace('}', '')}")
    if example := _EXAMPLE.search(command.help or ""):
        lines.append(f"  for example: {example[1]}")
    lines.append(f"  more: {path} --help")
    return "\n".join(lines)


def _wrapped(text: str | None) -> str | None:
    if text is None:
        return None
    apart = re.sub(r"\n(?=Example: )", "\n\n", text)
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in apart.split("\n\n"))


def _name(parameter: Command) -> str | None:
    own = str(parameter.name).upper().replace("_", "-")
    if parameter.param_type_name == "argument":
        return own
    if parameter.is_flag:
        return ""
    kind = parameter.bare_type()
    return _TEXT[kind] or own if kind in _TEXT else None


def _fault(error: typer.TyperException) -> str:
    """The message, without what typer and its validation say of themselves."""
    parameter = getattr(error, "param", None)
    name = parameter.get_error_hint().strip("'") if parameter is not None else ""
    said = error.message
    if type(error).__name__ == "MissingParameter":
        help_text = getattr(parameter, "help", None)
        return f"{name} is missing: {help_text}" if help_text else f"{name} is missing"
    if extra := re.match(r"Got unexpected extra arguments?\S* \((.*)\)", said):
        return f"too much on the line: {extra[1]}"
    if near := getattr(error, "possibilities", None):
        return f"there is no option {getattr(error, 'option_name', '')}; did you mean {' or '.join(sorted(near))}?"
    text = said.removesuffix(".")
    for theirs, ours in _WORDS:
        text = text.replace(theirs, ours)
    text = text[:1].lower() + text[1:]
    return f"{name}: {text}" if name else text
