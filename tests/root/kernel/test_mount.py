"""Detached mounts, processes and namespaces on the real kernel."""

import os
import signal
from pathlib import Path

import pytest

from hafen.kernel import consts, mount, namespaces, process, tty

pytestmark = pytest.mark.root


def names(fd: int) -> list[str]:
    directory = os.open(".", os.O_RDONLY, dir_fd=fd)
    try:
        return sorted(os.listdir(directory))
    finally:
        os.close(directory)


def layers(directory: Path, *which: str) -> list[str]:
    for name in which:
        (directory / name).mkdir()
        (directory / name / f"in-{name}").touch()
    return [str(directory / name) for name in which]


def test_overlay_is_in_no_namespace(tmp_path: Path) -> None:
    one, two = layers(tmp_path, "one", "two")
    for name in ("upper", "work"):
        (tmp_path / name).mkdir()
    before = Path("/proc/self/mountinfo").read_text()
    fd = mount.overlay_fd([one, two], str(tmp_path / "upper"), str(tmp_path / "work"))
    assert names(fd) == ["in-one", "in-two"]
    os.mkdir("new", dir_fd=fd)
    assert Path("/proc/self/mountinfo").read_text() == before
    os.close(fd)
    assert (tmp_path / "upper/new").is_dir()


def test_read_only_overlays(tmp_path: Path) -> None:
    one, two = layers(tmp_path, "one", "two")
    for lower in ([one], [one, two]):
        fd = mount.overlay_fd(lower, None, None)
        with pytest.raises(OSError, match="Read-only"):
            os.mkdir("new", dir_fd=fd)
        os.close(fd)


def test_overlay_by_path_takes_awkward_names(tmp_path: Path) -> None:
    lower = layers(tmp_path, "a:b", "c,d", "e\\f")
    target = tmp_path / "target"
    target.mkdir()
    mount.mount_overlay(str(target), lower, None, None)
    try:
        assert sorted(entry.name for entry in target.iterdir()) == ["in-a:b", "in-c,d", "in-e\\f"]
    finally:
        mount.umount(str(target))


def test_errors_carry_the_kernels_words(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        mount.overlay_fd(["/no/such", "/"], None, None)
    assert caught.value.filename in ("lowerdir+=/no/such", "/no/such")  # the latter before Linux 6.7
    with pytest.raises(OSError, match=r"tmpfs: Bad value for 'size'"):
        mount.new_mount("tmpfs", "", (("size", "nonsense"),))
    with pytest.raises(OSError, match="overlay options exceed a page"):
        mount.mount_overlay(str(tmp_path), [f"/{'x' * 200}{number}" for number in range(30)], None, None)


def test_clone_gives_a_pidfd_and_namespaces() -> None:
    child = process.clone3(consts.CLONE_NEWPID | consts.CLONE_NEWUTS)
    if child.pid == 0:
        code = 1
        try:
            namespaces.set_hostname("elsewhere")
            code = 40 + os.getpid()
        finally:
            os._exit(code)
    assert process.start_time(child.pid) > 0
    assert process.wait_pidfd(child.pidfd) == 41
    os.close(child.pidfd)
    assert os.uname().nodename != "elsewhere"


def test_signals_by_pidfd() -> None:
    child = process.clone3()
    if child.pid == 0:
        signal.pause()
        os._exit(0)
    assert not os.get_inheritable(child.pidfd)
    process.pidfd_send_signal(child.pidfd, signal.SIGKILL)
    assert process.wait_pidfd(child.pidfd) == 137
    with pytest.raises(ProcessLookupError):
        process.pidfd_send_signal(child.pidfd, signal.SIGKILL)
    os.close(child.pidfd)


def test_a_user_namespace_without_processes() -> None:
    fd = namespaces.new_user_namespace([namespaces.IDMap(0, 5000, 10)], [namespaces.IDMap(0, 6000, 10)])
    child = process.clone3()
    if child.pid == 0:
        code = 1
        try:
            namespaces.setns(fd, consts.CLONE_NEWUSER)
            code = 0 if Path("/proc/self/uid_map").read_text().split() == ["0", "5000", "10"] else 2
        finally:
            os._exit(code)
    assert process.wait_pidfd(child.pidfd) == 0
    os.close(child.pidfd)
    os.close(fd)


def test_pty_from_a_given_devpts() -> None:
    devpts = mount.new_mount("devpts", "", (("ptmxmode", "0666"),))
    pty = tty.open_pty(os.open("ptmx", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC, dir_fd=devpts))
    assert pty.number == 0
    tty.set_window_size(pty.master, 10, 20)
    assert tty.window_size(pty.slave) == (10, 20)
    before = tty.set_raw(pty.slave)
    os.write(pty.master, b"\x03x")
    assert os.read(pty.slave, 2) == b"\x03x"
    tty.restore(pty.slave, before)
    for fd in (pty.master, pty.slave, devpts):
        os.close(fd)


def test_execve_passes_the_environment_as_it_is() -> None:
    read, write = os.pipe()
    child = process.clone3()
    if child.pid == 0:
        try:
            os.dup2(write, 1)
            process.execve("/usr/bin/env", ["env"], ["B=2", "A=1", "A=again", "ODD"])
        finally:
            os._exit(1)
    os.close(write)
    with os.fdopen(read) as output:
        assert output.read() == "B=2\nA=1\nA=again\nODD\n"
    assert process.wait_pidfd(child.pidfd) == 0
    os.close(child.pidfd)
