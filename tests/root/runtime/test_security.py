"""One test for each security line of the design that concerns the runtime, by its CVE."""

import os
import subprocess
from pathlib import Path

import pytest

from hafen.errors import HafenError, InvalidArgument, System
from hafen.kernel import consts, fs, namespaces, process
from hafen.runtime import parent
from hafen.runtime.child import Stdio
from hafen.runtime.stage import Stage
from hafen.runtime.steps import SetSysctls
from hafen.runtime.sync import Channel
from hafen.spec.runtime_config import from_json
from tests.harness.container import Document, Edit, Machine

pytestmark = pytest.mark.root

# The shell's own descriptor of the directory is closed again when the loop runs.
OPEN = "for fd in /proc/$$/fd/*; do [ -L $fd ] && echo ${fd##*/}; done"


def in_directory(cwd: str) -> Edit:
    return lambda document: document["process"].update(cwd=cwd)


def test_no_descriptor_leaks(machine: Machine) -> None:
    """CVE-2024-21626: neither a descriptor nor a working directory of the host reaches the program."""
    leak = os.open("/", os.O_RDONLY)
    os.set_inheritable(leak, True)
    try:
        assert machine.run("sh", "-c", OPEN).stdout.split() == ["0", "1", "2"]
        for number in range(3, 40):
            with pytest.raises(HafenError):
                machine.start("true", edit=in_directory(f"/proc/self/fd/{number}"))
    finally:
        os.close(leak)


def test_exec_no_descriptor_leaks(machine: Machine) -> None:
    """CVE-2024-21626 for exec."""
    running = machine.start("sleep", "60")
    assert machine.execute(running, "sh", "-c", OPEN).stdout.split() == ["0", "1", "2"]
    for number in range(3, 40):
        with pytest.raises(HafenError):
            machine.execute(running, "true", edit=in_directory(f"/proc/self/fd/{number}"))


def test_mount_targets_do_not_leave_the_root(machine: Machine) -> None:
    """CVE-2021-30465: links in the image lead to places inside the root, whatever they say."""
    outside = machine.directory / "outside"
    outside.mkdir()
    (machine.lower / "abs").symlink_to(outside)
    (machine.lower / "up").symlink_to("../../../../../../.." + str(outside))
    (machine.lower / "loop").symlink_to("loop")

    def edit(document: Document) -> None:
        document["mounts"] += [
            {"destination": "/abs/a", "type": "tmpfs", "source": "tmpfs"},
            {"destination": "/up/b", "type": "tmpfs", "source": "tmpfs"},
            {"destination": "/../../c", "type": "tmpfs", "source": "tmpfs"},
        ]

    out = machine.shell(f"grep -c -E ' ({outside}/[ab]|/c) ' /proc/self/mounts", edit)
    assert out == "3\n"
    assert list(outside.iterdir()) == []
    with pytest.raises(HafenError, match="loop"):
        machine.start("true", edit=lambda d: d["mounts"].append({"destination": "/loop/x", "type": "tmpfs"}))


def test_a_target_that_is_swapped_meanwhile_stays_inside(machine: Machine) -> None:
    """CVE-2021-30465, the race: another process swaps a directory of a shared volume with a link to the host."""
    shared = machine.directory / "shared"
    (shared / "dir").mkdir(parents=True)
    (shared / "link").symlink_to("/etc")
    swapper = process.clone3()
    if swapper.pid == 0:
        directory = os.open(shared, os.O_RDONLY)
        try:
            while True:
                fs.exchange(directory, "dir", "link")
        finally:
            os._exit(0)
    try:
        before = Path("/proc/self/mountinfo").read_text()
        for _ in range(30):
            try:
                running = machine.start("sleep", "60", edit=lambda d: d["mounts"].extend([
                    {"destination": "/v", "type": "bind", "source": str(shared), "options": ["rbind"]},
                    {"destination": "/v/dir/x", "type": "tmpfs", "source": "tmpfs"},
                ]))  # fmt: skip
            except HafenError:
                continue  # the name was missing, or a link, at that moment
            mounts = Path(f"/proc/{running.pid}/mountinfo").read_text().split("\n")
            machine.stop(running)
            places = [line.split()[4] for line in mounts if " tmpfs " in line and line.split()[4].endswith("/x")]
            assert all(place in ("/v/dir/x", "/v/link/x", "/etc/x") for place in places)
        assert Path("/proc/self/mountinfo").read_text() == before
        assert not Path("/etc/x").exists()
    finally:
        process.pidfd_send_signal(swapper.pidfd, 9)
        process.wait_pidfd(swapper.pidfd)
        os.close(swapper.pidfd)


