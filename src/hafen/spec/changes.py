"""Parse `--change` of import and commit: the Dockerfile instructions that only change an image's configuration; pure.

As moby's `builder/dockerfile`: CMD, ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK, LABEL, ONBUILD, STOPSIGNAL, USER, VOLUME,
WORKDIR. Anything else: InvalidArgument "FOO is not a valid change command".
"""

import json
import posixpath
import re
from collections.abc import Callable, Iterable

from msgspec.structs import replace

from hafen.errors import InvalidArgument
from hafen.spec import shellwords, units
from hafen.spec.wire.image import EmptyObject, HealthConfig, ImageConfig

_SHELL = ["/bin/sh", "-c"]
_PORTS = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?")


def apply(config: ImageConfig, changes: Iterable[str]) -> ImageConfig:
    """The configuration with the instructions done in order; a text may hold several lines. Variables in them are those
    of the configuration so far, except in CMD, ENTRYPOINT, HEALTHCHECK and ONBUILD."""
    texts = list(changes)
    lines = [line.strip() for line in re.sub(r"\\[ \t]*(\n|\Z)", "", "\n".join(texts)).splitlines()]
    instructions = [line for line in lines if line and not line.startswith("#")]
    if texts and not instructions:
        raise InvalidArgument("file with no instructions")
    for line in instructions:
        config = _apply(config, line)
    return config


def _apply(config: ImageConfig, line: str) -> ImageConfig:
    word, _, rest = line.partition(" ")
    word, rest = word.upper(), rest.strip()
    handler = _HANDLERS.get(word)
    if handler is None:
        raise InvalidArgument(f"{word} is not a valid change command")
    if not rest and word not in ("CMD", "ENTRYPOINT"):
        count = "exactly" if word in ("USER", "WORKDIR", "STOPSIGNAL", "ONBUILD") else "at least"
        raise InvalidArgument(f"{word} requires {count} one argument")
    return handler(config, rest)


def _json_list(rest: str) -> list[str] | None:
    """The exec form, or None where the text is not one (then it is the shell form)."""
    if not rest.startswith("["):
        return None
    try:
        value: object = json.loads(rest)
    except ValueError:
        return None
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return [str(item) for item in value]
    raise InvalidArgument("when using JSON array syntax, arrays must be comprised of strings only")


def _command(config: ImageConfig, rest: str) -> list[str]:
    words = _json_list(rest)
    if words is not None:
        return words
    return [*(config.shell or _SHELL), rest] if rest else []


def _cmd(config: ImageConfig, rest: str) -> ImageConfig:
    return replace(config, cmd=_command(config, rest))


def _entrypoint(config: ImageConfig, rest: str) -> ImageConfig:
    return replace(config, entrypoint=_command(config, rest))


def _expanded(config: ImageConfig, text: str) -> str:
    variables = dict(entry.partition("=")[::2] for entry in config.env)
    return shellwords.expand(text, variables)


def _pairs(config: ImageConfig, word: str, rest: str) -> list[tuple[str, str]]:
    """`KEY=value KEY2="a b"`, or the old form `KEY all the rest`."""
    words = shellwords.split(rest)
    if "=" not in words[0]:
        name, *value = rest.split(None, 1)
        if not value:
            raise InvalidArgument(f"{word} must have two arguments")
        return [(_expanded(config, name), _expanded(config, value[0]))]
    pairs = []
    for part in words:
        key, equals, text = part.partition("=")
        if not equals:
            raise InvalidArgument(f'Syntax error - can\'t find = in "{part}". Must be of the form: name=value')
        if not key:
            raise InvalidArgument(f"{word} names can not be blank")
        pairs.append((_expanded(config, key), _expanded(config, text)))
    return pairs


def _env(config: ImageConfig, rest: str) -> ImageConfig:
    env = list(config.env)
    for key, value in _pairs(config, "ENV", rest):
        entry = f"{key}={value}"
        for index, known in enumerate(env):
            if known.partition("=")[0] == key:
                env[index] = entry
                break
        else:
            env.append(entry)
    return replace(config, env=env)


def _label(config: ImageConfig, rest: str) -> ImageConfig:
    return replace(config, labels={**config.labels, **dict(_pairs(config, "LABEL", rest))})


