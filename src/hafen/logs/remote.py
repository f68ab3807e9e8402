"""What the drivers that send logs elsewhere have in common: the bounded copy here, and a connection that comes back."""

import sys
from collections.abc import Callable, Mapping
from socket import socket

from hafen.logs.discard import DiscardWriter
from hafen.logs.driver import Background, LogFile, LogReader, LogSender, LogWriter, Source
from hafen.logs.local import LocalDriver
from hafen.logs.options import Options, cache_options

_CACHE = LocalDriver()


class RemoteDriver:
    """A LogDriver but for its name, its options and its sender."""

    name = ""

    def available(self) -> bool:
        return True

    def readable(self, options: Options) -> bool:
        return cache_options(options) is not None

    def validate(self, options: Options) -> None:
        raise NotImplementedError  # each driver has its own

    def path(self, log: LogFile) -> str:
        return ""

    def writer(
        self, log: LogFile, options: Options, attributes: Mapping[str, str], background: Background
    ) -> LogWriter:
        """Of the copy (moby daemon/logger/loggerutils/cache)."""
        cached = cache_options(options)
        return DiscardWriter() if cached is None else _CACHE.writer(log, cached, {}, background)

    def sender(self, source: Source, options: Options) -> LogSender:
        raise NotImplementedError  # each driver has its own

    def reader(self, log: LogFile) -> LogReader:
        return _CACHE.reader(log)


class Connection:
    """A socket that is connected when something is to be sent; blocking."""

    def __init__(self, dial: Callable[[], socket]) -> None:
        self._dial = dial
        self._socket: socket | None = None
        self._told = False

    def open(self) -> socket:
        """OSError where nobody is there."""
        if self._socket is None:
            self._socket = self._dial()
            self._told = False
        return self._socket

    def send(self, data: bytes) -> None:
        """All of it, or as one datagram. OSError; then it is closed, and the next call connects again."""
        try:
            self.open().sendall(data)
        except OSError:
            self.close()
            raise

    def receive(self) -> bytes:
        """OSError also at the end of the stream."""
        try:
            data = self.open().recv(4096)
            if not data:
                raise ConnectionResetError("the other end has closed")
        except OSError:
            self.close()
            raise
        return data

    def lost(self, error: OSError) -> None:
        """A line could not be sent; said once until there is a connection again."""
        if not self._told:
            self._told = True
            sys.stderr.write(f"logs cannot be sent: {error}\n")

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
