"""Links, addresses and routes through one NETLINK_ROUTE socket (rtnetlink(7)); no lookups, no event handling.

Requests are values, which `Rtnetlink.execute` performs. A socket belongs to the network namespace it was opened in,
whoever uses it, so a container's namespace is configured from outside.
"""

import errno
import struct
from collections.abc import Mapping
from socket import AF_INET, AF_INET6, AF_UNSPEC, NETLINK_ROUTE, socket

from hafen.kernel import nlcodec
from hafen.kernel.netlink import Netlink, Request, open_socket
from hafen.kernel.nlcodec import IP, MAC, NESTED, NLM_F_CREATE, NLM_F_EXCL, STRING, U8, U16, U32, Attribute
from hafen.values import NamedTuple

RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK, RTM_SETLINK = 16, 17, 18, 19
RTM_NEWADDR, RTM_GETADDR = 20, 22
RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26
RTM_NEWRULE, RTM_DELRULE = 32, 33

IFF_UP = 0x1
RT_TABLE_MAIN = 254
RTPROT_BOOT = 3
RT_SCOPE_UNIVERSE = 0
RT_SCOPE_LINK = 253
RT_SCOPE_HOST = 254
RT_SCOPE_NOWHERE = 255
RTN_UNICAST, RTN_LOCAL = 1, 2
FR_ACT_TO_TBL = 1
IFA_F_NODAD = 0x02
IN6_ADDR_GEN_MODE_NONE = 1

LINK = {  # IFLA_*, linux/if_link.h
    "address": Attribute(1, MAC),
    "name": Attribute(3, STRING),
    "mtu": Attribute(4, U32),
    "parent": Attribute(5, U32),  # IFLA_LINK
    "master": Attribute(10, U32),
    "link_info": Attribute(18, NESTED),
    "alias": Attribute(20, STRING),  # IFLA_IFALIAS
    "af_spec": Attribute(26, NESTED),
    "netns_fd": Attribute(28, U32),
    "port": Attribute(12, NESTED),  # IFLA_PROTINFO
}
LINK_INFO = {"kind": Attribute(1, STRING), "data": Attribute(2, NESTED)}  # IFLA_INFO_*
VETH = {"peer": Attribute(1, NESTED)}  # VETH_INFO_PEER
MACVLAN = {"mode": Attribute(1, U32)}  # IFLA_MACVLAN_MODE
MACVLAN_MODES = {"private": 1, "vepa": 2, "bridge": 4, "passthru": 8}
IPVLAN = {"mode": Attribute(1, U16), "flags": Attribute(2, U16)}  # IFLA_IPVLAN_MODE, _FLAGS
IPVLAN_MODES = {"l2": 0, "l3": 1, "l3s": 2}
IPVLAN_FLAGS = {"bridge": 0, "private": 1, "vepa": 2}
VLAN = {"id": Attribute(1, U16)}  # IFLA_VLAN_ID
AF_SPEC = {"inet6": Attribute(AF_INET6, NESTED)}
INET6 = {"addr_gen_mode": Attribute(8, U8)}  # IFLA_INET6_ADDR_GEN_MODE
BRIDGE_PORT = {"hairpin": Attribute(4, U8), "isolated": Attribute(33, U8)}  # IFLA_BRPORT_MODE, _ISOLATED
ADDRESS = {  # IFA_*, linux/if_addr.h
    "address": Attribute(1, IP),
    "local": Attribute(2, IP),
    "broadcast": Attribute(4, IP),
    "flags": Attribute(8, U32),
}
ROUTE = {  # RTA_*, linux/rtnetlink.h
    "destination": Attribute(1, IP),
    "output": Attribute(4, U32),
    "gateway": Attribute(5, IP),
    "table": Attribute(15, U32),
}

RULE = {"priority": Attribute(6, U32), "mark": Attribute(10, U32), "table": Attribute(15, U32)}  # FRA_*, fib_rules.h

_IFINFO = struct.Struct("=BxHiII")
_IFADDR = struct.Struct("=BBBBI")
_RTMSG = struct.Struct("=BBBBBBBBI")


