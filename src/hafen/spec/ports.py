"""Parse `-p`, EXPOSE and port ranges; pure. Grammar is that of docker's own client (go-connections `nat`)."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

from hafen.errors import InvalidArgument

PROTOCOLS = ("tcp", "udp", "sctp")


class Port(NamedTuple):
    """A port inside a container; as text "80/tcp"."""

    number: int
    protocol: str = "tcp"

    def __str__(self) -> str:
        return f"{self.number}/{self.protocol}"


class PortRange(NamedTuple):
    """`first` to `last`, both included; (0, 0) leaves the choice to the engine."""

    first: int
    last: int

    def __str__(self) -> str:
        if not self.first:
            return ""
        return str(self.first) if self.first == self.last else f"{self.first}-{self.last}"


EPHEMERAL = PortRange(0, 0)


class PortMapping(NamedTuple):
    """One container port to publish: on `host_ip` ("" is every address), on one port out of `host`."""

    container: Port
    host_ip: str = ""
    host: PortRange = EPHEMERAL


class Binding(Protocol):
    """The API's PortBinding, however it is represented."""

    @property
    def host_ip(self) -> str: ...

    @property
    def host_port(self) -> str: ...


def parse_range(text: str) -> PortRange:
    """ "80" or "8000-8010"; InvalidArgument for everything else."""
    first, dash, last = text.partition("-")
    ports = PortRange(_number(first, text), _number(last, text) if dash else _number(first, text))
    if ports.last < ports.first:
        raise InvalidArgument(f"invalid range specified for port: {text}")
    return ports


def parse_port(text: str) -> Port:
    """A key of PortBindings or ExposedPorts: "80", "80/tcp"."""
    number, _, protocol = text.partition("/")
    return Port(_number(number, text), _protocol(protocol))


def parse_exposed(text: str) -> tuple[Port, ...]:
    """EXPOSE's and `--expose`'s argument: "80", "3000-3005/udp"."""
    numbers, _, protocol = text.partition("/")
    ports = parse_range(numbers)
    return tuple(Port(number, _protocol(protocol)) for number in range(ports.first, ports.last + 1))


def parse_publish(text: str) -> tuple[PortMapping, ...]:
    """`-p [[ip:][hostPort]:]containerPort[/proto]` or `target=80,published=8080,protocol=tcp`; IPv6 as `[::1]`."""
    if "=" in text:
        return _long_form(text)
    rest, slash, protocol = text.partition("/")
    if slash and not protocol:
        raise InvalidArgument(f"invalid proto: {protocol}")
    host_ip, host, container = _split(rest)
    if not container:
        raise InvalidArgument(f"no port specified: {text}<empty>")
    return _mappings(host_ip, host, container, _protocol(protocol))


def from_bindings(bindings: Mapping[str, Sequence[Binding] | None] | None) -> tuple[PortMapping, ...]:
    """HostConfig.PortBindings as the API has it."""
    return tuple(_from_bindings(bindings or {}))


def _from_bindings(bindings: Mapping[str, Sequence[Binding] | None]) -> Iterator[PortMapping]:
    for key, wanted in bindings.items():
        container = parse_port(key)
        for binding in wanted or ():
            host = parse_range(binding.host_port) if binding.host_port not in ("", "0") else EPHEMERAL
            yield PortMapping(container, _address(binding.host_ip), host)


def publish_all(exposed: Iterable[Port], published: Iterable[PortMapping]) -> tuple[PortMapping, ...]:
    """What `-P` adds: each exposed port that is not published by itself, on an ephemeral port."""
    taken = {mapping.container for mapping in published}
    return tuple(PortMapping(port) for port in exposed if port not in taken)


def _mappings(host_ip: str, host: str, container: str, protocol: str) -> tuple[PortMapping, ...]:
    inside = _range(container, "containerPort")
    address = _address(host_ip)
    if not host or host == "0":
        return tuple(PortMapping(Port(number, protocol), address) for number in range(inside.first, inside.last + 1))
    outside = _range(host, "hostPort")
    if inside.first == inside.last:
        return (PortMapping(Port(inside.first, protocol), address, outside),)
    if outside.last - outside.first != inside.last - inside.first:
        raise InvalidArgument(f"invalid ranges specified for container and host Ports: {container} and {host}")
    return tuple(
        PortMapping(Port(number, protocol), address, PortRange(published, published))
        for number, published in zip(
            range(inside.first, inside.last + 1), range(outside.first, outside.last + 1), strict=True
        )
    )


def _range(text: str, name: str) -> PortRange:
    try:
        return parse_range(text)
    except InvalidArgument:
        raise InvalidArgument(f"invalid {name}: {text}") from None


def _split(text: str) -> tuple[str, str, str]:
    """(host address, host ports, container ports) of the short form without its protocol."""
    if text.startswith("["):
        address, bracket, rest = text[1:].partition("]")
        if not bracket or not rest.startswith(":"):
            raise InvalidArgument(f"invalid IP address: {text}")
        host, _, container = rest[1:].rpartition(":")
        return address, host, container
    parts = text.rsplit(":", 2)
    if len(parts) == 3:
        if ":" in parts[0]:
            raise InvalidArgument(f"invalid IP address: {parts[0]}")
        return parts[0], parts[1], parts[2]
    return "", parts[0] if len(parts) == 2 else "", parts[-1]


def _long_form(text: str) -> tuple[PortMapping, ...]:
    values = {"protocol": "tcp", "published": "", "target": "", "mode": "", "host_ip": ""}
    for part in text.split(","):
        name, equals, value = part.partition("=")
        name = name.strip().lower()
        if not equals or not value:
            raise InvalidArgument(f"invalid publish opts format (should be name=value but got '{part}')")
        if name not in values:
            raise InvalidArgument(f"invalid publish opts name: {name}")
        values[name] = value
    if not values["target"]:
        raise InvalidArgument("missing target port in publish opts")
    return _mappings(values["host_ip"], values["published"], values["target"], _protocol(values["protocol"]))


def _number(text: str, whole: str) -> int:
    if not text.isascii() or not text.isdigit() or not 0 < int(text) < 65536:
        raise InvalidArgument(f"invalid port: {whole or '<empty>'}")
    return int(text)


def _protocol(text: str) -> str:
    protocol = text.lower() or "tcp"
    if protocol not in PROTOCOLS:
        raise InvalidArgument(f"invalid proto: {text}")
    return protocol


def _address(text: str) -> str:
    if not text:
        return ""
    from ipaddress import ip_address  # 4 ms that the command line pays only where an address is given

    try:
        return str(ip_address(text))
    except ValueError:
        raise InvalidArgument(f"invalid IP address: {text}") from None
