"""The flags of `run` and `create`, and what each value must look like."""

from collections.abc import Mapping

from hafen.cli.flags import Validator
from hafen.errors import InvalidArgument

SHARED = """
    --add-host list                    Add a custom host-to-IP mapping (host:ip)
    --annotation map                   Add an annotation to the container (passed through to the OCI runtime) \
(default map[])
-a, --attach list                      Attach to STDIN, STDOUT or STDERR
    --blkio-weight uint16              Block IO (relative weight), between 10 and 1000, or 0 to disable (default 0)
    --blkio-weight-device list         Block IO weight (relative device weight) (default [])
    --cap-add list                     Add Linux capabilities
    --cap-drop list                    Drop Linux capabilities
    --cgroup-parent string             Optional parent cgroup for the container
    --cgroupns string                  Cgroup namespace to use (host|private)
    --cidfile string                   Write the container ID to the file
    --cpu-count int                    (hidden)
    --cpu-percent int                  (hidden)
    --cpu-period int                   Limit CPU CFS (Completely Fair Scheduler) period
    --cpu-quota int                    Limit CPU CFS (Completely Fair Scheduler) quota
    --cpu-rt-period int                Limit CPU real-time period in microseconds
    --cpu-rt-runtime int               Limit CPU real-time runtime in microseconds
-c, --cpu-shares int                   CPU shares (relative weight)
    --cpus decimal                     Number of CPUs
    --cpuset-cpus string               CPUs in which to allow execution (0-3, 0,1)
    --cpuset-mems string               MEMs in which to allow execution (0-3, 0,1)
    --device list                      Add a host device to the container
    --device-cgroup-rule list          Add a rule to the cgroup allowed devices list
    --device-read-bps list             Limit read rate (bytes per second) from a device (default [])
    --device-read-iops list            Limit read rate (IO per second) from a device (default [])
    --device-write-bps list            Limit write rate (bytes per second) to a device (default [])
    --device-write-iops list           Limit write rate (IO per second) to a device (default [])
    --disable-content-trust            Skip image verification (default true)
    --dns list                         Set custom DNS servers
    --dns-option list                  Set DNS options
    --dns-search list                  Set custom DNS search domains
    --domainname string                Container NIS domain name
    --entrypoint string                Overwrite the default ENTRYPOINT of the image
-e, --env list                         Set environment variables
    --env-file list                    Read in a file of environment variables
    --expose list                      Expose a port or a range of ports
    --gpus gpu-request                 GPU devices to add to the container ('all' to pass all GPUs)
    --group-add list                   Add additional groups to join
    --health-cmd string                Command to run to check health
    --health-interval duration         Time between running the check (ms|s|m|h) (default 0s)
    --health-retries int               Consecutive failures needed to report unhealthy
    --health-start-interval duration   Time between running the check during the start period (ms|s|m|h) (default 0s)
    --health-start-period duration     Start period for the container to initialize before starting health-retries \
countdown (ms|s|m|h) (default 0s)
    --health-timeout duration          Maximum time to allow one check to run (ms|s|m|h) (default 0s)
    --help                             Print usage
-h, --hostname string                  Container host name
    --init                             Run an init inside the container that forwards signals and reaps processes
-i, --interactive                      Keep STDIN open even if not attached
    --io-maxbandwidth bytes            (hidden)
    --io-maxiops int                   (hidden)
    --ip string                        IPv4 address (e.g., 172.30.100.104)
    --ip6 string                       IPv6 address (e.g., 2001:db8::33)
    --ipc string                       IPC mode to use
    --isolation string                 Container isolation technology
    --kernel-memory bytes              Kernel memory limit
-l, --label list                       Set meta data on a container
    --label-file list                  Read in a line delimited file of labels
    --link list                        Add link to another container
    --link-local-ip list               Container IPv4/IPv6 link-local addresses
    --log-driver string                Logging driver for the container
    --log-opt list                     Log driver options
    --mac-address string               Container MAC address (e.g., 92:d0:c6:0a:29:33)
-m, --memory bytes                     Memory limit
    --memory-reservation bytes         Memory soft limit
    --memory-swap bytes                Swap limit equal to memory plus swap: '-1' to enable unlimited swap
    --memory-swappiness int            Tune container memory swappiness (0 to 100) (default -1)
    --mount mount                      Attach a filesystem mount to the container
    --name string                      Assign a name to the container
    --network network                  Connect a container to a network
    --network-alias list               Add network-scoped alias for the container
    --no-healthcheck                   Disable any container-specified HEALTHCHECK
    --oom-kill-disable                 Disable OOM Killer
    --oom-score-adj int                Tune host's OOM preferences (-1000 to 1000)
    --pid string                       PID namespace to use
    --pids-limit int                   Tune container pids limit (set -1 for unlimited)
    --platform string                  Set platform if server is multi-platform capable
    --privileged                       Give extended privileges to this container
-p, --publish list                     Publish a container's port(s) to the host
-P, --publish-all                      Publish all exposed ports to random ports
    --pull string                      Pull image before running ("always", "missing", "never") (default "missing")
-q, --quiet                            Suppress the pull output
    --read-only                        Mount the container's root filesystem as read only
    --restart string                   Restart policy to apply when a container exits (default "no")
    --rm                               Automatically remove the container and its associated anonymous volumes when it \
exits
    --runtime string                   Runtime to use for this container
    --security-opt list                Security Options
    --shm-size bytes                   Size of /dev/shm
    --stop-signal string               Signal to stop the container
    --stop-timeout int                 Timeout (in seconds) to stop a container
    --storage-opt list                 Storage driver options for the container
    --sysctl map                       Sysctl options (default map[])
    --tmpfs list                       Mount a tmpfs directory
-t, --tty                              Allocate a pseudo-TTY
    --ulimit ulimit                    Ulimit options (default [])
    --use-api-socket                   Bind mount Docker API socket and required auth
-u, --user string                      Username or UID (format: <name|uid>[:<group|gid>])
    --userns string                    User namespace to use
    --uts string                       UTS namespace to use
-v, --volume list                      Bind mount a volume
    --volume-driver string             Optional volume driver for the container
    --volumes-from list                Mount volumes from the specified container(s)
-w, --workdir string                   Working directory inside the container
"""

