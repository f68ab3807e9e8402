"""The flags of `run` and `create` to the body of `POST /containers/create`."""

import json
import os
import re
from collections.abc import Iterable, Mapping

from hafen.cli.flags import Flags, as_map
from hafen.cli.networks import attachments
from hafen.cli.runflags import check_device, is_device_mode, parse_device_rate
from hafen.client.engine import Document
from hafen.errors import InvalidArgument
from hafen.spec.digest import is_hex
from hafen.spec.reference import parse

_WINDOWS_ONLY = ("cpu-count", "cpu-percent", "io-maxbandwidth", "io-maxiops")


def check_supported(flags: Flags) -> None:
    """InvalidArgument for flags of another system, before anything is asked of the engine."""
    told = "is only supported on a Docker daemon running on windows, but the Docker daemon is running on linux"
    problems = [f'"--{name}" {told}' for name in _WINDOWS_ONLY if flags.changed(name)]
    if problems:
        raise InvalidArgument("\n".join(problems))


def request(flags: Flags, image: str, command: list[str], environ: Mapping[str, str]) -> Document:
    """The whole body. Everything is checked that docker checks before it asks the engine."""
    policy = flags.text("pull", "missing")
    if policy not in ("always", "missing", "never"):
        raise InvalidArgument(f'invalid pull option: \'{policy}\': must be one of "always", "missing" or "never"')
    if not is_hex(image, 64):  # an identifier is no reference
        parse(image)
    networks = attachments(flags)
    body = _config(flags, image, command, environ)
    body["HostConfig"] = _host_config(flags, networks[0].target)
    endpoints = {item.target: item.endpoint for item in networks if item.endpoint or len(networks) > 1}
    if flags.values("network") and not networks[0].target.startswith("container:"):
        endpoints.setdefault(networks[0].target, networks[0].endpoint)
    if endpoints:
        body["NetworkingConfig"] = {"EndpointsConfig": endpoints}
    if flags.on("rm") and body["HostConfig"]["RestartPolicy"]["Name"] not in ("no", ""):
        raise InvalidArgument("conflicting options: cannot specify both --restart and --rm")
    return body


def _config(flags: Flags, image: str, command: list[str], environ: Mapping[str, str]) -> Document:
    streams = flags.values("attach")
    stdin = flags.on("interactive")
    config: Document = {
        "Image": image,
        "Cmd": command or None,
        "Hostname": flags.text("hostname"),
        "Domainname": flags.text("domainname"),
        "User": flags.text("user"),
        "WorkingDir": flags.text("workdir"),
        "Env": environment(flags, environ),
        "Labels": labels(flags),
        "Tty": flags.on("tty"),
        "OpenStdin": stdin,
        "AttachStdin": stdin or "stdin" in streams,
        "AttachStdout": not streams or "stdout" in streams,
        "AttachStderr": not streams or "stderr" in streams,
        "StdinOnce": stdin,
    }
    if flags.changed("entrypoint"):
        config["Entrypoint"] = [flags.text("entrypoint")]
    if flags.changed("stop-signal"):
        config["StopSignal"] = flags.text("stop-signal")
    if flags.changed("stop-timeout"):
        config["StopTimeout"] = flags.number("stop-timeout")
    volumes = [item for item in flags.values("volume") if ":" not in item]
    if volumes:
        config["Volumes"] = {item: {} for item in volumes}
    exposed = _exposed(flags)
    if exposed:
        config["ExposedPorts"] = {port: {} for port in exposed}
    check = _health_check(flags)
    if check:
        config["Healthcheck"] = check
    return config


def environment(flags: Flags, environ: Mapping[str, str]) -> list[str]:
    """Files first, then -e; a name without a value is taken from our own environment.

    Where it is not there either, a file's line is left out, and -e takes the image's variable of that name away.
    """
    items = [item for path in flags.values("env-file") for item in _key_values(path, "env")]
    found = [item if "=" in item else f"{item}={environ[item]}" for item in items if "=" in item or item in environ]
    given = {item.partition("=")[0]: item for item in flags.values("env")}  # the last of a name counts
    return found + [f"{item}={environ[item]}" if item in environ else item for item in given.values()]


