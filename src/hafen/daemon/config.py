"""daemon.json and flags -> one frozen `DaemonConfig`."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from hafen.daemon.netconfig import FIXED, NetworkConfig, add_flags
from hafen.distribution import endpoint
from hafen.distribution.endpoint import Rules
from hafen.errors import InvalidArgument
from hafen.spec import reference

DEFAULT_FILE = "/etc/hafen/daemon.json"
DOCKER_SOCKET = "/var/run/docker.sock"
_LEVELS = ("debug", "info", "warn", "warning", "error", "fatal")


@dataclass(frozen=True, slots=True)
class DaemonConfig:
    """All that can be chosen when an engine starts. Paths are absolute; `hosts` are unix:// and tcp:// addresses."""

    data_root: str = "/var/lib/hafen"
    run_root: str = "/run/hafen"
    hosts: tuple[str, ...] = ()
    group: str = ""
    docker_socket: bool = False
    debug: bool = False
    log_level: str = "info"
    log_driver: str = "local"
    log_opts: Mapping[str, str] = field(default_factory=dict)
    storage_driver: str = "overlay"
    networks: NetworkConfig = field(default_factory=NetworkConfig)
    cgroup_parent: str = "/hafen"
    labels: tuple[str, ...] = ()
    runtimes: Mapping[str, str] = field(default_factory=dict)
    cdi_spec_dirs: tuple[str, ...] = ("/etc/cdi", "/var/run/cdi")
    plugin_sockets: str = "/run/docker/plugins"
    plugin_specs: tuple[str, ...] = ("/etc/docker/plugins", "/usr/lib/docker/plugins")
    registry_mirrors: tuple[str, ...] = ()
    insecure_registries: tuple[str, ...] = ()
    registry_certs: tuple[str, ...] = ("/etc/hafen/certs.d", "/etc/docker/certs.d")
    registry: str = ""  # where to serve a registry over the engine's own content store
    registry_opts: Mapping[str, object] = field(default_factory=dict)
    registry_images: str = ""  # prefix under which it offers the engine's images
    idle_shims: int = 2
    idle_netns: int = 4
    insecure: bool = False
    tls: bool = False
    tls_verify: bool = False
    tls_ca: str = ""
    tls_cert: str = ""
    tls_key: str = ""

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where to listen; the socket in the run root where nothing was said."""
        found = self.hosts or (f"unix://{self.run_root}/hafen.sock",)
        return (*found, f"unix://{DOCKER_SOCKET}") if self.docker_socket else found


_FILE_KEYS = {
    "data-root": "data_root",
    "exec-root": "run_root",
    "run-root": "run_root",
    "hosts": "hosts",
    "group": "group",
    "docker-socket": "docker_socket",
    "debug": "debug",
    "log-level": "log_level",
    "log-driver": "log_driver",
    "log-opts": "log_opts",
    "storage-driver": "storage_driver",
    "cgroup-parent": "cgroup_parent",
    "labels": "labels",
    "runtimes": "runtimes",
    "cdi-spec-dirs": "cdi_spec_dirs",
    "plugin-sockets": "plugin_sockets",
    "plugin-specs": "plugin_specs",
    "registry-mirrors": "registry_mirrors",
    "insecure-registries": "insecure_registries",
    "registry-certs": "registry_certs",
    "registry": "registry",
    "insecure": "insecure",
    "tls": "tls",
    "tlsverify": "tls_verify",
    "tlscacert": "tls_ca",
    "tlscert": "tls_cert",
    "tlskey": "tls_key",
}


_NETWORK_KEYS = {entry.name.replace("_", "-"): entry.name for entry in fields(NetworkConfig)}


def load(arguments: Sequence[str]) -> DaemonConfig:
    """The configuration; InvalidArgument for what makes no sense, exit 2 with a usage text for unknown flags."""
    parsed = _parser().parse_args(arguments)
    path = parsed.config_file or DEFAULT_FILE
    config = DaemonConfig()
    if parsed.config_file or os.path.exists(path):
        config = _from_file(path)
    networks = replace(config.networks, **_given(parsed, NetworkConfig))
    return check(replace(config, **_given(parsed, DaemonConfig), networks=networks))


def _given(parsed: argparse.Namespace, kind: type[DaemonConfig] | type[NetworkConfig]) -> dict[str, Any]:
    """What the flags say of the fields of this kind."""
    values = {entry.name: getattr(parsed, entry.name, None) for entry in fields(kind)}
    return {
        name: tuple(value) if isinstance(value, list) and kind is NetworkConfig else value
        for name, value in values.items()
        if value is not None
    }


def check(config: DaemonConfig) -> DaemonConfig:
    """The configuration with absolute paths; InvalidArgument where its parts contradict each other."""
    if config.log_level not in _LEVELS:
        raise InvalidArgument(f"unknown log level {config.log_level!r}; one of {', '.join(_LEVELS)}")
    for address in config.addresses:
        scheme, _, _ = address.partition("://")
        if scheme not in ("unix", "tcp", "fd"):
            raise InvalidArgument(f"cannot listen on {address!r}: unix://PATH, tcp://ADDRESS:PORT and fd:// are known")
        if scheme == "tcp" and not (config.tls_verify or config.insecure):
            raise InvalidArgument(
                f"{address} would give root on this machine to whoever reaches it: use --tlsverify with --tlscacert, "
                "--tlscert and --tlskey, or say --insecure"
            )
    if (config.tls or config.tls_verify) and not (config.tls_cert and config.tls_key):
        raise InvalidArgument("TLS needs --tlscert and --tlskey")
    if config.tls_verify and not config.tls_ca:
        raise InvalidArgument("--tlsverify needs --tlscacert")
    if config.registry:
        from hafen.registryd.config import of_options

        of_options({**config.registry_opts, "addr": config.registry}, f"{config.data_root}/registry")
    config.networks.defaults()
    endpoint.check(Rules(config.registry_mirrors, config.insecure_registries))
    return replace(config, data_root=os.path.realpath(config.data_root), run_root=os.path.realpath(config.run_root))


def _from_file(path: str) -> DaemonConfig:
    try:
        with open(path, encoding="utf-8") as file:
            document = json.load(file)
    except OSError as error:
        raise InvalidArgument(f"configuration file {path}: {os.strerror(error.errno or 0)}") from error
    except ValueError as error:
        raise InvalidArgument(f"configuration file {path} is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise InvalidArgument(f"configuration file {path} must hold an object")
    unknown = [key for key in document if key not in {**_FILE_KEYS, **_NETWORK_KEYS, **FIXED}]
    if unknown:
        raise InvalidArgument(
            f"configuration file {path}: the following directives don't match any configuration option: "
            f"{', '.join(unknown)}"
        )
    for key, only in FIXED.items():
        if document.get(key, only) is not only:
            raise InvalidArgument(f"configuration file {path}: {key} can only be {str(only).lower()} here")
    own = {key: value for key, value in document.items() if key in _FILE_KEYS and key != "registry"}
    networks = {key: value for key, value in document.items() if key in _NETWORK_KEYS}
    registry = _registry(path, document["registry"]) if "registry" in document else {}
    return replace(
        DaemonConfig(),
        networks=NetworkConfig(**_values(path, networks, _NETWORK_KEYS, NetworkConfig())),
        **_values(path, own, _FILE_KEYS, DaemonConfig()),
        **registry,
    )


def _registry(path: str, value: object) -> dict[str, Any]:
    """An address, or an object of the options of `hafen registry serve` by their names."""
    if isinstance(value, str):
        return {"registry": value}
    if isinstance(value, dict) and isinstance(value.get("addr"), str):
        images = value.pop("images", "")
        if isinstance(images, str) and (not images or reference.is_path(images)):
            return {"registry": value["addr"], "registry_opts": value, "registry_images": images}
        raise InvalidArgument(f"configuration file {path}: registry: images is a prefix of names, not {images!r}")
    raise InvalidArgument(f"configuration file {path}: registry is HOST:PORT, or an object with it as addr")


def _values(
    path: str, document: Mapping[str, object], keys: Mapping[str, str], defaults: DaemonConfig | NetworkConfig
) -> dict[str, Any]:
    return {keys[key]: _value(path, key, value, getattr(defaults, keys[key])) for key, value in document.items()}


def _value(path: str, key: str, value: object, default: object) -> object:
    if key == "runtimes":
        if isinstance(value, dict) and all(isinstance(one, dict) and "path" in one for one in value.values()):
            return {name: str(one["path"]) for name, one in value.items()}
    elif key == "default-address-pools":
        if isinstance(value, list) and all(isinstance(one, dict) for one in value):
            return tuple(value)
    elif key == "default-network-opts":
        if isinstance(value, dict) and all(isinstance(one, dict) for one in value.values()):
            return value
    elif isinstance(default, tuple):
        if isinstance(value, list) and all(isinstance(one, str) for one in value):
            return tuple(value)
    elif isinstance(default, Mapping):
        if isinstance(value, dict) and all(isinstance(one, str) for one in value.values()):
            return value
    elif type(value) is type(default):
        return value
    raise InvalidArgument(f"configuration file {path}: the value of {key} has the wrong type")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="hafen engine", description="Run the engine in the foreground.")
    add = parser.add_argument
    add("--config-file", metavar="FILE", help=f"configuration (default {DEFAULT_FILE}, where it exists)")
    add("--root", "--data-root", dest="data_root", metavar="DIR", help="where everything is kept")
    add("--run", "--exec-root", dest="run_root", metavar="DIR", help="where sockets and running containers are")
    add(
        "-H",
        "--host",
        "--socket",
        dest="hosts",
        action="append",
        type=_address,
        metavar="ADDRESS",
        help="where to listen",
    )
    add("-G", "--group", help="group that may use the sockets (default hafen, else docker, where it exists)")
    add("--docker-socket", action="store_true", default=None, help=f"answer on {DOCKER_SOCKET} too")
    add("-D", "--debug", action="store_true", default=None, help="say more in the log")
    add("-l", "--log-level", choices=_LEVELS)
    add("--log-driver", metavar="NAME", help="of containers that choose none (default local)")
    add("--log-opt", dest="log_opts", action=_Option, metavar="NAME=VALUE", help="of these, and of that driver")
    add("--storage-driver", "-s", metavar="NAME")
    add_flags(add)
    add("--cgroup-parent", metavar="PATH")
    add("--plugin-sockets", metavar="DIR", help="where plug-ins' sockets are")
    add("--plugin-spec-dir", dest="plugin_specs", action="append", metavar="DIR", help="where plug-ins' files are")
    add("--cdi-spec-dir", dest="cdi_spec_dirs", action="append", metavar="DIR", help="where CDI specifications are")
    add("--registry-mirror", dest="registry_mirrors", action="append", metavar="URL", help="asked first for docker.io")
    add("--insecure-registry", dest="insecure_registries", action="append", metavar="HOST", help="HTTP is accepted")
    add("--registry-certs", action="append", metavar="DIR", help="where <host:port>/ca.crt and hosts.toml are")
    add("--registry", metavar="HOST:PORT", help="serve a registry over the engine's own content store")
    add("--idle-shims", type=int, metavar="N", help="shims kept ready")
    add("--idle-netns", type=int, metavar="N", help="network namespaces kept ready")
    add("--insecure", action="store_true", default=None, help="allow TCP without client certificates")
    add("--tls", action="store_true", default=None)
    add("--tlsverify", dest="tls_verify", action="store_true", default=None)
    add("--tlscacert", dest="tls_ca", metavar="FILE")
    add("--tlscert", dest="tls_cert", metavar="FILE")
    add("--tlskey", dest="tls_key", metavar="FILE")
    return parser


class _Option(argparse.Action):
    """Collects NAME=VALUE into a mapping."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: object, _: str | None = None
    ) -> None:
        name, _, value = str(values).partition("=")
        setattr(namespace, self.dest, {**(getattr(namespace, self.dest) or {}), name: value})


def _address(text: str) -> str:
    return text if "://" in text else f"unix://{os.path.abspath(text)}"
