"""Every JSON answer, full and empty, as clients of several versions get it, against that version's definitions."""

import json
import types
import typing

import msgspec
import pytest

from hafen.api import versions
from hafen.spec.wire import container, event, exec, image, network, system, volume
from tests.harness.contract import ACCEPTED, Schema, definition, differences

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

# Values that `full` puts where nothing ever is, and a field of ours that shows only what was asked for by it
MADE_UP = {
    "SystemInfo.GenericResources[].bridge: unknown",
    "SystemInfo.Swarm.RemoteManagers[].bridge: unknown",
    "ContainerInspect.HostConfig.Mounts[].BindOptions.IDMap: unknown",
    "SystemDataUsage.RegistryUsage: unknown",
}


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


@pytest.mark.parametrize("operation", ANSWERS)
@pytest.mark.parametrize("version", ["1.41", "1.47", "1.55"])
def test_answers_are_what_their_version_defines(operation: str, version: str) -> None:
    contract = definition(version)
    responses = contract["operations"][operation]["responses"]
    schema = responses.get("200") or responses.get("201")
    assert schema
    major, minor = version.split(".")
    for value in (full(ANSWERS[operation]), empty(ANSWERS[operation])):
        answer = json.loads(versions.encode(value, (int(major), int(minor))))
        found = set(differences(answer, schema, contract["definitions"], operation))
        values = {one for one in found if one.endswith("not one of its values")}  # `full` knows only types
        assert not found - values - ACCEPTED - MADE_UP


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ({"a": 1, "b": "x", "c": [{"d": None}], "e": {"any": True}}, []),
        ({"b": None}, ["A.a: missing", "A.b: null"]),
        ({"a": None, "c": None, "e": None}, []),
        ({"a": True, "b": "z", "c": {}}, ["A.a: not a integer", "A.b: not one of its values", "A.c: not an array"]),
        (
            {"a": 1, "c": [{"f": 1}, 2], "e": {"k": 1}},
            ["A.c[].f: unknown", "A.c[]: not an object", "A.e.*: not a boolean"],
        ),
    ],
)
def test_the_validator_sees(value: object, found: list[str]) -> None:
    item: Schema = {"properties": {"d": {"type": "string", "x-nullable": True}}}
    first: Schema = {"required": ["a"], "properties": {"a": {"type": "integer", "x-nullable": True}}}
    second: Schema = {
        "type": "object",
        "properties": {
            "b": {"type": "string", "enum": ["x", "y"]},
            "c": {"type": "array", "items": {"$ref": "#/definitions/Item"}},
            "e": {"type": "object", "additionalProperties": {"type": "boolean"}},
        },
    }
    assert list(differences(value, {"allOf": [first, second]}, {"Item": item}, "A")) == found
