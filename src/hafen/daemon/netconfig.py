"""What daemon.json and flags say about networks, checked and turned into `NetworkDefaults`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any

from hafen.engine.netdefaults import AddressPool, NetworkDefaults
from hafen.errors import InvalidArgument
from hafen.network.driver import DEFAULT_BRIDGE

FIREWALLS = ("docker", "respect")


@dataclass(frozen=True, slots=True)
class NetworkConfig:
    """The networks' part of the configuration. The names of its fields are those of Docker's daemon.json, with `_`."""

    bridge: str = DEFAULT_BRIDGE
    bip: str = ""
    bip6: str = ""
    fixed_cidr: str = ""
    fixed_cidr_v6: str = ""
    ipv6: bool = False
    icc: bool = True
    ip_masq: bool = True
    ip: str = "0.0.0.0"
    mtu: int = 0
    dns: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    dns_opts: tuple[str, ...] = ()
    host_gateway_ip: str = ""
    host_gateway_ips: tuple[str, ...] = ()
    default_address_pools: tuple[Mapping[str, Any], ...] = ()
    default_network_opts: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    firewall: str = "docker"  # whose rules decide about published ports: ours, as Docker does, or `respect` the host's

    def defaults(self, seed: str = "") -> NetworkDefaults:
        """`seed` tells engines apart. InvalidArgument where the configuration makes no sense."""
        gateways = self.host_gateway_ips or ((self.host_gateway_ip,) if self.host_gateway_ip else ())
        for name, texts in (("ip", (self.ip,)), ("host-gateway-ip", gateways), ("dns", self.dns)):
            for text in texts:
                _check(name, text, ip_address)
        for name, text in (("bip", self.bip), ("bip6", self.bip6)):
            if text:
                _check(name, text, ip_interface)
        for name, text in (("fixed-cidr", self.fixed_cidr), ("fixed-cidr-v6", self.fixed_cidr_v6)):
            if text:
                _check(name, text, ip_network)
        if self.firewall not in FIREWALLS:
            raise InvalidArgument(f"firewall is {self.firewall!r}; one of {', '.join(FIREWALLS)}")
        return NetworkDefaults(
            bridge=self.bridge,
            pools=tuple(_pool(one) for one in self.default_address_pools),
            bip=self.bip,
            bip6=self.bip6,
            fixed_cidr=self.fixed_cidr,
            fixed_cidr6=self.fixed_cidr_v6,
            ipv6=self.ipv6,
            icc=self.icc,
            masquerade=self.ip_masq,
            host_ip=self.ip,
            mtu=self.mtu,
            dns=self.dns,
            dns_search=self.dns_search,
            dns_options=self.dns_opts,
            host_gateways=gateways,
            options=self.default_network_opts,
            seed=seed,
        )


# Docker's switches whose other position is not offered, each with the only value that it may have.
FIXED: Mapping[str, bool] = {
    "iptables": True, "ip6tables": True, "ip-forward": True, "userland-proxy": True, "allow-direct-routing": False,
}  # fmt: skip


def _check(name: str, text: str, parse: Any) -> None:
    try:
        parse(text)
    except ValueError as error:
        raise InvalidArgument(f"{name}: {error}") from None


def _pool(given: Mapping[str, Any]) -> AddressPool:
    """`{"base": "10.10.0.0/16", "size": 24}`."""
    try:
        base, size = ip_network(str(given["base"]), strict=False), int(given["size"])
        if not base.prefixlen <= size <= base.max_prefixlen - 1:
            raise ValueError(f"size {size} does not fit {base}")
    except (KeyError, ValueError) as error:
        raise InvalidArgument(f"invalid default-address-pools entry {dict(given)}: {error}") from None
    return AddressPool(base, size)


def pool_argument(text: str) -> dict[str, object]:
    """`base=10.10.0.0/16,size=24` of the command line."""
    found = dict(part.partition("=")[::2] for part in text.split(","))
    return {"base": found.get("base", ""), "size": int(found.get("size", "0"))}


def add_flags(add: Any) -> None:
    """docker's own flags of these settings, to an argparse parser's `add_argument`."""
    texts: Sequence[tuple[str, str, str]] = (
        ("--bip", "CIDR", "address of the default network's bridge"),
        ("--bip6", "CIDR", "the same of IPv6"),
        ("--fixed-cidr", "CIDR", "the part of the default network that containers get addresses from"),
        ("--fixed-cidr-v6", "CIDR", "the same of IPv6"),
        ("--ip", "ADDRESS", "where ports are published that name no address (default 0.0.0.0)"),
        ("--host-gateway-ip", "ADDRESS", "what host-gateway means in --add-host"),
    )
    add("--bridge", "-b", metavar="NAME", help="interface of the default network")
    for flag, metavar, words in texts:
        add(flag, metavar=metavar, help=words)
    add("--ipv6", action="store_true", default=None, help="IPv6 in the default network")
    for name, words in (("icc", "containers of the default network reach each other"), ("ip-masq", "masquerade them")):
        add(f"--{name}", type=_on, default=None, metavar="true|false", help=words)
    add("--mtu", type=int, metavar="BYTES", help="of the default network (default: as the uplink)")
    for name in ("dns", "dns-search", "dns-opt"):
        field_name = "dns_opts" if name == "dns-opt" else name.replace("-", "_")
        add(f"--{name}", dest=field_name, action="append", metavar="TEXT", help="of containers that choose none")
    add(
        "--default-address-pool", dest="default_address_pools", action="append", type=pool_argument,
        metavar="base=CIDR,size=BITS", help="where networks without a subnet get theirs",
    )  # fmt: skip
    add("--firewall", choices=FIREWALLS, help="whose rules decide about published ports (default docker: ours)")


def _on(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError(text)
    return text.lower() == "true"
