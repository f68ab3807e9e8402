"""Options of the `local` volume driver, as `docker volume create -o` takes them; pure.

The checks and their texts are moby's (`volume/local/local_unix.go`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hafen.errors import InvalidArgument
from hafen.spec import units

_KNOWN = ("type", "device", "o", "size")
_NEEDED = {"device": ("type",), "type": ("device",), "o": ("device", "type")}


@dataclass(frozen=True, slots=True)
class LocalOptions:
    """What to mount when the volume is used, as mount(8) would be told; `size` in bytes, 0 for no limit."""

    type: str = ""
    device: str = ""
    words: str = ""
    size: int = 0

    @property
    def mounts(self) -> bool:
        """Whether the volume is more than its directory."""
        return bool(self.type or self.device)


def parse(options: Mapping[str, str] | None) -> LocalOptions:
    """InvalidArgument for what Docker refuses when the volume is created; the rest the kernel judges, at the mount."""
    if not options:
        return LocalOptions()
    for option in options:
        if option not in _KNOWN:
            raise InvalidArgument(f'invalid option: "{option}"')
    for option, needs in _NEEDED.items():
        for needed in needs if option in options else ():
            if needed not in options:
                raise InvalidArgument(f'missing required option: "{needed}"')
    size = 0
    if "size" in options:
        try:
            size = units.parse_size(options["size"])
        except InvalidArgument:
            raise InvalidArgument(f"invalid size: '{options['size']}'") from None
    return LocalOptions(options.get("type", ""), options.get("device", ""), options.get("o", ""), size)
