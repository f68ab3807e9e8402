"""Bridge networks: link, addresses, masquerade, isolation, published ports."""

from __future__ import annotations

import errno
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from ipaddress import ip_network

from hafen.errors import System
from hafen.kernel import rtnetlink
from hafen.kernel.nftables import Nftables
from hafen.kernel.rtnetlink import Rtnetlink
from hafen.network import firewall, sandbox
from hafen.network.driver import Endpoint, Netns, Network, PublishedPort, Wish, is_link_name, link_name
from hafen.network.firewall import Firewall
from hafen.network.ipam import IpNetwork, mac_of
from hafen.network.publish import HeldPorts
from hafen.network.ruleset import Published

DEFAULT_MTU = 1500


class BridgeDriver:
    """Containers on a Linux bridge of the host. `warn` takes what the user should know, in words."""

    name = "bridge"

    def __init__(self, *, table: str = "hafen", warn: Callable[[str], None] = lambda text: None) -> None:
        self._route = Rtnetlink()
        self._firewall = Firewall(Nftables(), table)
        self._ports = HeldPorts()
        self._warn = warn
        self._bridges: dict[str, int] = {}  # network id -> index of its link
        self._mtu: dict[str, int] = {}

    def close(self) -> None:
        self._ports.close()
        self._route.close()

    def occupied(self, but: Collection[str] = ()) -> Sequence[IpNetwork]:
        own = {link.ifindex for link in self._route.links() if link.name in but} if but else set()
        routes = [f"{r.destination}/{r.prefix}" for r in self._route.routes() if r.destination and r.output not in own]
        addresses = [f"{a.ip}/{a.prefix}" for a in self._route.addresses() if a.ifindex not in own]
        return [ip_network(text, strict=False) for text in routes + addresses]

    def create(self, network: Network) -> None:
        if network.id in self._bridges:
            return
        with _in_words(f"network {network.name}"), ExitStack() as undo:
            # First the table: a bridge that it does not name would not be recognised as ours after a crash.
            self._firewall.add_network(network)
            undo.callback(self._firewall.remove_network, network)
            self._bridges[network.id] = self._make_bridge(network)
            undo.pop_all()
        for version in {ip_network(subnet.network).version for subnet in network.subnets}:
            told = firewall.enable_forwarding(version)
            if told:
                self._warn(told)

    def delete(self, network: Network) -> None:
        with _in_words(f"network {network.name}"):
            self._delete_link(network.link)
            self._firewall.remove_network(network)
        self._bridges.pop(network.id, None)

    def attach(self, network: Network, wish: Wish, netns: Netns | None) -> Endpoint:
        if netns is None:
            raise System(f"network {network.name}: the container has no network namespace of its own")
        self.create(network)  # also where it is missing because it could not be made when the engine started
        link = link_name(wish.id)
        gateways = tuple(subnet.gateway for subnet in network.subnets if not network.internal)
        hairpin = bool(wish.ports) and not network.internal
        where = f"failed to set up container networking: network {network.name}"
        with _in_words(where), ExitStack() as undo:
            self._plug(network, wish, netns, link, gateways)
            undo.callback(self._delete_link, link)
            if hairpin or not network.icc:
                self._set_port(link, hairpin=hairpin, isolated=not network.icc)
            ports = self._publish(network, wish)
            undo.pop_all()
        gateway, gateway6 = _by_version(gateways)
        return Endpoint(
            wish.id, wish.container_id, wish.container_name, wish.interface, link,
            wish.ip, wish.prefix, gateway, wish.ip6, wish.prefix6, gateway6, wish.mac, ports,
        )  # fmt: skip

    def detach(self, network: Network, endpoint: Endpoint) -> None:
        with _in_words(f"network {network.name}"):
            self._firewall.withdraw(_published(endpoint))
            self._ports.release(endpoint.ports)

    def unplug(self, link: str) -> None:
        with _in_words(f"link {link}"), Rtnetlink() as route:
            _delete_link(route, link)

    def lead_out(self, network: Network, endpoint: Endpoint, netns: Netns) -> None:
        with _in_words(f"network {network.name}"):
            sandbox.add_default_routes(netns, (endpoint.gateway, endpoint.gateway6))

    def restore(self, networks: Iterable[Network], endpoints: Iterable[tuple[Network, Endpoint]]) -> list[str]:
        wanted, living = list(networks), [endpoint for _, endpoint in endpoints]
        warnings: list[str] = []
        with _in_words("networks"):
            self._remove_strays(wanted, {endpoint.link for endpoint in living})
            self._firewall.rebuild(wanted, [port for endpoint in living for port in _published(endpoint)])
            for network in wanted:
                self._bridges[network.id] = self._make_bridge(network)
        for endpoint in living:
            warnings += self._ports.restore(endpoint.ports, endpoint.container_name)
        if wanted:
            warnings += filter(None, (firewall.enable_forwarding(),))
            warnings += self._firewall.blockers()
        return warnings

    def _remove_strays(self, networks: list[Network], links: set[str]) -> None:
        """Bridges that our table names and no network has; and their ports, and ours, that no endpoint has."""
        ours = self._firewall.known_bridges()
        wanted = {network.link for network in networks}
        found = {link.name: link for link in self._route.links()}
        bridges = {found[name].ifindex for name in ours | wanted if name in found}
        for link in found.values():
            if link.kind == "veth" and link.master in bridges and link.name not in links and is_link_name(link.name):
                self._delete_link(link.name)
        for name in ours - wanted:
            if name in found:
                self._delete_link(name)

    def _make_bridge(self, network: Network) -> int:
        """The index of the network's bridge: made where it is missing, adopted with whatever it lacks where not."""
        self._mtu[network.id] = network.mtu or self._uplink_mtu()
        found = self._route.link(network.link)
        if found is not None and found.kind != "bridge":
            raise System(f"link {network.link} exists and is no bridge")
        if found is None:
            mac = (
                mac_of(network.subnets[0].gateway)
                if network.subnets and network.subnets[0].gateway
                else "02:42:0:0:0:1"
            )
            self._route.execute(rtnetlink.new_bridge(network.link, mac, self._mtu[network.id]))
            found = self._route.link(network.link)
            if found is None:
                raise System(f"link {network.link} vanished")
        try:
            self._configure_bridge(network, found)
        except BaseException:
            self._delete_link(network.link)
            raise
        return found.ifindex

    def _configure_bridge(self, network: Network, bridge: rtnetlink.Link) -> None:
        present = {(a.ip, a.prefix) for a in self._route.addresses() if a.ifindex == bridge.ifindex}
        requests = []
        if not bridge.is_up:
            if not any(":" in subnet.gateway for subnet in network.subnets):
                requests.append(rtnetlink.no_link_local(bridge.ifindex))
            requests.append(rtnetlink.set_link(bridge.ifindex, up=True))
        for subnet in network.subnets:
            prefix = ip_network(subnet.network).prefixlen
            if subnet.gateway and (subnet.gateway, prefix) not in present:
                requests.append(rtnetlink.new_address(bridge.ifindex, subnet.gateway, prefix))
        self._route.execute(*requests)
        # Published ports answer on the host's 127.0.0.1 too; the ruleset's `raw` chain closes what this opens.
        with open(f"/proc/sys/net/ipv4/conf/{network.link}/route_localnet", "wb", buffering=0) as file:
            file.write(b"1")

    def _uplink_mtu(self) -> int:
        """The MTU of the link with the default route: a larger one would leave it to path MTU discovery."""
        outputs = {route.output for route in self._route.routes() if not route.destination and route.table == 254}
        return min((link.mtu for link in self._route.links() if link.ifindex in outputs), default=DEFAULT_MTU)

    def _plug(self, network: Network, wish: Wish, netns: Netns, link: str, gateways: tuple[str, ...]) -> None:
        for attempt in (1, 2):
            try:
                sandbox.plug(
                    self._route, netns, wish, link,
                    master=self._bridges[network.id], mtu=self._mtu[network.id], gateways=gateways,
                )  # fmt: skip
            except OSError:
                if attempt == 2 or self._route.link(network.link) is not None:
                    raise
                del self._bridges[network.id]  # somebody removed the bridge: make it anew
                self.create(network)
            else:
                return

    def _publish(self, network: Network, wish: Wish) -> tuple[PublishedPort, ...]:
        if not wish.ports or network.internal:
            return ()
        try:
            ports = self._ports.hold(wish.ports, wish.container_name, network.host_ip)
            try:
                self._firewall.publish([(port, wish.ip) for port in ports])
            except BaseException:
                self._ports.release(ports)
                raise
        except System as error:
            endpoint = f"endpoint {wish.container_name} ({wish.id})"
            raise System(f"driver failed programming external connectivity on {endpoint}: {error}") from error
        return ports

    def _set_port(self, name: str, *, hairpin: bool, isolated: bool) -> None:
        """`hairpin`: with br_netfilter, a container that uses its own published port has its frames redirected within
        the bridge, back to where they came from."""
        link = self._route.link(name)
        if link is not None:
            self._route.execute(rtnetlink.set_bridge_port(link.ifindex, hairpin=hairpin, isolated=isolated))

    def _delete_link(self, name: str) -> None:
        _delete_link(self._route, name)


def _delete_link(route: Rtnetlink, name: str) -> None:
    """Also where it has gone already."""
    try:
        route.execute(rtnetlink.delete_link(name))
    except OSError as error:
        if error.errno != errno.ENODEV:
            raise


def _published(endpoint: Endpoint) -> list[Published]:
    return [(port, endpoint.ip) for port in endpoint.ports]


def _by_version(addresses: Iterable[str]) -> tuple[str, str]:
    found = [*addresses, ""]
    first4 = next((a for a in found if ":" not in a), "")
    first6 = next((a for a in found if ":" in a), "")
    return first4, first6


@contextmanager
def _in_words(what: str) -> Iterator[None]:
    """The kernel's refusals as `System`."""
    try:
        yield
    except OSError as error:
        raise System(f"{what}: {error.strerror or error}") from error
