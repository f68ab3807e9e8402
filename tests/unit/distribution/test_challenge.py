"""WWW-Authenticate as registries send it."""

import pytest

from hafen.distribution.challenge import Challenge, parse


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        (['Basic realm="here"'], [Challenge("basic", {"realm": "here"})]),
        (
            ['Bearer realm="https://a/token",service="reg",scope="repository:x:pull,push"'],
            [Challenge("bearer", {"realm": "https://a/token", "service": "reg", "scope": "repository:x:pull,push"})],
        ),
        (
            ['Basic realm="a, b", Bearer realm=c , service="d\\"e"'],
            [Challenge("basic", {"realm": "a, b"}), Challenge("bearer", {"realm": "c", "service": 'd"e'})],
        ),
        (["Negotiate", "Basic realm=x"], [Challenge("negotiate"), Challenge("basic", {"realm": "x"})]),
        (["", ',,"'], []),
    ],
)
def test_parse(lines: list[str], found: list[Challenge]) -> None:
    assert parse(lines) == found
