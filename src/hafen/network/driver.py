"""`NetworkDriver` protocol: what every kind of network can do, and the values that travel through it.

Life of a network, as the engine drives it. Every call is synchronous, quick, and idempotent where it undoes:

    driver.create(network)                        the network can take containers; again after a restart: adopts
        driver.attach(network, wish, netns)       a container's interface works inside `netns`; returns the Endpoint
        driver.publish(network, endpoint, ports)  ports of the host lead to it; returns the Endpoint with them
        driver.withdraw(network, endpoint)        they are free again; its interface goes with its namespace,
        driver.unplug(endpoint, netns)            or by this, where that lives on
    driver.retire(network)                        the slow part of the next
    driver.delete(network)                        nothing of it is left in the kernel

`attach` and `publish` either succeed or leave nothing. After a crash of the engine, `restore` tells the driver what is
true: it takes over the endpoints that live, and removes from the kernel what belongs to nobody.
"""

from __future__ import annotations

import socket
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from typing import Protocol

from hafen.errors import System
from hafen.network.ipam import Taken
from hafen.spec.ports import Port, PortMapping

DEFAULT_BRIDGE = "hafen0"


@dataclass(frozen=True, slots=True)
class Subnet:
    """`network` as "172.17.0.0/16", and the address in it that the host has ("" for none)."""

    network: str
    gateway: str


@dataclass(frozen=True, slots=True)
class Network:
    """A network as its driver knows it. `link` is the name of its interface on the host, where it has one: the bridge,
    or what macvlan and ipvlan sit on."""

    id: str
    name: str
    link: str = ""
    subnets: tuple[Subnet, ...] = ()
    internal: bool = False
    icc: bool = True  # containers reach one another
    masquerade: bool = True
    host_ip: str = ""  # where ports are published that name no address; "" is everywhere
    mtu: int = 0  # 0: as the host's way out, or as the link below
    gateway_mode: str = "nat"  # of IPv4: one of GATEWAY_MODES
    gateway_mode6: str = "nat"
    leaves_as: str = ""  # the host's address that takes the place of a container's; "" is that of the way out
    leaves_as6: str = ""
    host_addresses: bool = True  # the host has the gateways' addresses
    mode: str = ""  # macvlan: one of kernel.rtnetlink.MACVLAN_MODES; ipvlan: one of IPVLAN_MODES
    flag: str = ""  # ipvlan: one of IPVLAN_FLAGS

    def gateway_mode_of(self, version: int) -> str:
        return self.gateway_mode if version == 4 else self.gateway_mode6

    def gateway_of(self, version: int) -> str:
        """The first subnet's gateway of that version, "" where there is none."""
        return next((s.gateway for s in self.subnets if s.gateway and (":" in s.gateway) == (version == 6)), "")

    def gateway_for(self, address: str) -> str:
        """The gateway of the subnet that has this address; "" for none."""
        subnets = self.subnets if address else ()
        return next((one.gateway for one in subnets if ip_address(address) in ip_network(one.network)), "")

    def translates(self, version: int) -> bool:
        """Whether its ports are published at the host's addresses, and it leaves with them where it is masqueraded."""
        return not self.internal and self.gateway_mode_of(version) in ("nat", "nat-unprotected")


GATEWAY_MODES = ("nat", "nat-unprotected", "routed", "isolated")


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
    link_local: tuple[str, ...] = ()  # further addresses, of the link's own scope
    leads_out: bool = True  # gives the default route of IPv4
    leads_out6: bool = True
    former: str = (
        ""  # the host's end that the container had before: it goes with its namespace, which the kernel may be
    )
    # slow to clear away, and would answer for the same addresses until then


@dataclass(frozen=True, slots=True)
class PublishedPort:
    """A container port that is reachable at `host_ip`:`host_port`."""

    container: Port
    host_ip: str
    host_port: int


@dataclass(frozen=True, slots=True)
class Opening:
    """A port of a container's that another one reaches, in a network whose containers do not reach one another."""

    source: str  # their addresses, of IPv4
    target: str
    port: Port


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
    link_local: tuple[str, ...] = ()
    leads_out: tuple[int, ...] = ()  # the versions of IP whose default route it gives
    names: tuple[str, ...] = ()  # by which the others in the network find it
    links: dict[str, str] = field(default_factory=dict)  # names of others by the alias it alone knows them by

    def address(self, version: int) -> str:
        return self.ip if version == 4 else self.ip6


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
        """As the API calls it: "bridge", "host", "null", "macvlan", "ipvlan"."""

    def occupied(self, but: Collection[str] = ()) -> Taken:
        """Addresses that the host uses itself or has routes to; those of the links `but` left out."""

    def create(self, network: Network) -> None: ...

    def retire(self, network: Network) -> None:
        """Remove the network's link, before `delete`. For any thread: the kernel may take 30 ms for it (it waits for a
        grace period)."""

    def delete(self, network: Network) -> None: ...

    def attach(self, network: Network, wish: Wish, netns: Netns | None) -> Endpoint: ...

    def publish(self, network: Network, endpoint: Endpoint, ports: Iterable[PortMapping]) -> Endpoint:
        """Ports of the host lead to the endpoint. A driver whose containers are in the neighbours' reach has none."""

    def withdraw(self, network: Network, endpoint: Endpoint) -> Endpoint:
        """Its ports are free again."""

    def open(self, network: Network, openings: Collection[Opening]) -> None:
        """These of a network without `icc`, and none that were open before."""

    def unplug(self, endpoint: Endpoint, netns: Netns) -> None:
        """Remove the endpoint's interface from a namespace that lives on. For any thread, as `retire`."""

    def lead_out(self, network: Network, endpoint: Endpoint, netns: Netns, versions: Collection[int]) -> None:
        """Make a living endpoint the container's way out, for these of IPv4 and IPv6: its default routes."""

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


class AddressBusy(System):
    """The address is somebody's: perhaps of a namespace whose last process has ended, and which the kernel needs some
    tens of milliseconds to clear away."""


@contextmanager
def in_words(what: str) -> Iterator[None]:
    """The kernel's refusals as `System`."""
    try:
        yield
    except OSError as error:
        raise System(f"{what}: {error.strerror or error}") from error