def _expose(config: ImageConfig, rest: str) -> ImageConfig:
    ports = dict(config.exposed_ports)
    for word in (port for given in rest.split() for port in _expanded(config, given).split()):
        published, _, protocol = word.partition("/")
        container = published.rpartition(":")[2]  # where it is published is for `run` to say
        match = _PORTS.fullmatch(container)
        first = int(match[1]) if match else 0
        last = int(match[2] or match[1]) if match else 0
        if match is None or not first <= last < 1 << 16:
            raise InvalidArgument(f"Invalid containerPort: {container}")
        if (protocol or "tcp").lower() not in ("tcp", "udp", "sctp"):
            raise InvalidArgument(f"Invalid proto: {protocol}")
        for port in range(first, last + 1):
            ports[f"{port}/{(protocol or 'tcp').lower()}"] = EmptyObject()
    return replace(config, exposed_ports=ports)


def _user(config: ImageConfig, rest: str) -> ImageConfig:
    return replace(config, user=_expanded(config, rest))


def _workdir(config: ImageConfig, rest: str) -> ImageConfig:
    directory = _expanded(config, rest)
    return replace(config, working_dir=posixpath.normpath(posixpath.join("/", config.working_dir, directory)))


def _volume(config: ImageConfig, rest: str) -> ImageConfig:
    volumes = dict(config.volumes)
    for given in _json_list(rest) or rest.split():
        path = _expanded(config, given).strip()
        if not path:
            raise InvalidArgument("VOLUME specified can not be an empty string")
        volumes[path] = EmptyObject()
    return replace(config, volumes=volumes)


def _stopsignal(config: ImageConfig, rest: str) -> ImageConfig:
    name = _expanded(config, rest)
    if not name.isdecimal() or not int(name):  # Docker takes any number
        units.parse_signal(name)
    return replace(config, stop_signal=name)


def _onbuild(config: ImageConfig, rest: str) -> ImageConfig:
    word = rest.split(None, 1)[0].upper()
    if word == "ONBUILD":
        raise InvalidArgument("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")
    if word in ("MAINTAINER", "FROM"):
        raise InvalidArgument(f"{word} isn't allowed as an ONBUILD trigger")
    return replace(config, on_build=[*config.on_build, rest])


def _healthcheck(config: ImageConfig, rest: str) -> ImageConfig:
    given: dict[str, int] = {}
    while rest.startswith("--"):
        flag, _, rest = rest.partition(" ")
        name, value = _health_flag(flag[2:])
        if name in given:
            raise InvalidArgument(f"duplicate flag specified: {name.replace('_', '-')}")
        given[name], rest = value, rest.lstrip()
    kind, _, command = rest.partition(" ")
    kind, command = kind.upper(), command.strip()
    if kind == "NONE":
        if command:
            raise InvalidArgument("HEALTHCHECK NONE takes no arguments")
        return replace(config, healthcheck=HealthConfig(test=["NONE"]))
    if kind != "CMD":
        raise InvalidArgument(f'Unknown type "{kind}" in HEALTHCHECK (try CMD)')
    if not command:
        raise InvalidArgument("Missing command after HEALTHCHECK CMD")
    words = _json_list(command)
    test = ["CMD", *words] if words is not None else ["CMD-SHELL", command]
    return replace(config, healthcheck=HealthConfig(test=test, **given))


def _health_flag(text: str) -> tuple[str, int]:
    """(field of HealthConfig, its value) of `interval=5s` and the like."""
    name, equals, value = text.partition("=")
    if name not in ("interval", "timeout", "start-period", "start-interval", "retries"):
        raise InvalidArgument(f"unknown flag: {name}")
    if not equals:
        raise InvalidArgument(f"missing a value on flag: {name}")
    if name == "retries":
        if not value.removeprefix("-").isdecimal():
            raise InvalidArgument(f'strconv.ParseInt: parsing "{value}": invalid syntax')
        if int(value) < 0:
            raise InvalidArgument(f"--retries cannot be negative ({value})")
        return name, int(value)
    nanoseconds = round(units.parse_duration(value) * 1e9)
    if nanoseconds and nanoseconds < 1_000_000:
        raise InvalidArgument(f'Interval "{name}" cannot be less than 1ms')
    return name.replace("-", "_"), nanoseconds


_HANDLERS: dict[str, Callable[[ImageConfig, str], ImageConfig]] = {
    "CMD": _cmd,
    "ENTRYPOINT": _entrypoint,
    "ENV": _env,
    "EXPOSE": _expose,
    "HEALTHCHECK": _healthcheck,
    "LABEL": _label,
    "ONBUILD": _onbuild,
    "STOPSIGNAL": _stopsignal,
    "USER": _user,
    "VOLUME": _volume,
    "WORKDIR": _workdir,
}
