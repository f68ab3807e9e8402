"""Versions: what is spoken, and what older clients are answered."""

import json
import re
from typing import Any

import pytest

from hafen.api import oldrequests, versions
from hafen.errors import InvalidArgument
from hafen.spec.wire.container import ContainerConfig, ContainerInspect, ContainerSummary, CreateRequest
from hafen.spec.wire.event import Event, EventActor
from hafen.spec.wire.exec import ExecStartConfig
from hafen.spec.wire.hostconfig import BindOptions, HostConfig, Mount, TmpfsOptions, VolumeOptions
from hafen.spec.wire.image import ImageConfig, ImageInspect, ImageSummary
from hafen.spec.wire.network import (
    EndpointSettings,
    NetworkCreateRequest,
    NetworkingConfig,
    NetworkSettings,
    PortBinding,
)
from hafen.spec.wire.system import ContainerUsage, DiskUsage, ImageUsage, SystemInfo
from hafen.spec.wire.volume import VolumeCreateRequest


def answer(value: object, minor: int) -> Any:
    """The JSON that a client of version 1.`minor` gets."""
    return json.loads(versions.encode(value, (1, minor)))


@pytest.mark.parametrize(
    ("path", "asked", "rest"),
    [
        ("/v1.45/info", "1.45", "/info"),
        ("/info", "", "/info"),
        ("/v1.45", "", "/v1.45"),
        ("/volumes/v1.2", "", "/volumes/v1.2"),
        ("/v1.2.3/info", "1.2.3", "/info"),
        ("/v/info", "", "/v/info"),
    ],
)
def test_the_path_names_the_version(path: str, asked: str, rest: str) -> None:
    assert versions.split(path) == (asked, rest)


@pytest.mark.parametrize(
    ("asked", "version"),
    [("1.45", (1, 45)), ("", versions.NEWEST), ("1.45.9", (1, 45)), ("01.045", (1, 45)), ("1.45.", (1, 45))],
)
def test_versions_between_oldest_and_newest_are_spoken(asked: str, version: versions.Version) -> None:
    versions.check(asked)
    assert versions.parse(asked) == version


@pytest.mark.parametrize("asked", ["1.56", "2", "2.0", "1.55.1", "9" * 5000])
def test_newer_versions_are_not_spoken(asked: str) -> None:
    with pytest.raises(InvalidArgument, match=r"is too new\. Maximum supported API version is 1\.55$"):
        versions.check(asked)


@pytest.mark.parametrize("asked", ["1.23", "1", "0.99", "..", "1.5"])
def test_older_versions_are_not_spoken(asked: str) -> None:
    with pytest.raises(InvalidArgument, match=r"is too old\. Minimum supported API version is 1\.24,"):
        versions.check(asked)


def test_a_container_s_address_was_beside_its_networks_before_1_52() -> None:
    bridge = EndpointSettings(ip_address="172.17.0.2", ip_prefix_len=16, mac_address="02:42:ac:11:00:02")
    inspect = ContainerInspect(network_settings=NetworkSettings(networks={"bridge": bridge}))
    assert "IPAddress" not in answer(inspect, 52)["NetworkSettings"]
    old = answer(inspect, 51)["NetworkSettings"]
    assert (old["IPAddress"], old["IPPrefixLen"], old["MacAddress"]) == ("172.17.0.2", 16, "02:42:ac:11:00:02")
    assert (old["Bridge"], old["HairpinMode"], old["SecondaryIPAddresses"]) == ("", False, None)
    assert "OnBuild" not in answer(inspect, 52)["Config"]
    assert answer(inspect, 51)["Config"]["OnBuild"] is None


def test_endpoints_gained_fields() -> None:
    summary = ContainerSummary()
    full = ContainerSummary(network_settings=type(summary.network_settings)(networks={"x": EndpointSettings()}))
    for minor, present in ((55, (True, True)), (47, (False, True))):
        endpoint = answer([full], minor)[0]["NetworkSettings"]["Networks"]["x"]
        assert ("GwPriority" in endpoint, "DNSNames" in endpoint) == present


