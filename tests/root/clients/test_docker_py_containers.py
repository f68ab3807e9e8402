"""docker-py's containers against the engine: over the unix socket and over TLS, the same."""

import io
import signal
import tarfile
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import docker
import pytest
import requests
from docker.errors import APIError, ContainerError, ImageNotFound, NotFound
from docker.models.containers import Container
from docker.types import LogConfig, Mount, Ulimit
from docker.utils.socket import next_frame_header, read_exactly

from tests.harness.engine import EngineProcess

pytestmark = [pytest.mark.root, pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")]  # of docker-py


@pytest.fixture
def sleeper(client: docker.DockerClient) -> Container:
    return client.containers.run("busybox", "sleep 300", detach=True)


def tar_of(**files: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def untar(chunks: Iterable[bytes], name: str) -> bytes:
    with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as tar:
        file = tar.extractfile(name)
        assert file
        return file.read()


def test_run_returns_the_output(client: docker.DockerClient) -> None:
    assert client.containers.run("alpine", "echo hello", remove=True) == b"hello\n"
    script = ["sh", "-c", "echo out; echo err >&2"]
    assert client.containers.run("busybox", script, stdout=False, stderr=True, remove=True) == b"err\n"
    assert client.containers.run("busybox", "echo x", log_config=LogConfig(type="none")) is None
    assert client.containers.run("busybox", "echo x", log_config={"type": "json-file"}) == b"x\n"
    assert client.containers.run("busybox", "sh -c 'echo here; sleep 0.2'", auto_remove=True) == b"here\n"
    assert list(client.containers.run("busybox", "sh -c 'echo a && echo b'", stream=True)) == [b"a\n", b"b\n"]


def test_run_that_fails(client: docker.DockerClient) -> None:
    with pytest.raises(ContainerError) as failure:
        client.containers.run("alpine", "cat /absent", remove=True)
    assert failure.value.exit_status == 1
    assert b"No such file or directory" in failure.value.stderr
    with pytest.raises(ContainerError) as failure:
        client.containers.run("alpine", ["sh", "-c", "sleep 0.2; exit 3"], auto_remove=True)
    assert failure.value.exit_status == 3
    with pytest.raises(APIError, match="executable file not found"):
        client.containers.run("alpine", "no-such-command")


def test_an_image_that_is_nowhere(client: docker.DockerClient) -> None:
    with pytest.raises(ImageNotFound):
        client.containers.create("surely_not_here")
    with pytest.raises(NotFound):
        client.containers.get("surely_not_here")


def test_what_was_asked_for_is_what_is_inspected(client: docker.DockerClient) -> None:
    made = client.containers.create(
        "busybox",
        ["sleep", "1"],
        name="asked",
        environment={"Foo": None, "Other": "one", "Blank": ""},
        labels={"one": "1"},
        tmpfs={"/tmp1": "size=3M"},
        mem_limit="70M",
        memswap_limit="1G",
        stop_signal="SIGINT",
        cpu_shares=512,
        cpuset_cpus="0",
        ulimits=[Ulimit(name="nofile", soft=99, hard=100)],
        init=True,
        isolation="default",
        device_cgroup_rules=["c 7:128 rwm"],
        volume_driver="foo",
        log_config=LogConfig(type="json-file", config={"max-file": "100"}),
        restart_policy={"Name": "on-failure", "MaximumRetryCount": 4},
        extra_hosts={"example": "10.1.2.3"},
        hostname="host-name",
        working_dir="/tmp",
        user=1000,
        runtime="runc",
    )
    config, host = made.attrs["Config"], made.attrs["HostConfig"]
    assert made.status == "created"
    assert {"Foo", "Other=one", "Blank="} <= set(config["Env"])
    assert config["StopSignal"] == "SIGINT"
    assert (config["Hostname"], config["WorkingDir"], config["User"]) == ("host-name", "/tmp", "1000")
    assert host["Tmpfs"] == {"/tmp1": "size=3M"}
    assert (host["Memory"], host["MemorySwap"]) == (70 << 20, 1 << 30)
    assert (host["CpuShares"], host["CpusetCpus"], host["Init"], host["Isolation"]) == (512, "0", True, "default")
    assert host["Ulimits"] == [{"Name": "nofile", "Soft": 99, "Hard": 100}]
    assert (host["DeviceCgroupRules"], host["VolumeDriver"]) == (["c 7:128 rwm"], "foo")
    assert host["LogConfig"] == {"Type": "json-file", "Config": {"max-file": "100"}}
    assert host["RestartPolicy"] == {"Name": "on-failure", "MaximumRetryCount": 4}
    assert (host["ExtraHosts"], host["Runtime"]) == (["example:10.1.2.3"], "runc")
    assert made.labels == {"one": "1"}
    low = client.api.create_container("busybox", "true", runtime="runc")  # which is not in the host configuration
    assert client.containers.get(low["Id"]).attrs["HostConfig"]["Runtime"] == "runc"


def test_an_unknown_log_driver(client: docker.DockerClient) -> None:
    with pytest.raises(APIError) as failure:
        client.containers.create("busybox", "true", log_config=LogConfig(type="asdf-nope"))
    assert failure.value.explanation == 'error looking up logging plugin asdf-nope: plugin "asdf-nope" not found'


def test_groups_user_and_host_pids(client: docker.DockerClient) -> None:
    groups = client.containers.run("busybox", "id -G", group_add=[1000, "1001"]).split()
    assert {b"1000", b"1001"} <= set(groups)
    assert client.containers.run("busybox", "id -u", user=1000) == b"1000\n"
    assert client.containers.run("busybox", "readlink /proc/self", pid_mode="host").strip().isdigit()
    assert client.containers.run("busybox", "hostname", uts_mode="host").strip()
    assert client.containers.run("busybox", "cat /proc/self/cgroup", cgroupns="private")


def test_a_fixed_mac_address(client: docker.DockerClient) -> None:
    network = client.networks.create("own")
    config = {"own": client.api.create_endpoint_config(mac_address="02:42:ac:11:00:0a")}
    made = client.containers.run("busybox", "sleep 60", network="own", networking_config=config, detach=True)
    made.reload()
    assert made.attrs["NetworkSettings"]["Networks"]["own"]["MacAddress"] == "02:42:ac:11:00:0a"
    assert client.networks.get(network.id).containers == [made]


def test_get_list_and_filters(client: docker.DockerClient) -> None:
    running = client.containers.run("alpine", "sleep 300", name="on", labels={"a": "b"}, detach=True)
    stopped = client.containers.create("busybox", "true", name="off")
    assert client.containers.get(running.short_id) == running
    assert client.containers.list() == [running]
    assert set(client.containers.list(all=True)) == {running, stopped}
    assert client.containers.list(filters={"label": "a=b"}) == [running]
    assert client.containers.list(all=True, filters={"status": "created"}) == [stopped]
    assert client.containers.list(all=True, limit=1) == [stopped]
    sparse = client.containers.list(sparse=True)[0]
    assert (sparse.attrs["Image"], sparse.status, sparse.image) == ("alpine", "running", client.images.get("alpine"))
    assert client.api.containers(trunc=True)[0]["Id"] == running.id[:12]
    with pytest.raises(APIError, match="invalid filter"):
        client.containers.list(filters={"nonsense": "1"})


def test_attach(client: docker.DockerClient) -> None:
    made = client.containers.create("busybox", "printf words")
    sock = client.api.attach_socket(made.id, {"stdout": 1, "stream": 1, "logs": 1})
    made.start()
    assert next_frame_header(sock) == (1, 5)
    assert read_exactly(sock, 5) == b"words"
    sock.close()
    made.wait()
    assert made.attach(stream=False, logs=True) == b"words"

    cat = client.containers.create("busybox", "cat", stdin_open=True, tty=True)
    cat.start()
    sock = cat.attach_socket(params={"stdin": 1, "stdout": 1, "stream": 1})
    raw = getattr(sock, "_sock", sock)
    raw.sendall(b"ping\n")
    assert read_exactly(sock, 12) == b"ping\r\nping\r\n"
    raw.sendall(b"\x10\x11")  # the detach keys, ctrl-p ctrl-q
    assert raw.recv(128) == b""
    sock.close()
    cat.reload()
    assert cat.status == "running"


def test_exec_run(sleeper: Container) -> None:
    assert sleeper.exec_run("echo hello") == (0, b"hello\n")
    assert sleeper.exec_run(["sh", "-c", "exit 4"]).exit_code == 4
    code, output = sleeper.exec_run("docker ps")
    assert code in (126, 127)
    assert b"executable file not found" in output
    assert sleeper.exec_run("env", environment=["X=Y"]).output.split().count(b"X=Y") == 1
    assert sleeper.exec_run("pwd", workdir="/var").output == b"/var\n"
    assert sleeper.exec_run("id -u", user="nobody").output == b"65534\n"
    assert sleeper.exec_run("tty", tty=True).output.startswith(b"/dev/pts/")
    assert sleeper.exec_run("true", detach=True).output == ""


SCRIPT = "echo out; i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; echo err >&2"


def test_exec_streams(sleeper: Container) -> None:
    command = ["sh", "-c", SCRIPT]
    assert sleeper.exec_run(command, demux=True).output == (b"out\n", b"err\n")
    assert list(sleeper.exec_run(command, stream=True).output) == [b"out\n", b"err\n"]
    assert list(sleeper.exec_run(command, stream=True, demux=True).output) == [(b"out\n", None), (None, b"err\n")]
    assert sleeper.exec_run(command, tty=True, demux=True).output == (b"out\r\nerr\r\n", None)
    assert list(sleeper.exec_run(command, tty=True, stream=True).output) == [b"out\r\n", b"err\r\n"]


def test_no_output_is_lost_with_the_head(sleeper: Container) -> None:
    """docker-py reads the head with a buffer and the stream without it: what comes with the head would be lost."""

    def work(_: int) -> list[object]:
        return [sleeper.exec_run("echo out", demux=True).output for _ in range(10)]

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(work, range(4))) == [[(b"out\n", None)] * 10] * 4


def test_exec_sockets(client: docker.DockerClient, sleeper: Container) -> None:
    exec_id = client.api.exec_create(sleeper.id, ["printf", "line"], tty=True)
    sock = client.api.exec_start(exec_id, socket=True)
    assert next_frame_header(sock) == (1, 4)
    assert read_exactly(sock, 4) == b"line"
    sock.close()
    assert client.api.exec_inspect(exec_id)["ProcessConfig"]["entrypoint"] == "printf"

    exec_id = client.api.exec_create(sleeper.id, "cat", stdin=True, tty=True, detach_keys="ctrl-x")
    sock = client.api.exec_start(exec_id, tty=True, socket=True)
    client.api.exec_resize(exec_id, height=30, width=90)
    raw = getattr(sock, "_sock", sock)
    raw.sendall(b"\x18")
    rest = raw.recv(128)
    assert rest == b"" or rest.startswith(b"exec attach failed: error on attach stdin: read escape sequence")
    sock.close()


def test_logs(client: docker.DockerClient) -> None:
    begun = datetime.now(UTC).replace(tzinfo=None)
    made = client.containers.run("busybox", ["sh", "-c", "echo one; echo two; echo three >&2"], detach=True)
    assert sorted(b"".join(made.logs(stream=True, follow=True)).split()) == [b"one", b"three", b"two"]
    assert made.wait()["StatusCode"] == 0
    assert sorted(made.logs().splitlines()) == [b"one", b"three", b"two"]
    assert len(made.logs(tail=1).split()) == 1
    assert made.logs(tail=0) == b""
    assert made.logs(until=1) == b""
    assert made.logs(since=begun, stderr=False) == b"one\ntwo\n"
    assert made.logs(since=datetime(2100, 1, 1)) == b""
    assert made.logs(timestamps=True, stderr=False).split()[1::2] == [b"one", b"two"]


def test_a_followed_log_is_cancelled(client: docker.DockerClient) -> None:
    made = client.containers.run("busybox", ["sh", "-c", "echo one; sleep 300"], detach=True)
    stream = made.logs(stream=True, follow=True)
    assert next(stream) == b"one\n"
    threading.Timer(0.1, stream.close).start()
    assert list(stream) == []


def test_stats(client: docker.DockerClient, sleeper: Container) -> None:
    once = sleeper.stats(stream=False)
    assert {"read", "networks", "precpu_stats", "cpu_stats", "memory_stats", "blkio_stats"} <= set(once)
    assert client.api.stats(sleeper.id, stream=False, one_shot=True)["precpu_stats"]["cpu_usage"]["total_usage"] == 0
    stream = sleeper.stats(decode=True)
    assert next(stream)["pids_stats"]["current"] == 1


def test_top(sleeper: Container) -> None:
    top = sleeper.top()
    assert top["Titles"] == ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]
    assert [line[-1] for line in top["Processes"]] == ["sleep 300"]
    wide = sleeper.top(ps_args="waux")
    assert wide["Titles"][:3] == ["USER", "PID", "%CPU"]
    assert wide["Processes"][0][10] == "sleep 300"


