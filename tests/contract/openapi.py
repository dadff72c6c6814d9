"""Judges answers by the official openapi.json, as the Python SDK ships it."""

import json
import re
from functools import cache
from importlib.resources import files

from jsonschema import Draft4Validator, FormatChecker

SPEC = json.loads(files("exoscale").joinpath("openapi.json").read_text())
# Fields of the real service's answers (captures) that its own document does not name.
UNNAMED = {"visibility"}


def check_answer(method: str, path: str, status: int, body: bytes) -> str:
    """The operation that ``path`` (below /v2) is, its answer found valid; error answers have our one shape."""
    operation = find_operation(method, path)
    document = json.loads(body)
    if status >= 400:
        check_error(status, document)
        return operation
    assert status == 200, (method, path, status)
    assert operation, f"{method} {path} is no operation of openapi.json"
    schema = _schema(operation)
    errors = [f"{error.json_path}: {error.message}" for error in _validator(operation).iter_errors(document)]
    assert not errors, (method, path, errors)
    unknown = set(_unknown_fields(document, schema)) - UNNAMED
    assert not unknown, (method, path, unknown)
    return operation


def check_error(status: int, document) -> None:
    assert document["message"] == document["detail"] != ""
    assert document["status"] == status
    assert document["title"]
    assert document["type"].startswith("urn:ringfence:error:")
    assert document.keys() <= {"message", "type", "title", "status", "detail", "field"}


@cache
def find_operation(method: str, path: str) -> str:
    """The operationId of a request, "" when it is none."""
    path = path.partition("?")[0]
    for template, methods in SPEC["paths"].items():
        pattern = re.sub(r"\{[^}]+\}", "[^/:]+", template)
        if re.fullmatch(pattern, path) and method.lower() in methods:
            return methods[method.lower()]["operationId"]
    return ""


@cache
def _operations():
    return {operation["operationId"]: operation for methods in SPEC["paths"].values() for operation in methods.values()}


def _schema(operation: str):
    return _operations()[operation]["responses"]["200"]["content"]["application/json"]["schema"]


@cache
def _validator(operation: str) -> Draft4Validator:
    root = {"components": SPEC["components"], "allOf": [_schema(operation)]}
    return Draft4Validator(root, format_checker=FormatChecker())


def _resolve(schema):
    while "$ref" in schema:
        schema = SPEC["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return schema


def _unknown_fields(document, schema):
    schema = _resolve(schema)
    if isinstance(document, list):
        for item in document:
            yield from _unknown_fields(item, schema.get("items", {}))
    elif isinstance(document, dict) and "properties" in schema:
        for name, value in document.items():
            if name not in schema["properties"]:
                yield name
            else:
                yield from _unknown_fields(value, schema["properties"][name])
