"""Mount targets are not changes of the container."""

from hafen.engine.targets import without_targets
from hafen.storage.snapshot import Change, ChangeKind

A, C, D = ChangeKind.ADDED, ChangeKind.MODIFIED, ChangeKind.DELETED


def paths(*changes: tuple[ChangeKind, str]) -> list[str]:
    return [f"{change.kind.letter} {change.path}" for change in without_targets(Change(*one) for one in changes)]


def test_a_start_alone_changes_nothing() -> None:
    assert paths((C, "/etc"), (A, "/etc/hostname"), (A, "/etc/hosts"), (A, "/proc"), (C, "/sbin"), (A, "/sys")) == []


def test_what_marks_a_container_is_no_change() -> None:
    assert paths((A, "/.dockerenv"), (C, "/etc"), (A, "/etc/mtab"), (A, "/etc/x")) == ["C /etc", "A /etc/x"]
    assert paths((D, "/.dockerenv")) == ["D /.dockerenv"]


def test_the_containers_own_changes_stay() -> None:
    found = paths((C, "/etc"), (A, "/etc/hosts"), (A, "/etc/mine"), (A, "/data"), (C, "/root"), (A, "/root/f"))
    assert found == ["C /etc", "A /etc/mine", "A /data", "C /root", "A /root/f"]


def test_a_deleted_file_stays_deleted() -> None:
    assert paths((C, "/etc"), (D, "/etc/hosts")) == ["C /etc", "D /etc/hosts"]
