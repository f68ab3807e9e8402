"""Every field of `POST /containers/create`, and what becomes of it: one table for the audit and for the real engine.

Names are `Config.X`, `HostConfig.X`, `Endpoint.X`, `Mount.X`, as in the Engine API's definitions.
"""

import os
from typing import NamedTuple

Body = dict[str, object]


class Works(NamedTuple):
    """`script`, run by sh in a container that was created with `body`, prints what `shown` (a regular expression)
    finds; without a script the body has its own command, and `{directory}` in it is a directory of the test's."""

    fields: str
    body: Body
    script: str
    shown: str


class Refused(NamedTuple):
    """Creating it, or starting it, is answered with this."""

    fields: str
    body: Body
    status: int
    message: str


def _host(**fields: object) -> Body:
    return {"HostConfig": fields}


def _mount(**fields: object) -> Body:
    return {"HostConfig": {"Mounts": [{"Target": "/m", **fields}]}}


def _v1_or_v2(old: str, new: str) -> str:
    return f"cat /sys/fs/cgroup/{old} 2>/dev/null || cat /sys/fs/cgroup/{new}"


_MIB = 1024 * 1024

WORKS = (
    Works("Config.Hostname Config.Domainname", {"Hostname": "hx", "Domainname": "dx"},
          "hostname; cat /proc/sys/kernel/domainname", r"hx\ndx"),
    Works("Config.User", {"User": "1:7"}, "id -u; id -g", r"1\n7"),
    Works("Config.Env", {"Env": ["A=b c"]}, 'echo "$A"', "b c"),
    Works("Config.Cmd Config.Image", {"Cmd": ["echo", "by itself"]}, "", "by itself"),
    Works("Config.Entrypoint", {"Entrypoint": ["echo", "first"], "Cmd": ["second"]}, "", "first second"),
    Works("Config.WorkingDir", {"WorkingDir": "/made/here"}, "pwd", "/made/here"),
    Works("Config.Volumes", {"Volumes": {"/v": {}}}, "grep ' /v ' /proc/mounts", "/v"),
    Works("Config.Tty HostConfig.ConsoleSize", {"Tty": True, "HostConfig": {"ConsoleSize": [31, 77]}}, "stty size",
          "31 77"),
    Works("Config.NetworkDisabled", {"NetworkDisabled": True, "HostConfig": {"NetworkMode": "bridge"}},
          "ls /sys/class/net", r"^lo\s*$"),
    Works("HostConfig.CpuShares", _host(CpuShares=512), _v1_or_v2("cpu/cpu.shares", "cpu.weight"), "512|20"),
    Works("HostConfig.CpuPeriod HostConfig.CpuQuota", _host(CpuPeriod=50000, CpuQuota=20000),
          "cd /sys/fs/cgroup; cat cpu/cpu.cfs_quota_us cpu/cpu.cfs_period_us 2>/dev/null || cat cpu.max",
          r"20000\s+50000"),
    Works("HostConfig.NanoCpus", _host(NanoCpus=500_000_000), _v1_or_v2("cpu/cpu.cfs_quota_us", "cpu.max"), "50000"),
    Works("HostConfig.CpusetCpus HostConfig.CpusetMems", _host(CpusetCpus="0", CpusetMems="0"),
          "grep -E '^(Cpus|Mems)_allowed_list' /proc/self/status", r"Cpus_allowed_list:\s0\nMems_allowed_list:\s0"),
    Works("HostConfig.Memory HostConfig.MemoryReservation", _host(Memory=64 * _MIB, MemoryReservation=32 * _MIB),
          "cd /sys/fs/cgroup; cat memory/memory.limit_in_bytes memory/memory.soft_limit_in_bytes 2>/dev/null || "
          "cat memory.max memory.low", f"{64 * _MIB}\n{32 * _MIB}"),
    Works("HostConfig.MemorySwap", _host(Memory=64 * _MIB, MemorySwap=80 * _MIB),
          _v1_or_v2("memory/memory.memsw.limit_in_bytes", "memory.swap.max"), f"{80 * _MIB}|{16 * _MIB}"),
    Works("HostConfig.MemorySwappiness", _host(MemorySwappiness=13),  # cgroup v2 has neither this nor the next
          _v1_or_v2("memory/memory.swappiness", "memory.max"), "^(13|max)"),
    Works("HostConfig.OomKillDisable", _host(OomKillDisable=True, Memory=64 * _MIB),
          _v1_or_v2("memory/memory.oom_control", "memory.max"), f"oom_kill_disable 1|{64 * _MIB}"),
    Works("HostConfig.PidsLimit", _host(PidsLimit=77), _v1_or_v2("pids/pids.max", "pids.max"), "77"),
    Works("HostConfig.CgroupParent", _host(CgroupParent="/hafen-fields", CgroupnsMode="host"), "cat /proc/self/cgroup",
          "/hafen-fields/"),
    Works("HostConfig.CgroupnsMode", _host(CgroupnsMode="host"), "readlink /proc/self/ns/cgroup",
          "{ns:cgroup}"),
    Works("HostConfig.Devices",
          _host(Devices=[{"PathOnHost": "/dev/kmsg", "PathInContainer": "/dev/km", "CgroupPermissions": "w"}]),
          "stat -c %t:%T /dev/km; cat /dev/km 2>&1", r"1:b\n.*Operation not permitted"),
    Works("HostConfig.DeviceCgroupRules", _host(DeviceCgroupRules=["c 1:11 w"]),
          "mknod /tmp/k c 1 11; : >/tmp/k && echo written", "written"),
    Works("HostConfig.Ulimits", _host(Ulimits=[{"Name": "nofile", "Soft": 123, "Hard": 456}]), "ulimit -n; ulimit -Hn",
          r"123\n456"),
    Works("HostConfig.Binds", _host(Binds=["{directory}:/b:ro"]), "ls /b; touch /b/x 2>&1", "here\n.*Read-only"),
    Works("HostConfig.VolumeDriver", _host(VolumeDriver="local", Binds=["fields-v:/b"]), "grep -c ' /b ' /proc/mounts",
          "1"),
    Works("HostConfig.Tmpfs", _host(Tmpfs={"/t": "size=1m,mode=0700,exec"}), "grep ' /t ' /proc/mounts",
          "size=1024k,mode=700"),
    Works("HostConfig.NetworkMode", _host(NetworkMode="host"), "readlink /proc/self/ns/net", "{ns:net}"),
    Works("HostConfig.IpcMode", _host(IpcMode="host"), "readlink /proc/self/ns/ipc", "{ns:ipc}"),
    Works("HostConfig.PidMode", _host(PidMode="host"), "readlink /proc/self/ns/pid", "{ns:pid}"),
    Works("HostConfig.UTSMode", _host(UTSMode="host"), "readlink /proc/self/ns/uts", "{ns:uts}"),
    Works("HostConfig.UsernsMode", _host(UsernsMode="host"), "readlink /proc/self/ns/user", "{ns:user}"),
    Works("HostConfig.CapAdd HostConfig.CapDrop", _host(CapAdd=["NET_ADMIN"], CapDrop=["ALL"]),
          "grep CapEff /proc/self/status", "0000000000001000"),
    Works("HostConfig.Dns HostConfig.DnsOptions HostConfig.DnsSearch",
          _host(NetworkMode="bridge", Dns=["9.8.7.6"], DnsOptions=["ndots:4"], DnsSearch=["a.example"]),
          "cat /etc/resolv.conf", r"nameserver 9.8.7.6\nsearch a.example\noptions ndots:4"),
    Works("HostConfig.ExtraHosts", _host(NetworkMode="bridge", ExtraHosts=["up:host-gateway", "db:1.2.3.4"]),
          "cat /etc/hosts", r"\d+\.1\tup\n1\.2\.3\.4\tdb"),
    Works("HostConfig.GroupAdd", _host(GroupAdd=["daemon", "4711"]), "id -G", "1 4711"),
    Works("HostConfig.OomScoreAdj", _host(OomScoreAdj=321), "cat /proc/self/oom_score_adj", "321"),
    Works("HostConfig.Privileged", _host(Privileged=True), "mount -t tmpfs x /tmp && echo may", "may"),
    Works("HostConfig.ReadonlyRootfs", _host(ReadonlyRootfs=True), "touch /x 2>&1", "Read-only file system"),
    Works("HostConfig.SecurityOpt", _host(SecurityOpt=["no-new-privileges", "seccomp=unconfined", "label=disable"]),
          "grep -E 'NoNewPrivs|Seccomp:' /proc/self/status", r"NoNewPrivs:\s1\nSeccomp:\s0"),
    Works("HostConfig.ShmSize", _host(ShmSize=2 * _MIB), "grep ' /dev/shm ' /proc/mounts", "size=2048k"),
    Works("HostConfig.Sysctls", _host(Sysctls={"kernel.msgmax": "9000"}), "cat /proc/sys/kernel/msgmax", "9000"),
    Works("HostConfig.MaskedPaths HostConfig.ReadonlyPaths",
          _host(MaskedPaths=["/etc/group"], ReadonlyPaths=["/home"]), "wc -c </etc/group; touch /home/x 2>&1",
          "^0\n.*Read-only"),
    Works("HostConfig.Init", _host(Init=True), "cat /proc/1/cmdline", "docker-init"),
    Works("HostConfig.Runtime", _host(Runtime="hafen"), "echo ran", "ran"),
    Works("HostConfig.Isolation", _host(Isolation="default"), "echo ran", "ran"),
    Works("Endpoint.MacAddress",
          {"HostConfig": {"NetworkMode": "bridge"},
           "NetworkingConfig": {"EndpointsConfig": {"bridge": {"MacAddress": "02:42:0a:0b:0c:0d"}}}},
          "cat /sys/class/net/eth0/address", "02:42:0a:0b:0c:0d"),
    Works("Mount.Type Mount.Source Mount.Target Mount.ReadOnly Mount.Consistency",
          _mount(Type="bind", Source="{directory}", ReadOnly=True, Consistency="cached"), "ls /m; touch /m/x 2>&1",
          "here\n.*Read-only"),
    Works("Mount.BindOptions.CreateMountpoint",
          _mount(Type="bind", Source="{directory}/made", BindOptions={"CreateMountpoint": True}), "ls -d /m", "/m"),
    Works("Mount.BindOptions.NonRecursive", _mount(Type="bind", Source="/sys", BindOptions={"NonRecursive": True}),
          "ls -A /m/fs/cgroup | wc -l", r"^0"),
    Works("Mount.BindOptions.ReadOnlyNonRecursive",
          _mount(Type="bind", Source="/dev", ReadOnly=True, BindOptions={"ReadOnlyNonRecursive": True}),
          "grep -E ' /m(/[^ ]*)? ' /proc/mounts", r" /m \S+ ro,(?s:.*) /m/\S+ \S+ rw,"),
    Works("Mount.BindOptions.ReadOnlyForceRecursive",
          _mount(Type="bind", Source="/dev", ReadOnly=True,
                 BindOptions={"ReadOnlyForceRecursive": True, "Propagation": "rprivate"}),
          "grep -E ' /m/[^ ]* ' /proc/mounts | grep -c ' rw,'", "^0"),
    Works("Mount.VolumeOptions.Labels", _mount(Type="volume", Source="fields-l", VolumeOptions={"Labels": {"a": "b"}}),
          "ls -d /m", "/m"),
    Works("Mount.VolumeOptions.NoCopy", _mount(Type="volume", Target="/home", VolumeOptions={"NoCopy": True}),
          "ls -A /home | wc -l", "^0"),
    Works("Mount.VolumeOptions.DriverConfig",
          _mount(Type="volume", Source="fields-d", VolumeOptions={
              "DriverConfig": {"Name": "local", "Options": {"type": "tmpfs", "device": "tmpfs", "o": "size=3m"}}}),
          "grep ' /m ' /proc/mounts", "size=3072k"),
    Works("Mount.TmpfsOptions.SizeBytes Mount.TmpfsOptions.Mode Mount.TmpfsOptions.Options",
          _mount(Type="tmpfs",
                 TmpfsOptions={"SizeBytes": 4 * _MIB, "Mode": 0o711, "Options": [["exec"], ["uid", "3"]]}),
          "grep ' /m ' /proc/mounts", "size=4096k,mode=711,uid=3"),
)  # fmt: skip

