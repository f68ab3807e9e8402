"""The interpreter that a container's first process still is when it executes cannot be changed (CVE-2019-5736)."""

import fcntl
import hashlib
import os
import sys

import pytest

from hafen.engine.zygote import sealed_interpreter
from tests.root.shim.conftest import World

pytestmark = pytest.mark.root


EVERY = ["CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_SYS_PTRACE", "CAP_SYS_ADMIN", "CAP_FOWNER"]


def digests() -> list[str]:
    with open("/proc/self/maps") as maps:
        files = {line.split()[-1] for line in maps if "libpython" in line}
    found = []
    for path in (os.path.realpath(sys.executable), *sorted(files)):
        with open(path, "rb") as file:
            found.append(hashlib.sha256(file.read()).hexdigest())
    return found


async def test_a_container_cannot_write_the_interpreter(world: World) -> None:
    """The attack: the entrypoint is `/proc/self/exe`, which is the interpreter; once it runs, write to it."""
    before = digests()
    spawned = world.request("/proc/self/exe", "--version")
    stream = world.stream(multiplexed=False)
    try:
        shim = await world.spawn(spawned, [stream])
    except Exception as error:  # noqa: BLE001 - whichever: what counts is below
        print(error)
    else:
        print(await stream.rest(), await shim.exited)
    assert digests() == before


async def test_no_process_of_ours_can_be_opened_for_writing(world: World) -> None:
    """With the host's processes in sight and every capability that could help: the worst case."""
    zygote = world.link.zygote_pid
    script = (
        f"for pid in {zygote} $PPID; do readlink /proc/$pid/exe; done;"
        f"for pid in {zygote} $PPID; do (echo x > /proc/$pid/exe) 2>&1; (echo x >> /proc/$pid/exe) 2>&1; done"
    )
    before = digests()
    _, out, _ = await world.run("sh", "-c", script, pid="host", capabilities=EVERY)
    lines = out.decode().splitlines()
    assert lines[0].startswith("/memfd:hafen-python")
    assert lines[1].startswith("/memfd:hafen-python")
    assert len(lines) == 6, lines
    assert all("can't create" in line for line in lines[2:]), lines
    assert digests() == before


def test_the_copy_is_sealed() -> None:
    fd = sealed_interpreter()
    try:
        with pytest.raises(PermissionError):
            os.write(fd, b"x")
        with pytest.raises(PermissionError):
            os.ftruncate(fd, 0)
        with pytest.raises(PermissionError):
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, 0)
        assert hashlib.sha256(os.pread(fd, 1 << 30, 0)).hexdigest() == digests()[0]
    finally:
        os.close(fd)
