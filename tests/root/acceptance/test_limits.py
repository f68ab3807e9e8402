"""Limits and walls, proved from inside the container and from outside."""

import time
from pathlib import Path

from tests.harness.engine import EngineProcess


def status(engine: EngineProcess, name: str, line: str) -> str:
    text = engine.docker("exec", name, "cat", "/proc/self/status").stdout
    return next(row.split(":", 1)[1].strip() for row in text.splitlines() if row.startswith(f"{line}:"))


def test_memory_limit_kills_and_says_so(engine: EngineProcess, name: str) -> None:
    said = engine.docker("run", "--name", name, "-m", "32m", "busybox", "sh", "-c", "tail /dev/zero", check=False)
    assert said.code == 137, said
    assert engine.docker("inspect", "-f", "{{.State.OOMKilled}} {{.State.ExitCode}}", name).stdout == "true 137\n"


def test_process_limit(engine: EngineProcess, name: str) -> None:
    engine.docker("run", "-d", "--name", name, "--pids-limit", "8", "busybox", "sleep", "600")
    script = "for i in 1 2 3 4 5 6 7 8 9 10; do sleep 5 & done; wait"
    said = engine.docker("exec", name, "sh", "-c", script, check=False)
    assert "can't fork" in said.stderr


def test_cpu_quota_is_kept(engine: EngineProcess, name: str) -> None:
    engine.docker("run", "-d", "--name", name, "--cpus", "0.2", "busybox", "sh", "-c", "while :; do :; done")
    pid = engine.docker("inspect", "-f", "{{.State.Pid}}", name).stdout.strip()
    begin = time.monotonic(), cpu_seconds(pid)
    time.sleep(2)  # the time over which the share is measured
    spent = (cpu_seconds(pid) - begin[1]) / (time.monotonic() - begin[0])
    assert 0.1 < spent < 0.3


def cpu_seconds(pid: str) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def test_read_only_root(engine: EngineProcess) -> None:
    said = engine.docker(
        "run",
        "--rm",
        "--read-only",
        "--tmpfs",
        "/tmp",
        "busybox",
        "sh",
        "-c",
        "echo x >/tmp/x && echo x >/x",
        check=False,
    )
    assert said.code != 0
    assert "Read-only file system" in said.stderr
    assert "/tmp/x" not in said.stderr


def test_default_capabilities_are_dockers(engine: EngineProcess, name: str) -> None:
    engine.docker("run", "-d", "--name", name, "busybox", "sleep", "600")
    assert status(engine, name, "CapEff") == "00000000a80425fb"
    assert status(engine, name, "CapBnd") == "00000000a80425fb"
    assert status(engine, name, "Seccomp") == "2"


def test_dropped_capability_is_refused(engine: EngineProcess) -> None:
    allowed = engine.docker("run", "--rm", "busybox", "chown", "1:1", "/tmp")
    assert allowed.code == 0
    refused = engine.docker("run", "--rm", "--cap-drop", "CHOWN", "busybox", "chown", "1:1", "/tmp", check=False)
    assert refused.code == 1
    assert "Operation not permitted" in refused.stderr


def test_seccomp_refuses_what_dockers_does(engine: EngineProcess) -> None:
    script = "unshare -U true; unshare -n true; mount -t tmpfs t /tmp"
    refused = engine.docker("run", "--rm", "busybox", "sh", "-c", script, check=False)
    assert refused.stderr.lower().count("not permitted") + refused.stderr.lower().count("permission denied") == 3
    allowed = engine.docker("run", "--rm", "--security-opt", "seccomp=unconfined", "busybox", "unshare", "-U", "true")
    assert allowed.code == 0


def test_privileged_may(engine: EngineProcess) -> None:
    engine.docker("run", "--rm", "--privileged", "busybox", "mount", "-t", "tmpfs", "t", "/tmp")


def test_no_host_process_is_visible(engine: EngineProcess) -> None:
    listed = engine.docker("run", "--rm", "busybox", "sh", "-c", "ls -d /proc/[0-9]*; echo $$").stdout.split()
    assert listed[-1] == "1"
    assert all(int(Path(path).name) < 10 for path in listed[:-1])


def test_kernel_files_are_masked(engine: EngineProcess) -> None:
    script = (
        "cat /proc/kcore | wc -c; cat /proc/keys | wc -c; ls /sys/firmware | wc -l; echo 1 > /proc/sys/kernel/panic"
    )
    said = engine.docker("run", "--rm", "busybox", "sh", "-c", script, check=False)
    assert said.stdout.split() == ["0", "0", "0"]
    assert "Read-only file system" in said.stderr


def test_the_root_of_the_mount_namespace_is_the_containers_own(engine: EngineProcess, name: str) -> None:
    engine.docker("run", "-d", "--name", name, "busybox", "sleep", "600")
    mounts = engine.docker("exec", name, "cat", "/proc/self/mountinfo").stdout.splitlines()
    assert mounts[0].split()[4] == "/"
    assert " - overlay " in mounts[0]
    assert engine.docker("exec", name, "ls", "/proc/1/root/").stdout == engine.docker("exec", name, "ls", "/").stdout


def test_nothing_of_a_running_container_is_mounted_on_the_host(engine: EngineProcess, name: str) -> None:
    before = Path("/proc/self/mountinfo").read_text()
    engine.docker("run", "-d", "--name", name, "-v", "/anonymous", "--tmpfs", "/t", "busybox", "sleep", "600")
    assert Path("/proc/self/mountinfo").read_text() == before


def test_the_interpreter_cannot_be_written_from_inside(engine: EngineProcess, name: str) -> None:
    """CVE-2019-5736: neither the container's init nor an exec can write the program that started it."""
    engine.docker("run", "-d", "--name", name, "busybox", "sleep", "600")
    script = "for p in /proc/[0-9]*/exe; do readlink $p; done"
    assert set(engine.docker("exec", name, "sh", "-c", script).stdout.split()) == {"/bin/busybox"}
    own = engine.docker("run", "--rm", "busybox", "/proc/self/exe", "--help", check=False)
    assert "Traceback" not in own.stderr


def test_numeric_and_named_users(engine: EngineProcess) -> None:
    def identity(*flags: str) -> str:
        return engine.docker("run", "--rm", *flags, "busybox", "id").stdout.strip()

    assert identity("-u", "daemon").startswith("uid=1(daemon) gid=1(daemon)")
    assert identity("-u", "1234:56").startswith("uid=1234 gid=56")
    assert "10" in identity("-u", "1234", "--group-add", "10").partition("groups=")[2]