class Link(NamedTuple):
    ifindex: int
    name: str
    flags: int
    mtu: int
    mac: str
    master: int  # 0 where it has none
    kind: str  # "veth", "bridge", ...; "" for hardware and loopback
    alias: str = ""  # words of whoever administers it

    @property
    def is_up(self) -> bool:
        return bool(self.flags & IFF_UP)


class Address(NamedTuple):
    ifindex: int
    ip: str
    prefix: int


class Route(NamedTuple):
    """A unicast route; destination "" is the default route, gateway "" a direct one."""

    destination: str
    prefix: int
    gateway: str
    output: int
    table: int
    family: int = AF_INET


def _family(ip: str) -> int:
    return AF_INET6 if ":" in ip else AF_INET


def _link(kind: int, flags: int, what: str, attributes: bytes, *, index: int = 0, up: bool | None = None) -> Request:
    state = (IFF_UP if up else 0, IFF_UP if up is not None else 0)
    return Request(kind, flags, _IFINFO.pack(AF_UNSPEC, 0, index, *state) + attributes, what)


def new_bridge(name: str, mac: str, mtu: int) -> Request:
    """A bridge, still down: its IPv6 settings are made before it comes up. With a fixed address it does not take the
    lowest one of its ports, and neighbours need not learn anew."""
    body = nlcodec.encode(LINK, name=name, address=mac, mtu=mtu, link_info=nlcodec.encode(LINK_INFO, kind="bridge"))
    return _link(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, f"create bridge {name}", body)


def new_veth(name: str, peer: str, netns: int, *, master: int, mac: str, mtu: int) -> Request:
    """A veth pair: `name` here, a port of `master`; `peer`, with address `mac`, straight in the namespace `netns`.

    Moving the peer there later would cost some 19 ms (it waits for a grace period). It is created down: what must be
    set before it comes up is set from inside.
    """
    inside = _IFINFO.pack(AF_UNSPEC, 0, 0, 0, 0) + nlcodec.encode(LINK, name=peer, address=mac, mtu=mtu, netns_fd=netns)
    body = nlcodec.encode(
        LINK,
        name=name,
        mtu=mtu,
        master=master,
        link_info=nlcodec.encode(LINK_INFO, kind="veth", data=nlcodec.encode(VETH, peer=inside)),
    )
    return _link(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, f"create veth {name}", body, up=True)


def new_macvlan(name: str, netns: int, parent: int, mode: str, *, mac: str, mtu: int) -> Request:
    """A macvlan on the link `parent` of this namespace, made down and straight in the namespace `netns`."""
    data = nlcodec.encode(MACVLAN, mode=MACVLAN_MODES[mode])
    return _upper("macvlan", name, data, parent, netns_fd=netns, mtu=mtu, address=mac)


def new_ipvlan(name: str, netns: int, parent: int, mode: str, flag: str, *, mtu: int) -> Request:
    """An ipvlan on the link `parent` of this namespace, whose hardware address it has; straight in `netns`."""
    data = nlcodec.encode(IPVLAN, mode=IPVLAN_MODES[mode], flags=IPVLAN_FLAGS[flag])
    return _upper("ipvlan", name, data, parent, netns_fd=netns, mtu=mtu)


def new_vlan(name: str, parent: int, tag: int) -> Request:
    """A sub-interface for the frames of `parent` that have this VLAN tag (IEEE 802.1Q)."""
    return _upper("vlan", name, nlcodec.encode(VLAN, id=tag), parent)


def new_dummy(name: str) -> Request:
    return _upper("dummy", name, b"", 0)


def _upper(kind: str, name: str, data: bytes, parent: int, **values: nlcodec.Value) -> Request:
    """A link on top of another one, still down."""
    if parent:
        values["parent"] = parent
    info = nlcodec.encode(LINK_INFO, kind=kind, **({"data": data} if data else {}))
    body = nlcodec.encode(LINK, name=name, link_info=info, **values)
    return _link(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, f"create {kind} {name}", body)


def set_alias(name: str, alias: str) -> Request:
    """Words of ours on a link, by which it is known again."""
    return _link(RTM_SETLINK, 0, f"set alias of link {name}", nlcodec.encode(LINK, name=name, alias=alias))


