"""Condense the Engine API's definitions to what the contract test needs: `make_schemas.py REFERENCE > schemas.json`.

REFERENCE is a folder with `engine-api*.yaml` of moby; needs PyYAML. Only shapes are kept: no prose, no examples.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path

import yaml  # type: ignore[import-untyped] # a tool's dependency, not the project's

KEPT = ("type", "format", "required", "x-nullable", "$ref")
OPERATIONS = (
    "ContainerList", "ContainerCreate", "ContainerInspect", "ContainerTop", "ContainerChanges", "ContainerUpdate",
    "ContainerWait", "ContainerPrune", "ImageList", "ImageInspect", "ImageHistory", "ImageDelete", "ImagePrune",
    "ImageCommit", "NetworkList", "NetworkInspect", "NetworkCreate", "NetworkPrune", "VolumeList", "VolumeInspect",
    "VolumePrune", "ContainerExec", "ExecInspect", "SystemInfo", "SystemVersion", "SystemDataUsage", "SystemEvents",
    "SystemAuth",
)  # fmt: skip


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


def version(document: dict[str, dict[str, dict[str, dict[str, object]]]]) -> dict[str, object]:
    operations: dict[str, object] = {}
    for path in document["paths"].values():
        for operation in path.values():
            name = str(operation["operationId"])
            responses = operation["responses"]
            assert isinstance(responses, dict)
            for status in (200, 201):
                schema = responses.get(status, {}).get("schema")
                if name in OPERATIONS and schema:
                    operations[name] = condense(schema)
    needed, waiting = {}, references(operations)
    while waiting:
        definition = waiting.pop()
        if definition not in needed:
            needed[definition] = condense(document["definitions"][definition])
            waiting |= references(needed[definition])
    return {"operations": operations, "definitions": needed}


def main(reference: Path) -> None:
    documents = [yaml.safe_load(path.read_text()) for path in sorted(reference.glob("engine-api*.yaml"))]
    versions = {document["info"]["version"]: version(document) for document in documents}
    json.dump(versions, sys.stdout, sort_keys=True, separators=(",", ":"))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
