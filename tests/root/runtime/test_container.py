"""What a container sees and may do, from inside and outside."""

import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from hafen.errors import HafenError, InvalidArgument, NotImplemented, StartFailed
from hafen.kernel import caps, process
from hafen.runtime.parent import Options
from tests.harness.container import Document, Machine

pytestmark = pytest.mark.root


def mount(destination: str, fstype: str, *options: str, source: str = "none") -> dict[str, Any]:
    return {"destination": destination, "type": fstype, "source": source, "options": list(options)}


def call(*args: str | Path) -> None:
    subprocess.run(args, check=True)


def remove_cgroups(machine: Machine) -> None:
    """Of containers whose runner ended before them."""
    for path in cgroup_paths(f"test-{machine.directory.name}-"):
        path.rmdir()


def status_of(text: str) -> dict[str, str]:
    return {key: value.strip() for key, _, value in (line.partition(":") for line in text.splitlines())}


def test_output_and_exit_code(machine: Machine) -> None:
    result = machine.run("sh", "-c", "cat; echo err >&2; exit 7", stdin=b"hello")
    assert (result.code, result.stdout, result.stderr) == (7, "hello", "err\n")


def test_death_by_signal(machine: Machine) -> None:
    running = machine.start("sleep", "60")
    process.pidfd_send_signal(running.pidfd, signal.SIGKILL)
    assert machine.wait(running) == 137


def test_own_processes_names_and_mounts(machine: Machine) -> None:
    def edit(document: Document) -> None:
        document["hostname"], document["domainname"] = "box", "example.org"

    out = machine.shell("echo $$; hostname; cat /proc/sys/kernel/domainname; ls -d /proc/[0-9]*; mount", edit)
    lines = out.splitlines()
    assert lines[:3] == ["1", "box", "example.org"]
    assert len([line for line in lines if line.startswith("/proc/")]) <= 2
    mounts = [line for line in lines if " on " in line]
    assert mounts[0].startswith("overlay on / ")
    assert not [line for line in mounts if "/work" in line.split(" type ")[0]]
    assert os.uname().nodename != "box"


def test_default_devices(machine: Machine) -> None:
    out = machine.shell(
        "cd /dev && for f in null zero full random urandom tty; do stat -c '%n %t:%T %a' $f; done;"
        " readlink ptmx; readlink fd; echo x > null"
    )
    assert out.splitlines() == [
        "null 1:3 666", "zero 1:5 666", "full 1:7 666", "random 1:8 666", "urandom 1:9 666", "tty 5:0 666",
        "pts/ptmx", "/proc/self/fd",
    ]  # fmt: skip


def test_devices_of_the_configuration(machine: Machine) -> None:
    def edit(document: Document) -> None:
        document["linux"]["devices"] = [
            {"path": "/dev/deep/kmsg", "type": "c", "major": 1, "minor": 11, "fileMode": 0o640, "uid": 3, "gid": 4},
            {"path": "/dev/pipe", "type": "p"},
        ]

    assert machine.shell("stat -c '%t:%T %a %u:%g' /dev/deep/kmsg; stat -c %F /dev/pipe", edit) == (
        "1:b 640 3:4\nfifo\n"
    )


def test_root_is_written_to_the_upper_layer_only(machine: Machine) -> None:
    machine.shell("echo new > /new; rm /etc/group")
    assert (machine.upper / "new").read_text() == "new\n"
    assert not (machine.lower / "new").exists()
    assert (machine.lower / "etc/group").exists()


def test_read_only_root(machine: Machine) -> None:
    result = machine.run("sh", "-c", "echo x > /new", edit=lambda d: d["root"].update(readonly=True))
    assert result.code == 1
    assert "Read-only file system" in result.stderr


def test_binds(machine: Machine) -> None:
    source = machine.directory / "source"
    (source / "sub").mkdir(parents=True)
    (source / "file").write_text("host")

    def edit(document: Document) -> None:
        document["mounts"] += [
            mount("/rw", "bind", "rbind", source=str(source)),
            mount("/ro", "", "bind", "ro", source=str(source)),
            mount("/deep/er/file", "bind", "bind", "ro", source=str(source / "file")),
        ]

    out = machine.shell("echo in > /rw/in; cat /ro/in /deep/er/file; echo x 2>/dev/null > /ro/x || echo refused", edit)
    assert out == "in\nhostrefused\n"
    assert (source / "in").read_text() == "in\n"


