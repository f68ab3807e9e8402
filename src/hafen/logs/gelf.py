"""The `gelf` driver: Graylog's extended log format over UDP, in chunks and compressed, or over TCP.

https://go2docs.graylog.org/current/getting_in_log_data/gelf.html
"""

import json
import os
import time
import zlib

from hafen.errors import InvalidArgument
from hafen.logs.dial import dial
from hafen.logs.driver import Source
from hafen.logs.gotext import MARK, decode
from hafen.logs.lines import Line
from hafen.logs.options import ATTRIBUTES, Options, parse_count, split_address, split_port
from hafen.logs.remote import Connection, RemoteDriver

_DATAGRAM = 1420
_CHUNK = _DATAGRAM - 12
_MOST_CHUNKS = 128
_LEVELS = {1: 6, 2: 3}  # info, error
_WINDOWS = {"gzip": 31, "zlib": 15}
_COMPRESSION = ("gelf-compression-level", "gelf-compression-type")
_RECONNECTION = ("gelf-tcp-max-reconnect", "gelf-tcp-reconnect-delay")
_FREE = ("gelf-address", "tag", *ATTRIBUTES)


class GelfDriver(RemoteDriver):
    name = "gelf"

    def validate(self, options: Options) -> None:
        network, _ = _address(options.get("gelf-address", ""))
        for option, value in options.items():
            if option in _COMPRESSION:
                if network != "udp":
                    raise InvalidArgument("compression is only supported on UDP")
                if not (value in ("gzip", "zlib", "none") if option == _COMPRESSION[1] else _is_level(value)):
                    raise InvalidArgument(f'unknown value "{value}" for log opt "{option}" for gelf log driver')
            elif option in _RECONNECTION:
                if network != "tcp":
                    raise InvalidArgument(f'"{option}" is only valid for TCP')
                if not value.isdecimal():
                    raise InvalidArgument(f'"{option}" must be a positive integer')
            elif option not in _FREE:
                raise InvalidArgument(f'unknown log opt "{option}" for gelf log driver')

    def sender(self, source: Source, options: Options) -> "UDPSender | TCPSender":
        network, address = _address(options["gelf-address"])
        message = Message(source, os.uname().nodename)
        if network == "tcp":
            tries, delay = (int(options.get(name, default)) for name, default in zip(_RECONNECTION, "31", strict=True))
            return TCPSender(message, address, tries, delay)
        level, kind = options.get("gelf-compression-level", "1"), options.get("gelf-compression-type", "gzip")
        return UDPSender(message, address, kind, int(level))


class Message:
    """GELF's JSON, in the order and with the escapes of Docker's."""

    def __init__(self, source: Source, hostname: str) -> None:
        extra = {
            "_container_id": source.container_id,
            "_container_name": source.name,
            "_image_id": source.image_id,
            "_image_name": source.image_name,
            "_command": source.command,
            "_tag": source.tag,
            "_created": source.created,
            **{key if key.startswith("_") else f"_{key}": value for key, value in source.attributes.items()},
        }
        self._head = f'{{"version":"1.1","host":{_json(hostname)},"short_message":'
        self._extra = ",".join(f"{_json(key)}:{_json(extra[key])}" for key in sorted(extra)) + "}"

    def encode(self, line: Line) -> bytes:
        at = f"{line.at // 1_000_000 / 1000:.3f}".rstrip("0").rstrip(".")
        text = _json(decode(line.text))
        return f'{self._head}{text},"timestamp":{at},"level":{_LEVELS[line.stream]},{self._extra}'.encode()


class UDPSender:
    def __init__(self, message: Message, address: str, compression: str, level: int) -> None:
        self._message = message
        self._window = _WINDOWS.get(compression)
        self._level = level
        self._connection = Connection(lambda: dial("udp", address))

    def open(self) -> None:
        _open(self._connection)

    def send(self, line: Line) -> None:
        """An empty line is left out, as is one that needs too many chunks."""
        if not line.text:
            return
        data = self._message.encode(line)
        if self._window is not None:
            compress = zlib.compressobj(self._level, zlib.DEFLATED, self._window)
            data = compress.compress(data) + compress.flush()
        try:
            for datagram in chunks(data, os.urandom(8)):
                self._connection.send(datagram)
        except OSError as error:  # ECONNREFUSED: an earlier one did not arrive
            self._connection.lost(error)

    def close(self) -> None:
        self._connection.close()


class TCPSender:
    def __init__(self, message: Message, address: str, tries: int, delay: int) -> None:
        self._message = message
        self._tries = tries
        self._delay = delay
        self._connection = Connection(lambda: dial("tcp", address))

    def open(self) -> None:
        _open(self._connection)

    def send(self, line: Line) -> None:
        if not line.text:
            return
        data = self._message.encode(line) + b"\0"
        for attempt in range(self._tries + 1):
            try:
                self._connection.send(data)
                return
            except OSError as error:
                self._connection.lost(error)
            if attempt < self._tries:
                time.sleep(self._delay)

    def close(self) -> None:
        self._connection.close()


def chunks(data: bytes, identity: bytes) -> list[bytes]:
    """The datagrams of one message; none where it is too large."""
    if len(data) <= _DATAGRAM:
        return [data]
    count = len(data) // _CHUNK + 1
    if count > _MOST_CHUNKS:
        return []
    pieces = (data[start * _CHUNK : (start + 1) * _CHUNK] for start in range(count))
    return [b"\x1e\x0f" + identity + bytes((number, count)) + piece for number, piece in enumerate(pieces)]


def _open(connection: Connection) -> None:
    try:
        connection.open()
    except OSError as error:
        words = str(error).split()
        where = words[2].rstrip(":") if len(words) > 2 else ""
        raise OSError(f"gelf: cannot connect to GELF endpoint: {where} {error}") from None


def _json(text: str) -> str:
    """As Go's encoding/json: what HTML and JavaScript mind is escaped, and so is what was no UTF-8."""
    encoded = json.dumps(text, ensure_ascii=False)
    for character in f"<>&\u2028\u2029{MARK}":
        if character in encoded:
            code = 0xFFFD if character == MARK else ord(character)
            encoded = encoded.replace(character, f"\\u{code:04x}")
    return encoded


def _is_level(text: str) -> bool:
    try:
        return -1 <= parse_count(text) <= 9
    except InvalidArgument:
        return False


def _address(text: str) -> tuple[str, str]:
    if not text:
        raise InvalidArgument("gelf-address is a required parameter")
    scheme, host, _ = split_address(text)
    if scheme not in ("tcp", "udp"):
        raise InvalidArgument("gelf: endpoint needs to be TCP or UDP")
    if not split_port(host)[1]:
        raise InvalidArgument("gelf: please provide gelf-address as proto://host:port")
    return scheme, host
