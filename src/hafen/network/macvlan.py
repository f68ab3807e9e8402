"""macvlan and ipvlan networks: each container has an interface of its own on one of the host's, the parent.

Containers are in the neighbours' reach under addresses of the neighbours' own network, so nothing is translated or
published. The host itself does not reach them, nor they the host, over the parent: the kernel does not loop such frames
back (Documentation/networking/ipvlan.rst, and macvlan alike).

A parent `eth0.10` that does not exist is made (VLAN 10 of eth0) and removed with the last network that uses it; so is
the dummy that takes the place of a parent that was not named. What we made bears our alias; nothing else is removed.
"""

from __future__ import annotations

import errno
from collections.abc import Collection, Iterable
from contextlib import ExitStack

from hafen.errors import Forbidden, System
from hafen.kernel import rtnetlink
from hafen.kernel.netlink import Request
from hafen.kernel.rtnetlink import Link, Rtnetlink
from hafen.network import sandbox
from hafen.network.driver import AddressBusy, Endpoint, Netns, Network, Opening, Wish, in_words
from hafen.network.ipam import Taken
from hafen.spec.ports import PortMapping

MACVLAN, IPVLAN = "macvlan", "ipvlan"
DEFAULT_MODES = {MACVLAN: "bridge", IPVLAN: "l2"}
_EXCLUSIVE = "passthru"


def dummy_name(network_id: str) -> str:
    """The parent of a network that was given none, named as Docker names it."""
    return f"dm-{network_id[:12]}"


