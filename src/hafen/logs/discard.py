"""The `none` driver: keeps nothing."""

from collections.abc import Mapping

from hafen.errors import InvalidArgument, NotImplemented
from hafen.logs.driver import Background, LogFile, LogReader, Options


class DiscardDriver:
    name = "none"
    readable = False

    def validate(self, options: Options) -> None:
        if options:
            raise InvalidArgument("invalid logging opts for driver none")

    def path(self, log: LogFile) -> str:
        return ""

    def writer(
        self, log: LogFile, options: Options, attributes: Mapping[str, str], background: Background
    ) -> "DiscardWriter":
        return DiscardWriter()

    def reader(self, log: LogFile) -> LogReader:
        raise NotImplemented("configured logging driver does not support reading")


class DiscardWriter:
    def write(self, stream: int, data: bytes, at: int) -> None:
        pass

    @property
    def resting(self) -> bool:
        return True

    def close(self) -> None:
        pass