def set_link(index: int, *, up: bool) -> Request:
    return _link(RTM_SETLINK, 0, f"set link {index} {'up' if up else 'down'}", b"", index=index, up=up)


def no_link_local(index: int) -> Request:
    """Let the link make no IPv6 address of its own (before it comes up)."""
    inet6 = nlcodec.encode(INET6, addr_gen_mode=IN6_ADDR_GEN_MODE_NONE)
    body = nlcodec.encode(LINK, af_spec=nlcodec.encode(AF_SPEC, inet6=inet6))
    return _link(RTM_SETLINK, 0, f"set IPv6 address generation of link {index}", body, index=index)


def set_bridge_port(index: int, *, hairpin: bool, isolated: bool) -> Request:
    """`hairpin` lets frames leave by the port they came in; `isolated` ports do not reach one another."""
    port = nlcodec.encode(BRIDGE_PORT, hairpin=int(hairpin), isolated=int(isolated))
    payload = _IFINFO.pack(7, 0, index, 0, 0) + nlcodec.encode(LINK, port=port)  # AF_BRIDGE
    return Request(RTM_SETLINK, 0, payload, f"set bridge port {index}")


def delete_link(name: str) -> Request:
    return _link(RTM_DELLINK, 0, f"delete link {name}", nlcodec.encode(LINK, name=name))


def new_address(index: int, ip: str, prefix: int, broadcast: str = "") -> Request:
    values: dict[str, nlcodec.Value] = {"local": ip, "address": ip}
    if broadcast:
        values["broadcast"] = broadcast
    family = _family(ip)
    # Duplicate detection would keep an IPv6 address unusable for a second; the pool hands each out once.
    flags = IFA_F_NODAD if family == AF_INET6 else 0
    payload = _IFADDR.pack(family, prefix, flags, RT_SCOPE_UNIVERSE, index) + nlcodec.encode(ADDRESS, **values)
    return Request(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, payload, f"add address {ip}/{prefix} to link {index}")


def new_route(gateway: str, destination: str = "", prefix: int = 0, output: int = 0, *, ipv6: bool = False) -> Request:
    """A unicast route in the main table; without a destination the default route, without a gateway a direct one.
    `ipv6` is for where neither says which family is meant."""
    family = AF_INET6 if ipv6 else _family(gateway or destination)
    scope = RT_SCOPE_UNIVERSE if gateway else RT_SCOPE_LINK
    values: dict[str, nlcodec.Value] = {}
    if destination:
        values["destination"] = destination
    if output:
        values["output"] = output
    if gateway:
        values["gateway"] = gateway
    payload = _RTMSG.pack(family, prefix, 0, 0, RT_TABLE_MAIN, RTPROT_BOOT, scope, RTN_UNICAST, 0)
    what = f"add route {destination or 'default'} via {gateway or output}"
    return Request(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, payload + nlcodec.encode(ROUTE, **values), what)


def delete_default_route(route: Route) -> Request:
    """The default route that was listed so."""
    payload = _RTMSG.pack(route.family, 0, 0, 0, route.table, 0, RT_SCOPE_NOWHERE, 0, 0)
    values: dict[str, nlcodec.Value] = {"output": route.output}
    if route.gateway:
        values["gateway"] = route.gateway
    return Request(RTM_DELROUTE, 0, payload + nlcodec.encode(ROUTE, **values), "delete default route")


def new_mark_rule(family: int, priority: int, mark: int, table: int) -> Request:
    """What has this mark is routed by this table (ip-rule(8))."""
    return _mark_rule(RTM_NEWRULE, NLM_F_CREATE | NLM_F_EXCL, family, priority, mark, table)


def delete_mark_rule(family: int, priority: int, mark: int, table: int) -> Request:
    return _mark_rule(RTM_DELRULE, 0, family, priority, mark, table)


def _mark_rule(kind: int, flags: int, family: int, priority: int, mark: int, table: int) -> Request:
    header = _RTMSG.pack(family, 0, 0, 0, 0, 0, 0, FR_ACT_TO_TBL, 0)  # struct fib_rule_hdr has the same layout
    body = nlcodec.encode(RULE, priority=priority, mark=mark, table=table)
    return Request(kind, flags, header + body, f"rule for mark {mark:#x}")


