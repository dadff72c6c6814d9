"""Terraform's JSON of a plan for provider exoscale, in short words: laid out as ``terraform show -json`` does."""

import json

GROUP, RULE = "exoscale_security_group", "exoscale_security_group_rule"
_PEERS = ("cidr", "user_security_group_id", "public_security_group")
_NUMBERS = ("start_port", "end_port", "icmp_type", "icmp_code")


def refers(*references):
    """An expression as the configuration has it: every step of each reference."""
    steps = [one.rsplit(".", n)[0] for one in references for n in range(one.count(".")) if one.count(".") - n]
    return {"references": list(dict.fromkeys(steps))}


def group(address, actions=("create",), *, before=None, **after):
    """A group of the plan; ``after`` without ``id`` where it is to be made."""
    return _resource(address, GROUP, list(actions), before, after, {} if "id" in after else {"id": True})


def new_rule(address, *, group_id=None, kind="INGRESS", protocol="TCP", **given):
    """A rule to be made. Whatever is not configured is unknown, and so is what refers to a group that is not there."""
    known = {"type": kind, "protocol": protocol, "security_group_id": group_id, **given}
    after = {name: value for name, value in known.items() if value is not None}
    unknown = {name: True for name in ("id", "description", *_PEERS, *_NUMBERS) if name not in after}
    return _resource(
        address, RULE, ["create"], None, after, unknown | ({} if group_id else {"security_group_id": True})
    )


def ended(address, type_, **before):
    """A resource that is deleted."""
    return _resource(address, type_, ["delete"], before, None, {})


def _resource(address, type_, actions, before, after, unknown):
    module, _, own = address.rpartition(f"{type_}.")
    name, _, index = own.partition("[")
    found = {"address": address, "mode": "managed", "type": type_, "name": name}
    if module:
        found["module_address"] = module.removesuffix(".")
    if index:
        found["index"] = json.loads(index.removesuffix("]"))
    change = {"actions": actions, "before": before, "after": after, "after_unknown": unknown, "after_sensitive": {}}
    return {**found, "provider_name": "registry.terraform.io/exoscale/exoscale", "change": change}


def configured(type_, name, **expressions):
    """A resource as it is written."""
    return {"address": f"{type_}.{name}", "mode": "managed", "type": type_, "name": name, "expressions": expressions}


def plan(*changes, resources=(), calls=None, **more):
    """The whole document, as text."""
    root = {"resources": list(resources), "module_calls": calls or {}}
    document = {
        "format_version": "1.2",
        "terraform_version": "1.11.4",
        "planned_values": {},
        "resource_changes": list(changes),
        "configuration": {"root_module": root},
        "errored": False,
        "complete": True,
    }
    return json.dumps(document | more)
