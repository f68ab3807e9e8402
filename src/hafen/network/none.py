"""Null network mode: a network namespace of the container's own, with nothing in it but loopback."""

from __future__ import annotations

from hafen.network.host import HostDriver


class NullDriver(HostDriver):
    """Makes no interface either: `lo` is up in every new namespace."""

    name = "null"
