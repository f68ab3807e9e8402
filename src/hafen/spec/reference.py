"""Parse and normalise image references: `debian` is `docker.io/library/debian:latest`; pure.

Grammar and texts of github.com/distribution/reference, which every Docker client uses.
"""

import re
from dataclasses import dataclass, replace

from hafen.errors import InvalidArgument, System
from hafen.spec import digest as digests

DEFAULT_DOMAIN = "docker.io"
_LEGACY_DOMAIN = "index.docker.io"
_OFFICIAL = "library"
DEFAULT_TAG = "latest"
_MAX_NAME = 255

_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_DOMAIN = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?")
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_PATH = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = re.compile(r"\w[\w.-]{0,127}", re.ASCII)
_DIGEST = re.compile(r"[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}")


@dataclass(frozen=True, slots=True)
class Reference:
    """A normalised name, with a tag or a digest or both or neither."""

    domain: str
    path: str
    tag: str | None = None
    digest: str | None = None

    @property
    def repository(self) -> str:
        """`docker.io/library/debian`"""
        return f"{self.domain}/{self.path}"

    @property
    def familiar_name(self) -> str:
        """`debian`"""
        return familiar(self.repository)

    @property
    def familiar(self) -> str:
        """`debian:bookworm`, as people write it."""
        return self.familiar_name + self._suffix

    def __str__(self) -> str:
        return self.repository + self._suffix

    @property
    def _suffix(self) -> str:
        return (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")

    def with_default_tag(self) -> "Reference":
        """The same with `latest`, unless it has a tag or a digest."""
        return self if self.tag or self.digest else replace(self, tag=DEFAULT_TAG)


def familiar(repository: str) -> str:
    """The short form of a normalised repository name."""
    domain, _, path = repository.partition("/")
    if domain != DEFAULT_DOMAIN:
        return repository
    official, _, rest = path.partition("/")
    return rest if official == _OFFICIAL and rest and "/" not in rest else path


def _split_domain(name: str) -> tuple[str, str]:
    head, slash, rest = name.partition("/")
    if not slash or not (any(mark in head for mark in ".:") or head == "localhost" or head.lower() != head):
        domain, path = DEFAULT_DOMAIN, name
    else:
        domain, path = head, rest
    if domain == _LEGACY_DOMAIN:
        domain = DEFAULT_DOMAIN
    if domain == DEFAULT_DOMAIN and "/" not in path:
        path = f"{_OFFICIAL}/{path}"
    return domain, path


def parse(text: str) -> Reference:
    """The reference in `text`; InvalidArgument with the text of Docker's parser where it is none."""
    if digests.is_hex(text, 64):
        raise InvalidArgument(f"invalid repository name ({text}), cannot specify 64-byte hexadecimal strings")
    name, at, digest = text.partition("@")
    if at and not _DIGEST.fullmatch(digest):
        raise InvalidArgument("invalid reference format")
    if at:
        algorithm, _, value = digest.partition(":")
        if algorithm not in ("sha256", "sha384", "sha512"):
            raise InvalidArgument("unsupported digest algorithm")
        if len(value) != {"sha256": 64, "sha384": 96, "sha512": 128}[algorithm]:
            raise InvalidArgument("invalid checksum digest length")
        if value != value.lower():
            raise InvalidArgument("invalid checksum digest format")
    tag = None
    slash = name.rfind("/")
    colon = name.rfind(":")
    if colon > slash:
        name, tag = name[:colon], name[colon + 1 :]
        if not _TAG.fullmatch(tag):
            raise InvalidArgument("invalid reference format")
    domain, path = _split_domain(name)
    if path.lower() != path:
        raise InvalidArgument(f"invalid reference format: repository name ({path}) must be lowercase")
    if not _PATH.fullmatch(path) or not _DOMAIN.fullmatch(domain):
        raise InvalidArgument("invalid reference format")
    if len(path) > _MAX_NAME:
        raise InvalidArgument(f"repository name must not be more than {_MAX_NAME} characters")
    return Reference(domain, path, tag, digest if at else None)


def is_path(text: str) -> bool:
    """Whether this is a repository's name as registries know it: `library/debian`, without a domain."""
    return len(text) <= _MAX_NAME and _PATH.fullmatch(text) is not None


def is_tag(text: str) -> bool:
    return _TAG.fullmatch(text) is not None


def parse_repository(text: str, tag: str = "") -> Reference:
    """What `repo` and `tag` parameters name together, always tagged; InvalidArgument where they name a digest."""
    if tag and not _TAG.fullmatch(tag):
        raise InvalidArgument("invalid tag format")
    found = parse(text)
    if found.digest:
        raise InvalidArgument("cannot import digest reference")
    return replace(found, tag=tag) if tag else found.with_default_tag()


def matches(pattern: str, candidate: Reference) -> bool:
    """Docker's `reference` filter: a shell pattern against the short name, with or without its tag, where `*` does
    not cross a slash (Go's path.Match); System where the pattern is none, as in Docker."""
    expression = _glob(pattern)
    return any(
        expression.fullmatch(name)
        for name in (candidate.familiar, candidate.familiar_name, str(candidate), candidate.repository)
    )


def _glob(pattern: str) -> "re.Pattern[str]":
    chunks = [""]  # what stands between the stars
    index = 0
    while index < len(pattern):
        char = pattern[index]
        index += 1
        if char == "*":
            chunks.append("")
        elif char == "?":
            chunks[-1] += "[^/]"
        elif char == "\\" and index < len(pattern):
            chunks[-1] += re.escape(pattern[index])
            index += 1
        elif char == "[" and (end := pattern.find("]", index + 1)) > 0:
            body = pattern[index:end].replace("\\", "\\\\")
            chunks[-1] += f"[{body}]"
            index = end + 1
        elif char == "[":
            raise System("syntax error in pattern")
        else:
            chunks[-1] += re.escape(char)
    # As in Go, a star takes as little as it can, once and for all: a stranger's pattern may have a thousand of them.
    first, *middle = chunks
    last = f"[^/]*{middle.pop()}" if middle else ""
    try:
        return re.compile(first + "".join(f"(?>[^/]*?{chunk})" for chunk in middle if chunk) + last)
    except re.error as error:
        raise System("syntax error in pattern") from error
