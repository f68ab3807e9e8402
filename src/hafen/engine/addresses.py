"""Which addresses of which network are taken: a pool per subnet, kept in memory and rebuilt from the endpoints."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from ipaddress import ip_address

from hafen.engine import netrecords
from hafen.engine.netrecords import NetworkRecord
from hafen.errors import Forbidden, System
from hafen.network.driver import Endpoint
from hafen.network.ipam import Pool
from hafen.spec.wire.network import EndpointIpamConfig, EndpointSettings, SubnetStatus

log = logging.getLogger(__name__)

Grant = tuple[str, int]
"""An address and its prefix length; ("", 0) where the network has none of that family."""

NOTHING: Grant = ("", 0)


class Addresses:
    """The pools of every network, by its id."""

    def __init__(self) -> None:
        self._pools: dict[str, list[Pool]] = {}

    def grant(self, network: NetworkRecord, settings: EndpointSettings) -> tuple[Grant, Grant]:
        """An IPv4 and an IPv6 address, as asked or the next ones. Forbidden where one that is asked is taken, System
        where there is none left."""
        asked = settings.ipam_config or EndpointIpamConfig()
        ip = self._take(network, 4, asked.ipv4_address)
        try:
            return ip, self._take(network, 6, asked.ipv6_address)
        except BaseException:
            self.give_back(network, ip[0])
            raise

    def give_back(self, network: NetworkRecord, *texts: str) -> None:
        for text in filter(None, texts):
            for pool in self._of(network):
                if ip_address(text) in pool.subnet:
                    pool.release(ip_address(text))

    def claim(self, network: NetworkRecord, endpoint: Endpoint) -> None:
        """Take again what a living endpoint has."""
        for text in filter(None, (endpoint.ip, endpoint.ip6)):
            for pool in self._of(network):
                if ip_address(text) in pool.subnet:
                    try:
                        pool.claim(ip_address(text))
                    except Forbidden as error:
                        log.warning("network %s: %s has two owners: %s", network.name, text, error)

    def status(self, network: NetworkRecord) -> dict[str, SubnetStatus]:
        """How full each subnet is."""
        return {
            str(pool.subnet): SubnetStatus(ips_in_use=pool.used, dynamic_ips_available=pool.free)
            for pool in self._of(network)
        }

    def forget(self, network: NetworkRecord) -> None:
        self._pools.pop(network.id, None)

    def _of(self, network: NetworkRecord) -> Sequence[Pool]:
        if network.id not in self._pools:
            self._pools[network.id] = netrecords.pools(network)
        return self._pools[network.id]

    def _take(self, network: NetworkRecord, version: int, wanted: str) -> Grant:
        """From the first subnet of that version that has one, or from the one that the wanted address is in."""
        pools = [pool for pool in self._of(network) if pool.subnet.version == version]
        if wanted:
            address = ip_address(wanted)
            holding = next((pool for pool in pools if address in pool.subnet), None)
            if holding is None:
                return NOTHING  # only remembered: the network is without that version
            holding.claim(address)
            return str(address), holding.subnet.prefixlen
        for pool in pools:
            free = pool.allocate()
            if free is not None:
                return str(free), pool.subnet.prefixlen
        if pools:
            raise System(
                f"no available IPv{version} addresses on this network's address pools: {network.name} ({network.id})"
            )
        return NOTHING
