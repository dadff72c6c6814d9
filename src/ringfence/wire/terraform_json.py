"""PURE: the parts of Terraform's JSON of a plan that ringfence reads (terraform: Internals, JSON Output Format)."""

import msgspec

Values = dict[str, object]


class _Shape(msgspec.Struct, frozen=True):
    """Names that are not known are passed over: the format says that minor versions add some."""


class Change(_Shape, frozen=True):
    """What is to become of a resource; ``after`` has not what will be known only after apply."""

    actions: list[str]
    before: Values | None = None
    after: Values | None = None
    after_unknown: Values | bool = {}

    def is_unknown(self, name: str) -> bool:
        """Whether the attribute, or any part of it, will be known only after apply."""
        return not isinstance(self.after_unknown, bool) and _holds_true(self.after_unknown.get(name))


class Resource(_Shape, frozen=True):
    """One instance of a resource, and its change."""

    address: str
    type: str
    change: Change
    mode: str = "managed"
    module_address: str = ""
    name: str = ""
    index: str | int | None = None


class Configured(_Shape, frozen=True):
    """A resource as it is written: unevaluated, for all its instances."""

    type: str = ""
    name: str = ""
    mode: str = "managed"
    expressions: Values = {}


class Output(_Shape, frozen=True):
    """What a module gives to its caller."""

    expression: Values = {}


class Module(_Shape, frozen=True):
    """One module as it is written."""

    resources: list[Configured] = []
    outputs: dict[str, Output] = {}
    module_calls: "dict[str, Call]" = {}


class Call(_Shape, frozen=True):
    """A module, and what its caller gives it."""

    expressions: Values = {}
    module: Module = Module()


class Configuration(_Shape, frozen=True):
    """All that is written."""

    root_module: Module = Module()


class Plan(_Shape, frozen=True):
    """The whole document."""

    format_version: str
    resource_changes: list[Resource] = []
    configuration: Configuration = Configuration()
    errored: bool = False
    complete: bool = True


def _holds_true(value: object) -> bool:
    if isinstance(value, list):
        return any(map(_holds_true, value))
    return any(map(_holds_true, value.values())) if isinstance(value, dict) else value is True