def test_recursive_read_only(machine: Machine) -> None:
    source = machine.directory / "source"
    (source / "sub").mkdir(parents=True)
    call("mount", "-t", "tmpfs", "none", f"{source}/sub")
    try:
        script = "for f in /one/sub/x /all/sub/x; do (echo y > $f) 2>/dev/null && echo written || echo refused; done"
        out = machine.shell(
            script,
            lambda d: d["mounts"].extend([
                mount("/one", "bind", "rbind", "ro", source=str(source)),
                mount("/all", "bind", "rbind", "rro", source=str(source)),
            ]),
        )  # fmt: skip
        assert out == "written\nrefused\n"
    finally:
        call("umount", f"{source}/sub")


@pytest.mark.parametrize(("propagation", "seen"), [("rshared", True), ("rslave", False), ("rprivate", False)])
def test_propagation_to_the_host(machine: Machine, propagation: str, seen: bool) -> None:
    source = machine.directory / "source"
    (source / "inner").mkdir(parents=True)
    call("mount", "--bind", source, source)
    call("mount", "--make-shared", source)
    try:

        def edit(document: Document) -> None:
            document["mounts"].append(mount("/m", "bind", "rbind", propagation, source=str(source)))
            for kind in ("bounding", "effective", "permitted"):
                document["process"]["capabilities"][kind].append("CAP_SYS_ADMIN")

        running = machine.start("sh", "-c", "mount -t tmpfs none /m/inner && touch /m/inner/mark; sleep 60", edit=edit)
        while not os.path.exists(f"/proc/{running.pid}/root/m/inner/mark"):
            os.sched_yield()
        assert (source / "inner/mark").exists() is seen
        machine.stop(running)
    finally:
        call("umount", "-R", source)


def test_tmpfs_and_the_rest_of_the_file_systems(machine: Machine) -> None:
    out = machine.shell(
        "grep -E ' (/t|/dev/shm|/dev/mqueue|/dev/pts|/sys|/proc) ' /proc/self/mounts",
        lambda d: d["mounts"].append(mount("/t", "tmpfs", "noexec", "size=64k", "mode=1770", source="tmpfs")),
    )
    lines = {line.split()[1]: line for line in out.splitlines()}
    assert lines["/t"].replace(",inode64", "") == "tmpfs /t tmpfs rw,noexec,relatime,size=64k,mode=1770 0 0"
    assert "nosuid,nodev,noexec" in lines["/dev/shm"]
    assert " mqueue " in lines["/dev/mqueue"]
    assert "gid=5,mode=620,ptmxmode=666" in lines["/dev/pts"]
    assert lines["/sys"].split()[3].startswith("ro,")


def test_masked_and_read_only_paths(machine: Machine) -> None:
    def edit(document: Document) -> None:
        document["linux"]["maskedPaths"] += ["/etc/passwd", "/bin/missing", "/home"]

    out = machine.shell(
        "cat /etc/passwd /proc/keys; ls /home /sys/firmware; (echo 1 > /proc/sys/kernel/panic) 2>/dev/null || echo ro;"
        "chmod 000 /proc/keys 2>/dev/null || echo kept; touch /home/x 2>/dev/null || echo ro",
        edit,
    )
    assert out == "/home:\n\n/sys/firmware:\nro\nkept\nro\n"
    assert os.stat("/dev/null").st_mode & 0o777 == 0o666


def test_own_cgroup_is_shown_read_only(machine: Machine) -> None:
    out = machine.shell(
        "cat /proc/self/cgroup | cut -d: -f3 | sort -u; cat /sys/fs/cgroup/pids/cgroup.procs 2>/dev/null ||"
        " cat /sys/fs/cgroup/cgroup.procs; mkdir /sys/fs/cgroup/x 2>/dev/null || echo ro",
        lambda d: d["linux"]["namespaces"].append({"type": "cgroup"}),
    )
    lines = out.splitlines()
    assert lines[0] == "/"
    assert "1" in lines[1:]
    assert lines[-1] == "ro"


