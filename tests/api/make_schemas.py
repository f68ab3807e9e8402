"""Condense the Engine API's definitions to what the contract tests need: `make_schemas.py REFERENCE > schemas.json`.

REFERENCE is a folder with `engine-api*.yaml` of moby; needs PyYAML. Only shapes are kept: no prose, no examples. Per
version: `operations` by their id (method, path template, names of query parameters, the schema per status; null where
the definition gives none) and the `definitions` that they need.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path

import yaml  # type: ignore[import-untyped] # a tool's dependency, not the project's

KEPT = ("type", "format", "required", "enum", "x-nullable", "$ref")
# What this engine does not have is only looked at for being refused
WITHOUT_SHAPES = {"Swarm", "Node", "Service", "Task", "Secret", "Config", "Plugin", "Distribution", "Session"}
SHAPES_OF_LINES = ("CreateImageInfo", "BuildInfo", "ErrorResponse")  # streams that the definitions give no schema for


def condense(schema: Mapping[str, object]) -> dict[str, object]:
    """The schema without anything but its shape."""
    kept: dict[str, object] = {key: schema[key] for key in KEPT if key in schema}
    if isinstance(properties := schema.get("properties"), dict):
        kept["properties"] = {name: condense(inner) for name, inner in properties.items()}
    for key in ("items", "additionalProperties"):
        if isinstance(inner := schema.get(key), dict):
            kept[key] = condense(inner)
    if isinstance(parts := schema.get("allOf"), list):
        kept["allOf"] = [condense(part) for part in parts]
    return kept


def references(schema: object) -> set[str]:
    if isinstance(schema, dict):
        found = {str(schema["$ref"]).rpartition("/")[2]} if "$ref" in schema else set()
        return found.union(*(references(inner) for inner in schema.values()))
    return set().union(*(references(inner) for inner in schema)) if isinstance(schema, list) else set()


def operation(method: str, path: str, definition: Mapping[str, object]) -> dict[str, object]:
    tags, responses, parameters = definition["tags"], definition["responses"], definition.get("parameters", [])
    assert isinstance(tags, list)
    assert isinstance(responses, dict)
    assert isinstance(parameters, list)
    shapes = {str(status): condense(response.get("schema", {})) or None for status, response in responses.items()}
    return {
        "method": method.upper(),
        "path": path,
        "query": [parameter["name"] for parameter in parameters if parameter.get("in") == "query"],
        "responses": dict.fromkeys(shapes) if WITHOUT_SHAPES.intersection(tags) else shapes,
    }


def version(document: dict[str, dict[str, dict[str, dict[str, object]]]]) -> dict[str, object]:
    operations = {
        str(definition["operationId"]): operation(method, path, definition)
        for path, methods in document["paths"].items()
        for method, definition in methods.items()
    }
    needed: dict[str, object] = {}
    waiting = references(operations) | document["definitions"].keys() & SHAPES_OF_LINES
    while waiting:
        name = waiting.pop()
        if name not in needed:
            needed[name] = condense(document["definitions"][name])
            waiting |= references(needed[name])
    return {"operations": operations, "definitions": needed}


def main(reference: Path) -> None:
    documents = [yaml.safe_load(path.read_text()) for path in sorted(reference.glob("engine-api*.yaml"))]
    versions = {document["info"]["version"]: version(document) for document in documents}
    json.dump(versions, sys.stdout, sort_keys=True, separators=(",", ":"))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
