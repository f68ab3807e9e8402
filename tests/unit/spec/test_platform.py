"""Platforms: names of machines, what a machine runs."""

import pytest

from hafen.errors import InvalidArgument
from hafen.spec import platform
from hafen.spec.platform import Platform


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("linux/amd64", Platform("linux", "amd64")),
        ("linux/x86_64", Platform("linux", "amd64")),
        ("linux/arm64/v8", Platform("linux", "arm64")),
        ("linux/arm", Platform("linux", "arm", "v7")),
        ("linux/arm/v6", Platform("linux", "arm", "v6")),
        ("arm64", Platform("linux", "arm64")),
    ],
)
def test_platforms_are_read_as_clients_write_them(text: str, expected: Platform) -> None:
    assert platform.parse(text) == expected
    assert platform.parse(str(expected)) == expected


@pytest.mark.parametrize("text", ["", "/", "linux/", "a/b/c/d", "plan9", "linux/a b"])
def test_what_is_no_platform_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument):
        platform.parse(text)


def test_a_machine_prefers_its_own() -> None:
    assert platform.preference(platform.of_machine("x86_64"))[0] == Platform("linux", "amd64")
    assert Platform("linux", "386") in platform.preference(platform.of_machine("x86_64"))
    assert Platform("linux", "arm", "v6") in platform.preference(platform.of_machine("armv7l"))
