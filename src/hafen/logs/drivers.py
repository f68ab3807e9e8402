"""The log drivers there are, by Docker's names."""

from collections.abc import Mapping

from hafen.logs.discard import DiscardDriver
from hafen.logs.driver import LogDriver
from hafen.logs.fluentd import FluentdDriver
from hafen.logs.gelf import GelfDriver
from hafen.logs.journald import JournaldDriver
from hafen.logs.jsonfile import JSONFileDriver
from hafen.logs.local import LocalDriver
from hafen.logs.syslog import SyslogDriver

DRIVERS: Mapping[str, LogDriver] = {
    driver.name: driver
    for driver in (
        LocalDriver(), JSONFileDriver(), DiscardDriver(),
        JournaldDriver(), SyslogDriver(), FluentdDriver(), GelfDriver(),
    )
}  # fmt: skip