def test_archives(client: docker.DockerClient) -> None:
    made = client.containers.create("busybox", "cat /vol1/a.txt", volumes=["/vol1"])
    assert made.put_archive("/vol1", tar_of(**{"a.txt": b"carried in"}))
    made.start()
    made.wait()
    assert made.logs() == b"carried in"
    chunks, stat = made.get_archive("/vol1/a.txt")
    assert (stat["name"], stat["size"]) == ("a.txt", 10)
    assert untar(chunks, "a.txt") == b"carried in"
    with pytest.raises(NotFound):
        made.get_archive("/vol1/none")
    with pytest.raises(NotFound):
        made.put_archive("/none", tar_of(a=b""))


def test_commit_diff_export_and_rename(client: docker.DockerClient) -> None:
    made = client.containers.run("busybox", ["sh", "-c", "echo hello > /test"], name="before", detach=True)
    made.wait()
    assert made.diff() == [{"Path": "/test", "Kind": 1}]
    image = made.commit(repository="kept", tag="1", message="why", author="who", changes=["EXPOSE 80", 'CMD ["ls"]'])
    assert "80/tcp" in image.attrs["Config"]["ExposedPorts"]
    assert image.attrs["Config"]["Cmd"] == ["ls"]
    assert image.attrs["Parent"] == client.images.get("busybox").id
    assert client.containers.run(image.id, "cat /test", remove=True) == b"hello\n"
    client.images.remove("kept:1")
    assert untar(made.export(), "test") == b"hello\n"
    made.rename("after")
    made.reload()
    assert made.name == "after"