def test_sysctls_reach_the_containers_namespace_only(machine: Machine) -> None:
    def edit(document: Document) -> None:
        document["linux"]["namespaces"].append({"type": "network"})
        document["linux"]["sysctl"] = {"net.ipv4.ip_default_ttl": "77", "kernel.shmmni": "123"}

    assert machine.shell("cat /proc/sys/net/ipv4/ip_default_ttl /proc/sys/kernel/shmmni", edit) == "77\n123\n"
    with open("/proc/sys/net/ipv4/ip_default_ttl", encoding="ascii") as file:
        assert file.read() != "77\n"


@pytest.mark.parametrize(
    ("user", "out"),
    [
        ({"name": "daemon"}, "1 1 1 90 /\n"),
        ({"name": "nobody:logs"}, "65534 90 90 /\n"),
        ({"name": "1234:77", "groupAdd": ["logs"]}, "1234 77 77 90 /\n"),
        ({"uid": 5, "gid": 6, "additionalGids": [7, 8]}, "5 6 6 7 8 /\n"),
        ({"uid": 0, "gid": 0}, "0 0 0 /root\n"),
    ],
)
def test_user_and_groups(machine: Machine, user: dict[str, Any], out: str) -> None:
    found = machine.shell("echo $(id -u) $(id -g) $(id -G) $HOME", lambda d: d["process"].update(user=user))
    assert found == out


def test_a_user_can_write_to_its_own_standard_streams(machine: Machine) -> None:
    result = machine.run(
        "sh", "-c", "echo out > /dev/stdout; echo err > /dev/stderr", edit=lambda d: d["process"]["user"].update(uid=9)
    )
    assert (result.code, result.stdout, result.stderr) == (0, "out\n", "err\n")


@pytest.mark.parametrize(("cwd", "out"), [("/made/on/demand", "/made/on/demand\n0755\n"), ("/tmp", "/tmp\n1777\n")])
def test_working_directory(machine: Machine, cwd: str, out: str) -> None:
    assert machine.shell("pwd; stat -c %04a .", lambda d: d["process"].update(cwd=cwd)) == out


def test_umask(machine: Machine) -> None:
    assert machine.shell("umask") == "0022\n"
    assert machine.shell("umask", lambda d: d["process"]["user"].update(umask=0o27)) == "0027\n"


def test_limits_that_cannot_be_raised_are_clamped_with_a_warning(machine: Machine) -> None:
    def edit(document: Document) -> None:
        document["process"]["rlimits"] = [
            {"type": "RLIMIT_NOFILE", "hard": 2**63, "soft": 2**63},
            {"type": "RLIMIT_CORE", "hard": 0, "soft": 0},
        ]
        document["process"]["oomScoreAdj"] = -999

    result = machine.run("sh", "-c", "ulimit -c; cat /proc/self/oom_score_adj", edit=edit)
    assert result.code == 0
    if caps.get().effective & caps.mask(["CAP_SYS_RESOURCE"]):
        assert result.stdout == "0\n-999\n"
    else:
        assert result.stdout.startswith("0\n")
        assert [word.split(":")[0] for word in result.warnings] == ["oom_score_adj", "RLIMIT_NOFILE"]


def test_capability_sets(machine: Machine) -> None:
    def edit(document: Document) -> None:
        document["process"]["user"] = {"uid": 1000, "gid": 1000}
        document["process"]["capabilities"] = {
            "bounding": ["CAP_CHOWN", "CAP_KILL"], "permitted": ["CAP_CHOWN"], "inheritable": ["CAP_CHOWN"],
            "effective": ["CAP_CHOWN"], "ambient": ["CAP_CHOWN"],
        }  # fmt: skip

    status = status_of(machine.shell("cat /proc/self/status", edit))
    chown = f"{caps.mask(['CAP_CHOWN']):016x}"
    assert [status[key] for key in ("CapInh", "CapPrm", "CapEff", "CapAmb")] == [chown] * 4
    assert status["CapBnd"] == f"{caps.mask(['CAP_CHOWN', 'CAP_KILL']):016x}"


