"""Volumes of plug-ins: `VolumeDriver` over Docker's plug-in protocol.

https://docs.docker.com/engine/extend/plugins_volume/. Each method is one call:

    Create {Name, Opts}      Mount {Name, ID} -> {Mountpoint}      Get {Name} -> {Volume}      List -> {Volumes}
    Remove {Name}            Unmount {Name, ID}                    Path {Name} -> {Mountpoint}
    Capabilities -> {Capabilities}

ID tells the plug-in whose mount it is. The engine mounts a volume once for all its containers, and after a crash must
be able to take that mount back: its ID is made from the volume's name.
"""

from __future__ import annotations

import hashlib
import threading
from typing import Any

from hafen.errors import NotFound, System, Unavailable
from hafen.storage import plugin
from hafen.storage.plugin import Places, Plugin
from hafen.storage.volumes import Found, Volume, VolumeDriver

KIND = "VolumeDriver"


class PluginVolumes:
    """The volumes of one plug-in."""

    instant = False

    def __init__(self, connected: Plugin) -> None:
        self._plugin = connected
        self._scope = ""

    @property
    def name(self) -> str:
        return self._plugin.name

    @property
    def scope(self) -> str:
        return self._scope or "local"

    def learn(self) -> None:
        """Ask for its capabilities; one that does not know the question has the default ones."""
        try:
            found = self._call("Capabilities").get("Capabilities") or {}
        except (System, NotFound):
            found = {}
        scope = str(found.get("Scope") or "local").lower()
        self._scope = scope if scope in ("local", "global") else "local"

    def create(self, volume: Volume) -> None:
        self._call("Create", Name=volume.name, Opts=dict(volume.options) or None)

    def remove(self, volume: Volume) -> None:
        self._call("Remove", Name=volume.name)

    def needs_mount(self, volume: Volume) -> bool:
        return True

    def mount(self, volume: Volume) -> str:
        path = str(self._call("Mount", Name=volume.name, ID=mount_id(volume.name)).get("Mountpoint") or "")
        if not path.startswith("/"):
            raise System(f"{KIND}.Mount: the plug-in {self.name} told no mount point")
        return path

    def unmount(self, volume: Volume) -> None:
        self._call("Unmount", Name=volume.name, ID=mount_id(volume.name))

    def path(self, volume: Volume) -> str:
        return str(self._call("Path", Name=volume.name).get("Mountpoint") or "")

    def get(self, name: str) -> Found | None:
        try:
            found = self._call("Get", Name=name).get("Volume")
        except (System, NotFound):  # the protocol has no other way to say so
            return None
        return _found(found) if found else None

    def list(self) -> list[Found]:
        return [_found(one) for one in self._plugin.call(f"{KIND}.List", {}, patient=False).get("Volumes") or ()]

    def _call(self, method: str, **body: Any) -> plugin.Document:
        return self._plugin.call(f"{KIND}.{method}", body)


def mount_id(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def _found(wire: plugin.Document) -> Found:
    return Found(
        str(wire.get("Name") or ""),
        str(wire.get("Mountpoint") or ""),
        str(wire.get("CreatedAt") or ""),
        dict(wire.get("Status") or {}),
    )


class PluginDrivers:
    """`Drivers` that are plug-ins. Activated when first needed, and again when one has moved."""

    def __init__(self, places: Places) -> None:
        self._places = places
        self._drivers: dict[str, tuple[plugin.Address, PluginVolumes]] = {}
        self._lock = threading.Lock()  # calls come from several threads

    def find(self, name: str) -> VolumeDriver:
        return self._find(name)

    def _find(self, name: str, *, patient: bool = True) -> VolumeDriver:
        address = plugin.find(name, self._places)
        if address is None:
            raise NotFound(f'plugin "{name}" not found')
        with self._lock:
            known = self._drivers.get(name)
        if known is not None and known[0] == address:
            return known[1]
        connected = Plugin(name, address, self._places.patience)
        connected.activate(patient=patient)
        if KIND not in connected.implements:
            raise System("Plugin does not implement the requested driver")
        driver = PluginVolumes(connected)
        driver.learn()
        with self._lock:
            self._drivers[name] = (address, driver)
        return driver

    def built_in(self) -> list[VolumeDriver]:
        return []

    def known(self) -> list[VolumeDriver]:
        """Those whose socket or file is there, and that answer now or did before."""
        found: list[VolumeDriver] = []
        for name in plugin.names(self._places):
            try:
                found.append(self._find(name, patient=False))
            except (NotFound, Unavailable, System):
                continue  # of another kind, or not running
        return found
