"""Unix sockets: descriptors received close-on-exec (SCM_RIGHTS), and what the other side has not read (unix(7))."""

import fcntl
import socket
import struct
import termios
from array import array


def receive_descriptors(sock: socket.socket, size: int, limit: int) -> tuple[bytes, list[int], int]:
    """One message of up to `size` bytes, its descriptors (at most `limit`), and the MSG_* flags that recvmsg set.

    Not socket.recv_fds: that drops its flags argument, and what it receives would be inherited across exec.
    """
    data, control, flags, _ = sock.recvmsg(size, socket.CMSG_SPACE(limit * 4), socket.MSG_CMSG_CLOEXEC)
    descriptors = array("i")
    for level, kind, payload in control:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            descriptors.frombytes(payload[: len(payload) - len(payload) % descriptors.itemsize])
    return data, list(descriptors), flags


def has_unread(sock: socket.socket) -> bool:
    """Whether the other side of a unix socket has yet to read something that was sent (SIOCOUTQ, which is TIOCOUTQ)."""
    (length,) = struct.unpack("i", fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)))
    return bool(length > 0)
