"""The Engine API's definitions (`tests/api/schemas.json`) and what of an answer they do not allow; pure."""

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TypedDict, cast

SCHEMAS = Path(__file__).parents[1] / "api" / "schemas.json"

Schema = dict[str, object]


class Operation(TypedDict):
    method: str
    path: str
    query: list[str]
    responses: dict[str, Schema | None]


class Definition(TypedDict):
    """One version of the API."""

    operations: dict[str, Operation]
    definitions: dict[str, Schema]


# What is accepted of an answer although its version's definition does not say so: Docker sends it, too.
_SHOWN_IMAGES = ("ImageList[]", "ImageInspect", "SystemDataUsage.Images[]", "SystemDataUsage.ImageUsage.Items[]")
ACCEPTED = {
    # inspect repeats what the client of another version asked for
    "ContainerInspect.Config.Healthcheck.StartInterval: unknown",
    "ContainerInspect.Config.MacAddress: unknown",
    "ContainerInspect.HostConfig.Annotations: unknown",
    "ContainerInspect.HostConfig.KernelMemory: unknown",
    "ContainerInspect.HostConfig.KernelMemoryTCP: unknown",
    "ContainerInspect.HostConfig.Mounts[].BindOptions.CreateMountpoint: unknown",
    "ContainerInspect.HostConfig.Mounts[].BindOptions.ReadOnlyForceRecursive: unknown",
    "ContainerInspect.HostConfig.Mounts[].BindOptions.ReadOnlyNonRecursive: unknown",
    "ContainerInspect.HostConfig.Mounts[].ClusterOptions: unknown",
    "ContainerInspect.HostConfig.Mounts[].ImageOptions: unknown",
    "ContainerInspect.HostConfig.Mounts[].TmpfsOptions.Options: unknown",
    "ContainerInspect.HostConfig.Mounts[].VolumeOptions.Subpath: unknown",
    "ImageInspect.Config.Healthcheck.StartInterval: unknown",
    "ImageInspect.ContainerConfig.Healthcheck.StartInterval: unknown",
    # newer fields that Docker does not take out for older clients
    "ContainerInspect.NetworkSettings.Networks.*.DNSNames: unknown",
    "ContainerList[].NetworkSettings.Networks.*.DNSNames: unknown",
    "SystemDataUsage.Containers[].NetworkSettings.Networks.*.DNSNames: unknown",
    "SystemInfo.CDISpecDirs: unknown",
    # Go pointers that are null while unset
    "ContainerInspect.HostConfig.MemorySwappiness: null",
    "ContainerInspect.HostConfig.OomKillDisable: null",
    "ExecInspect.ExitCode: null",
    # the classic builder's, which the definitions dropped before the engine did
    "ImageInspect.DockerVersion: unknown",
    "ImageInspect.Parent: unknown",
    # the size is in `Size.Unpacked`; that it is required here as well is a slip of the definition
    *(f"{place}.Manifests[].ImageData.UnpackedSize: missing" for place in _SHOWN_IMAGES),
    # 1.47 defines a descriptor as its first three fields, and sends all
    *(
        f"{place}.Manifests[].Descriptor.{field}: unknown"
        for place in _SHOWN_IMAGES
        for field in ("annotations", "artifactType", "data", "platform", "urls")
    ),
}


@cache
def definition(version: str) -> Definition:
    """The definition of 1.41, 1.47 or 1.55."""
    loaded: dict[str, Definition] = json.loads(SCHEMAS.read_text())
    return loaded[version]


def differences(value: object, schema: Schema, definitions: dict[str, Schema], path: str) -> Iterator[str]:
    """What of a value a schema does not allow, by path."""
    schema = flat(schema, definitions)
    kind = schema.get("type")
    if value is None:
        # Go writes null for any empty slice, map or pointer, and the definitions seldom say so
        if kind not in ("array", "object", None) and not schema.get("x-nullable"):
            yield f"{path}: null"
    elif kind == "array":
        if isinstance(value, list):
            for item in value:
                yield from differences(item, cast(Schema, schema.get("items", {})), definitions, f"{path}[]")
        else:
            yield f"{path}: not an array"
    elif "properties" in schema or "additionalProperties" in schema or kind == "object":
        yield from _object_differences(value, schema, definitions, path)
    else:
        wanted = {"string": (str,), "integer": (int,), "boolean": (bool,), "number": (int, float)}.get(str(kind))
        if wanted and type(value) not in wanted:
            yield f"{path}: not a {kind}"
        elif value not in cast("list[object]", schema.get("enum", [value])):
            yield f"{path}: not one of its values"


def _object_differences(value: object, schema: Schema, definitions: dict[str, Schema], path: str) -> Iterator[str]:
    if not isinstance(value, dict):
        yield f"{path}: not an object"
        return
    properties = _part(schema, "properties")
    others = cast("Schema | None", schema.get("additionalProperties"))
    for name in cast("list[str]", schema.get("required", [])):
        if name not in value:
            yield f"{path}.{name}: missing"
    for name, inner in value.items():
        if name in properties:
            yield from differences(inner, cast(Schema, properties[name]), definitions, f"{path}.{name}")
        elif others is not None:
            yield from differences(inner, others, definitions, f"{path}.*")
        elif properties:
            yield f"{path}.{name}: unknown"


def _part(schema: Schema, name: str) -> Schema:
    return cast(Schema, schema.get(name, {}))


def flat(schema: Schema, definitions: dict[str, Schema]) -> Schema:
    """The schema with references followed and `allOf` merged."""
    while "$ref" in schema:
        reference = str(schema["$ref"]).rpartition("/")[2]
        schema = {**definitions[reference], **{key: value for key, value in schema.items() if key != "$ref"}}
    if "allOf" not in schema:
        return schema
    merged: Schema = {key: value for key, value in schema.items() if key != "allOf"}
    for part in cast("list[Schema]", schema["allOf"]):
        inner = flat(part, definitions)
        properties = {**_part(merged, "properties"), **_part(inner, "properties")}
        merged = {**merged, **inner, **({"properties": properties} if properties else {})}
    return merged