def test_events_had_no_actor_once() -> None:
    happened = Event(
        type="container", action="start", actor=EventActor(id="c1", attributes={"image": "busybox"}), scope="local"
    )
    assert "status" not in answer(happened, 52)
    old = answer(happened, 51)
    assert (old["status"], old["id"], old["from"]) == ("start", "c1", "busybox")


def test_images_gained_and_lost_fields() -> None:
    inspect = ImageInspect(config=ImageConfig(cmd=["sh"]), size=5)
    assert answer(inspect, 55)["Config"] == {"Cmd": ["sh"]}
    assert answer(inspect, 51)["Config"]["Env"] is None
    assert "Hostname" not in answer(inspect, 51)["Config"]
    assert answer(inspect, 49)["Config"]["Hostname"] == ""
    assert answer(inspect, 43)["VirtualSize"] == 5
    assert answer([ImageSummary()], 42)[0]["RepoTags"] == ["<none>:<none>"]
    assert answer([ImageSummary(containers=3)], 51)[0]["Containers"] == 3
    assert answer([ImageSummary(containers=3)], 50)[0]["Containers"] == -1
    usage = DiskUsage(image_usage=ImageUsage(items=[ImageSummary(containers=3)]))
    assert answer(usage, 45)["Images"][0]["Containers"] == 3  # `docker system df` counts the active ones by it


def test_disk_usage_was_lists() -> None:
    usage = DiskUsage(
        image_usage=ImageUsage(total_size=9, items=[ImageSummary(size=9)]),
        container_usage=ContainerUsage(items=[ContainerSummary(id="c")]),
    )
    assert set(answer(usage, 52)) == {"ImageUsage", "ContainerUsage"}
    brief: dict[str, Any] = versions.brief_disk_usage(usage)
    assert (brief["LayersSize"], brief["Images"][0]["Size"]) == (9, 9)
    assert brief["ImageUsage"]["TotalSize"] == 9
    assert "Items" not in brief["ImageUsage"]
    old = answer(usage, 43)
    assert set(old) == {"LayersSize", "Images", "Containers", "Volumes", "BuildCache"}
    assert old["Images"][0]["VirtualSize"] == 9
    assert old["Volumes"] is None
    assert answer(DiskUsage(image_usage=ImageUsage()), 45)["Images"] == []


def test_info_lost_fields() -> None:
    assert "BridgeNfIptables" not in answer(SystemInfo(), 50)
    assert answer(SystemInfo(), 49)["BridgeNfIptables"] is True
    assert answer(SystemInfo(), 48)["RuncCommit"] == {"ID": "", "Expected": ""}
    assert answer(SystemInfo(), 24)["ExecutionDriver"] == "<not supported>"


def test_requests_mean_what_their_version_says() -> None:
    request = CreateRequest(host_config=HostConfig(kernel_memory=5, console_size=[1, 2], annotations={"a": "b"}))
    old = oldrequests.create(request, (1, 39)).host_config
    new = oldrequests.create(request, (1, 55)).host_config
    assert old
    assert new
    assert (old.ipc_mode, old.cgroupns_mode, old.kernel_memory, old.console_size) == ("shareable", "host", 5, [0, 0])
    assert (new.ipc_mode, new.cgroupns_mode, new.kernel_memory, new.console_size) == ("", "", 0, [1, 2])
    assert (old.annotations, new.annotations) == ({}, {"a": "b"})


def created(request: CreateRequest, minor: int) -> CreateRequest:
    return oldrequests.create(request, (1, minor))


def with_mount(mount: Mount) -> CreateRequest:
    return CreateRequest(host_config=HostConfig(mounts=[mount]))


@pytest.mark.parametrize(
    ("request_", "since", "message"),
    [
        (
            with_mount(Mount(type="bind", bind_options=BindOptions(read_only_force_recursive=True))),
            44,
            "BindOptions.ReadOnlyForceRecursive needs API v1.44 or newer",
        ),
        (
            with_mount(Mount(type="volume", volume_options=VolumeOptions(subpath="x"))),
            45,
            "VolumeOptions.Subpath needs API v1.45 or newer",
        ),
        (with_mount(Mount(type="image")), 48, 'Mount type "Image" needs API v1.48 or newer'),
        (
            CreateRequest(mac_address="02:42:ac:11:00:09", host_config=HostConfig(network_mode="host")),
            44,
            "conflicting options: mac-address and the network mode",
        ),
    ],
)
def test_what_a_version_cannot_ask_for_is_refused(request_: CreateRequest, since: int, message: str) -> None:
    created(request_, since)
    with pytest.raises(InvalidArgument, match=re.escape(message)):
        created(request_, since - 1)


