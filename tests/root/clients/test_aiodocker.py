"""aiodocker, the asyncio client, against the engine."""

import asyncio
import io
import tarfile
import time
from collections.abc import AsyncIterator
from typing import Any

import aiodocker
import pytest
from aiodocker.containers import DockerContainer
from aiodocker.exceptions import DockerError

from tests.harness.engine import EngineProcess

pytestmark = [pytest.mark.root, pytest.mark.filterwarnings("ignore:Unclosed connection:ResourceWarning")]


@pytest.fixture
async def client(engine: EngineProcess) -> AsyncIterator[aiodocker.Docker]:
    async with aiodocker.Docker(url=engine.address) as client:
        yield client


async def run(client: aiodocker.Docker, *command: str, **config: Any) -> DockerContainer:  # the API's own JSON
    return await client.containers.run({"Image": "busybox", "Cmd": list(command), **config})


async def test_containers_run_and_log(client: aiodocker.Docker) -> None:
    made = await run(client, "sh", "-c", "echo one; echo two >&2")
    followed = [line async for line in made.log(stdout=True, stderr=True, follow=True)]
    assert sorted(followed) == ["one\n", "two\n"]
    assert (await made.wait())["StatusCode"] == 0
    assert await made.log(stdout=True) == ["one\n"]
    assert [one.id for one in await client.containers.list(all=True)] == [made.id]
    with pytest.raises(DockerError) as failure:
        await client.containers.create({"Image": "surely_not_here"})
    assert failure.value.status == 404


async def test_attach(client: aiodocker.Docker) -> None:
    streams = {"AttachStdin": True, "AttachStdout": True, "OpenStdin": True}
    made = await client.containers.create({"Image": "busybox", "Cmd": ["cat"], **streams})
    async with made.attach(stdin=True, stdout=True, stderr=True) as stream:
        await made.start()
        await stream.write_in(b"to and fro\n")
        message = await asyncio.wait_for(stream.read_out(), 10)
    assert message
    assert (message.stream, message.data) == (1, b"to and fro\n")


async def test_attach_over_websocket(client: aiodocker.Docker) -> None:
    made = await client.containers.create({"Image": "busybox", "Cmd": ["cat"], "OpenStdin": True, "Tty": True})
    await made.start()
    socket = await made.websocket(stdin=True, stdout=True, stream=True)
    await socket.send_bytes(b"hello\n")
    assert await asyncio.wait_for(socket.receive_bytes(), 10)
    await socket.close()


async def test_exec(client: aiodocker.Docker) -> None:
    made = await run(client, "sleep", "300")
    exec = await made.exec(["sh", "-c", "read x; echo got $x; echo bad >&2"], stdin=True)
    async with exec.start() as stream:
        await stream.write_in(b"that\n")
        said = [await asyncio.wait_for(stream.read_out(), 10) for _ in range(3)]
    assert sorted((one.stream, one.data) for one in said if one) == [(1, b"got that\n"), (2, b"bad\n")]
    assert said[-1] is None
    assert (await exec.inspect())["ExitCode"] == 0
    exec = await made.exec(["cat"], stdin=True, tty=True)
    async with exec.start() as stream:
        await exec.resize(h=30, w=90)
        await stream.write_in(b"\x04")
        assert await asyncio.wait_for(stream.read_out(), 10) is None


async def test_archives_and_stats(client: aiodocker.Docker) -> None:
    made = await run(client, "sleep", "300")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        entry = tarfile.TarInfo("file")
        entry.size = 4
        tar.addfile(entry, io.BytesIO(b"data"))
    await made.put_archive("/tmp", buffer.getvalue())
    archive = await made.get_archive("/tmp/file")
    assert archive.getnames() == ["file"]
    assert (await made.stats(stream=False))[0]["pids_stats"]["current"] == 1
    async for sample in made.stats(stream=True):
        assert sample["memory_stats"]["usage"] > 0
        break


async def test_events(client: aiodocker.Docker) -> None:
    begun = f"{time.time():.6f}"
    made = await run(client, "true")
    await made.wait()
    events = client.events.subscribe(create_task=False)
    async with asyncio.TaskGroup() as tasks:
        listening = tasks.create_task(client.events.run(since=begun))
        await made.delete()
        actions: list[str] = []
        while "destroy" not in actions:
            event = await asyncio.wait_for(events.get(), 10)
            if event and event["Actor"]["ID"] == made.id:
                actions.append(event["Action"])
        listening.cancel()
    assert actions == ["create", "start", "die", "destroy"]


async def test_images_networks_and_volumes(client: aiodocker.Docker) -> None:
    image = await client.images.inspect("busybox")
    assert await client.images.tag("busybox", repo="other", tag="one")
    assert image["Id"] in [one["Id"] for one in await client.images.list(filter="other")]
    exported = b""
    async with client.images.export_image("other:one") as content:
        exported = await content.read(-1)
    assert len(exported) > 100_000
    await client.images.delete("other:one")

    network = await client.networks.create({"Name": "quiet"})
    made = await run(client, "sleep", "300")
    await network.connect({"Container": made.id, "EndpointConfig": {"Aliases": ["nick"]}})
    assert list((await network.show())["Containers"]) == [made.id]
    await network.disconnect({"Container": made.id})
    assert await network.delete()

    volume = await client.volumes.create({"Name": "kept", "Labels": {"a": "b"}})
    assert (await volume.show())["Labels"] == {"a": "b"}
    await volume.delete()
    assert (await client.volumes.list())["Volumes"] in ([], None)
