"""The `journald` driver: systemd's native protocol, a datagram per line.

https://systemd.io/JOURNAL_NATIVE_PROTOCOL; the fields are those of moby's daemon/logger/journald.
"""

import errno
import fcntl
import os
import socket

from hafen.logs.dial import Away
from hafen.logs.driver import Source
from hafen.logs.lines import Line
from hafen.logs.options import ATTRIBUTES, Options, check_known
from hafen.logs.remote import Connection, RemoteDriver
from hafen.logs.timestamp import format_nano

SOCKET = "/run/systemd/journal/socket"
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE  # journald maps only what cannot change
_PRIORITIES = {1: "6", 2: "3"}  # info, error


class JournaldDriver(RemoteDriver):
    name = "journald"

    def available(self) -> bool:
        return os.path.exists(SOCKET)

    def validate(self, options: Options) -> None:
        check_known(options, (*ATTRIBUTES, "tag"), "unknown log opt '{}' for journald log driver")

    def sender(self, source: Source, options: Options) -> "JournaldSender":
        return JournaldSender(source, SOCKET)


class JournaldSender:
    def __init__(self, source: Source, path: str) -> None:
        self._connection = Connection(lambda: _dial(path))
        self._ordinal = 0
        self._fields = {
            "CONTAINER_ID": source.container_id[:12],
            "CONTAINER_ID_FULL": source.container_id,
            "CONTAINER_NAME": source.name,
            "CONTAINER_TAG": source.tag,
            "IMAGE_NAME": source.image_name,
            "SYSLOG_IDENTIFIER": source.tag,
            "CONTAINER_LOG_EPOCH": os.urandom(32).hex(),
            **{field: value for key, value in source.attributes.items() if (field := _field_name(key))},
        }

    def open(self) -> None:
        self._connection.open()

    def send(self, line: Line) -> None:
        self._ordinal += 1
        fields = {**self._fields, "SYSLOG_TIMESTAMP": format_nano(line.at), "CONTAINER_LOG_ORDINAL": str(self._ordinal)}
        if line.piece is not None:
            fields["CONTAINER_PARTIAL_ID"] = line.piece.line
            fields["CONTAINER_PARTIAL_ORDINAL"] = str(line.piece.ordinal)
            fields["CONTAINER_PARTIAL_LAST"] = "true" if line.piece.last else "false"
            if not line.piece.last:
                fields["CONTAINER_PARTIAL_MESSAGE"] = "true"
        head = _field("PRIORITY", _PRIORITIES[line.stream].encode()) + _field("MESSAGE", line.text)
        message = head + b"".join(_field(name, value.encode()) for name, value in fields.items())
        try:
            self._send(message)
        except OSError:
            try:
                self._send(message)  # journald was started anew: its socket is another
            except OSError as error:
                self._connection.lost(error)

    def close(self) -> None:
        self._connection.close()

    def _send(self, message: bytes) -> None:
        """By descriptor where a datagram cannot hold it: EMSGSIZE, and ENOBUFS by the receiver's limit."""
        connected = self._connection.open()
        try:
            connected.send(message)
        except OSError as error:
            if connected.fileno() < 0 or error.errno not in (errno.EMSGSIZE, errno.ENOBUFS):
                self._connection.close()
                raise
            memory = os.memfd_create("journal-message", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
            try:
                os.write(memory, message)
                fcntl.fcntl(memory, fcntl.F_ADD_SEALS, _SEALS)
                socket.send_fds(connected, [b""], [memory])
            finally:
                os.close(memory)


def _dial(path: str) -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
    try:
        made.connect(path)
    except OSError:
        made.close()
        raise Away("journald is not enabled on this host") from None
    return made


def _field(name: str, value: bytes) -> bytes:
    if b"\n" in value:
        return b"%s\n%s%s\n" % (name.encode(), len(value).to_bytes(8, "little"), value)
    return b"%s=%s\n" % (name.encode(), value)


def _field_name(key: str) -> str:
    """In capitals, digits and underscores, not beginning with one."""
    return "".join(c if c.isascii() and c.isalnum() else "_" for c in key.upper()).lstrip("_")
