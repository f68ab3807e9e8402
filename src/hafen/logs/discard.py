"""The `none` driver: keeps nothing."""

from collections.abc import Mapping

from hafen.errors import NotImplemented
from hafen.logs.driver import Background, LogFile, LogReader, LogSender, Source
from hafen.logs.options import Options


class DiscardDriver:
    name = "none"

    def available(self) -> bool:
        return True

    def readable(self, options: Options) -> bool:
        return False

    def validate(self, options: Options) -> None:
        """Docker looks at none of them."""

    def path(self, log: LogFile) -> str:
        return ""

    def writer(
        self, log: LogFile, options: Options, attributes: Mapping[str, str], background: Background
    ) -> "DiscardWriter":
        return DiscardWriter()

    def sender(self, source: Source, options: Options) -> LogSender | None:
        return None

    def reader(self, log: LogFile) -> LogReader:
        raise NotImplemented("configured logging driver does not support reading")


class DiscardWriter:
    full = False

    def write(self, stream: int, data: bytes, at: int) -> None:
        pass

    @property
    def resting(self) -> bool:
        return True

    def close(self) -> None:
        pass
