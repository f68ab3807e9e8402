"""`NetworkDriver` protocol: what every kind of network can do, and the values that travel through it.

Life of a network, as the engine drives it. Every call is synchronous, quick, and idempotent where it undoes:

    driver.create(network)                        the network can take containers; again after a restart: adopts
        driver.attach(network, wish, netns)       a container's interface works inside `netns`; returns the Endpoint
        driver.detach(network, endpoint)          ports are free again; the link goes with its namespace,
        driver.unplug(endpoint.link)              or by this, where that lives on
    driver.delete(network)                        nothing of it is left in the kernel

`attach` either succeeds or leaves nothing. After a crash of the engine, `restore` tells the driver what is true: it
takes over the endpoints that live, and removes from the kernel what belongs to nobody.
"""

from __future__ import annotations

import socket
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from hafen.network.ipam import IpNetwork
from hafen.spec.ports import Port, PortMapping

DEFAULT_BRIDGE = "hafen0"


@dataclass(frozen=True, slots=True)
class Subnet:
    """`network` as "172.17.0.0/16", and the address in it that the host has ("" for none)."""

    network: str
    gateway: str


@dataclass(frozen=True, slots=True)
class Network:
    """A network as its driver knows it. `link` is the name of its interface on the host, where it has one."""

    id: str
    name: str
    link: str = ""
    subnets: tuple[Subnet, ...] = ()
    internal: bool = False
    icc: bool = True  # containers reach one another
    masquerade: bool = True
    host_ip: str = ""  # where ports are published that name no address; "" is everywhere
    mtu: int = 0  # 0: as the host's way out


@dataclass(frozen=True, slots=True)
class Wish:
    """An endpoint to be made: `interface` inside, with this address ("172.17.0.2", 16) and hardware address."""

    id: str
    container_id: str
    container_name: str
    interface: str
    ip: str = ""
    prefix: int = 0
    ip6: str = ""
    prefix6: int = 0
    mac: str = ""
    default_route: bool = True
    ports: tuple[PortMapping, ...] = ()


@dataclass(frozen=True, slots=True)
class PublishedPort:
    """A container port that is reachable at `host_ip`:`host_port`."""

    container: Port
    host_ip: str
    host_port: int


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A container's place in a network, as made. Empty fields: the driver gives none (host, none)."""

    id: str
    container_id: str
    container_name: str
    interface: str = ""
    link: str = ""  # the host's end
    ip: str = ""
    prefix: int = 0
    gateway: str = ""
    ip6: str = ""
    prefix6: int = 0
    gateway6: str = ""
    mac: str = ""
    ports: tuple[PublishedPort, ...] = ()
    names: tuple[str, ...] = ()  # by which the others in the network find it
    links: dict[str, str] = field(default_factory=dict)  # names of others by the alias it alone knows them by


class Netns(Protocol):
    """A network namespace: its descriptor, and a NETLINK_ROUTE socket opened inside it. Both stay the caller's."""

    @property
    def fd(self) -> int: ...

    @property
    def rtnetlink(self) -> socket.socket: ...


class NetworkDriver(Protocol):
    """One kind of network. OSError from the kernel arrives as `System`, in words."""

    @property
    def name(self) -> str:
        """As the API calls it: "bridge", "host", "null"."""

    def occupied(self, but: Collection[str] = ()) -> Sequence[IpNetwork]:
        """Addresses that the host uses itself, and that no new network may take; those of the links `but` left out."""

    def create(self, network: Network) -> None: ...

    def delete(self, network: Network) -> None: ...

    def attach(self, network: Network, wish: Wish, netns: Netns | None) -> Endpoint: ...

    def detach(self, network: Network, endpoint: Endpoint) -> None:
        """Its ports are free again. Its link goes with its namespace, or by `unplug`."""

    def unplug(self, link: str) -> None:
        """Remove a link of the host: an endpoint's from a namespace that lives on, or a network's before `delete`.

        For any thread: the kernel takes 30 ms for it (it waits for a grace period).
        """

    def lead_out(self, network: Network, endpoint: Endpoint, netns: Netns) -> None:
        """Make a living endpoint the container's way out: its default routes."""

    def restore(self, networks: Iterable[Network], endpoints: Iterable[tuple[Network, Endpoint]]) -> list[str]:
        """Make the kernel agree with what lives; returns warnings, in words."""

    def close(self) -> None:
        """Forget descriptors; what runs goes on running."""


def bridge_name(network_id: str) -> str:
    """The bridge of a user's network: 15 characters, which is all that a link's name may have."""
    return f"hf-{network_id[:12]}"


def link_name(endpoint_id: str) -> str:
    """The host's end of an endpoint's link."""
    return f"hf{endpoint_id[:11]}"


def is_link_name(name: str) -> bool:
    """Whether `link_name` may have made it."""
    return len(name) == 13 and name.startswith("hf") and all(c in "0123456789abcdef" for c in name[2:])
