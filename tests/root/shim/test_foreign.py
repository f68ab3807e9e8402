"""The same containers with runc and crun in the place of our runtime."""

import shutil
import signal
from pathlib import Path

import pytest

from hafen import errors
from tests.root.shim.conftest import World, exited, nothing_left, process_args

RUNTIMES = [path for path in map(shutil.which, ("runc", "crun")) if path]

pytestmark = [pytest.mark.root, pytest.mark.skipif(not RUNTIMES, reason="neither runc nor crun is installed")]


def refuses_this_machine(runtime: str) -> bool:
    """crun wants either version of cgroups alone; this machine may have controllers in both."""
    unified = Path("/sys/fs/cgroup/unified/cgroup.controllers")
    return Path(runtime).name == "crun" and unified.exists() and unified.read_text().strip() != ""


@pytest.fixture(autouse=True)
def _skip(request: pytest.FixtureRequest) -> None:
    params = getattr(request.node, "callspec", None)
    if params is not None and refuses_this_machine(params.params["runtime"]):
        pytest.skip("crun supports no hybrid cgroups")


@pytest.mark.parametrize("runtime", RUNTIMES, ids=lambda path: Path(path).name)
class TestForeign:
    async def test_output_user_and_exit(self, world: World, runtime: str) -> None:
        (world.root / "etc/passwd").write_text("root::0:0::/root:/bin/sh\nme::1234:5678::/home:/bin/sh\n")
        request = world.request("sh", "-c", "id -u; id -g; echo $HOME; exit 5", runtime=runtime, user={"name": "me"})
        stream = world.stream()
        shim = await world.spawn(request, [stream])
        assert await stream.output() == (b"1234\n5678\n/home\n", b"")
        assert (await exited(shim)).code == 5
        nothing_left(request)

    async def test_network_namespace_exec_pause_and_kill(self, world: World, runtime: str) -> None:
        handle = await world.link.netns()
        request = world.request("sleep", "1000", runtime=runtime, netns_fd=handle.fd)
        shim = await world.spawn(request)
        handle.close()
        stream = world.stream(stdin=True)
        run = await shim.exec("e1", process_args("sh", "-c", "cat; ip -o addr | head -1; exit 3"), stream.client)
        await stream.send(b"typed\n")
        stream.end_input()
        out, err = await stream.output()
        assert out.startswith(b"typed\n1: lo    inet 127.0.0.1"), err
        assert await run.exited == 3
        await shim.pause()
        await shim.resume()
        with pytest.raises(errors.StartFailed) as caught:
            await shim.exec("e2", process_args("nosuch"))
        assert caught.value.exit_code == 127
        await shim.signal(signal.SIGKILL)
        assert (await exited(shim)).code == 137
        nothing_left(request)

    async def test_terminal(self, world: World, runtime: str) -> None:
        stream = world.stream(stdin=True, multiplexed=False)
        script = "stty size; trap 'stty size' WINCH; echo ready; while :; do sleep 0.01; done"
        request = world.request(
            "sh", "-c", script, runtime=runtime, terminal=True, open_stdin=True, console_size=(33, 77)
        )
        shim = await world.spawn(request, [stream])
        assert b"33 77" in await stream.until(b"ready")
        await shim.resize(40, 120)
        assert b"40 120" in await stream.until(b"120")
        await stream.send(b"\x03")
        await stream.rest()
        assert (await exited(shim)).code == 130

    async def test_what_cannot_start(self, world: World, runtime: str) -> None:
        request = world.request("nosuch", runtime=runtime)
        with pytest.raises(errors.StartFailed) as caught:
            await world.spawn(request)
        assert caught.value.exit_code == 127
        nothing_left(request)


async def test_a_runtime_that_is_not_there(world: World) -> None:
    request = world.request("true", runtime="/nosuch/runc")
    with pytest.raises(errors.StartFailed, match="/nosuch/runc: No such file or directory"):
        await world.spawn(request)
    nothing_left(request)
