"""The text of our one nftables table; pure.

Nothing in it is per container but map elements, so its cost does not grow. We never touch another table: a packet that
another table drops stays dropped, and an `accept` of ours ends only our own chain (nft(8), "verdicts").

    raw           what comes from a wire and is sent to 127.0.0.0/8 is dropped. `route_localnet` lets published ports
                  answer on the host's loopback, and would let containers reach the host's own loopback services
                  (CVE-2020-8558); and a port published there is redirected before the kernel finds such a packet from
                  a neighbour amiss (moby#45610)
    publish       published ports, for packets to any address of the host's own: from outside, from containers, from
                  the host itself. First those published on one address, then those published on all
    relaying      (where the host's firewall is respected) see `network.transparent`
    postrouting   containers leave with the host's address, unless their network is not masqueraded; so do, in any case,
                  packets that come back into the network they came from through a published port, or that the host
                  sends from its loopback: the answer must come back through here to be translated
    forward       to our networks only what belongs to a known connection or a published port: no other network of
                  ours, and no neighbour that routes to a container's address past the published ports, gets through.
                  Networks that are routed let in their published ports under the containers' own addresses, and pings;
                  unprotected ones let everything in. Containers that are kept from one another reach what links open
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_address, ip_network

from hafen.network.driver import Network, Opening, PublishedPort

VERSION = 3


@dataclass(frozen=True, slots=True)
class Published:
    """A port, and the container's address behind it. One that is `routed` is let in under that address."""

    port: PublishedPort
    target: str
    routed: bool = False


def _definition(table: str, chains: str) -> str:
    return f"""\
table inet {table} {{
  comment "hafen {VERSION}"
  set bridges {{ type ifname; }}
  set internal {{ type ifname; }}
  set same {{ type ifname . ifname; }}
  map published {{ type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; }}
  map published_everywhere {{ type inet_proto . inet_service : ipv4_addr . inet_service; }}
  map published6 {{ type ipv6_addr . inet_proto . inet_service : ipv6_addr . inet_service; }}
  map published6_everywhere {{ type inet_proto . inet_service : ipv6_addr . inet_service; }}
  set routed {{ type ipv4_addr . inet_proto . inet_service; }}
  set routed6 {{ type ipv6_addr . inet_proto . inet_service; }}
  set pinged {{ type ifname . inet_proto; }}
  set linked {{ type ipv4_addr . ipv4_addr . inet_proto . inet_service; }}
  set open {{ type ifname . nf_proto; }}
  map leaving {{ type ipv4_addr : verdict; flags interval; }}
  map leaving6 {{ type ipv6_addr : verdict; flags interval; }}
  chain raw {{
    type filter hook prerouting priority raw; policy accept;
    iifname != "lo" ip daddr 127.0.0.0/8 drop
  }}
  chain publish {{
    dnat ip to ip daddr . meta l4proto . th dport map @published
    dnat ip to meta l4proto . th dport map @published_everywhere
    ip6 daddr ::1 return
    dnat ip6 to ip6 daddr . meta l4proto . th dport map @published6
    dnat ip6 to meta l4proto . th dport map @published6_everywhere
  }}
  chain prerouting {{
    type nat hook prerouting priority dstnat; policy accept;
    fib daddr type local jump publish
  }}
  chain output {{
    type nat hook output priority -100; policy accept;
    fib daddr type local jump publish
  }}
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    oifname @bridges ip saddr 127.0.0.0/8 masquerade
    ip saddr vmap @leaving
    ip6 saddr vmap @leaving6
  }}
  chain forward {{
    type filter hook forward priority filter; policy accept;
    iifname . oifname @same accept
    iifname @internal drop
    oifname @internal drop
    ct state established,related accept
    ct status dnat accept
    ip daddr . meta l4proto . th dport @routed accept
    ip6 daddr . meta l4proto . th dport @routed6 accept
    ip saddr . ip daddr . meta l4proto . th dport @linked accept
    oifname . meta l4proto @pinged accept
    oifname . meta nfproto @open accept
    oifname @bridges drop
  }}
{chains}}}
"""


def build(
    table: str,
    networks: Iterable[Network],
    published: Iterable[Published],
    opened: Iterable[Opening] = (),
    relay_mark: int = 0,
) -> str:
    """Commands that put the whole table in place of whatever it was, in one transaction. `relay_mark` is what
    `network.transparent` routes by, 0 for nothing."""
    every = list(networks)
    # The chains are part of the table's own block: nft 1.0.6 finds no chain that was added after it in one transaction.
    chains = "".join(_chain(network) for network in every) + (_relaying(relay_mark) if relay_mark else "")
    definition = _definition(table, chains)
    elements = "".join(_elements(table, network) for network in every)
    return remove(table) + definition + elements + publish(table, published) + open_links(table, opened)