def new_local_route(family: int, table: int, output: int) -> Request:
    """In this table, every address is the host's own."""
    return _local_route(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, family, table, output)


def delete_local_route(family: int, table: int, output: int) -> Request:
    return _local_route(RTM_DELROUTE, 0, family, table, output)


def _local_route(kind: int, flags: int, family: int, table: int, output: int) -> Request:
    header = _RTMSG.pack(family, 0, 0, 0, 0, RTPROT_BOOT, RT_SCOPE_HOST, RTN_LOCAL, 0)
    body = nlcodec.encode(ROUTE, output=output, table=table)
    return Request(kind, flags, header + body, f"local route of table {table}")


class Rtnetlink(Netlink):
    """A conversation with the kernel over one NETLINK_ROUTE socket, which it owns."""

    def __init__(self, sock: socket | None = None) -> None:
        super().__init__("rtnetlink", sock or open_socket(NETLINK_ROUTE))

    def discard(self, name: str) -> None:
        """Delete the link, also where it has gone already."""
        try:
            self.execute(delete_link(name))
        except OSError as error:
            if error.errno != errno.ENODEV:
                raise

    def link(self, name: str) -> Link | None:
        """The link of that name, or None."""
        body = _IFINFO.pack(AF_UNSPEC, 0, 0, 0, 0) + nlcodec.encode(LINK, name=name)
        try:
            return _parse_link(self.get(RTM_GETLINK, 0, body, f"get link {name}")[0])
        except OSError as error:
            if error.errno == errno.ENODEV:
                return None
            raise

    def links(self) -> list[Link]:
        body = _IFINFO.pack(AF_UNSPEC, 0, 0, 0, 0)
        return [_parse_link(payload) for payload in self.get(RTM_GETLINK, nlcodec.NLM_F_DUMP, body, "list links")]

    def addresses(self) -> list[Address]:
        body = _IFADDR.pack(AF_UNSPEC, 0, 0, 0, 0)
        return [_parse_address(data) for data in self.get(RTM_GETADDR, nlcodec.NLM_F_DUMP, body, "list addresses")]

    def routes(self, family: int = AF_INET) -> list[Route]:
        """Unicast routes of every table."""
        body = _RTMSG.pack(family, 0, 0, 0, 0, 0, 0, 0, 0)
        parsed = (_parse_route(data) for data in self.get(RTM_GETROUTE, nlcodec.NLM_F_DUMP, body, "list routes"))
        return [route for route in parsed if route is not None]


def _fixed(layout: struct.Struct, payload: bytes) -> tuple[int, ...]:
    if len(payload) < layout.size:
        raise nlcodec.malformed("truncated message")
    return layout.unpack_from(payload)


def _text(values: Mapping[str, nlcodec.Value], name: str) -> str:
    return str(values.get(name, ""))


def _parse_link(payload: bytes) -> Link:
    _, _, index, flags, _ = _fixed(_IFINFO, payload)
    found = nlcodec.decode(LINK, payload[_IFINFO.size :])
    info = found.get("link_info", b"")
    kind = _text(nlcodec.decode(LINK_INFO, info), "kind") if isinstance(info, bytes) else ""
    master, mtu = int(found.get("master", 0)), int(found.get("mtu", 0))
    mac, alias = _text(found, "address"), _text(found, "alias")
    return Link(index, _text(found, "name"), flags, mtu, mac, master, kind, alias)


def _parse_address(payload: bytes) -> Address:
    _, prefix, _, _, index = _fixed(_IFADDR, payload)
    found = nlcodec.decode(ADDRESS, payload[_IFADDR.size :])
    return Address(index, _text(found, "local") or _text(found, "address"), prefix)


def _parse_route(payload: bytes) -> Route | None:
    family, prefix, _, _, table, _, _, kind, _ = _fixed(_RTMSG, payload)
    if kind != RTN_UNICAST:
        return None
    found = nlcodec.decode(ROUTE, payload[_RTMSG.size :])
    return Route(
        _text(found, "destination"),
        prefix,
        _text(found, "gateway"),
        int(found.get("output", 0)),
        int(found.get("table", table)),
        family,
    )