def labels(flags: Flags) -> dict[str, str]:
    items = [item for path in flags.values("label-file") for item in _key_values(path, "label") if "=" in item]
    return as_map(items + flags.values("label"))


def _key_values(path: str, kind: str) -> Iterable[str]:
    with open(path, encoding="utf-8-sig") as file:
        for line in file.read().split("\n"):
            line = line.rstrip("\r").lstrip()
            if not line or line.startswith("#"):
                continue
            name = line.partition("=")[0]
            if not name:
                raise InvalidArgument(f"invalid {kind} file ({path}): no variable name on line '{line}'")
            if any(letter.isspace() for letter in name):
                raise InvalidArgument(f"invalid {kind} file ({path}): variable '{name}' contains whitespaces")
            yield line


def _exposed(flags: Flags) -> list[str]:
    if not (flags.values("expose") or flags.values("publish")):
        return []
    from hafen.spec.ports import parse_exposed, parse_publish

    ports: list[str] = []
    for item in flags.values("expose"):
        if ":" in item:
            raise InvalidArgument(f"invalid port format for --expose: {item}")
        try:
            ports += map(str, parse_exposed(item))
        except InvalidArgument:
            number = item.partition("/")[0].partition("-")[0]
            reason = f'strconv.ParseUint: parsing "{number}": invalid syntax'
            raise InvalidArgument(f"invalid range format for --expose: {item}, error: {reason}") from None
    return ports + [str(mapping.container) for item in flags.values("publish") for mapping in parse_publish(item)]


def _bindings(flags: Flags) -> Document:
    if not flags.values("publish"):
        return {}
    from hafen.spec.ports import parse_publish

    bindings: Document = {}
    for item in flags.values("publish"):
        for mapping in parse_publish(item):
            binding = {"HostIp": mapping.host_ip, "HostPort": str(mapping.host)}
            bindings.setdefault(str(mapping.container), []).append(binding)
    return bindings


def _health_check(flags: Flags) -> Document:
    names = ("interval", "timeout", "start-period", "start-interval")
    given = [name for name in (*names, "cmd", "retries") if flags.changed(f"health-{name}")]
    if flags.on("no-healthcheck"):
        if given:
            raise InvalidArgument("--no-healthcheck conflicts with --health-* options")
        return {"Test": ["NONE"]}
    if not given:
        return {}
    check: Document = {}
    if flags.text("health-cmd"):
        check["Test"] = ["CMD-SHELL", flags.text("health-cmd")]
    for name in names:
        value = flags.number(f"health-{name}")
        if value < 0:
            raise InvalidArgument(f"--health-{name} cannot be negative")
        check["".join(part.title() for part in name.split("-"))] = value
    if flags.number("health-retries") < 0:
        raise InvalidArgument("--health-retries cannot be negative")
    check["Retries"] = flags.number("health-retries")
    return check


