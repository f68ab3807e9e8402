"""JSON shapes of `POST /system/fsck`, which is Hafen's own: one message a line."""

from __future__ import annotations

from hafen.spec.wire.gojson import Wire, shown, unless_empty


class FsckProgress(Wire, frozen=True):
    """How far one part of the check is: bytes that were read of all that there are."""

    part: str = shown(str)
    current: int = shown(int)
    total: int = shown(int)


class FsckProblem(Wire, frozen=True):
    """`kind` is one of `engine.fsckrows.Kind`; `subject` the digest, name or path that it is about."""

    kind: str = shown(str)
    subject: str = shown(str)
    detail: str = shown(str)


class FsckRepair(Wire, frozen=True):
    """What was done, or is to be done, about one problem. `error`: why it stays."""

    kind: str = shown(str)
    subject: str = shown(str)
    step: str = ""
    error: str = ""
    done: bool = shown(bool)


class FsckReport(Wire, frozen=True):
    """The last message: what was checked, what was found, what was done about it. `bytes` that were read."""

    blobs: int = shown(int)
    layers: int = shown(int)
    images: int = shown(int)
    containers: int = shown(int)
    volumes: int = shown(int)
    bytes: int = shown(int)
    problems: list[FsckProblem] = shown(list[FsckProblem])
    repairs: list[FsckRepair] = unless_empty(list[FsckRepair])
    clean: bool = shown(bool)


class FsckMessage(Wire, frozen=True):
    """Exactly one field is set."""

    progress: FsckProgress | None = None
    problem: FsckProblem | None = None
    repair: FsckRepair | None = None
    report: FsckReport | None = None
