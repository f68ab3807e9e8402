"""Maps of ids: what is written, and what is refused."""

import pytest

from hafen.errors import InvalidArgument
from hafen.spec import idmaps
from hafen.spec.runtime_config import IDMapping


def test_what_is_written() -> None:
    users, groups = idmaps.parse("uids=1000-0-1#2000-1-10;gids=50-0-1")
    assert users == (IDMapping(1000, 0, 1), IDMapping(2000, 1, 10))
    assert groups == (IDMapping(50, 0, 1),)
    assert idmaps.parse("uids=1000-0-1") == ((IDMapping(1000, 0, 1),),) * 2


@pytest.mark.parametrize(
    "text",
    [
        "", "true", "uids", "uids=", "uids=1-2", "uids=1-2-0", "uids=a-b-c", "uids=-1-0-1", "gids=1-0-1",
        "uids=1-0-1;x=1", "uids=1-0-1;uids=1-0-1", "uids=4294967295-0-1", "uids=0-0-4294967296",
        "uids=0-0-10#5-20-1", "uids=0-0-1#1-0-1",
        "uids=" + "#".join(f"{number}-{number}-1" for number in range(341)),
    ],
)  # fmt: skip
def test_what_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument, match="invalid idmap"):
        idmaps.parse(text)


def test_two_ids_for_each_other() -> None:
    assert idmaps.exchanged(1000, 0) == (
        IDMapping(1, 1, 999), IDMapping(1001, 1001, (1 << 32) - 1002), IDMapping(0, 1000, 1), IDMapping(1000, 0, 1),
    )  # fmt: skip
    assert idmaps.exchanged(0, 1)[:1] == (IDMapping(2, 2, (1 << 32) - 3),)
    assert sum(one.size for one in idmaps.exchanged(7, 7)) == (1 << 32) - 1
