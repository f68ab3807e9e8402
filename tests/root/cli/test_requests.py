"""The same command line makes the same request: the real docker command is the oracle."""

import shlex
import shutil
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from .fake_engine import FakeEngine

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(shutil.which("docker") is None, reason="no docker command to compare with"),
]

RUN = [
    "busybox",
    "busybox echo -n --rm -it",
    "-it busybox sh",
    "-i busybox cat",
    "-a stdout -a stderr busybox",
    "-a stdin busybox",
    "--name n -h host --domainname d -u 1:2 -w /w busybox",
    "-e A=b -e C= -e V -e NOTSET busybox",
    "--env-file env -e A=2 busybox",
    "-l a=b -l c --label-file labels busybox",
    "-v /a:/b -v vol:/c:ro -v /anon -v ./rel:/d busybox",
    "--mount type=bind,src=/a,dst=/b,ro busybox",
    "--mount type=bind,source=./x,target=/b,bind-propagation=rslave,bind-recursive=readonly,readonly busybox",
    "--mount type=bind,source=/x,target=/b,bind-propagation=rprivate,bind-recursive=readonly,readonly busybox",
    "--mount type=bind,source=/x,target=/b,bind-recursive=writable busybox",
    "--mount type=bind,source=/x,target=/b,bind-nonrecursive,consistency=cached busybox",
    "--mount type=image,source=i,target=/b,image-subpath=x busybox",
    "--mount type=bind,source=/x,target=/b,tmpfs-size=1m busybox",
    "--mount type=bind,source=/x,target=/b,nonsense=1 busybox",
    "--mount type=bind,source=/x,target=/b,readonly=maybe busybox",
    "--mac-address 92:d0:c6:0a:29:33 busybox",
    "--cap-add all --cap-add sys_admin --cap-drop CAP_CHOWN busybox",
    "--cap-add chown --cap-drop chown --cap-drop mknod busybox",
    "--link-local-ip 169.254.1.1 busybox",
    "--ip 1.2.3.4 busybox",
    "--network-alias a busybox",
    "--env-file nosuch busybox",
    "--security-opt seccomp=nosuch busybox",
    "--security-opt nonsense busybox",
    "--restart :3 busybox",
    "--restart always --rm busybox",
    "--uts x busybox",
    "--cgroupns x busybox",
    "--userns x busybox",
    "--ulimit nofile busybox",
    "--ulimit nofile=5:3 busybox",
    "--ulimit what=5 busybox",
    "--add-host nonsense busybox",
    "--dns x busybox",
    "--device x busybox",
    "--device /a:/b:xyz busybox",
    "--device-cgroup-rule x busybox",
    "--device-read-bps x busybox",
    "--blkio-weight-device /dev/sda:5 busybox",
    "--blkio-weight 70000 busybox",
    "--expose x busybox",
    "-p 1-3:5-6 busybox",
    "-p 1:2:3:4 busybox",
    "-e =x busybox",
    "-l =x busybox",
    "--link a: busybox",
    "--no-healthcheck --health-cmd x busybox",
    "--health-retries -1 busybox",
    "--memory-swappiness 200 busybox",
    "--pull sometimes busybox",
    "--log-driver none --log-opt a=b busybox",
    "--gpus nonsense=1 busybox",
    "--network name=net,what=x busybox",
    "--network a --network a busybox",
    "--stop-timeout x busybox",
    "--cpus 1.00000000001 busybox",
    "--sysctl x busybox",
    "--storage-opt x busybox",
    "--rm --bogus busybox",
    "-tX busybox",
    "--mount type=volume,src=v,dst=/b,volume-nocopy,volume-label=a=b,volume-driver=local,volume-opt=o=x busybox",
    "--mount type=tmpfs,dst=/b,tmpfs-size=1m,tmpfs-mode=1770 busybox",
    "--mount dst=/x,volume-subpath=a/b busybox",
    "--tmpfs /run --tmpfs /tmp:size=1m,mode=1777 busybox",
    "-p 80 -p 8080:80 -p 127.0.0.1:53:53/udp -p 9000-9002:9000-9002 -p '[::1]:1:1' busybox",
    "-P --expose 80 --expose 100-102/udp busybox",
    "--device /dev/null --device /dev/zero:/dev/z:r --device /dev/full:rw busybox",
    "--device vendor.com/class=name busybox",
    "--device-cgroup-rule 'c 1:3 rwm' busybox",
    "--device-read-bps /dev/s:1mb --device-write-iops /dev/s:100 --blkio-weight-device /dev/sda:200 busybox",
    "--ulimit nofile=1024:2048 --ulimit core=0 --ulimit nproc=-1 busybox",
    "-m 64m --memory-swap -1 --memory-reservation 32m --memory-swappiness 10 --kernel-memory 1g busybox",
    "--cpus 1.5 -c 512 --cpu-period 100 --cpu-quota 50 --cpuset-cpus 0-1 --cpuset-mems 0 busybox",
    "--cpu-rt-period 1 --cpu-rt-runtime 2 --blkio-weight 300 --pids-limit 7 --oom-kill-disable busybox",
    "--oom-score-adj 5 busybox",
    "--cap-add NET_ADMIN --cap-drop ALL --privileged --read-only --init busybox",
    "--init=false --rm=false busybox",
    "--rm --entrypoint /bin/x busybox a b",
    "--entrypoint '' busybox a",
    "--restart on-failure:3 busybox",
    "--restart unless-stopped busybox",
    "--stop-signal INT --stop-timeout 3 busybox",
    "--health-cmd 'x y' --health-interval 5s --health-timeout 1m --health-retries 2 --health-start-period 1h busybox",
    "--health-start-interval 10ms busybox",
    "--no-healthcheck busybox",
    "--network host busybox",
    "--net none busybox",
    "--network net --ip 1.2.3.4 --network-alias a --network-alias b busybox",
    "--network name=net,alias=a,ip=1.2.3.4,driver-opt=x=y,mac-address=92:d0:c6:0a:29:33 --network two busybox",
    "--network container:abc busybox",
    "--network bridge busybox",
    "--network net --mac-address 92:d0:c6:0a:29:33 --link other:alias busybox",
    "--link other busybox",
    "--link-local-ip 169.254.1.1 --ip6 2001:db8::1 --network net busybox",
    "--dns 1.1.1.1 --dns-search example.com --dns-option ndots:2 --add-host a:1.2.3.4 --add-host b=::1 busybox",
    "--add-host h:host-gateway busybox",
    "--log-driver local --log-opt max-size=1m --log-opt a=b busybox",
    "--security-opt no-new-privileges --security-opt seccomp=profile.json --security-opt apparmor=unconfined busybox",
    "--security-opt systempaths=unconfined --security-opt seccomp=unconfined busybox",
    "--sysctl net.x=1 --annotation a=b --storage-opt size=1G --group-add g --group-add 5 busybox",
    "--pid host --ipc shareable --uts host --userns host --cgroupns private --cgroup-parent /p busybox",
    "--shm-size 1g --volumes-from a --volumes-from b:ro --volume-driver d --runtime crun --isolation default busybox",
    "--gpus all busybox",
    "--gpus 2 busybox",
    '--gpus \'"device=0,1","capabilities=utility,compute"\' busybox',
    "--platform linux/amd64 busybox",
]