def test_what_just_ends_is_committed(client: docker.DockerClient) -> None:
    for _ in range(6):  # the commit pauses a container that is gone a moment later
        made = client.containers.create("busybox", "touch /test")
        made.start()
        image = made.commit()
        assert image.attrs["Parent"] == client.images.get("busybox").id
        client.images.remove(image.id)


def test_restart_pause_kill_and_stop(sleeper: Container) -> None:
    first = sleeper.attrs["State"]["StartedAt"]
    sleeper.restart(timeout=0)
    sleeper.reload()
    assert sleeper.attrs["State"]["StartedAt"] not in ("", first)
    sleeper.pause()
    sleeper.reload()
    assert sleeper.status == "paused"
    sleeper.unpause()
    sleeper.kill(signal=signal.SIGKILL)
    assert sleeper.wait()["StatusCode"] == 137
    sleeper.start()
    sleeper.stop(timeout=0)
    sleeper.reload()
    assert sleeper.status == "exited"
    with pytest.raises(APIError) as failure:
        sleeper.kill()
    assert failure.value.status_code == 409


def test_wait_conditions(client: docker.DockerClient) -> None:
    made = client.containers.create("busybox", "sh -c 'exit 5'", auto_remove=True)
    with pytest.raises(requests.exceptions.ConnectionError):
        made.wait(condition="removed", timeout=0.1)
    codes: list[int] = []
    waiter = threading.Thread(target=lambda: codes.append(made.wait(condition="next-exit")["StatusCode"]))
    waiter.start()
    while not codes and waiter.is_alive():
        made.start()
        waiter.join(10)
    assert codes == [5]