def test_masks_use_the_real_null_device(machine: Machine) -> None:
    """CVE-2025-31133: an image's /dev/null, even a link to what is to be written, is never what a mask binds."""
    secret = machine.directory / "secret"
    secret.write_text("secret")
    (machine.lower / "dev").mkdir(exist_ok=True)
    (machine.lower / "dev/null").symlink_to("/proc/sys/kernel/core_pattern")

    def edit(document: Document) -> None:  # no tmpfs at /dev: the image's own is used
        document["mounts"] = [mount for mount in document["mounts"] if not mount["destination"].startswith("/dev")]
        document["linux"]["maskedPaths"] = ["/proc/keys"]
        document["linux"]["devices"] = []

    with pytest.raises(System, match="/dev/null exists in the root and is another file"):
        machine.start("true", edit=edit)
    (machine.lower / "dev/null").unlink()
    assert machine.shell("stat -c %t:%T /proc/keys", edit) == "1:3\n"


def test_the_hosts_null_device_is_verified(machine: Machine) -> None:
    """CVE-2025-31133: where /dev/null is another file, nothing is masked with it."""
    fake = machine.directory / "null"
    fake.touch()
    child = process.clone3(consts.CLONE_NEWNS)
    if child.pid == 0:
        code = 1
        try:
            subprocess.run(["mount", "--make-rprivate", "/"], check=True)
            subprocess.run(["mount", "--bind", fake, "/dev/null"], check=True)
            Stage(Channel.pair()[0], bundle="", state={}).null_device()
        except System:
            code = 0
        finally:
            os._exit(code)
    assert process.wait_pidfd(child.pidfd) == 0
    os.close(child.pidfd)


@pytest.mark.parametrize("target", ["/proc/sysrq-trigger", "/etc/passwd", "../escape"])
def test_console_is_bound_to_the_console_only(machine: Machine, target: str) -> None:
    """CVE-2025-52565: a link at /dev/console does not make the bind land on another file."""
    (machine.lower / "dev").mkdir(exist_ok=True)
    (machine.lower / "dev/console").symlink_to(target)

    def edit(document: Document) -> None:
        document["process"]["terminal"] = True
        document["mounts"] = [m for m in document["mounts"] if m["destination"] in ("/proc", "/dev/pts")]

    with pytest.raises(HafenError, match="opening the terminal"):
        machine.start("true", edit=edit)


def test_proc_must_be_mounted_on_a_directory(machine: Machine) -> None:
    """CVE-2019-19921, CVE-2023-27561: a link at /proc would leave the real one unmasked."""
    (machine.lower / "proc").rmdir()
    (machine.lower / "elsewhere").mkdir()
    (machine.lower / "proc").symlink_to("elsewhere")
    with pytest.raises(HafenError, match="mounting proc at /proc"):
        machine.start("true")


@pytest.mark.parametrize("destination", ["/proc", "/proc/self/attr", "/proc/sys/kernel", "/alias/sys"])
def test_nothing_is_mounted_over_parts_of_proc(machine: Machine, destination: str) -> None:
    """CVE-2019-16884: a volume at /proc, so that labels are written to a file of the attacker."""
    fake = machine.directory / "fake"
    fake.mkdir()
    (machine.lower / "alias").symlink_to("/proc")
    with pytest.raises(InvalidArgument, match="because it is inside /proc"):
        machine.start("true", edit=lambda d: d["mounts"].append(
            {"destination": destination, "type": "bind", "source": str(fake), "options": ["rbind"]}
        ))  # fmt: skip


