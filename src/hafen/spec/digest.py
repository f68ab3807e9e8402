"""Parse, compute and verify content digests such as `sha256:<64 hex>` (OCI image-spec, descriptor.md)."""

import hashlib
from collections.abc import Iterable
from typing import NewType, Protocol

from hafen.errors import InvalidArgument

_LENGTHS = {"sha256": 64, "sha512": 128}
_HEX = frozenset("0123456789abcdef")


class Hasher(Protocol):
    """The part of hashlib's objects that is used here."""

    def update(self, data: bytes | bytearray | memoryview, /) -> None: ...
    def hexdigest(self) -> str: ...


Digest = NewType("Digest", str)
"""A digest known to be well-formed."""


def algorithm_of(digest: Digest) -> str:
    """`sha256`"""
    return digest.partition(":")[0]


def hex_of(digest: Digest) -> str:
    """What follows the colon."""
    return digest.partition(":")[2]


def is_hex(text: str, length: int) -> bool:
    """Whether the text is exactly that many lower-case hexadecimal digits."""
    return len(text) == length and _HEX.issuperset(text)


def parse(text: str) -> Digest:
    """The digest in `text`; InvalidArgument where it is none, or of an algorithm other than sha256 and sha512."""
    if not known(text):
        raise InvalidArgument(f"invalid digest {text!r}")
    return Digest(text)


def known(text: str) -> bool:
    """Whether the text is a well-formed digest of an algorithm that is known."""
    algorithm, _, value = text.partition(":")
    length = _LENGTHS.get(algorithm)
    return length is not None and is_hex(value, length)


def new(algorithm: str = "sha256") -> Hasher:
    """An empty hasher of a known algorithm."""
    if algorithm not in _LENGTHS:
        raise InvalidArgument(f"unsupported digest algorithm {algorithm!r}")
    return hashlib.new(algorithm, usedforsecurity=True)


def finish(hasher: Hasher, algorithm: str = "sha256") -> Digest:
    """The digest of what the hasher has been fed."""
    return Digest(f"{algorithm}:{hasher.hexdigest()}")


def of(data: bytes | memoryview, algorithm: str = "sha256") -> Digest:
    """The digest of these bytes."""
    hasher = new(algorithm)
    hasher.update(data)
    return finish(hasher, algorithm)


def chain_ids(diff_ids: Iterable[str]) -> list[Digest]:
    """The chain id of each layer, bottom first (OCI image-spec, config.md, "Layer ChainID")."""
    chain: list[Digest] = []
    for diff_id in diff_ids:
        chain.append(of(f"{chain[-1]} {diff_id}".encode()) if chain else parse(diff_id))
    return chain
