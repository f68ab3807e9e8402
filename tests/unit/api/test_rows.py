import msgspec

from hafen.api import versions
from hafen.api.rows import Rows
from hafen.spec.wire.container import ContainerSummary


def row(number: int) -> ContainerSummary:
    return ContainerSummary(id=f"{number:064x}", names=[f"/c{number}"], labels={"a": "<&>"})


def test_lists_are_what_encode_makes_of_them() -> None:
    rows, kept = Rows(), [row(number) for number in range(3)]
    for version in (versions.NEWEST, (1, 40), versions.NEWEST):
        assert rows.encode(kept, version) == versions.encode(kept, version)
    kept[1] = msgspec.structs.replace(kept[1], status="Up 2 seconds")
    del kept[0]
    kept.append(row(9))
    for version in (versions.NEWEST, (1, 40)):
        assert rows.encode(kept, version) == versions.encode(kept, version)
    assert rows.encode([], versions.NEWEST) == b"[]"


def test_a_row_that_stays_is_not_encoded_again() -> None:
    rows, kept = Rows(), [row(1), row(2)]
    rows.encode(kept, versions.NEWEST)
    (kept[0].labels or {})["behind"] = "its back"
    assert b"behind" not in rows.encode(kept, versions.NEWEST)
    assert b"behind" in rows.encode(kept, (1, 40))
