"""Texts of `ps`."""

import pytest

from hafen.spec.units import human_duration


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.5, "Less than a second"),
        (1.9, "1 second"),
        (59, "59 seconds"),
        (60, "About a minute"),
        (150, "2 minutes"),
        (3600, "About an hour"),
        (3600 * 47, "47 hours"),
        (3600 * 24 * 3, "3 days"),
        (3600 * 24 * 15, "2 weeks"),
        (3600 * 24 * 70, "2 months"),
        (3600 * 24 * 365 * 3, "3 years"),
    ],
)
def test_human_duration(seconds: float, text: str) -> None:
    assert human_duration(seconds) == text