def test_privileged_gets_what_the_runtime_has(machine: Machine) -> None:
    def edit(document: Document) -> None:
        document["process"]["capabilities"] = {
            kind: list(caps.NAMES) for kind in ("bounding", "effective", "permitted")
        }

    result = machine.run("grep", "CapEff", "/proc/self/status", edit=edit)
    assert int(result.stdout.split()[1], 16) == caps.get().permitted
    lacks = caps.get().permitted != (1 << len(caps.NAMES)) - 1
    assert bool(result.warnings) is lacks


def deny(*names: str) -> dict[str, Any]:
    rules = [{"names": list(names), "action": "SCMP_ACT_ERRNO", "errnoRet": 1}]
    return {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules}


@pytest.mark.parametrize("no_new_privileges", [False, True])
@pytest.mark.parametrize("uid", [0, 1000])
def test_seccomp(machine: Machine, uid: int, no_new_privileges: bool) -> None:
    def edit(document: Document) -> None:
        document["process"]["user"] = {"uid": uid, "gid": uid}
        document["process"]["noNewPrivileges"] = no_new_privileges
        document["linux"]["seccomp"] = deny("mkdir", "mkdirat")

    result = machine.run("sh", "-c", "mkdir /tmp/x; cat /proc/self/status", edit=edit)
    assert "Operation not permitted" in result.stderr
    status = status_of(result.stdout)
    assert (status["Seccomp"], status["NoNewPrivs"]) == ("2", str(int(no_new_privileges)))
    assert int(status["CapEff"], 16) == (0 if uid else caps.mask(document_capabilities(machine)))


def document_capabilities(machine: Machine) -> list[str]:
    names: list[str] = machine.document()["process"]["capabilities"]["effective"]
    return names


def test_seccomp_filter_need_not_allow_what_set_up_uses(machine: Machine) -> None:
    def edit(document: Document) -> None:
        document["process"]["noNewPrivileges"] = True
        document["process"]["user"] = {"uid": 1000, "gid": 1000}
        document["linux"]["seccomp"] = deny("setresuid", "setgroups", "capset", "prctl", "chdir", "sendmsg", "mount")

    assert machine.run("true", edit=edit).code == 0


def test_time_namespace(machine: Machine) -> None:
    def edit(document: Document) -> None:
        document["linux"]["namespaces"].append({"type": "time"})
        document["linux"]["timeOffsets"] = {"boottime": {"secs": 1_000_000}}

    uptime = float(machine.shell("cut -d' ' -f1 /proc/uptime", edit))
    assert uptime > 1_000_000
    assert machine.shell("echo after") == "after\n"
    assert float(machine.shell("cut -d' ' -f1 /proc/uptime")) < 1_000_000


def test_placement(machine: Machine) -> None:
    def edit(document: Document) -> None:
        document["process"]["scheduler"] = {"policy": "SCHED_BATCH", "nice": 5}
        document["process"]["ioPriority"] = {"class": "IOPRIO_CLASS_IDLE", "priority": 0}
        document["linux"]["personality"] = {"domain": "LINUX32"}

    assert machine.shell("cut -d' ' -f19,41 /proc/self/stat; ionice; uname -m", edit) == "5 3\nidle\ni686\n"


@pytest.mark.parametrize(
    ("args", "message", "code"),
    [
        (["foo"], 'exec: "foo": executable file not found in $PATH', 127),
        (["/nope"], 'exec: "/nope": stat /nope: no such file or directory', 127),
        (["/etc"], 'exec: "/etc": is a directory', 126),
        (["/etc/passwd"], 'exec: "/etc/passwd": permission denied', 126),
        (["/etc/passwd/x"], 'exec: "/etc/passwd/x": stat /etc/passwd/x: not a directory', 126),
        ([""], 'exec: "": executable file not found in $PATH', 127),
    ],
)
def test_commands_that_cannot_start(machine: Machine, args: list[str], message: str, code: int) -> None:
    with pytest.raises(StartFailed) as caught:
        machine.start(*args)
    assert caught.value.message == f"unable to start container process: {message}"
    assert caught.value.exit_code == code


