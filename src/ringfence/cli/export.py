"""``ringfence export``: the policy as a file, for git, for another server, for Terraform."""

from enum import StrEnum
from typing import Annotated

import typer

from ringfence.cli.options import DataOption, OrganisationOption, query_of
from ringfence.cli.questions import FileOption, question


class FileFormat(StrEnum):
    """What ``-o`` may name where the result is a file's contents."""

    YAML = "yaml"
    JSON = "json"


def export(
    data: DataOption,
    file: FileOption = None,
    organisation: OrganisationOption = None,
    output: Annotated[FileFormat, typer.Option("--output", "-o", help="yaml for git, json for scripts.")] = (
        FileFormat.YAML
    ),
    *,
    terraform: Annotated[
        bool, typer.Option("--terraform", help="As Terraform resources for the provider exoscale/exoscale.")
    ] = False,
) -> None:
    """Print groups, rules, sources and who wears what, by name: the same text for the same policy.

    Example: [bold]ringfence export > policy.yaml[/bold]
    """
    import json

    from ringfence.wire.policy_file import decode_policy, write_policy
    from ringfence.wire.terraform import render_terraform

    value = question(data, file, "export", query_of(organisation))
    if terraform:
        text = render_terraform(decode_policy(value))
    else:
        text = json.dumps(value, indent=2) + "\n" if output is FileFormat.JSON else write_policy(decode_policy(value))
    typer.echo(text, nl=False)  # as it is: it is a file's contents, and its writers let no character steer a terminal