class ParentDriver:
    """`kind` is MACVLAN or IPVLAN; `owner` tells the links of this engine from those of others."""

    def __init__(self, kind: str, *, owner: str = "hafen") -> None:
        self.name = kind
        self._owner = f"{owner} {kind}"
        self._route = Rtnetlink()
        self._networks: dict[str, Network] = {}

    def close(self) -> None:
        self._route.close()

    def occupied(self, but: Collection[str] = ()) -> Taken:
        return Taken()

    def create(self, network: Network) -> None:
        if network.id in self._networks:
            return
        self._check_sharing(network)
        with in_words(f"network {network.name}"):
            self._make_parent(network)
        self._networks[network.id] = network

    def _check_sharing(self, network: Network) -> None:
        """A parent in passthru mode serves one network alone."""
        for other in self._networks.values():
            if other.link != network.link:
                continue
            if network.mode == _EXCLUSIVE:
                raise Forbidden(
                    f"cannot use mode passthru, {self.name} network {other.id} is already using parent interface "
                    f"{network.link}"
                )
            if other.mode == _EXCLUSIVE:
                raise Forbidden(
                    f"{self.name} network {other.id} is already using parent interface {network.link} in mode passthru"
                )
            if self.name == IPVLAN and (other.mode, other.flag) != (network.mode, network.flag):
                # The kernel keeps one mode per parent: a second one would change that of the first.
                raise Forbidden(f"network {other.id} is already using parent interface {network.link} in another mode")

    def _make_parent(self, network: Network) -> None:
        if self._route.link(network.link) is not None:
            return
        if network.link == dummy_name(network.id):
            made = rtnetlink.new_dummy(network.link)
            lacks = "this kernel has no dummy interfaces: name a parent interface (-o parent=)"
        else:
            parent, tag = self._vlan(network.link)
            made = rtnetlink.new_vlan(network.link, parent.ifindex, tag)
            lacks = "this kernel has no VLANs (8021q)"
        with ExitStack() as undo:
            self._execute(
                made, f"failed to create {network.link} vlan link" if "vlan" in made.what else made.what, lacks
            )
            undo.callback(self._route.discard, network.link)
            self._route.execute(rtnetlink.set_alias(network.link, f"{self._owner} {network.id}"))
            link = self._route.link(network.link)
            if link is None:
                raise System(f"link {network.link} vanished")
            self._route.execute(rtnetlink.set_link(link.ifindex, up=True))
            undo.pop_all()

    def _vlan(self, name: str) -> tuple[Link, int]:
        """The interface below a sub-interface `eth0.10`, and the tag; with Docker's texts where that is none."""
        parent, dot, text = name.rpartition(".")
        if not dot:
            raise System(f"invalid subinterface vlan name {name}, example formatting is eth0.10")
        if not (text.isascii() and text.isdigit()):
            raise System(f"unable to parse a valid vlan id from: {text} (ex. eth0.10 for vlan 10)")
        found = self._route.link(parent)
        if found is None:
            raise System(f"-o parent interface was not found on the host: {parent}")
        if not 1 <= int(text) <= 4094:
            raise System(f"vlan id must be between 1-4094, received: {int(text)}")
        return found, int(text)

    def retire(self, network: Network) -> None:
        """Nothing to do: who else uses the parent is known to `delete`."""

    def delete(self, network: Network) -> None:
        self._networks.pop(network.id, None)
        if any(other.link == network.link for other in self._networks.values()):
            return
        with in_words(f"network {network.name}"):
            link = self._route.link(network.link)
            if link is not None and link.alias.startswith(f"{self._owner} "):
                self._route.discard(network.link)

    def attach(self, network: Network, wish: Wish, netns: Netns | None) -> Endpoint:
        if netns is None:
            raise System(f"network {network.name}: the container has no network namespace of its own")
        self.create(network)
        with in_words(f"failed to set up container networking: network {network.name}"):
            parent = self._route.link(network.link)
            if parent is None:  # somebody removed it: make it anew
                self._make_parent(network)
                parent = self._route.link(network.link)
            if parent is None:
                raise System(f"the parent interface {network.link} is not there")
            made = self._interface(network, wish, netns, parent)
            gateways = _gateways(network, wish)
            try:
                sandbox.plug(self._route, netns, wish, made, gateways, direct=_is_direct(network))
            except OSError as error:
                if error.errno in (errno.EOPNOTSUPP, errno.EPFNOSUPPORT):
                    raise System(
                        f"failed to create the {self.name} port: operation not supported: "
                        f"this kernel has no {self.name}"
                    ) from error
                if error.errno == errno.EADDRINUSE:
                    raise AddressBusy(
                        f"failed to set up container networking: network {network.name}: {error.strerror}"
                    ) from error
                raise
        return Endpoint(
            wish.id, wish.container_id, wish.container_name, wish.interface, "", wish.ip, wish.prefix, gateways[0],
            wish.ip6, wish.prefix6, gateways[1], wish.mac if self.name == MACVLAN else "", link_local=wish.link_local,
        )  # fmt: skip

    def _interface(self, network: Network, wish: Wish, netns: Netns, parent: Link) -> Request:
        mtu = network.mtu or parent.mtu
        if self.name == MACVLAN:
            return rtnetlink.new_macvlan(wish.interface, netns.fd, parent.ifindex, network.mode, mac=wish.mac, mtu=mtu)
        return rtnetlink.new_ipvlan(wish.interface, netns.fd, parent.ifindex, network.mode, network.flag, mtu=mtu)

    def publish(self, network: Network, endpoint: Endpoint, ports: Iterable[PortMapping]) -> Endpoint:
        return endpoint

    def withdraw(self, network: Network, endpoint: Endpoint) -> Endpoint:
        return endpoint

    def open(self, network: Network, openings: Collection[Opening]) -> None:
        """Nothing to do: its containers reach one another."""

    def unplug(self, endpoint: Endpoint, netns: Netns) -> None:
        with in_words(f"interface {endpoint.interface}"):
            sandbox.unplug(netns, endpoint.interface)

    def lead_out(self, network: Network, endpoint: Endpoint, netns: Netns, versions: Collection[int]) -> None:
        with in_words(f"network {network.name}"):
            gateways = (endpoint.gateway, endpoint.gateway6)
            sandbox.lead_out(netns, endpoint.interface, gateways, versions, direct=_is_direct(network))

    def restore(self, networks: Iterable[Network], endpoints: Iterable[tuple[Network, Endpoint]]) -> list[str]:
        wanted = list(networks)
        warnings: list[str] = []
        with in_words(f"{self.name} networks"):
            for link in self._route.links():
                if link.alias.startswith(f"{self._owner} ") and not any(link.name == one.link for one in wanted):
                    self._route.discard(link.name)
        for network in wanted:
            try:
                self.create(network)
            except (System, Forbidden) as error:
                warnings.append(f"network {network.name} does not work: {error}")
        return warnings

    def _execute(self, request: Request, what: str, lacks: str) -> None:
        try:
            self._route.execute(request)
        except OSError as error:
            if error.errno == errno.EOPNOTSUPP:
                raise System(f"{what}: operation not supported: {lacks}") from error
            raise


def _is_direct(network: Network) -> bool:
    """With ipvlan in its routing modes there is no gateway: the parent's namespace routes whatever comes."""
    return network.mode in ("l3", "l3s") and not network.internal


def _gateways(network: Network, wish: Wish) -> tuple[str, str]:
    """Those that lead out, of IPv4 and IPv6."""
    if network.internal or network.mode in ("l3", "l3s"):
        return "", ""
    return network.gateway_for(wish.ip), network.gateway_for(wish.ip6)