def test_lxcfs_files_may_be_mounted(machine: Machine) -> None:
    fake = machine.directory / "uptime"
    fake.write_text("1.00 1.00\n")
    out = machine.shell("cat /proc/uptime", lambda d: d["mounts"].append(
        {"destination": "/proc/uptime", "type": "bind", "source": str(fake), "options": ["bind"]}
    ))  # fmt: skip
    assert out == "1.00 1.00\n"


def test_writes_below_proc_go_to_a_verified_procfs() -> None:
    """CVE-2019-16884, CVE-2025-52881: neither a fake /proc nor one with something mounted over a file is written to."""
    child = process.clone3(consts.CLONE_NEWNS | consts.CLONE_NEWUTS)
    if child.pid == 0:
        code = 1
        try:
            subprocess.run(["mount", "--make-rprivate", "/"], check=True)
            stage = Stage(Channel.pair()[0], bundle="", state={})
            stage.open_proc()
            # The attacker redirects a file of procfs to another of its files.
            subprocess.run(["mount", "--bind", "/proc/self/oom_score_adj", "/proc/sys/kernel/domainname"], check=True)
            try:
                SetSysctls((("kernel/domainname", "5"),)).perform(stage)
            except OSError:
                code = 0 if Path("/proc/self/oom_score_adj").read_text() != "5\n" else 2
            subprocess.run(["mount", "-t", "tmpfs", "none", "/proc"], check=True)
            try:
                stage.open_proc()
                code = 3
            except System:
                pass
        finally:
            os._exit(code)
    assert process.wait_pidfd(child.pidfd) == 0
    os.close(child.pidfd)


def test_the_top_of_the_mount_namespace_is_the_containers_root(machine: Machine) -> None:
    running = machine.start("sleep", "60")
    assert top_of(running.pid) == os.stat(f"/proc/{running.pid}/root").st_ino
    assert "overlay" in Path(f"/proc/{running.pid}/mountinfo").read_text().splitlines()[0]


def top_of(pid: int) -> int:
    """The inode that whoever enters the mount namespace of `pid` finds at "/"."""
    read, write = os.pipe()
    child = process.clone3()
    if child.pid == 0:
        namespaces.setns(os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY), consts.CLONE_NEWNS)
        os.write(write, str(os.stat("/").st_ino).encode())
        os._exit(0)
    process.wait_pidfd(child.pidfd)
    os.close(child.pidfd)
    os.close(write)
    try:
        return int(os.read(read, 32))
    finally:
        os.close(read)


def test_an_engine_inside_a_chroot_does_not_let_exec_land_on_the_host(machine: Machine) -> None:
    """Where the runtime runs in a chroot, the top of the namespace is re-rooted (Docker 26 lets exec land outside)."""
    new = machine.directory / "chroot"
    new.mkdir()
    (machine.lower / "mark").write_text("container\n")
    child = process.clone3(consts.CLONE_NEWNS)
    if child.pid == 0:
        code = 9
        try:
            subprocess.run(["mount", "--make-rprivate", "/"], check=True)
            subprocess.run(["mount", "--rbind", "/", new], check=True)
            os.chroot(new)
            os.chdir("/")  # noqa: TID251 - a process of its own
            running = machine.start("sleep", "60")
            code = machine.execute(running, "grep", "-q", "container", "/mark").code
            machine.stop(running)
        finally:
            os._exit(code)
    assert process.wait_pidfd(child.pidfd) == 0
    os.close(child.pidfd)


def test_setup_is_out_of_reach_of_processes_inside(machine: Machine) -> None:
    """CVE-2016-9962: a process of the container's user cannot look into the one that is being set up for it."""
    document = machine.document("true", edit=lambda d: d["process"].update(user={"uid": 1000, "gid": 1000}))
    bundle, rootfs = machine.bundle()
    with open("/dev/null", "r+b", buffering=0) as null:
        stdio = Stdio(null.fileno(), null.fileno(), null.fileno())
        created = parent.create(from_json(document), container_id="x", bundle=bundle, rootfs=rootfs, stdio=stdio)
    try:
        assert os.stat(f"/proc/{created.pid}").st_uid == 1000
        assert os.stat(f"/proc/{created.pid}/maps").st_uid == 0  # proc(5): so it is for what is not dumpable
    finally:
        created.abort()
