"""Connections as the kernel tracks them (linux/netfilter/nfnetlink_conntrack.h): listed, and forgotten.

Whether a packet is translated is decided when its connection begins, and then holds for all of the connection.
"""

import errno
import struct
from socket import AF_INET6

from hafen.kernel import nlcodec
from hafen.kernel.netlink import Netlink, Request, open_socket
from hafen.kernel.nlcodec import BYTES, IP, NESTED, PORT, U8, U32, Attribute
from hafen.values import NamedTuple

NETLINK_NETFILTER = 12
NFNL_SUBSYS_CTNETLINK = 1
IPCTNL_MSG_CT_GET, IPCTNL_MSG_CT_DELETE = 1, 2

CONNECTION = {  # CTA_*
    "original": Attribute(1, NESTED),  # CTA_TUPLE_ORIG
    "reply": Attribute(2, NESTED),  # CTA_TUPLE_REPLY
    "id": Attribute(12, BYTES),
    "zone": Attribute(18, BYTES),
    "filter": Attribute(25, NESTED),
}
TUPLE = {"addresses": Attribute(1, NESTED), "protocol": Attribute(2, NESTED)}  # CTA_TUPLE_IP, _PROTO
ADDRESSES4 = {"source": Attribute(1, IP), "destination": Attribute(2, IP)}  # CTA_IP_V4_*
ADDRESSES6 = {"source": Attribute(3, IP), "destination": Attribute(4, IP)}  # CTA_IP_V6_*
PROTOCOL = {"number": Attribute(1, U8), "source": Attribute(2, PORT), "destination": Attribute(3, PORT)}  # CTA_PROTO_*
FILTER = {"original": Attribute(1, U32)}  # CTA_FILTER_ORIG_FLAGS
CTA_FILTER_F_CTA_PROTO_NUM, CTA_FILTER_F_CTA_PROTO_DST_PORT = 1 << 3, 1 << 5

_NFGENMSG = struct.Struct("=BBH")  # family, version, resource


class Flow(NamedTuple):
    """One direction of a connection. Ports are 0 where the protocol (a number, as in IP) has none."""

    protocol: int
    source: str
    source_port: int
    destination: str
    destination_port: int


class Connection(NamedTuple):
    """`reply` is what answers look like where they enter the host: from its source the translation shows. `key` is by
    what the kernel finds it again, as the body of a request."""

    original: Flow
    reply: Flow
    key: bytes


class Conntrack(Netlink):
    """The connections of the network namespace that this was made in."""

    def __init__(self) -> None:
        super().__init__("conntrack", open_socket(NETLINK_NETFILTER))

    def connections(self, family: int, protocol: int, port: int = 0) -> list[Connection]:
        """Those of a family (AF_INET, AF_INET6) and a protocol, perhaps only those to this port. The kernel looks
        through its whole table for them: some 10 ms for one of 262,144 buckets.

        Kernels before 5.8 do not know filters and give all of the family: it is for the caller to look. Nor is there
        one for addresses: of IPv6 the kernel gives those that have another.
        """
        body = _NFGENMSG.pack(family, 0, 0) + _filter(protocol, port)
        found = self.get(_type(IPCTNL_MSG_CT_GET), nlcodec.NLM_F_DUMP, body, "list connections")
        return [connection for payload in found if (connection := _parse(payload)).original.protocol == protocol]

    def forget(self, connection: Connection) -> None:
        """The next packet begins a new one. Also where it has ended already."""
        try:
            self.execute(Request(_type(IPCTNL_MSG_CT_DELETE), 0, connection.key, "forget connection"))
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise


def _type(message: int) -> int:
    return NFNL_SUBSYS_CTNETLINK << 8 | message


def _filter(protocol: int, port: int) -> bytes:
    """Attributes that say which connections are meant."""
    numbers, flags = {"number": protocol}, CTA_FILTER_F_CTA_PROTO_NUM
    if port:
        numbers["destination"] = port
        flags |= CTA_FILTER_F_CTA_PROTO_DST_PORT
    original = nlcodec.encode(TUPLE, protocol=nlcodec.encode(PROTOCOL, **numbers))
    return nlcodec.encode(CONNECTION, original=original, filter=nlcodec.encode(FILTER, original=flags))


def _parse(payload: bytes) -> Connection:
    family = payload[0]
    values = nlcodec.decode(CONNECTION, payload[_NFGENMSG.size :])
    identity = {name: values[name] for name in ("original", "id", "zone") if name in values}
    key = _NFGENMSG.pack(family, 0, 0) + nlcodec.encode(CONNECTION, **identity)
    return Connection(_flow(family, values["original"]), _flow(family, values["reply"]), key)


def _flow(family: int, nested: nlcodec.Value) -> Flow:
    parts = nlcodec.decode(TUPLE, _bytes(nested))
    addresses = nlcodec.decode(ADDRESSES6 if family == AF_INET6 else ADDRESSES4, _bytes(parts["addresses"]))
    protocol = nlcodec.decode(PROTOCOL, _bytes(parts["protocol"]))
    return Flow(
        int(protocol["number"]), str(addresses["source"]), int(protocol.get("source", 0)),
        str(addresses["destination"]), int(protocol.get("destination", 0)),
    )  # fmt: skip


def _bytes(value: nlcodec.Value) -> bytes:
    if not isinstance(value, bytes):
        raise nlcodec.malformed("a number where attributes are due")
    return value
