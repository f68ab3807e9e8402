"""Engine API JSON shapes for volumes (API 1.55)."""

from __future__ import annotations

from hafen.spec.wire.gojson import UInt64, Wire, null, shown, unless_empty


class VolumeUsage(Wire, frozen=True):
    """Only in `/system/df`. -1: not counted."""

    ref_count: int = shown(int)
    size: int = shown(int)


class Volume(Wire, frozen=True):
    created_at: str = ""
    driver: str = shown(str)
    labels: dict[str, str] | None = shown(null)
    mountpoint: str = shown(str)
    name: str = shown(str)
    options: dict[str, str] | None = shown(null)
    scope: str = shown(str)
    status: dict[str, object] = unless_empty(dict[str, object])
    usage_data: VolumeUsage | None = None


class VolumeListResponse(Wire, frozen=True):
    volumes: list[Volume] | None = shown(null)
    warnings: list[str] | None = shown(null)


class VolumeCreateRequest(Wire, frozen=True):
    name: str = ""
    driver: str = ""
    driver_opts: dict[str, str] | None = None
    labels: dict[str, str] | None = None
    cluster_volume_spec: dict[str, object] | None = None


class VolumeSnapshot(Wire, frozen=True):
    """Ours: what a volume had at one moment."""

    name: str = shown(str)
    volume: str = shown(str)
    created_at: str = shown(str)


class VolumePruneResponse(Wire, frozen=True):
    volumes_deleted: list[str] | None = shown(null)
    space_reclaimed: UInt64 = shown(int)