def test_update_and_resize(client: docker.DockerClient) -> None:
    made = client.containers.run("busybox", "top", mem_limit="40m", tty=True, detach=True)
    made.update(mem_limit="30m", restart_policy={"Name": "on-failure", "MaximumRetryCount": 42})
    made.reload()
    assert made.attrs["HostConfig"]["Memory"] == 30 << 20
    assert made.attrs["HostConfig"]["RestartPolicy"] == {"Name": "on-failure", "MaximumRetryCount": 42}
    made.resize(height=33, width=101)
    assert made.exec_run("sh -c 'stty size < /proc/1/fd/0'").output == b"33 101\n"


def test_prune_and_remove(client: docker.DockerClient, sleeper: Container) -> None:
    done = client.containers.run("busybox", ["sh", "-c", "echo hello > /data.txt"], detach=True)
    done.wait()
    result = client.containers.prune()
    assert result["ContainersDeleted"] == [done.id]
    assert result["SpaceReclaimed"] > 0
    with pytest.raises(APIError, match="stop the container before removing or force remove") as failure:
        sleeper.remove()
    assert failure.value.status_code == 409
    assert '{"message":' not in str(failure.value.explanation)
    sleeper.remove(force=True)
    assert client.containers.list(all=True) == []


def test_ports(client: docker.DockerClient) -> None:
    ports = {"1111/tcp": ("127.0.0.1", None), "2222/udp": None}
    made = client.containers.run("busybox", "sleep 60", ports=ports, detach=True)
    made.reload()
    assert [binding["HostIp"] for binding in made.ports["1111/tcp"]] == ["127.0.0.1"]
    assert all(int(binding["HostPort"]) > 0 for bindings in made.ports.values() for binding in bindings)
    assert client.api.port(made.id, 1111) == made.ports["1111/tcp"]
    assert client.api.port(made.id, "2222/udp") == made.ports["2222/udp"]


