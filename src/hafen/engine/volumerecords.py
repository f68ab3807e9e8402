"""What is kept of a volume: its row, as JSON; and how one is to be removed."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from hafen.storage.volumes import Volume

ANONYMOUS_LABEL = "com.docker.volume.anonymous"
PROTECTED_LABEL = "hafen.protect"


class VolumeRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """A volume. `options` are its driver's."""

    name: str
    created_at: str
    labels: dict[str, str] | None = None
    options: dict[str, str] | None = None
    driver: str = "local"

    @property
    def anonymous(self) -> bool:
        return ANONYMOUS_LABEL in (self.labels or {})

    @property
    def protected(self) -> bool:
        """Nothing removes it but who says that it is to be removed all the same."""
        return PROTECTED_LABEL in (self.labels or {})

    @property
    def volume(self) -> Volume:
        """As its driver knows it."""
        return Volume(self.name, self.options or {})


@dataclass(frozen=True, slots=True)
class Removal:
    """How a removal is meant: `force` that it may be gone already, `unprotected` that a protected volume goes too,
    `dry_run` that nothing is done."""

    force: bool = False
    unprotected: bool = False
    dry_run: bool = False


PLAIN_REMOVAL = Removal()
