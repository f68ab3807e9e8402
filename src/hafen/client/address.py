"""Which engine is meant: flags, environment, Docker's contexts and the default, resolved to one `Endpoint`."""

import json
import os
from collections.abc import Mapping
from typing import NamedTuple

from hafen.errors import InvalidArgument, NotFound

DEFAULT_SOCKET = "/run/hafen/hafen.sock"
DEFAULT_HOST = f"unix://{DEFAULT_SOCKET}"


class TlsFiles(NamedTuple):
    """Where the three files of a TLS client lie; an empty path means that there is none."""

    ca: str
    cert: str
    key: str
    verify: bool


class Endpoint(NamedTuple):
    """`scheme` is unix, tcp or ssh; `target` a socket path, `host:port`, or the whole ssh URL."""

    scheme: str
    target: str
    tls: TlsFiles | None = None
    context: str = "default"

    @property
    def url(self) -> str:
        return self.target if self.scheme == "ssh" else f"{self.scheme}://{self.target}"

    @property
    def may_start(self) -> bool:
        """Only the engine at its default place is ours to start."""
        return self.scheme == "unix" and self.target == DEFAULT_SOCKET


class Choice(NamedTuple):
    """What the command line said about the engine; empty where it said nothing."""

    host: str = ""
    context: str = ""
    config_dir: str = ""
    tls: bool = False
    tls_verify: bool = False
    tls_ca: str = ""
    tls_cert: str = ""
    tls_key: str = ""


def config_directory(choice: Choice, environ: Mapping[str, str]) -> str:
    return choice.config_dir or environ.get("DOCKER_CONFIG") or os.path.join(environ.get("HOME", "/root"), ".docker")


def resolve(choice: Choice, environ: Mapping[str, str]) -> Endpoint:
    """The first of: -H, HAFEN_HOST, -c, DOCKER_HOST, DOCKER_CONTEXT, the current context, our own socket."""
    if choice.host and choice.context:
        raise InvalidArgument("conflicting options: cannot specify both --host and --context")
    directory = config_directory(choice, environ)
    host = choice.host or ("" if choice.context else environ.get("HAFEN_HOST") or environ.get("DOCKER_HOST", ""))
    if host:
        return parse_host(host, _tls_files(choice, environ, directory))
    name = choice.context or environ.get("DOCKER_CONTEXT") or str(read_config(directory).get("currentContext") or "")
    if not name or name == "default":
        return Endpoint("unix", DEFAULT_SOCKET)
    return _from_context(name, directory)


def parse_host(host: str, tls: TlsFiles | None = None) -> Endpoint:
    """Docker's host syntax: a bare name is a TCP host, the port is 2375, or 2376 with TLS."""
    scheme, separator, rest = host.partition("://")
    if not separator:
        scheme, rest = ("unix", host) if host.startswith("/") else ("tcp", host)
    if scheme == "unix":
        return Endpoint("unix", rest or DEFAULT_SOCKET)
    if scheme == "ssh":
        return Endpoint("ssh", host)
    if scheme in ("tcp", "http", "https"):
        rest = rest.rstrip("/")
        if ":" not in rest.rpartition("]")[2]:
            rest += ":2376" if tls else ":2375"
        return Endpoint("tcp", rest, tls)
    raise InvalidArgument(f"unable to parse docker host `{host}`: unix://, tcp:// and ssh:// are known")


def read_config(directory: str) -> Mapping[str, object]:
    """Docker's config.json; an absent or broken file is an empty one, as the file is not ours to judge."""
    try:
        with open(os.path.join(directory, "config.json"), encoding="utf-8") as file:
            config = json.load(file)
    except (OSError, ValueError):
        return {}
    return config if isinstance(config, dict) else {}


def _tls_files(choice: Choice, environ: Mapping[str, str], directory: str) -> TlsFiles | None:
    verify = choice.tls_verify or bool(environ.get("DOCKER_TLS_VERIFY"))
    if not (verify or choice.tls or environ.get("DOCKER_TLS")):
        return None
    base = environ.get("DOCKER_CERT_PATH") or directory
    return TlsFiles(
        choice.tls_ca or _existing(base, "ca.pem"),
        choice.tls_cert or _existing(base, "cert.pem"),
        choice.tls_key or _existing(base, "key.pem"),
        verify,
    )


def _existing(directory: str, name: str) -> str:
    path = os.path.join(directory, name)
    return path if os.path.exists(path) else ""


def _from_context(name: str, directory: str) -> Endpoint:
    import hashlib  # only contexts need it

    key = hashlib.sha256(name.encode()).hexdigest()
    meta = os.path.join(directory, "contexts", "meta", key, "meta.json")
    try:
        with open(meta, encoding="utf-8") as file:
            docker = json.load(file)["Endpoints"]["docker"]
            host, skip_verify = str(docker["Host"]), bool(docker.get("SkipTLSVerify"))
    except FileNotFoundError:
        raise NotFound(
            f'Current context "{name}" is not found on the file system, please check your config file at '
            f"{os.path.join(directory, 'config.json')}"
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InvalidArgument(f'context "{name}": {meta} cannot be read: {error!r}') from error
    material = os.path.join(directory, "contexts", "tls", key, "docker")
    tls = None
    if os.path.isdir(material):
        tls = TlsFiles(
            _existing(material, "ca.pem"), _existing(material, "cert.pem"), _existing(material, "key.pem"),
            not skip_verify,
        )  # fmt: skip
    return parse_host(host, tls)._replace(context=name)