def remove(table: str) -> str:
    """Also where it does not exist."""
    return f"add table inet {table}\ndelete table inet {table}\n"


def add_network(table: str, network: Network) -> str:
    return f"table inet {table} {{\n{_chain(network)}}}\n" + _elements(table, network)


def _chain(network: Network) -> str:
    """What happens to packets that come from the network's subnets, as a part of the table's block."""
    if not _translated(network):
        return ""
    leaving = [
        f'    oifname != "{network.link}" meta nfproto {family} snat {kind} to {address}\n'
        for family, kind, address in (("ipv4", "ip", network.leaves_as), ("ipv6", "ip6", network.leaves_as6))
        if address
    ]
    leaving.append(f'    oifname != "{network.link}" masquerade\n')
    return f"""\
  chain {_chain_name(network)} {{
{"".join(leaving) if network.masquerade else ""}\
    oifname "{network.link}" ct status dnat masquerade
  }}
"""


def _relaying(mark: int) -> str:
    """Answers of containers that belong to a socket of the relay's, whatever address that has."""
    return f"""\
  chain relaying {{
    type filter hook prerouting priority mangle; policy accept;
    iifname @bridges meta l4proto {{ tcp, udp }} socket transparent 1 meta mark set {mark}
  }}
"""


def _elements(table: str, network: Network) -> str:
    return "".join(
        f"add element inet {table} {where} {{ {key}{f' : {value}' if value else ''} }}\n"
        for where, key, value in _membership(network)
    )


def remove_network(table: str, network: Network) -> str:
    commands = [f"delete element inet {table} {where} {{ {key} }}\n" for where, key, _ in _membership(network)]
    if _translated(network):
        commands.append(f"delete chain inet {table} {_chain_name(network)}\n")
    return "".join(commands)


def _membership(network: Network) -> Iterable[tuple[str, str, str]]:
    """What the network is in: the set or map, the key, and the value ("" in sets)."""
    link = f'"{network.link}"'
    yield "bridges", link, ""
    if network.icc:
        yield "same", f"{link} . {link}", ""
    if network.internal:
        yield "internal", link, ""
    for subnet in _translated(network):
        name = "leaving" if ip_network(subnet).version == 4 else "leaving6"
        yield name, subnet, f"goto {_chain_name(network)}"
    # By number: nft knows names of protocols from /etc/protocols alone, which a small host may lack.
    for version, pings, family in ((4, "1", "ipv4"), (6, "58", "ipv6")):
        if network.gateway_mode_of(version) == "routed":
            yield "pinged", f"{link} . {pings}", ""
        if network.gateway_mode_of(version) == "nat-unprotected":
            yield "open", f"{link} . {family}", ""


def _translated(network: Network) -> list[str]:
    return [s.network for s in network.subnets if network.translates(ip_network(s.network).version)]


def publish(table: str, published: Iterable[Published]) -> str:
    return "".join(f"add element inet {table} {_element(one)}\n" for one in published)


def withdraw(table: str, published: Iterable[Published]) -> str:
    return "".join(f"delete element inet {table} {_element(one)}\n" for one in published)


def open_links(table: str, openings: Iterable[Opening]) -> str:
    return "".join(f"add element inet {table} linked {{ {_key(one)} }}\n" for one in openings)


def close_links(table: str, openings: Iterable[Opening]) -> str:
    return "".join(f"delete element inet {table} linked {{ {_key(one)} }}\n" for one in openings)


def _key(opening: Opening) -> str:
    return f"{opening.source} . {opening.target} . {opening.port.protocol} . {opening.port.number}"


def _chain_name(network: Network) -> str:
    return f"from-{network.link}"


def _element(published: Published) -> str:
    """`map { key : value }` of one published port, or `set { key }`."""
    port, target = published.port, published.target
    version = "" if ip_address(target).version == 4 else "6"
    if published.routed:
        return f"routed{version} {{ {target} . {port.container.protocol} . {port.container.number} }}"
    key = f"{port.container.protocol} . {port.host_port}"
    value = f"{target} . {port.container.number}"
    if ip_address(port.host_ip).is_unspecified:
        return f"published{version}_everywhere {{ {key} : {value} }}"
    return f"published{version} {{ {port.host_ip} . {key} : {value} }}"
