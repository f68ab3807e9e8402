"""The `syslog` driver: RFC 3164 and RFC 5424 over datagrams, streams and TLS, as moby's srslog writes them."""

import os
import time
from collections.abc import Callable
from socket import socket

from hafen.errors import InvalidArgument
from hafen.logs.dial import TLS, Away, dial
from hafen.logs.driver import Source
from hafen.logs.lines import Line
from hafen.logs.options import ATTRIBUTES, Options, check_known, parse_count, split_address, split_port
from hafen.logs.remote import Connection, RemoteDriver
from hafen.values import NamedTuple

_FACILITIES = (
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp",
    "", "", "", "", "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7",
)  # fmt: skip
_FORMATS = ("", "rfc3164", "rfc5424", "rfc5424micro")
_TLS = ("syslog-tls-ca-cert", "syslog-tls-cert", "syslog-tls-key", "syslog-tls-skip-verify")
_OPTIONS = (*ATTRIBUTES, "syslog-address", "syslog-facility", "syslog-format", "tag", *_TLS)
_LOCAL = ("/dev/log", "/var/run/syslog", "/var/run/log")
_SEVERITIES = {1: 6, 2: 3}  # info, error


class Layout(NamedTuple):
    """How a message is written: one of _FORMATS, and whether its length goes before it (RFC 5425)."""

    format: str
    counted: bool
    facility: int
    tag: bytes
    hostname: bytes
    pid: int

    def message(self, line: Line) -> bytes:
        priority = self.facility << 3 | _SEVERITIES[line.stream]
        text = line.text if line.text.endswith(b"\n") else line.text + b"\n"
        if self.format in ("", "rfc3164"):
            host = self.hostname + b" " if self.format else b""
            head = b"<%d>%s %s%s[%d]: " % (priority, _stamp(line.at), host, self.tag, self.pid)
        else:
            at = _rfc3339(line.at, self.format == "rfc5424micro")
            head = b"<%d>1 %s %s %s %d %s - " % (priority, at, self.hostname, self.tag, self.pid, self.tag)
        message = head + text
        return b"%d %s" % (len(message), message) if self.counted else message


class SyslogDriver(RemoteDriver):
    name = "syslog"

    def validate(self, options: Options) -> None:
        check_known(options, _OPTIONS, "unknown log opt '{}' for syslog log driver")
        _address(options.get("syslog-address", ""))
        _facility(options.get("syslog-facility", ""))
        if options.get("syslog-format", "") not in _FORMATS:
            raise InvalidArgument("Invalid syslog format")

    def sender(self, source: Source, options: Options) -> "SyslogSender":
        network, address = _address(options.get("syslog-address", ""))
        tls = None
        if network == "tcp+tls":
            ca, certificate, key, skip = (options.get(name, "") for name in _TLS)
            tls = TLS(ca, certificate, key, not skip)
        format = options.get("syslog-format", "")
        layout = Layout(
            format,
            tls is not None and format.startswith("rfc5424"),
            _facility(options.get("syslog-facility", "")),
            source.tag.encode(),
            os.uname().nodename.encode(),
            os.getsid(0),  # the shim's own: this process is one of many that come and go
        )
        return SyslogSender(layout, lambda: _dial(network, address, tls))


class SyslogSender:
    def __init__(self, layout: Layout, dial: Callable[[], socket]) -> None:
        self._layout = layout
        self._connection = Connection(dial)

    def open(self) -> None:
        self._connection.open()

    def send(self, line: Line) -> None:
        """An empty line is left out; a connection that is broken is tried once more."""
        if not line.text:
            return
        message = self._layout.message(line)
        try:
            self._connection.send(message)
        except OSError:
            try:
                self._connection.send(message)
            except OSError as error:
                self._connection.lost(error)

    def close(self) -> None:
        self._connection.close()


def _dial(network: str, address: str, tls: TLS | None) -> socket:
    if network:
        return dial("tcp" if tls else network, address, tls)
    for path in _LOCAL:
        for kind in ("unixgram", "unix"):
            try:
                return dial(kind, path)
            except OSError:
                continue
    raise Away("Unix syslog delivery error")


def _address(text: str) -> tuple[str, str]:
    """(network, address), both empty for the host's own syslog."""
    if not text:
        return "", ""
    scheme, host, path = split_address(text)
    if scheme in ("unix", "unixgram"):
        if not os.path.exists(path):
            raise InvalidArgument(f"stat {path}: no such file or directory")
        return scheme, path
    if scheme not in ("tcp", "udp", "tcp+tls"):
        raise InvalidArgument(f"unsupported scheme: '{scheme}'")
    return scheme, host if split_port(host)[1] else f"{host.rstrip(':')}:514"


def _facility(text: str) -> int:
    if not text:
        return _FACILITIES.index("daemon")
    if text in _FACILITIES:
        return _FACILITIES.index(text)
    try:
        number = parse_count(text)
    except InvalidArgument:
        number = -1
    if not 0 <= number <= 23:
        raise InvalidArgument("invalid syslog facility")
    return number


def _stamp(at: int) -> bytes:
    """Go's time.Stamp, local time: `Jan _2 15:04:05`."""
    return time.strftime("%b %e %H:%M:%S", time.localtime(at // 1_000_000_000)).encode()


def _rfc3339(at: int, micro: bool) -> bytes:
    seconds, rest = divmod(at, 1_000_000_000)
    local = time.localtime(seconds)
    offset = local.tm_gmtoff // 60
    zone = "Z" if not offset else f"{'+' if offset > 0 else '-'}{abs(offset) // 60:02d}:{abs(offset) % 60:02d}"
    fraction = f".{rest // 1000:06d}" if micro else ""
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', local)}{fraction}{zone}".encode()