def _host_config(flags: Flags, network: str) -> Document:
    host: Document = {
        "Binds": [_absolute_bind(item) for item in flags.values("volume") if ":" in item] or None,
        "ContainerIDFile": flags.text("cidfile"),
        "LogConfig": {"Type": flags.text("log-driver"), "Config": _log_options(flags)},
        "NetworkMode": network,
        "PortBindings": _bindings(flags),
        "RestartPolicy": restart_policy(flags.text("restart", "no")),
        "AutoRemove": flags.on("rm"),
        "VolumeDriver": flags.text("volume-driver"),
        "VolumesFrom": flags.values("volumes-from") or None,
        "CapAdd": _capabilities(flags.values("cap-add")) or None,
        "CapDrop": _capabilities(flags.values("cap-drop")) or None,
        "CgroupnsMode": _one_of(flags, "cgroupns", ("", "host", "private"), "--cgroupns: invalid CGROUP mode"),
        "Dns": flags.values("dns"),
        "DnsOptions": flags.values("dns-option"),
        "DnsSearch": flags.values("dns-search"),
        "ExtraHosts": flags.values("add-host") or None,
        "GroupAdd": flags.values("group-add") or None,
        "IpcMode": flags.text("ipc"),
        "Links": flags.values("link") or None,
        "OomScoreAdj": flags.number("oom-score-adj"),
        "PidMode": _pid_mode(flags.text("pid")),
        "Privileged": flags.on("privileged"),
        "PublishAllPorts": flags.on("publish-all"),
        "ReadonlyRootfs": flags.on("read-only"),
        "SecurityOpt": None,
        "StorageOpt": _storage_options(flags) or None,
        "Tmpfs": {path: options for path, _, options in (item.partition(":") for item in flags.values("tmpfs"))}
        or None,
        "UTSMode": _one_of(flags, "uts", ("", "host"), "--uts: invalid UTS mode"),
        "UsernsMode": _one_of(flags, "userns", ("", "host"), "--userns: invalid USER mode"),
        "ShmSize": flags.number("shm-size"),
        "Sysctls": as_map(flags.values("sysctl")) or None,
        "Runtime": flags.text("runtime"),
        "Isolation": flags.text("isolation"),
        "Annotations": as_map(flags.values("annotation")) or None,
    }
    if flags.changed("init"):
        host["Init"] = flags.on("init")
    mounts = _mounts(flags)
    if mounts:
        host["Mounts"] = mounts
    _add_security(flags, host)
    _add_resources(flags, host)
    return host


def _capabilities(names: list[str]) -> list[str]:
    """`net_admin` as CAP_NET_ADMIN."""
    found = dict.fromkeys(name.upper().strip() for name in names)
    return [name if name == "ALL" or name.startswith("CAP_") else f"CAP_{name}" for name in found]


def _one_of(flags: Flags, name: str, known: Iterable[str], message: str) -> str:
    if flags.text(name) not in known:
        raise InvalidArgument(message)
    return flags.text(name)


def _pid_mode(text: str) -> str:
    kind, _, container = text.partition(":")
    if text not in ("", "host", "private") and not (kind == "container" and container):
        raise InvalidArgument("--pid: invalid PID mode")
    return text


def _absolute_bind(text: str) -> str:
    """Docker resolves what starts with a dot, on the client's side; all else is the engine's business."""
    parts = text.split(":")
    if "" in parts[:3]:
        raise InvalidArgument(f"invalid spec: {text}: empty section between colons")
    if len(parts) > 3 and len(parts[0]) > 1:  # docker takes one letter for a drive
        raise InvalidArgument(f"invalid spec: {text}: too many colons")
    source, _, rest = text.partition(":")
    return f"{os.path.abspath(source)}:{rest}" if source.startswith(".") else text


def _mounts(flags: Flags) -> list[Document]:
    if not flags.values("mount"):
        return []
    from hafen.cli.mounts import parse_mount

    return [parse_mount(item) for item in flags.values("mount")]


def _log_options(flags: Flags) -> dict[str, str]:
    options = as_map(flags.values("log-opt"))
    if flags.text("log-driver") == "none" and options:
        raise InvalidArgument("invalid logging opts for driver none")
    return options


def _storage_options(flags: Flags) -> dict[str, str]:
    options = flags.values("storage-opt")
    if not all("=" in item for item in options):
        raise InvalidArgument("invalid storage option")
    return as_map(options)


def restart_policy(text: str) -> Document:
    name, colon, count = text.partition(":")
    if not name and colon:
        raise InvalidArgument("invalid restart policy format: no policy provided before colon")
    if count and not re.fullmatch(r"[-+]?[0-9]+", count):
        raise InvalidArgument("invalid restart policy format: maximum retry count must be an integer")
    return {"Name": name, "MaximumRetryCount": int(count or 0)}


def _add_security(flags: Flags, host: Document) -> None:
    """`seccomp=FILE` is read here; `systempaths=unconfined` is two fields of its own."""
    options = []
    for item in flags.values("security-opt"):
        name, separator, value = item.partition("=") if "=" in item else item.partition(":")
        if not separator and name != "no-new-privileges":
            raise InvalidArgument(f'Invalid --security-opt: "{item}"')
        if name == "systempaths" and value == "unconfined":
            host["MaskedPaths"], host["ReadonlyPaths"] = [], []
            continue
        if name == "seccomp" and value not in ("unconfined", "builtin"):
            item = f"seccomp={_compact(value)}"
        options.append(item)
    host["SecurityOpt"] = options or None


