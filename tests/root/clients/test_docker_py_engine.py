"""docker-py's images, networks, volumes, events and the engine itself: over the unix socket and over TLS, the same."""

import io
import json
import tarfile
import threading
from collections.abc import Callable

import docker
import pytest
from docker.errors import APIError, ImageNotFound, NotFound
from docker.types import IPAMConfig, IPAMPool

pytestmark = [pytest.mark.root, pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")]  # of docker-py


def root_tar(name: str = "testdata", data: bytes = b"data") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        entry = tarfile.TarInfo(name)
        entry.size = len(data)
        tar.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def test_images_are_listed_and_tagged(client: docker.DockerClient) -> None:
    image = client.images.get("alpine")
    assert image in client.images.list()
    assert image in client.images.list("alpine")
    assert image.tag("some.repository/test", "one")
    assert client.images.list("some.repository/test") == [image]
    assert client.images.list(filters={"reference": "some.repository/*:one"}) == [image]
    client.images.remove("some.repository/test:one")
    assert client.images.list("some.repository/test") == []
    assert image.history()[0]["Id"] == image.id
    assert len({one.id for one in client.images.list(all=True)}) == client.info()["Images"]
    assert image.id in client.api.images(quiet=True)


def test_an_image_that_is_not_here(client: docker.DockerClient) -> None:
    with pytest.raises(ImageNotFound):
        client.images.get("surely_not_here")
    with pytest.raises(ImageNotFound):
        client.images.remove("surely_not_here")
    with pytest.raises(ImageNotFound, match="No such image: somewhere/name:latest"):
        client.api.inspect_image("somewhere//name")  # Docker leads to the path without what is empty


def test_images_are_saved_and_loaded(client: docker.DockerClient) -> None:
    image = client.images.get("hello-world")
    data = b"".join(image.save(named="hello-world:latest"))
    assert client.images.load(data) == [image]
    assert client.api.load_image(data)
    assert image.tags


def test_images_are_imported_and_pruned(client: docker.DockerClient) -> None:
    said = client.api.import_image_from_data(root_tar(), repository="from/bytes", changes=["USER foo", 'CMD ["echo"]'])
    result = json.loads(said.splitlines()[-1])
    image = client.images.get(result["status"])
    assert (image.attrs["Config"]["Cmd"], image.attrs["Config"]["User"]) == (["echo"], "foo")
    dangling = json.loads(client.api.import_image(src=root_tar("other")).splitlines()[-1])["status"]
    assert client.images.list(filters={"dangling": True})[0].id == dangling
    result = client.images.prune()
    assert {"Deleted": dangling} in result["ImagesDeleted"]
    assert result["SpaceReclaimed"] > 0
    client.images.remove("from/bytes", force=True)


def test_a_network_with_addresses(client: docker.DockerClient) -> None:
    pool = IPAMPool(
        subnet="10.213.0.0/16", iprange="10.213.5.0/24", gateway="10.213.5.254", aux_addresses={"a": "10.213.1.5"}
    )
    network = client.networks.create(
        "addressed", ipam=IPAMConfig(pool_configs=[pool]), labels={"a": "b"}, internal=True, check_duplicate=True
    )
    assert network.attrs["IPAM"]["Config"] == [
        {
            "Subnet": "10.213.0.0/16",
            "IPRange": "10.213.5.0/24",
            "Gateway": "10.213.5.254",
            "AuxiliaryAddresses": {"a": "10.213.1.5"},
        }
    ]
    assert (network.attrs["Internal"], network.attrs["Labels"], network.attrs["Driver"]) == (True, {"a": "b"}, "bridge")
    assert client.networks.list(names=["addressed"]) == [network]
    assert client.networks.list(ids=[network.id[:8]]) == [network]
    assert client.networks.list(names=["fdshjklfdsjhkl"]) == []
    with pytest.raises(APIError, match="already exists"):
        client.networks.create("addressed", check_duplicate=True)
    network.remove()
    with pytest.raises(NotFound):
        client.networks.get(network.id)


def test_containers_come_and_go_in_a_network(client: docker.DockerClient) -> None:
    network = client.networks.create("meeting", ipam=IPAMConfig(pool_configs=[IPAMPool(subnet="10.214.0.0/24")]))
    server = client.containers.run("busybox", "sleep 300", detach=True)
    network.connect(server, aliases=["foo", "bar"], ipv4_address="10.214.0.23")
    network.reload()
    assert network.containers == [server]
    server.reload()
    endpoint = server.attrs["NetworkSettings"]["Networks"]["meeting"]
    assert {"foo", "bar"} <= set(endpoint["Aliases"])
    assert endpoint["IPAMConfig"]["IPv4Address"] == endpoint["IPAddress"] == "10.214.0.23"
    assert b"10.214.0.23" in client.containers.run("busybox", "nslookup bar.", network="meeting")
    with pytest.raises(APIError):
        network.connect(server)
    network.disconnect(server)
    network.reload()
    assert network.containers == []
    with pytest.raises(APIError):
        network.disconnect(server, force=True)
    assert client.networks.prune()["NetworksDeleted"] == ["meeting"]


def test_endpoints_that_are_asked_for_at_creation(client: docker.DockerClient) -> None:
    pools = [IPAMPool(subnet="10.215.0.0/24"), IPAMPool(subnet="fd00:389::/64")]
    client.networks.create("both", enable_ipv6=True, ipam=IPAMConfig(pool_configs=pools))
    config = client.api.create_endpoint_config(
        aliases=["named"], ipv4_address="10.215.0.7", ipv6_address="fd00:389::f00d", links=[("upstream", "bar")]
    )
    made = client.containers.run("busybox", "top", network="both", networking_config={"both": config}, detach=True)
    made.reload()
    endpoint = made.attrs["NetworkSettings"]["Networks"]["both"]
    assert endpoint["IPAMConfig"] == {"IPv4Address": "10.215.0.7", "IPv6Address": "fd00:389::f00d"}
    assert (endpoint["IPAddress"], endpoint["GlobalIPv6Address"]) == ("10.215.0.7", "fd00:389::f00d")
    assert endpoint["Links"] == ["upstream:bar"]
    client.containers.run("busybox", "top", network="both", name="upstream", detach=True)
    assert made.exec_run("nslookup bar").exit_code == 0
    linked = client.containers.create("busybox", "true", links={"upstream": "up"}, network="both")
    assert linked.attrs["HostConfig"]["NetworkMode"] == "both"


def test_a_network_without_ipv6_remembers_what_was_asked_of_it(client: docker.DockerClient) -> None:
    asked = IPAMConfig(pool_configs=[IPAMPool(subnet="fd00:390::1/64")])  # host bits: nobody looks at it
    network = client.networks.create("four", ipam=asked)
    first, second = network.attrs["IPAM"]["Config"]
    assert first == {"Subnet": "fd00:390::1/64"}
    assert "." in second["Subnet"]
    assert second["Gateway"]
    config = client.api.create_endpoint_config(ipv6_address="fd00:390::f00d")
    made = client.containers.run("busybox", "top", network="four", networking_config={"four": config}, detach=True)
    made.reload()
    endpoint = made.attrs["NetworkSettings"]["Networks"]["four"]
    assert endpoint["IPAMConfig"] == {"IPv6Address": "fd00:390::f00d"}
    assert endpoint["IPAddress"]
    assert not endpoint["GlobalIPv6Address"]
    network.disconnect(made)
    with pytest.raises(APIError, match="no configured subnet or ip-range contain the IP address fd00:391::2"):
        network.connect(made, ipv6_address="fd00:391::2")
    with pytest.raises(APIError, match="only when connecting to networks with user configured subnets"):
        network.connect(made, ipv4_address="10.9.9.9")
    with pytest.raises(APIError, match="it should be fd00:390::/64"):
        client.networks.create("six", enable_ipv6=True, ipam=asked)


def test_networks_that_cannot_be(client: docker.DockerClient) -> None:
    for driver in ("host", "no-such-driver"):
        with pytest.raises(APIError):
            client.networks.create("never", driver=driver)
    with pytest.raises(APIError):
        client.networks.get("bridge").remove()
    with pytest.raises(APIError) as failure:
        client.networks.create("never", driver="overlay", attachable=True)
    assert failure.value.status_code == 403
    assert "not a swarm manager" in failure.value.explanation


def test_volumes(client: docker.DockerClient) -> None:
    volume = client.volumes.create("kept", driver="local", labels={"key": "value"})
    assert (volume.name, volume.attrs["Labels"]) == ("kept", {"key": "value"})
    assert client.volumes.get("kept").attrs == volume.attrs
    assert volume in client.volumes.list(filters={"name": "kep"})
    assert client.volumes.list(filters={"name": "foobar"}) == []
    assert client.containers.run("busybox", "sh -c 'echo x > /v/y; cat /v/y'", volumes=["kept:/v"]) == b"x\n"
    with pytest.raises(APIError) as failure:
        volume.remove()
    assert failure.value.status_code == 409
    client.containers.prune()
    volume.remove(force=True)
    with pytest.raises(NotFound):
        client.volumes.get("kept")
    with pytest.raises(NotFound):
        client.api.remove_volume("kept")
    with pytest.raises(APIError) as failure:
        client.volumes.create("never", driver="this-plugin-does-not-exist")
    assert failure.value.status_code in (400, 404)
    nameless = client.volumes.create()
    assert client.volumes.prune()["VolumesDeleted"] == [nameless.name]


def test_events(client: docker.DockerClient) -> None:
    stream = client.events(decode=True, filters={"type": "container", "event": ["create", "die", "destroy"]})
    seen: list[str] = []

    def listen() -> None:
        for event in stream:
            seen.append(event["Action"])
            if event["Action"] == "destroy":
                return

    listener = threading.Thread(target=listen)
    listener.start()
    made = client.containers.run("busybox", "true", detach=True)
    made.wait()
    made.remove()
    listener.join(10)
    stream.close()
    assert seen == ["create", "die", "destroy"]
    until = client.info()["SystemTime"]
    again = client.api.events(since=0, until=int(docker.utils.datetime_to_timestamp(_time(until))) + 1, decode=True)
    assert "destroy" in {event.get("Action") for event in again}


def _time(text: str) -> "docker.utils.datetime":
    from datetime import datetime

    return datetime.fromisoformat(text[:19])


def test_the_engine(client: docker.DockerClient) -> None:
    assert client.ping() is True
    version = client.version()
    assert {"Version", "ApiVersion", "GoVersion", "Platform", "Components"} <= set(version)
    assert client.api.api_version == version["ApiVersion"]
    info = client.info()
    assert {"ID", "Name", "Containers", "Images", "Debug", "Swarm", "Runtimes"} <= set(info)
    assert info["Swarm"]["LocalNodeState"] == "inactive"
    assert {"LayersSize", "Images", "Containers", "Volumes"} <= set(client.df())
    with pytest.raises(APIError):
        client.login("someone", "secret", registry="https://127.0.0.1:1/v1/")


def test_what_only_a_swarm_has(client: docker.DockerClient) -> None:
    asked: tuple[Callable[[], object], ...] = (
        client.nodes.list, client.services.list, client.secrets.list, client.configs.list, client.api.inspect_swarm,
        lambda: client.secrets.create(name="x", data=b"y"), lambda: client.services.get("x"),
    )  # fmt: skip
    for ask in asked:
        with pytest.raises(APIError, match="This node is not a swarm manager") as failure:
            ask()
        assert failure.value.status_code == 503
    assert client.swarm.leave(force=True) is True
    with pytest.raises(APIError, match="not part of a swarm"):
        client.swarm.leave()
    with pytest.raises(APIError, match="not implemented"):
        client.swarm.init()
    assert client.plugins.list() == []
    with pytest.raises(NotFound):
        client.plugins.get("none/such")


@pytest.mark.parametrize("version", ["1.24", "1.35", "1.44", "1.47"])
def test_older_api_versions(client: docker.DockerClient, version: str) -> None:
    client.api._version = version
    assert client.containers.run("busybox", "echo old", remove=True) == b"old\n"
    made = client.containers.run("busybox", "sleep 60", mac_address="02:42:ac:11:00:0a", detach=True)
    made.reload()
    assert made.attrs["NetworkSettings"]["MacAddress"] == "02:42:ac:11:00:0a"