@pytest.fixture(scope="module")
def fake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeEngine]:
    directory = tmp_path_factory.mktemp("fake")
    (directory / "env").write_text("# comment\nX=1\n\nV\n  Y= 2 \nNOTSET\n")
    (directory / "labels").write_text("l1=v1\n#x\nl2\n")
    (directory / "profile.json").write_text('{ "defaultAction": "SCMP_ACT_ALLOW" }')
    with FakeEngine(directory) as engine:
        yield engine


def significant(value: Any) -> Any:
    """Without what stands for its default: absent, null, zero and empty are the same to the engine, unless told."""
    if isinstance(value, dict):
        items = {key: significant(item) for key, item in value.items()}
        kept = {key: item for key, item in items.items() if item not in (None, "", 0, False, [], {})}
        for key in ("MaskedPaths", "ReadonlyPaths", "Entrypoint", "Init"):
            if value.get(key) in ([], [""], False) and value.get(key) is not None:
                kept[key] = value[key]
        kept.update({key: {} for key, item in value.items() if item == {} and _is_set_member(key)})
        return kept
    if isinstance(value, list):
        return [significant(item) for item in value]
    return value


def compared(requests: list[tuple[str, str, dict[str, list[str]], Any]]) -> list[tuple[Any, ...]]:
    """docker's -v and -e go through Go maps: their order is chance."""
    for *_, body in requests:
        if isinstance(body, dict) and "Env" in body:
            body["Env"] = sorted(body["Env"] or [])
        host = body.get("HostConfig") if isinstance(body, dict) else None
        if host:
            host["Binds"] = sorted(host.get("Binds") or [])
            host.pop("ConsoleSize", None)
    return [(method, path, query, significant(body)) for method, path, query, body in requests]


def both(fake: FakeEngine, arguments: list[str]) -> None:
    directory = fake.socket.parent
    theirs = fake.run(["docker", *arguments], directory)
    expected = compared(list(fake.requests))
    code, stdout, stderr = fake.run([sys.executable, "-m", "hafen.cli.main", *arguments], directory)
    assert (code, stdout, stderr.replace("hafen", "docker")) == theirs
    assert compared(list(fake.requests)) == expected


def _is_set_member(key: str) -> bool:
    return key.startswith("/") or "/" in key


@pytest.mark.parametrize("line", RUN)
def test_create_sends_what_docker_sends(fake: FakeEngine, line: str) -> None:
    both(fake, ["create", *shlex.split(line)])


OTHER = [
    "network create -d bridge --subnet 10.1.0.0/16 --gateway 10.1.0.1 --ip-range 10.1.1.0/24 -o a=b --label c=d net",
    "network create --internal --attachable --ipv6 --subnet fd00::/64 --aux-address h=fd00::5 net",
    "network connect --alias a --ip 1.2.3.4 --link x:y net box",
    "network disconnect -f net box",
    "volume create -d local -o type=tmpfs --label a=b vol",
    "volume create",
    "volume rm -f vol",
    "stop -t 3 -s INT box",
    "stop box",
    "restart -t 0 box",
    "kill -s 9 box",
    "kill box",
    "pause box",
    "rename a b",
    "rm -f -v box",
    "rm box",
    "start box",
    "update -m 1g --cpus 2 --restart always --pids-limit 5 box",
    "tag a:b c:d",
    "tag a host:5000/c",
    "commit -a me -m text -c 'CMD x' box repo:tag",
    "commit -p=false box",
    "commit box host.example/a/b",
    "tag a:b@x c",
    "tag a C",
    "network connect --ip 1.2.3.4 --driver-opt a=b net box",
    "network create --gateway 10.0.0.1 net",
    "network create --subnet x net",
    "network create --subnet 10.0.0.0/24 --gateway 10.1.0.1 net",
    "volume create --name a b",
    "wait",
    "rename a ''",
    "update box",
    "top",
]


@pytest.mark.parametrize("line", OTHER)
def test_other_commands_send_what_docker_sends(fake: FakeEngine, line: str) -> None:
    both(fake, shlex.split(line))