@pytest.mark.parametrize(
    ("content", "words"), [("#!/nope\n", "no such file or directory"), ("\x01\x02", "exec format error")]
)
def test_files_that_the_kernel_refuses_end_as_under_runc(machine: Machine, content: str, words: str) -> None:
    program = machine.lower / "bin/odd"
    program.write_text(content)
    program.chmod(0o755)
    result = machine.run("odd")
    assert (result.code, result.stderr) == (1, f"exec /bin/odd: {words}\n")


def cgroup_paths(name: str) -> list[Path]:
    return list(Path("/sys/fs/cgroup").glob(f"**/hafen/{name}*"))


@pytest.mark.parametrize(
    ("edit", "error", "words"),
    [
        (lambda d: d["process"]["user"].update(name="foo"), InvalidArgument, "unable to find user foo"),
        (lambda d: d["process"].update(cwd="/etc/passwd"), InvalidArgument, "/etc/passwd is not a directory"),
        (lambda d: d["process"].update(apparmorProfile="x"), HafenError, "AppArmor profile 'x'"),
        (lambda d: d["process"].update(selinuxLabel="x"), NotImplemented, "SELinux"),
        (lambda d: d["mounts"].append(mount("/x", "bind", "bind", source="/no/such")), InvalidArgument,
         "bind source path does not exist: /no/such"),
        (lambda d: d["mounts"].append(mount("/x", "nosuchfs")), NotImplemented, "no file system 'nosuchfs'"),
        (lambda d: d["mounts"].append(mount("/x", "tmpfs", "size=nonsense")), HafenError, "mounting tmpfs at /x"),
        (lambda d: d["linux"].update(sysctl={"net.ipv4.nope": "1"},
         namespaces=[*d["linux"]["namespaces"], {"type": "network"}]), InvalidArgument, "sysctl net.ipv4.nope"),
        (lambda d: d["linux"]["resources"].update(memory={"limit": 1}), StartFailed, "OOM-killed"),
        (lambda d: d["linux"].update(seccomp={"defaultAction": "NONSENSE"}), InvalidArgument, "NONSENSE"),
        (lambda d: d["process"].update(terminal=True) or d["mounts"].pop(2), InvalidArgument, "devpts"),
        (lambda d: d["linux"]["namespaces"].append({"type": "network", "path": "/nope"}), HafenError,
         "entering namespaces"),
        (lambda d: d["process"].update(rlimits=[{"type": "RLIMIT_CORE", "hard": 1, "soft": 2}]), InvalidArgument,
         "RLIMIT_CORE"),
    ],
)  # fmt: skip
def test_bad_requests_name_the_step_and_leave_nothing(
    machine: Machine, edit: Any, error: type[HafenError], words: str
) -> None:
    seen: list[Document] = []

    def remember(document: Document) -> None:
        edit(document)
        seen.append(document)

    with pytest.raises(error) as caught:
        machine.start("true", edit=remember)
    assert words in caught.value.message
    assert cgroup_paths(Path(seen[0]["linux"]["cgroupsPath"]).name) == []


def test_joined_namespaces_of_another_container(machine: Machine) -> None:
    first = machine.start("sleep", "60", edit=lambda d: d["linux"]["namespaces"].append({"type": "network"}))
    descriptors = [os.open(f"/proc/{first.pid}/ns/{name}", os.O_RDONLY) for name in ("pid", "net", "ipc")]

    def edit(document: Document) -> None:
        paths = zip(("pid", "network", "ipc"), descriptors, strict=True)
        document["linux"]["namespaces"] = [{"type": "mount"}, {"type": "uts"}]
        document["linux"]["namespaces"] += [{"type": kind, "path": f"/proc/self/fd/{fd}"} for kind, fd in paths]

    out = machine.shell(
        "echo $$; cat /proc/1/comm; (readlink /proc/self/ns/net; readlink /proc/1/ns/net) | sort -u | wc -l", edit
    )
    for fd in descriptors:
        os.close(fd)
    own, init, networks = out.split()
    assert (own != "1", init, networks) == (True, "sleep", "1")
    assert machine.shell("echo $$") == "1\n"  # our own children are born in our own namespace again
    machine.stop(first)