REFUSED = (
    Refused("HostConfig.IOMaximumIOps", _host(IOMaximumIOps=1), 500,
            "Invalid QoS settings: linux does not support configuration of maximum IOPs"),
    Refused("HostConfig.IOMaximumBandwidth", _host(IOMaximumBandwidth=1), 500,
            "Invalid QoS settings: linux does not support configuration of maximum bandwidth"),
    Refused("HostConfig.StorageOpt", _host(StorageOpt={"size": "1G"}), 500,
            "--storage-opt is supported only for overlay over xfs with 'pquota' mount option"),
    Refused("Mount.ImageOptions.Subpath", _mount(Type="image", Source="busybox", ImageOptions={"Subpath": "etc"}), 501,
            "subpaths of image mounts are not implemented yet"),
    Refused("", _mount(Type="npipe", Source="x"), 400, 'invalid mount config for type "npipe": mount type unknown'),
    Refused("", _mount(Type="cluster", Source="x"), 400, 'invalid mount config for type "cluster": mount type unknown'),
    Refused("", _host(SecurityOpt=["systempaths=unconfined"]), 500,
            'invalid --security-opt 2: "systempaths=unconfined"'),
    Refused("", _host(Sysctls={"net.ipv4.ip_forward": "1"}, NetworkMode="host"), 500,
            'sysctl "net.ipv4.ip_forward" not allowed in host network namespace'),
    Refused("", _host(Tmpfs={"/x": "weird"}), 500, 'invalid tmpfs option "weird"'),
    Refused("", _host(Dns=["nope"]), 500, 'bad nameserver address nope: ParseAddr("nope"): unable to parse IP'),
    Refused("", _host(Runtime="nope"), 400, "unknown or invalid runtime name: nope"),
    Refused("", _host(VolumesFrom=[""]), 400, "volumes-from specification cannot be an empty string"),
    Refused("", _host(CpuRealtimeRuntime=2000, CpuRealtimePeriod=1000), 500,
            "cpu real-time runtime cannot be higher than cpu real-time period"),
    Refused("", _mount(Type="bind", Source="/tmp", BindOptions={"ReadOnlyForceRecursive": True}), 500,
            "mount options conflict: !ReadOnly && BindOptions.ReadOnlyForceRecursive"),
    Refused("", _mount(Type="volume", VolumeOptions={"Subpath": "x"}), 400,
            'invalid mount config for type "volume": must not set Subpath when using anonymous volumes'),
    Refused("", {"MacAddress": "02:42:ac:11:00:01", "HostConfig": {"NetworkMode": "bridge"},
                 "NetworkingConfig": {"EndpointsConfig": {"bridge": {"MacAddress": "02:42:ac:11:00:02"}}}}, 400,
            "the container-wide MAC address must match the endpoint-specific MAC address for the main network, or be "
            "left empty"),
)  # fmt: skip