RUN_ONLY = """
-d, --detach                           Run container in background and print container ID
    --detach-keys string               Override the key sequence for detaching a container
    --sig-proxy                        Proxy received signals to the process (default true)
"""

ALIASES = {"net": "network", "net-alias": "network-alias", "dns-opt": "dns-option"}


def _stream(text: str) -> str:
    if text.lower() not in ("stdin", "stdout", "stderr"):
        raise InvalidArgument("valid streams are STDIN, STDOUT and STDERR")
    return text.lower()


def _environment(text: str) -> str:
    if text.startswith("=") or not text:
        raise InvalidArgument(f"invalid environment variable: {text}")
    return text


def _label(text: str) -> str:
    if text.startswith("=") or not text:
        raise InvalidArgument(f"invalid label '{text}': empty name")
    return text


def check_device(text: str) -> None:
    """`path[:path][:rwm]`."""
    parts = text.split(":")
    if len(parts) > 3:
        raise InvalidArgument(f"invalid device specification: {text}")
    if len(parts) == 3 and not is_device_mode(parts[2]):
        raise InvalidArgument(f"bad mode specified: {parts[2]}")
    path = parts[1] if len(parts) > 1 and not is_device_mode(parts[1]) else parts[0]
    if not path.startswith("/"):
        raise InvalidArgument(f"{path} is not an absolute path")


def is_device_mode(text: str) -> bool:
    return bool(text) and all(letter in "rwm" for letter in text) and len(set(text)) == len(text)


def _add_host(text: str) -> str:
    name, _, address = text.partition("=") if "=" in text else text.partition(":")
    if not name:
        raise InvalidArgument(f'bad format for add-host: "{text}"')
    if address != "host-gateway":
        from ipaddress import ip_address

        try:
            address = str(ip_address(address.strip("[]")))
        except ValueError:
            raise InvalidArgument(
                f'invalid IP address in add-host: "{address}"' if address else f'bad format for add-host: "{text}"'
            ) from None
    return f"{name}:{address}"


def _dns(text: str) -> str:
    from ipaddress import ip_address

    try:
        return str(ip_address(text.strip()))
    except ValueError:
        raise InvalidArgument(f"IP address is not correctly formatted: {text}") from None


def _dns_search(text: str) -> str:
    text = text.strip()
    if text != "." and not text.replace(".", "").replace("-", "").replace("_", "").isalnum():
        raise InvalidArgument(f"{text} is not a valid domain" if text else "empty DNS search domain")
    return text


