"""The codec against pyroute2, which knows the kernel's tables independently; and against what is not a message."""

import errno
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from hafen.kernel import nlcodec, rtnetlink
from hafen.kernel.netlink import Request


def by_oracle(request: Request, kind: type[Any]) -> Any:
    """pyroute2's reading of a request."""
    decoded = kind(nlcodec.pack(nlcodec.Message(request.type, request.flags, 1, request.payload)))
    decoded.decode()
    return decoded


def attribute(message: Any, *path: str) -> object:
    for name in path:
        message = message.get_attr(name)
    return message


def test_veth_with_its_peer_elsewhere() -> None:
    request = rtnetlink.new_veth("hf0", "eth0", 7, master=3, mac="02:42:ac:11:00:02", mtu=1400)
    message = by_oracle(request, ifinfmsg)
    assert message["header"]["flags"] == nlcodec.NLM_F_CREATE | nlcodec.NLM_F_EXCL
    assert (message["flags"], message["change"]) == (1, 1)
    assert attribute(message, "IFLA_IFNAME") == "hf0"
    assert attribute(message, "IFLA_MASTER") == 3
    assert attribute(message, "IFLA_LINKINFO", "IFLA_INFO_KIND") == "veth"
    peer = attribute(message, "IFLA_LINKINFO", "IFLA_INFO_DATA", "VETH_INFO_PEER")
    assert attribute(peer, "IFLA_IFNAME") == "eth0"
    assert attribute(peer, "IFLA_ADDRESS") == "02:42:ac:11:00:02"
    assert attribute(peer, "IFLA_NET_NS_FD") == 7
    assert attribute(peer, "IFLA_MTU") == 1400


def test_bridge_and_its_port() -> None:
    message = by_oracle(rtnetlink.new_bridge("hafen0", "02:42:ac:11:00:01", 1500), ifinfmsg)
    assert attribute(message, "IFLA_LINKINFO", "IFLA_INFO_KIND") == "bridge"
    message = by_oracle(rtnetlink.no_link_local(2), ifinfmsg)
    assert attribute(message, "IFLA_AF_SPEC", "AF_INET6", "IFLA_INET6_ADDR_GEN_MODE") == 1


@pytest.mark.parametrize(("ip", "prefix"), [("172.17.0.2", 16), ("fd00::2", 64)])
def test_address(ip: str, prefix: int) -> None:
    message = by_oracle(rtnetlink.new_address(5, ip, prefix), ifaddrmsg)
    assert (message["index"], message["prefixlen"]) == (5, prefix)
    assert attribute(message, "IFA_ADDRESS") == ip


def test_default_route() -> None:
    message = by_oracle(rtnetlink.new_route("172.17.0.1"), rtmsg)
    assert (message["dst_len"], message["table"], message["type"]) == (0, 254, 1)
    assert attribute(message, "RTA_GATEWAY") == "172.17.0.1"


def test_attributes_come_back() -> None:
    data = nlcodec.encode(rtnetlink.LINK, name="eth0", mtu=1500, address="02:42:ac:11:00:02")
    assert nlcodec.decode(rtnetlink.LINK, data) == {"name": "eth0", "mtu": 1500, "address": "02:42:ac:11:00:02"}


def test_acknowledgement_with_the_kernels_words() -> None:
    header = struct.pack("=IHHII", 16, 24, 5, 9, 0)
    words = nlcodec.encode({"message": nlcodec.Attribute(1, nlcodec.STRING)}, message="Nexthop has invalid gateway")
    for flags, request in ((nlcodec.NLM_F_ACK_TLVS | nlcodec.NLM_F_CAPPED, header), (nlcodec.NLM_F_ACK_TLVS, header)):
        message = nlcodec.Message(nlcodec.NLMSG_ERROR, flags, 9, struct.pack("=i", -101) + request + words)
        assert nlcodec.parse_ack(message) == nlcodec.Ack(101, "Nexthop has invalid gateway")
    assert nlcodec.parse_ack(nlcodec.Message(2, 0, 9, struct.pack("=i", 0) + header)) == nlcodec.Ack(0, "")


@given(st.binary(max_size=200))
def test_garbage_is_refused_or_read_never_worse(data: bytes) -> None:
    try:
        for message in nlcodec.unpack(data):
            nlcodec.parse_ack(message)
            nlcodec.decode(rtnetlink.LINK, message.payload)
            nlcodec.decode(rtnetlink.ROUTE, message.payload)
    except OSError as error:
        refused = error.errno
    else:
        refused = errno.EBADMSG
    assert refused == errno.EBADMSG


def test_attribute_that_is_too_long() -> None:
    with pytest.raises(OSError, match="attribute name has"):
        nlcodec.encode(rtnetlink.LINK, name="x" * 70000)
