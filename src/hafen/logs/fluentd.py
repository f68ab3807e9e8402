"""The `fluentd` driver: the forward protocol, a message per line.

https://github.com/fluent/fluentd/wiki/Forward-Protocol-Specification-v1; retries are fluent-logger-golang's.
"""

import binascii
import os
import struct
import time

from hafen.errors import InvalidArgument
from hafen.logs.dial import TLS, dial
from hafen.logs.driver import Source
from hafen.logs.lines import Line
from hafen.logs.options import (
    ATTRIBUTES,
    Options,
    check_known,
    parse_bool,
    parse_duration,
    parse_size,
    parse_unsigned,
    split_address,
    split_port,
)
from hafen.logs.remote import Connection, RemoteDriver
from hafen.values import NamedTuple

_OPTIONS = (
    *ATTRIBUTES, "tag", "fluentd-address", "fluentd-async", "fluentd-async-connect", "fluentd-async-reconnect-interval",
    "fluentd-buffer-limit", "fluentd-max-retries", "fluentd-request-ack", "fluentd-retry-wait",
    "fluentd-sub-second-precision",
)  # fmt: skip
_SOURCES = {1: "stdout", 2: "stderr"}
_PORT = "24224"
_LONGEST_WAIT = 60.0  # seconds between two attempts
_SECOND = 1_000_000_000


class Settings(NamedTuple):
    network: str
    address: str
    retry_wait: float  # seconds
    max_retries: int
    asynchronous: bool
    sub_second: bool
    acknowledged: bool


class FluentdDriver(RemoteDriver):
    name = "fluentd"

    def validate(self, options: Options) -> None:
        check_known(options, _OPTIONS, "unknown log opt '{}' for fluentd log driver")
        settings(options)

    def sender(self, source: Source, options: Options) -> "FluentdSender":
        return FluentdSender(source, settings(options))


class FluentdSender:
    def __init__(self, source: Source, wanted: Settings) -> None:
        self._wanted = wanted
        tls = TLS() if wanted.network == "tls" else None
        network = "tcp" if tls else wanted.network
        self._connection = Connection(lambda: dial(network, wanted.address, tls))
        self._tag = pack(source.tag)
        self._record = {
            "container_id": source.container_id,
            "container_name": f"/{source.name}",
            **source.attributes,
        }

    def open(self) -> None:
        if not self._wanted.asynchronous:
            self._connection.open()

    def send(self, line: Line) -> None:
        identity = binascii.b2a_base64(os.urandom(16), newline=False).decode()
        acknowledgement = identity if self._wanted.acknowledged else ""
        message = self._message(line, {"chunk": acknowledgement} if acknowledgement else {})
        wait = self._wanted.retry_wait / 1.5
        for attempt in range(max(1, self._wanted.max_retries)):
            try:
                self._connection.send(message)
                if acknowledgement:
                    self._await(acknowledgement)
                return
            except OSError as error:
                self._connection.lost(error)
            if attempt:  # the first time it may only be that the connection was closed meanwhile
                time.sleep(min(wait, _LONGEST_WAIT))
                wait *= 1.5

    def close(self) -> None:
        self._connection.close()

    def _message(self, line: Line, option: dict[str, str]) -> bytes:
        record: dict[str, str | bytes] = {**self._record, "source": _SOURCES[line.stream], "log": line.text}
        if line.piece is not None:
            record["partial_message"] = "true"
            record["partial_id"] = line.piece.line
            record["partial_ordinal"] = str(line.piece.ordinal)
            record["partial_last"] = "true" if line.piece.last else "false"
        seconds, rest = divmod(line.at, _SECOND)
        at = struct.pack(">BBII", 0xD7, 0, seconds, rest) if self._wanted.sub_second else pack(seconds)
        return b"\x94" + self._tag + at + pack(record) + pack(option)

    def _await(self, acknowledgement: str) -> None:
        """The other end's {"ack": ...}. OSError where it is another's."""
        wanted = pack({"ack": acknowledgement})
        got = b""
        while len(got) < len(wanted):
            got += self._connection.receive()
        if got != wanted:
            self._connection.close()
            raise ConnectionError("an acknowledgement of something else")


def pack(value: "int | str | bytes | dict[str, str] | dict[str, str | bytes]") -> bytes:
    """MessagePack of what is needed here; bytes are text that may not be UTF-8, as Go's strings."""
    if isinstance(value, dict):
        size = len(value)
        head = bytes([0x80 | size]) if size < 16 else struct.pack(">BH", 0xDE, size)
        return head + b"".join(pack(key) + pack(one) for key, one in value.items())
    if isinstance(value, int):
        return struct.pack(">Bi", 0xD2, value) if value < 1 << 31 else struct.pack(">Bq", 0xD3, value)
    data = value.encode() if isinstance(value, str) else value
    size = len(data)
    if size < 32:
        return bytes([0xA0 | size]) + data
    if size < 1 << 8:
        return struct.pack(">BB", 0xD9, size) + data
    if size < 1 << 16:
        return struct.pack(">BH", 0xDA, size) + data
    return struct.pack(">BI", 0xDB, size) + data


def settings(options: Options) -> Settings:
    """InvalidArgument with Docker's texts."""
    given = {name.removeprefix("fluentd-"): value for name, value in options.items() if value}
    network, address = _address(given.get("address", ""))
    if "buffer-limit" in given:
        parse_size(given["buffer-limit"])
    retry_wait = parse_duration(given.get("retry-wait", "1s"))
    max_retries = parse_unsigned(given.get("max-retries", str((1 << 31) - 1)))
    if "async" in given and "async-connect" in given:
        raise InvalidArgument(
            "conflicting options: cannot specify both 'fluentd-async' and 'fluentd-async-connect"  # as Docker has it
        )
    asynchronous = parse_bool(given.get("async", "false")) | parse_bool(given.get("async-connect", "false"))
    if interval := given.get("async-reconnect-interval"):
        try:
            if not 0.1 <= parse_duration(interval) <= 10:
                raise InvalidArgument(f'value ("{interval}") must be between 100ms and 10s')
        except InvalidArgument as error:
            raise InvalidArgument(f"invalid value for fluentd-async-reconnect-interval: {error}") from None
    sub_second = parse_bool(given.get("sub-second-precision", "false"))
    acknowledged = parse_bool(given.get("request-ack", "false"))
    return Settings(network, address, retry_wait, max_retries, asynchronous, sub_second, acknowledged)


def _address(text: str) -> tuple[str, str]:
    if not text:
        return "tcp", f"127.0.0.1:{_PORT}"
    prefix = f"invalid fluentd-address ({text}): "
    try:
        scheme, host, path = split_address(text if "://" in text else f"tcp://{text}")
        if scheme == "unix":
            if not path:
                raise InvalidArgument("path is empty")
            return "unix", path
        if scheme not in ("tcp", "tls"):
            raise InvalidArgument(f"unsupported scheme: '{scheme}'")
        if path:
            raise InvalidArgument("should not contain a path element")
        name, port = split_port(host)
        try:
            parse_unsigned(port or _PORT, 1 << 16)
        except InvalidArgument as error:
            raise InvalidArgument(f"invalid port: {error}") from None
    except InvalidArgument as error:
        raise InvalidArgument(f"{prefix}{error}") from None
    shown = f"[{name}]" if ":" in name else name
    return scheme, f"{shown or '127.0.0.1'}:{port or _PORT}"
