"""What changes in nftables, as the kernel tells it (NFNLGRP_NFTABLES, linux/netfilter/nfnetlink.h)."""

import errno
import struct
from socket import AF_NETLINK, SOCK_CLOEXEC, SOCK_NONBLOCK, SOCK_RAW, socket

from hafen.kernel import nlcodec
from hafen.kernel.nlcodec import STRING, Attribute

NETLINK_NETFILTER = 12
NFNLGRP_NFTABLES = 7
NFNL_SUBSYS_NFTABLES = 10
NFT_MSG_DELTABLE = 2
NFPROTO_INET = 1

TABLE = {"name": Attribute(1, STRING)}  # NFTA_TABLE_NAME

_NFGENMSG = struct.Struct("!BBH")  # family, version, resource


class NftablesEvents:
    """A socket that tells of every transaction in the network namespace it was opened in, ours included."""

    def __init__(self) -> None:
        self._socket = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_NETFILTER)
        self._socket.bind((0, 1 << (NFNLGRP_NFTABLES - 1)))

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def removed(self, table: str) -> bool:
        """Whether the table of this name, of family inet, was removed since the last call; also where it may have
        been, since the kernel told more than the socket could hold."""
        found = False
        while True:
            try:
                datagram = self._socket.recv(1 << 17)
            except BlockingIOError:
                return found
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                found = True
                continue
            found = found or any(_removes(message, table) for message in nlcodec.unpack(datagram))


def _removes(message: nlcodec.Message, table: str) -> bool:
    if message.type != NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_DELTABLE or len(message.payload) < _NFGENMSG.size:
        return False
    family = _NFGENMSG.unpack_from(message.payload)[0]
    name = nlcodec.decode(TABLE, message.payload[_NFGENMSG.size :]).get("name")
    return (family, name) == (NFPROTO_INET, table)