def _ulimit(text: str) -> str:
    name, equals, limits = text.partition("=")
    soft, _, hard = limits.partition(":")
    if not equals or not limits:
        raise InvalidArgument(f"invalid ulimit argument: {text}")
    if name not in ULIMITS:
        raise InvalidArgument(f"invalid ulimit type: {name}")
    for limit in (soft, hard or soft):
        if not limit.lstrip("-").isdigit():
            raise InvalidArgument(f"invalid limits: strconv.ParseInt: parsing {_quote(limit)}: invalid syntax")
    if hard and int(hard) != -1 and (int(soft) > int(hard) or int(soft) == -1):
        raise InvalidArgument(f"ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}")
    return text


ULIMITS = frozenset(
    ("core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc", "rss", "rtprio",
     "rttime", "sigpending", "stack")
)  # fmt: skip


def _quote(text: str) -> str:
    return f'"{text}"'


def _link(text: str) -> str:
    if not text or text.count(":") > 1:
        raise InvalidArgument(f"bad format for links: {text}" if text else "empty string specified for links")
    return text


def _cgroup_rule(text: str) -> str:
    import re

    if not re.fullmatch(r"[acb] ([0-9]+|\*):([0-9]+|\*) [rwm]{1,3}", text):
        raise InvalidArgument(f"invalid device cgroup format '{text}'")
    return text


def _mount(text: str) -> str:
    from hafen.cli.mounts import parse_mount

    parse_mount(text)
    return text


def _network(text: str) -> str:
    from hafen.cli.networks import parse_network

    parse_network(text)
    return text


def _gpus(text: str) -> str:
    from hafen.cli.mounts import parse_gpus

    parse_gpus(text)
    return text


def _rate(text: str) -> str:
    parse_device_rate(text)
    return text


def _count(text: str) -> str:
    path, _, number = text.rpartition(":")
    if not path.startswith("/dev/"):
        raise InvalidArgument(f"bad format for device path: {text}" if path else f"bad format: {text}")
    if not number.isdigit():
        raise InvalidArgument(
            f"invalid rate for device: {text}. The correct format is <device-path>:<number>. "
            "Number must be a positive integer"
        )
    return text


def parse_device_rate(text: str) -> tuple[str, int]:
    from hafen.spec.units import parse_size

    path, _, rate = text.rpartition(":")
    if not path.startswith("/dev/"):
        raise InvalidArgument(f"bad format for device path: {text}" if path else f"bad format: {text}")
    try:
        return path, parse_size(rate)
    except InvalidArgument:
        raise InvalidArgument(
            f"invalid rate for device: {text}. The correct format is <device-path>:<number>[<unit>]. "
            "Number must be a positive integer. Unit is optional and can be kb, mb, or gb"
        ) from None


def _weight(text: str) -> str:
    path, _, weight = text.rpartition(":")
    if not path.startswith("/dev/"):
        raise InvalidArgument(f"bad format for device path: {text}" if path else f"bad format: {text}")
    if not weight.isdigit() or (int(weight) and not 10 <= int(weight) <= 1000):
        raise InvalidArgument(f"invalid weight for device: {text}")
    return text


_SYSCTLS = frozenset(
    f"kernel.{name}" for name in ("msgmax", "msgmnb", "msgmni", "sem", "shmall", "shmmax", "shmmni", "shm_rmid_forced")
)


def _sysctl(text: str) -> str:
    name, equals, _ = text.partition("=")
    if not equals or not (name in _SYSCTLS or name.startswith(("net.", "fs.mqueue."))):
        raise InvalidArgument(f"sysctl '{text}' is not allowed")
    return text


VALIDATORS: Mapping[str, Validator] = {
    "attach": _stream,
    "env": _environment,
    "label": _label,
    "link": _link,
    "add-host": _add_host,
    "dns": _dns,
    "dns-search": _dns_search,
    "ulimit": _ulimit,
    "device-cgroup-rule": _cgroup_rule,
    "mount": _mount,
    "network": _network,
    "gpus": _gpus,
    "device-read-bps": _rate,
    "device-write-bps": _rate,
    "device-read-iops": _count,
    "device-write-iops": _count,
    "blkio-weight-device": _weight,
    "sysctl": _sysctl,
}
