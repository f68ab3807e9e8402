"""Heads of answers as Docker's clients expect them."""

from __future__ import annotations

from typing import Final

from hafen.api import versions
from hafen.http.response import Heads

HEADS: Final = Heads(
    ("Api-Version", versions.text(versions.NEWEST)), ("Docker-Experimental", "false"), ("Ostype", "linux")
)


def switching(content_type: str) -> bytes:
    """101 as Docker's clients expect it, up to the phrase."""
    headers = [("Content-Type", content_type), ("Connection", "Upgrade"), ("Upgrade", "tcp")]
    return HEADS.head(101, headers, "UPGRADED")


def raw(content_type: str) -> bytes:
    """200 of a hijack without Upgrade: what follows is the stream itself, without any framing."""
    return HEADS.head(200, [("Content-Type", content_type)])