def test_binds_and_mounts(client: docker.DockerClient, tmp_path: Path) -> None:
    (tmp_path / "shared.txt").write_text("here")
    for kind in (
        {"volumes": [f"{tmp_path}:/mnt:ro"]},
        {"volumes": {str(tmp_path): {"bind": "/mnt", "mode": "ro"}}},
        {"mounts": [Mount(type="bind", source=str(tmp_path), target="/mnt", read_only=True)]},
    ):
        made = client.containers.run("busybox", "ls /mnt", detach=True, **kind)
        made.wait()
        assert made.logs() == b"shared.txt\n"
        mount = next(one for one in made.attrs["Mounts"] if one["Destination"] == "/mnt")
        assert (mount["Source"], mount["RW"]) == (str(tmp_path), False)
    made = client.containers.create(
        "busybox", "true", mounts=[Mount(type="volume", source="mine", target="/mnt", labels={"k": "v"})]
    )
    assert made.attrs["Mounts"][0]["Name"] == "mine"
    assert client.volumes.get("mine").attrs["Labels"] == {"k": "v"}


def test_volumes_from(client: docker.DockerClient) -> None:
    first = client.containers.run("busybox", "sh -c 'echo kept > /v/x'", volumes=["/v"], name="first", detach=True)
    first.wait()
    assert client.containers.run("busybox", "cat /v/x", volumes_from=["first"]) == b"kept\n"


def test_environment_of_a_proxy(client: docker.DockerClient) -> None:
    client.api._proxy_configs = docker.utils.proxy.ProxyConfig(ftp="sakuya.jp:4967")
    out = client.containers.run("alpine", "env").splitlines()
    assert {b"FTP_PROXY=sakuya.jp:4967", b"ftp_proxy=sakuya.jp:4967"} <= set(out)


def test_commands_as_words(client: docker.DockerClient) -> None:
    for words in ("true", 'echo "a & b"', "/bin/sh -c 'echo \"Hello World\"'", 'true && echo "never"'):
        assert client.containers.run("busybox", words, detach=True).wait()["StatusCode"] == 0, words


def test_the_engine_is_replaced_under_a_client(client: docker.DockerClient, engine: EngineProcess) -> None:
    made = client.containers.run("busybox", "sleep 300", detach=True)
    engine.kill()
    engine.start()
    client.close()  # its pool holds connections to the engine that is gone
    made.reload()
    assert made.status == "running"