def test_user_namespace(machine: Machine) -> None:
    call("chown", "-hR", "100000:100000", machine.lower)
    os.chmod(machine.directory, 0o755)
    outside = machine.directory / "private"
    outside.mkdir(mode=0o700)
    (outside / "file").write_text("bound")

    def edit(document: Document) -> None:
        document["linux"]["namespaces"] += [{"type": "user"}, {"type": "network"}]
        document["linux"]["uidMappings"] = [{"containerID": 0, "hostID": 100000, "size": 65536}]
        document["linux"]["gidMappings"] = [{"containerID": 0, "hostID": 100000, "size": 65536}]
        document["mounts"].append(mount("/bound", "bind", "bind", "ro", source=str(outside / "file")))
        document["process"]["user"] = {"name": "daemon"}
        machine.owner = 100000

    out = machine.shell("id -u; cat /bound; head -c1 /dev/zero | wc -c; awk '{print $2}' /proc/self/uid_map", edit)
    assert out == "1\nbound1\n100000\n"


def test_host_sees_mapped_ids_and_a_second_container_joins(machine: Machine) -> None:
    call("chown", "-hR", "100000:100000", machine.lower)
    os.chmod(machine.directory, 0o755)

    def edit(document: Document) -> None:
        document["linux"]["namespaces"].append({"type": "user"})
        for key in ("uidMappings", "gidMappings"):
            document["linux"][key] = [{"containerID": 0, "hostID": 100000, "size": 65536}]

    first = machine.start("sleep", "60", edit=edit)
    assert os.stat(f"/proc/{first.pid}").st_uid == 100000
    assert machine.execute(first, "id", "-u").stdout == "0\n"

    def join(document: Document) -> None:
        document["linux"]["namespaces"] += [
            {"type": kind, "path": f"/proc/{first.pid}/ns/{kind}"} for kind in ("user",)
        ]

    assert machine.shell("id -u; awk '{print $2}' /proc/self/uid_map", join) == "0\n100000\n"
    machine.stop(first)


def test_id_mapped_bind(machine: Machine) -> None:
    source = machine.directory / "source"
    source.mkdir()
    (source / "file").touch()

    def edit(document: Document) -> None:
        mapping = [{"containerID": 0, "hostID": 4000, "size": 1000}]
        bind = mount("/m", "bind", "rbind", "idmap", source=str(source))
        document["mounts"].append({**bind, "uidMappings": mapping, "gidMappings": mapping})

    assert machine.shell("stat -c %u:%g /m/file", edit) == "4000:4000\n"


def test_dies_with_its_parent(machine: Machine) -> None:
    read, write = os.pipe()
    child = process.clone3()
    if child.pid == 0:
        try:
            running = machine.start("sleep", "60")
            os.write(write, f"{running.pid}\n".encode())
            os.close(write)
        finally:
            os._exit(0)
    os.close(write)
    pid = int(os.read(read, 32))
    os.close(read)
    assert process.wait_pidfd(child.pidfd) == 0
    os.close(child.pidfd)
    try:
        while os.path.exists(f"/proc/{pid}"):
            os.sched_yield()
    finally:
        remove_cgroups(machine)


def test_a_sibling_is_the_callers_parents_child(machine: Machine) -> None:
    read, write = os.pipe()
    setup = process.clone3()
    if setup.pid == 0:
        try:
            running = machine.start("sh", "-c", "exit 5", options=Options(sibling=True))
            os.write(write, f"{running.pid}\n".encode())
        finally:
            os._exit(0)
    os.close(write)
    pid = int(os.read(read, 32))
    os.close(read)
    assert process.wait_pidfd(setup.pidfd) == 0
    os.close(setup.pidfd)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 5
    remove_cgroups(machine)


def test_trace_times_every_step(machine: Machine) -> None:
    running = machine.start("true", options=Options(trace=True))
    names = [name.strip() for name, _ in running.trace]
    times = [at for _, at in running.trace]
    assert names[0] == "planning"
    assert {"creating the cgroup", "mounting proc at /proc", "changing the root", "waiting for start"} <= set(names)
    assert times == sorted(times)
    machine.wait(running)