KEPT: dict[str, object] = {
    "Config.AttachStdin": True, "Config.AttachStdout": True, "Config.AttachStderr": True, "Config.ArgsEscaped": True,
    "Config.OnBuild": ["RUN x"], "Config.Shell": ["/bin/sh", "-c"], "Config.Labels": {"a": "b"},
    "Config.StopTimeout": 7, "HostConfig.ContainerIDFile": "/x", "HostConfig.Annotations": {"a": "b"},
    "HostConfig.CpuCount": 1, "HostConfig.CpuPercent": 2, "HostConfig.Cgroup": "container:x",
}  # fmt: skip
"""Fields that Docker on Linux writes down, shows, and does nothing with at the start: the attach call, a build, a
client or Windows reads them (StopTimeout: `stop` does)."""

ELSEWHERE = {
    "Config.ExposedPorts": "tests/root/engine/test_links.py::test_variables_and_hosts",
    "Config.Healthcheck": "tests/root/engine/test_health.py::test_from_starting_to_healthy_to_unhealthy_and_back",
    "Config.OpenStdin": "tests/root/acceptance/test_docker_command.py::test_stdin_reaches_the_container_and_ends",
    "Config.StdinOnce": "tests/root/acceptance/test_docker_command.py::test_stdin_reaches_the_container_and_ends",
    "Config.StopSignal": "tests/root/engine/test_lifecycle.py::test_stop_sends_the_signal_and_waits",
    "HostConfig.AutoRemove":
        "tests/root/engine/test_volumes.py::test_anonymous_volumes_go_with_an_auto_removed_container",
    "HostConfig.BlkioDeviceReadBps": "tests/root/engine/test_create_fields.py::test_throttles",
    "HostConfig.BlkioDeviceReadIOps": "tests/root/engine/test_create_fields.py::test_throttles",
    "HostConfig.BlkioDeviceWriteBps": "tests/root/engine/test_create_fields.py::test_throttles",
    "HostConfig.BlkioDeviceWriteIOps": "tests/root/engine/test_create_fields.py::test_throttles",
    "HostConfig.BlkioWeight": "tests/unit/runtime/test_resources.py::test_weight_of_blkio",
    "HostConfig.BlkioWeightDevice": "tests/unit/runtime/test_resources.py::test_block_io",
    "HostConfig.CpuRealtimePeriod": "tests/root/engine/test_create_fields.py::test_real_time",
    "HostConfig.CpuRealtimeRuntime": "tests/root/engine/test_create_fields.py::test_real_time",
    "HostConfig.DeviceRequests": "tests/root/engine/test_cdi.py::test_every_kind_of_edit",
    "HostConfig.Links": "tests/root/engine/test_links.py::test_variables_and_hosts",
    "HostConfig.LogConfig": "tests/root/shim/test_logs.py::test_followed_to_the_end_over_many_rotations",
    "HostConfig.Mounts": "tests/root/engine/test_create_fields.py::test_works",
    "HostConfig.PortBindings": "tests/root/network/test_bridge.py::test_published_port_from_everywhere",
    "HostConfig.PublishAllPorts": "tests/root/engine/test_create_fields.py::test_publish_all",
    "HostConfig.RestartPolicy": "tests/root/engine/test_lifecycle.py::test_on_failure_gives_up_after_so_many",
    "HostConfig.VolumesFrom": "tests/root/engine/test_volumes.py::test_volumes_from",
    "Endpoint.Aliases": "tests/root/network/test_networks.py::test_names_in_a_user_defined_network",
    "Endpoint.GwPriority": "tests/root/engine/test_create_fields.py::test_the_way_out",
    "Endpoint.IPAMConfig": "tests/root/network/test_networks.py::test_fixed_addresses",
    "Endpoint.Links": "tests/root/engine/test_links.py::test_on_a_network_of_ones_own",
    "Mount.BindOptions.Propagation":
        "tests/root/engine/test_volumes.py::test_mounts_are_shared_with_the_host_where_asked",
    "Mount.VolumeOptions.Subpath": "tests/root/engine/test_volumes.py::test_volume_subpath",
}  # fmt: skip
"""Fields that take more than one container to show: the test that does."""

IGNORED = {
    "Endpoint.DriverOpts": "kept for the driver, and the bridge driver knows none, as Docker's knows only sysctls",
    **dict.fromkeys(
        (f"Endpoint.{name}" for name in (
            "DNSNames", "EndpointID", "Gateway", "GlobalIPv6Address", "GlobalIPv6PrefixLen", "IPAddress",
            "IPPrefixLen", "IPv6Gateway", "NetworkID")),
        "the engine fills it; what a client sends is passed over, as Docker does",
    ),
}  # fmt: skip


def namespace(kind: str) -> str:
    """What `readlink` says of this process's namespace."""
    return os.readlink(f"/proc/self/ns/{kind}")
