"""Conversations with the kernel over netlink sockets: requests performed, objects listed (netlink(7))."""

import os
from socket import AF_NETLINK, SOCK_CLOEXEC, SOCK_RAW, socket
from typing import Self

from hafen.kernel import nlcodec
from hafen.values import NamedTuple

SOL_NETLINK = 270
NETLINK_CAP_ACK = 10
NETLINK_EXT_ACK = 11
NETLINK_GET_STRICT_CHK = 12


class Request(NamedTuple):
    """One request. `what` names it and its object in errors."""

    type: int
    flags: int
    payload: bytes
    what: str


def open_socket(protocol: int) -> socket:
    return socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocol)


class Netlink:
    """A conversation over one netlink socket, which it owns. `protocol` names it in errors."""

    def __init__(self, protocol: str, sock: socket) -> None:
        self._protocol = protocol
        self._socket = sock
        self._sequence = 0
        for option in (NETLINK_CAP_ACK, NETLINK_EXT_ACK, NETLINK_GET_STRICT_CHK):
            self._socket.setsockopt(SOL_NETLINK, option, 1)

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def execute(self, *requests: Request) -> None:
        """Perform the requests in order, in one datagram. All are tried; the first that failed raises its OSError,
        with the kernel's own words in the message."""
        if not requests:
            return
        first = self._sequence + 1
        datagram = b""
        for request in requests:
            self._sequence += 1
            flags = request.flags | nlcodec.NLM_F_REQUEST | nlcodec.NLM_F_ACK
            datagram += nlcodec.pack(nlcodec.Message(request.type, flags, self._sequence, request.payload))
        self._socket.send(datagram)
        failure: OSError | None = None
        outstanding = len(requests)
        while outstanding:
            for message in nlcodec.unpack(self._receive()):
                if not first <= message.sequence <= self._sequence or message.type != nlcodec.NLMSG_ERROR:
                    continue  # a late answer to an earlier request that was given up
                outstanding -= 1
                ack = nlcodec.parse_ack(message)
                if ack.errno and failure is None:
                    failure = self._failure(requests[message.sequence - first].what, ack)
        if failure is not None:
            raise failure

    def _receive(self) -> bytes:
        """One whole datagram, however large: the kernel fills up to 32 KiB in a dump, more on large pages."""
        data, _, flags, _ = self._socket.recvmsg(1 << 17)
        if flags & 0x20:  # MSG_TRUNC
            raise nlcodec.malformed("datagram larger than the buffer")
        return data

    def get(self, kind: int, flags: int, payload: bytes, what: str) -> list[bytes]:
        """The payloads of a dump (NLM_F_DUMP), or of one object."""
        for _ in range(8):
            self._sequence += 1
            request = nlcodec.Message(kind, flags | nlcodec.NLM_F_REQUEST, self._sequence, payload)
            self._socket.send(nlcodec.pack(request))
            found, consistent = self._collect(bool(flags & nlcodec.NLM_F_DUMP), what)
            if consistent:
                break  # else things changed while the kernel was listing them
        return found

    def _collect(self, dump: bool, what: str) -> tuple[list[bytes], bool]:
        found: list[bytes] = []
        consistent = True
        while True:
            for message in nlcodec.unpack(self._receive()):
                if message.sequence != self._sequence:
                    continue
                consistent = consistent and not message.flags & nlcodec.NLM_F_DUMP_INTR
                if message.type == nlcodec.NLMSG_ERROR:
                    ack = nlcodec.parse_ack(message)
                    if ack.errno:
                        raise self._failure(what, ack)
                    continue
                if message.type == nlcodec.NLMSG_DONE:
                    return found, consistent
                found.append(message.payload)
                if not dump:
                    return found, True

    def _failure(self, what: str, ack: nlcodec.Ack) -> OSError:
        detail = f" ({ack.text})" if ack.text else ""
        return OSError(ack.errno, f"{self._protocol}: {what}: {os.strerror(ack.errno)}{detail}")
