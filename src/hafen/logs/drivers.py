"""The log drivers there are, by Docker's names."""

from collections.abc import Mapping

from hafen.logs.discard import DiscardDriver
from hafen.logs.driver import LogDriver
from hafen.logs.jsonfile import JSONFileDriver
from hafen.logs.local import LocalDriver

DRIVERS: Mapping[str, LogDriver] = {
    driver.name: driver for driver in (LocalDriver(), JSONFileDriver(), DiscardDriver())
}
