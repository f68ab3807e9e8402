"""Bridge networks: link, addresses, masquerade, isolation, published ports."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from ipaddress import ip_network
from socket import AF_INET, AF_INET6

from hafen.errors import System
from hafen.kernel import rtnetlink
from hafen.kernel.nftables import Nftables
from hafen.kernel.rtnetlink import Rtnetlink
from hafen.network import bridgelink, firewall, sandbox, transparent
from hafen.network.driver import Endpoint, Netns, Network, Opening, Wish, in_words, is_link_name, link_name
from hafen.network.firewall import Firewall
from hafen.network.ipam import Taken
from hafen.network.publish import HeldPorts, Target
from hafen.network.ruleset import Published
from hafen.spec.ports import PortMapping

DEFAULT_MTU = 1500


class BridgeDriver:
    """Containers on a Linux bridge of the host. `warn` takes what the user should know, in words.

    With `respect_firewall` published ports are served by sockets of the host, so that its own rules for incoming
    packets decide who gets through; otherwise they are redirected before those rules see them, as Docker does.
    """

    name = "bridge"

    def __init__(
        self, *, table: str = "hafen", respect_firewall: bool = False, warn: Callable[[str], None] = lambda text: None
    ) -> None:
        self._owner = table
        self._route = Rtnetlink()
        self._relay_mark = transparent.number(table)
        mark = self._relay_mark if respect_firewall else 0
        self._firewall = Firewall(Nftables(), table, relay_mark=mark, warn=warn)
        self._ports = HeldPorts(relay_all=respect_firewall)
        self._redirects = not respect_firewall
        self._warn = warn
        self._bridges: dict[str, int] = {}  # network id -> index of its link
        self._mtu: dict[str, int] = {}

    def watch(self, loop: asyncio.AbstractEventLoop) -> None:
        """Let the loop notice where somebody removes our nftables table."""
        self._firewall.watch(loop)

    def close(self) -> None:
        self._ports.close()
        self._firewall.close()
        self._route.close()

    def occupied(self, but: Collection[str] = ()) -> Taken:
        own = {link.ifindex for link in self._route.links() if link.name in but} if but else set()
        listed = [*self._route.routes(AF_INET), *self._route.routes(AF_INET6)]
        routes = [f"{r.destination}/{r.prefix}" for r in listed if r.destination and r.output not in own]
        addresses = [f"{a.ip}/{a.prefix}" for a in self._route.addresses() if a.ifindex not in own]
        own_networks, routed = ([ip_network(text, strict=False) for text in texts] for texts in (addresses, routes))
        return Taken(own_networks, routed)

    def create(self, network: Network) -> None:
        if network.id in self._bridges:
            return
        with in_words(f"network {network.name}"), ExitStack() as undo:
            # First the table: it closes what a setting of the bridge opens.
            self._firewall.add_network(network)
            undo.callback(self._firewall.remove_network, network)
            if not self._redirects:
                transparent.enable(self._route, self._relay_mark)
            self._bridges[network.id] = self._make_bridge(network)
            undo.pop_all()
        self._enable_forwarding([network])

    def _enable_forwarding(self, networks: Iterable[Network]) -> None:
        for version in sorted({ip_network(s.network).version for network in networks for s in network.subnets}):
            told = firewall.enable_forwarding(version)
            if told:
                self._warn(told)

    def retire(self, network: Network) -> None:
        with in_words(f"network {network.name}"), Rtnetlink() as route:
            bridgelink.remove(route, network.link, self._owner)

    def delete(self, network: Network) -> None:
        with in_words(f"network {network.name}"):
            bridgelink.remove(self._route, network.link, self._owner)
            self._firewall.remove_network(network)
        self._bridges.pop(network.id, None)
        if not self._redirects and not self._bridges:
            transparent.disable(self._route, self._relay_mark)

    def attach(self, network: Network, wish: Wish, netns: Netns | None) -> Endpoint:
        if netns is None:
            raise System(f"network {network.name}: the container has no network namespace of its own")
        self.create(network)  # also where it is missing because it could not be made when the engine started
        link = link_name(wish.id)
        if wish.former:
            self._route.discard(wish.former)
        gateways = _gateways(network)
        where = f"failed to set up container networking: network {network.name}"
        with in_words(where):
            self._plug(network, wish, netns, link, gateways)
            if not network.icc:
                try:
                    self._set_port(link, isolated=True)
                except BaseException:
                    self._route.discard(link)
                    raise
        return Endpoint(
            wish.id, wish.container_id, wish.container_name, wish.interface, link, wish.ip, wish.prefix, gateways[0],
            wish.ip6, wish.prefix6, gateways[1], wish.mac, link_local=wish.link_local,
        )  # fmt: skip

    def publish(self, network: Network, endpoint: Endpoint, ports: Iterable[PortMapping]) -> Endpoint:
        wanted = tuple(ports)
        if not wanted or network.internal:
            return endpoint
        try:
            held = self._ports.hold(wanted, endpoint.container_name, _target(network, endpoint), network.host_ip)
            published = replace(endpoint, ports=held)
            try:
                # With br_netfilter, a container that uses its own published port has its frames redirected within the
                # bridge, back to where they came from.
                self._set_port(endpoint.link, hairpin=True, isolated=not network.icc)
                self._firewall.publish(self._redirected(network, published))
            except BaseException:
                self._ports.release(held)
                raise
        except (OSError, System) as error:
            what = f"endpoint {endpoint.container_name} ({endpoint.id})"
            raise System(f"driver failed programming external connectivity on {what}: {error}") from error
        return published

    def withdraw(self, network: Network, endpoint: Endpoint) -> Endpoint:
        if endpoint.ports:
            with in_words(f"network {network.name}"):
                self._firewall.withdraw(self._redirected(network, endpoint))
                self._ports.release(endpoint.ports)
        return replace(endpoint, ports=())

    def open(self, network: Network, openings: Collection[Opening]) -> None:
        with in_words(f"network {network.name}"):
            if openings:
                self._lead_past_isolation(network.link)
            self._firewall.open(openings)

    def _lead_past_isolation(self, name: str) -> None:
        link = self._route.link(name)
        if link is not None and bridgelink.is_ours(link, self._owner):
            bridgelink.answer_for_ports(name)
        else:
            self._warn(f"links open no ports on {name}: the engine does not answer for what is on a bridge of others'")

    def unplug(self, endpoint: Endpoint, netns: Netns) -> None:
        with in_words(f"link {endpoint.link}"):
            sandbox.unplug(netns, endpoint.interface)

    def lead_out(self, network: Network, endpoint: Endpoint, netns: Netns, versions: Collection[int]) -> None:
        with in_words(f"network {network.name}"):
            sandbox.lead_out(netns, endpoint.interface, (endpoint.gateway, endpoint.gateway6), versions)

    def _redirected(self, network: Network, endpoint: Endpoint) -> list[Published]:
        """What the ruleset does for the endpoint's ports; the others are relayed."""
        found: list[Published] = []
        for port in endpoint.ports:
            version = 6 if ":" in port.host_ip else 4
            routed = network.gateway_mode_of(version) == "routed"
            if endpoint.address(version) and (routed or self._redirects):
                found.append(Published(port, endpoint.address(version), routed))
        return found

    def restore(self, networks: Iterable[Network], endpoints: Iterable[tuple[Network, Endpoint]]) -> list[str]:
        wanted, living = list(networks), list(endpoints)
        warnings: list[str] = []
        with _reported(warnings, "what a former engine left of bridge networks stays"):
            self._remove_strays(wanted, {endpoint.link for _, endpoint in living})
        with _reported(warnings, "ports that are relayed do not see their clients' addresses"):
            relays = wanted and not self._redirects
            (transparent.enable if relays else transparent.disable)(self._route, self._relay_mark)
        with _reported(warnings, "bridge networks do not work"):
            self._firewall.rebuild(wanted, [port for one in living for port in self._redirected(*one)])
            for network in wanted:  # only behind the table that closes what a bridge opens
                with _reported(warnings, f"network {network.name} does not work"):
                    self._bridges[network.id] = self._make_bridge(network)
        for network, endpoint in living:
            target = _target(network, endpoint)
            warnings += self._ports.restore(endpoint.ports, endpoint.container_name, target)
        with _reported(warnings, "packets are not forwarded"):
            self._enable_forwarding(wanted)
        if wanted:
            warnings += self._firewall.blockers()
        return warnings

    def _remove_strays(self, networks: list[Network], links: set[str]) -> None:
        """Bridges of ours that no network has; and the ports of these and of our networks' that no endpoint has."""
        wanted = {network.link for network in networks}
        found = self._route.links()
        ours = {link.ifindex for link in found if bridgelink.is_ours(link, self._owner)}
        bridges = ours | {link.ifindex for link in found if link.name in wanted}
        for link in found:
            if link.kind == "veth" and link.master in bridges and link.name not in links and is_link_name(link.name):
                self._route.discard(link.name)
        for link in found:
            if link.ifindex in ours and link.name not in wanted:
                self._route.discard(link.name)

    def _make_bridge(self, network: Network) -> int:
        """The index of the network's bridge, and in `_mtu` what its links are to have."""
        usual = network.mtu or self._uplink_mtu()
        bridge = bridgelink.set_up(self._route, network, self._owner, usual)
        given = 0 if bridgelink.is_ours(bridge, self._owner) else bridge.mtu
        self._mtu[network.id] = network.mtu or given or usual
        return bridge.ifindex

    def _uplink_mtu(self) -> int:
        """The MTU of the link with the default route: a larger one would leave it to path MTU discovery."""
        outputs = {route.output for route in self._route.routes() if not route.destination and route.table == 254}
        return min((link.mtu for link in self._route.links() if link.ifindex in outputs), default=DEFAULT_MTU)

    def _plug(self, network: Network, wish: Wish, netns: Netns, link: str, gateways: tuple[str, str]) -> None:
        for attempt in (1, 2):
            made = rtnetlink.new_veth(
                link, wish.interface, netns.fd,
                master=self._bridges[network.id], mac=wish.mac, mtu=self._mtu[network.id],
            )  # fmt: skip
            try:
                sandbox.plug(self._route, netns, wish, made, gateways)
            except OSError:
                if attempt == 2 or self._route.link(network.link) is not None:
                    raise
                del self._bridges[network.id]  # somebody removed the bridge: make it anew
                self.create(network)
            else:
                return

    def _set_port(self, name: str, *, hairpin: bool = False, isolated: bool = False) -> None:
        link = self._route.link(name)
        if link is not None:
            self._route.execute(rtnetlink.set_bridge_port(link.ifindex, hairpin=hairpin, isolated=isolated))


@contextmanager
def _reported(warnings: list[str], what: str) -> Iterator[None]:
    """Go on where this fails, with a warning."""
    try:
        yield
    except System as error:
        warnings.append(f"{what}: {error}")
    except OSError as error:
        warnings.append(f"{what}: {error.strerror or error}")


def _target(network: Network, endpoint: Endpoint) -> Target:
    routed = {version for version in (4, 6) if network.gateway_mode_of(version) == "routed"}
    return Target(endpoint.ip, endpoint.ip6, frozenset(routed), tuple(subnet.network for subnet in network.subnets))


def _gateways(network: Network) -> tuple[str, str]:
    """Those that lead out, of IPv4 and IPv6."""
    return ("", "") if network.internal else (network.gateway_of(4), network.gateway_of(6))