def test_old_mounts() -> None:
    foreign = Mount(type="tmpfs", volume_options=VolumeOptions(), tmpfs_options=TmpfsOptions())
    read_only = Mount(type="bind", read_only=True)

    def seen(mount: Mount, minor: int) -> Mount:
        config = created(with_mount(mount), minor).host_config
        assert config
        return config.mounts[0]

    assert seen(foreign, 42) == foreign
    assert seen(foreign, 41) == Mount(type="tmpfs", tmpfs_options=TmpfsOptions())
    assert seen(read_only, 44) == read_only
    assert seen(read_only, 43).bind_options == BindOptions(read_only_non_recursive=True)


def test_endpoints_of_old_requests() -> None:
    settings = EndpointSettings(mac_address="02:42:ac:11:00:09", gw_priority=5)
    request = CreateRequest(networking_config=NetworkingConfig(endpoints_config={"n": settings}))

    def seen(minor: int) -> EndpointSettings | None:
        config = created(request, minor).networking_config
        return (config.endpoints_config or {})["n"] if config else None

    assert seen(48) == settings
    assert seen(44) == EndpointSettings(mac_address="02:42:ac:11:00:09")
    assert seen(43) == EndpointSettings()


def test_empty_port_bindings() -> None:
    request = CreateRequest(host_config=HostConfig(port_bindings={"80/tcp": [], "81/tcp": None}))
    old, new = created(request, 52).host_config, created(request, 53).host_config
    assert old
    assert new
    assert old.port_bindings == {"80/tcp": [PortBinding()], "81/tcp": [PortBinding()]}
    assert new.port_bindings == {}
    assert [len(oldrequests.create_warnings(request, (1, minor))) for minor in (51, 52, 53)] == [0, 1, 0]


def test_warnings_of_the_request() -> None:
    request = CreateRequest(mac_address="02:42:ac:11:00:09")
    assert [len(oldrequests.create_warnings(request, (1, minor))) for minor in (43, 44, 51, 52)] == [0, 1, 1, 0]
    request = CreateRequest(host_config=HostConfig(volume_driver="local", mounts=[Mount(type="volume")]))
    assert [len(oldrequests.create_warnings(request, (1, minor))) for minor in (47, 48)] == [0, 1]


def test_exec_and_network_fields_of_their_version() -> None:
    start = ExecStartConfig(tty=True, console_size=[1, 2])
    assert [oldrequests.exec_start(start, (1, minor)).console_size for minor in (41, 42)] == [None, [1, 2]]
    network = NetworkCreateRequest(name="n", enable_ipv4=False)
    assert [oldrequests.network_create(network, (1, minor)).enable_ipv4 for minor in (47, 48)] == [None, False]
    volume = VolumeCreateRequest(cluster_volume_spec={})
    assert [oldrequests.volume_create(volume, (1, minor)).cluster_volume_spec for minor in (41, 42)] == [None, {}]


def test_own_names_were_aliases() -> None:
    networks = {"bridge": EndpointSettings(), "n": EndpointSettings(aliases=["al", "hh"]), "m": EndpointSettings()}
    inspect = ContainerInspect(
        id="0123456789abcdef",
        config=ContainerConfig(hostname="hh"),
        network_settings=NetworkSettings(networks=networks),
    )
    old, new = (answer(inspect, minor)["NetworkSettings"]["Networks"] for minor in (44, 45))
    assert [old[name]["Aliases"] for name in networks] == [None, ["al", "hh", "0123456789ab"], ["0123456789ab", "hh"]]
    assert [new[name]["Aliases"] for name in networks] == [None, ["al", "hh"], None]
