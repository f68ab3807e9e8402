"""Every JSON answer, full and empty, as clients of several versions get it, against that version's definitions."""

import json
import types
import typing
from functools import cache
from pathlib import Path

import msgspec
import pytest

from hafen.api import versions
from hafen.spec.wire import container, event, exec, image, network, system, volume

SCHEMAS = Path(__file__).with_name("schemas.json")

Schema = dict[str, object]

ANSWERS: dict[str, object] = {
    "ContainerList": list[container.ContainerSummary],
    "ContainerCreate": container.CreateResponse,
    "ContainerInspect": container.ContainerInspect,
    "ContainerTop": container.TopResponse,
    "ContainerChanges": list[container.FilesystemChange],
    "ContainerUpdate": container.UpdateResponse,
    "ContainerWait": container.WaitResponse,
    "ContainerPrune": container.PruneResponse,
    "ImageList": list[image.ImageSummary],
    "ImageInspect": image.ImageInspect,
    "ImageHistory": list[image.HistoryItem],
    "ImageDelete": list[image.DeleteResponseItem],
    "ImagePrune": image.ImagePruneResponse,
    "ImageCommit": image.IdResponse,
    "NetworkList": list[network.NetworkSummary],
    "NetworkInspect": network.NetworkInspect,
    "NetworkCreate": network.NetworkCreateResponse,
    "NetworkPrune": network.NetworkPruneResponse,
    "VolumeList": volume.VolumeListResponse,
    "VolumeInspect": volume.Volume,
    "VolumePrune": volume.VolumePruneResponse,
    "ContainerExec": image.IdResponse,
    "ExecInspect": exec.ExecInspect,
    "SystemInfo": system.SystemInfo,
    "SystemVersion": system.SystemVersion,
    "SystemDataUsage": system.DiskUsage,
    "SystemEvents": event.Event,
    "SystemAuth": system.AuthResponse,
}

# Docker, too, sends what its definitions do not say.
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
    # never set here
    "SystemInfo.GenericResources[].bridge: unknown",
    "SystemInfo.Swarm.RemoteManagers[].bridge: unknown",
}


@cache
def schemas() -> dict[str, dict[str, dict[str, Schema]]]:
    loaded: dict[str, dict[str, dict[str, Schema]]] = json.loads(SCHEMAS.read_text())
    return loaded


def full(annotation: object) -> object:
    """A value of a type with everything in it set to something."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return full(arguments[0])
    if origin in (types.UnionType, typing.Union):
        return full(next(argument for argument in arguments if argument is not type(None)))
    if origin is list:
        return [full(arguments[0])]
    if origin is dict:
        return {"bridge": full(arguments[1])}
    if isinstance(annotation, type) and issubclass(annotation, msgspec.Struct):
        hints = typing.get_type_hints(annotation, include_extras=True)
        return annotation(**{name: full(hint) for name, hint in hints.items()})
    return {str: "2026-11-20T19:11:02Z", int: 7, bool: True, float: 1.5, object: {}}[typing.cast(type, annotation)]


def empty(annotation: object) -> object:
    return [] if typing.get_origin(annotation) is list else typing.cast(type, annotation)()


def differences(value: object, schema: Schema, definitions: dict[str, Schema], path: str) -> typing.Iterator[str]:
    """What of a value a schema does not allow, by path."""
    schema = flat(schema, definitions)
    if value is None:
        # Go writes null for any empty slice, map or pointer, and the definitions seldom say so
        if schema.get("type") not in ("array", "object", None) and not schema.get("x-nullable"):
            yield f"{path}: null"
    elif schema.get("type") == "array":
        if isinstance(value, list):
            for item in value:
                yield from differences(item, typing.cast(Schema, schema.get("items", {})), definitions, f"{path}[]")
        else:
            yield f"{path}: not an array"
    elif "properties" in schema or "additionalProperties" in schema or schema.get("type") == "object":
        yield from object_differences(value, schema, definitions, path)
    else:
        wanted = {"string": (str,), "integer": (int,), "boolean": (bool,), "number": (int, float)}.get(
            str(schema.get("type"))
        )
        if wanted and type(value) not in wanted:
            yield f"{path}: not a {schema['type']}"


def object_differences(
    value: object, schema: Schema, definitions: dict[str, Schema], path: str
) -> typing.Iterator[str]:
    if not isinstance(value, dict):
        yield f"{path}: not an object"
        return
    properties = typing.cast("dict[str, Schema]", schema.get("properties", {}))
    others = typing.cast("Schema | None", schema.get("additionalProperties"))
    for name in typing.cast("list[str]", schema.get("required", [])):
        if name not in value:
            yield f"{path}.{name}: missing"
    for name, inner in value.items():
        if name in properties:
            yield from differences(inner, properties[name], definitions, f"{path}.{name}")
        elif others is not None:
            yield from differences(inner, others, definitions, f"{path}.*")
        elif properties:
            yield f"{path}.{name}: unknown"


def part_of(schema: Schema, name: str) -> Schema:
    return typing.cast(Schema, schema.get(name, {}))


def flat(schema: Schema, definitions: dict[str, Schema]) -> Schema:
    """The schema with references followed and `allOf` merged."""
    while "$ref" in schema:
        reference = str(schema["$ref"]).rpartition("/")[2]
        schema = {**definitions[reference], **{key: value for key, value in schema.items() if key != "$ref"}}
    if "allOf" not in schema:
        return schema
    merged: Schema = {key: value for key, value in schema.items() if key != "allOf"}
    for part in typing.cast("list[Schema]", schema["allOf"]):
        inner = flat(part, definitions)
        properties = {**part_of(merged, "properties"), **part_of(inner, "properties")}
        merged = {**merged, **inner, **({"properties": properties} if properties else {})}
    return merged


@pytest.mark.parametrize("operation", ANSWERS)
@pytest.mark.parametrize("version", ["1.41", "1.47", "1.55"])
def test_answers_are_what_their_version_defines(operation: str, version: str) -> None:
    definitions = schemas()[version]["definitions"]
    schema = schemas()[version]["operations"].get(operation)
    if schema is None:
        pytest.skip(f"{operation} has no definition in {version}")
    major, minor = version.split(".")
    for value in (full(ANSWERS[operation]), empty(ANSWERS[operation])):
        answer = json.loads(versions.encode(value, (int(major), int(minor))))
        found = set(differences(answer, schema, definitions, operation))
        assert not found - ACCEPTED