def _compact(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return json.dumps(json.load(file), separators=(",", ":"))
    except OSError as error:
        reason = (error.strerror or "").lower()
        raise InvalidArgument(f"opening seccomp profile ({path}) failed: open {path}: {reason}") from None
    except ValueError as error:
        raise InvalidArgument(f"compacting json for seccomp profile ({path}) failed: {error}") from None


RESOURCE_NUMBERS = {
    "blkio-weight": "BlkioWeight",
    "cpu-count": "CpuCount",
    "cpu-percent": "CpuPercent",
    "cpu-period": "CpuPeriod",
    "cpu-quota": "CpuQuota",
    "cpu-rt-period": "CpuRealtimePeriod",
    "cpu-rt-runtime": "CpuRealtimeRuntime",
    "cpu-shares": "CpuShares",
    "cpus": "NanoCpus",
    "io-maxbandwidth": "IOMaximumBandwidth",
    "io-maxiops": "IOMaximumIOps",
    "memory": "Memory",
    "memory-reservation": "MemoryReservation",
    "memory-swap": "MemorySwap",
}


def _add_resources(flags: Flags, host: Document) -> None:
    for name, key in RESOURCE_NUMBERS.items():
        host[key] = flags.number(name)
    host["CpusetCpus"], host["CpusetMems"] = flags.text("cpuset-cpus"), flags.text("cpuset-mems")
    host["CgroupParent"] = flags.text("cgroup-parent")
    host["OomKillDisable"] = flags.on("oom-kill-disable")
    host["PidsLimit"] = flags.number("pids-limit")
    swappiness = flags.number("memory-swappiness", -1)
    if not -1 <= swappiness <= 100:
        raise InvalidArgument(f"invalid value: {swappiness}. Valid memory swappiness range is 0-100")
    host["MemorySwappiness"] = swappiness
    host["BlkioWeightDevice"] = [
        {"Path": path, "Weight": int(weight)}
        for path, _, weight in (item.rpartition(":") for item in flags.values("blkio-weight-device"))
    ]
    for operation in ("read", "write"):
        for unit in ("bps", "iops"):
            rates = [parse_device_rate(item) for item in flags.values(f"device-{operation}-{unit}")]
            key = f"BlkioDevice{operation.title()}{'Bps' if unit == 'bps' else 'IOps'}"
            host[key] = [{"Path": path, "Rate": rate} for path, rate in rates]
    host["Devices"] = [_device(item) for item in flags.values("device") if _is_path(item)]
    host["DeviceCgroupRules"] = flags.values("device-cgroup-rule") or None
    host["DeviceRequests"] = _device_requests(flags)
    host["Ulimits"] = sorted(map(_ulimit, flags.values("ulimit")), key=lambda item: str(item["Name"]))


def _is_path(device: str) -> bool:
    return device.startswith("/") or "=" not in device


def _device(text: str) -> Document:
    check_device(text)
    source, *rest = text.split(":")
    target, mode = source, "rwm"
    for part in rest:
        if is_device_mode(part):
            mode = part
        else:
            target = part
    return {"PathOnHost": source, "PathInContainer": target, "CgroupPermissions": mode}


def _device_requests(flags: Flags) -> list[Document] | None:
    requests: list[Document] = []
    cdi = [item for item in flags.values("device") if not _is_path(item)]
    if flags.values("gpus"):
        from hafen.cli.mounts import parse_gpus

        requests = [parse_gpus(item) for item in flags.values("gpus")]
    if cdi:
        requests.append({"Driver": "cdi", "DeviceIDs": cdi})
    return requests or None


def _ulimit(text: str) -> Document:
    name, _, limits = text.partition("=")
    soft, _, hard = limits.partition(":")
    return {"Name": name, "Soft": int(soft), "Hard": int(hard or soft)}
