"""Detach keys as Docker reads them; what is refused was tried on Docker 26.1."""

import pytest

from hafen.engine.attach import detach_keys
from hafen.errors import InvalidArgument


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        (None, b"\x10\x11"),
        ("", b"\x10\x11"),
        ("a", b"a"),
        ("a,1,~, ", b"a1~ "),
        ("ctrl-a,ctrl-z", b"\x01\x1a"),
        ("ctrl-@,ctrl-[,ctrl-\\,ctrl-],ctrl-^,ctrl-_", b"\x00\x1b\x1c\x1d\x1e\x1f"),
    ],
)
def test_keys(text: str | None, keys: bytes) -> None:
    assert detach_keys(text) == keys


@pytest.mark.parametrize(
    "text", ["foo", "ab", "ctrl-", "ctrl-aa", "ctrl-1", "ctrl-A", "CTRL-p", "é", "ctrl-é", ",", "a,,b", "ctrl-p,"]
)
def test_no_keys(text: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        detach_keys(text)
    assert caught.value.message == f"Invalid detach keys ({text}) provided"
