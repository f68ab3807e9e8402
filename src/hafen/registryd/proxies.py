"""Which names stand for other registries: `--proxy PREFIX=URL[,OPTION...]`; pure.

A name under a proxy's prefix is the other registry's, and nothing can be pushed there; every other name is this
registry's own. So no name ever means both. A client that asks as of a mirror says names without the prefix: on the
address of `mirror=`, or with `?ns=` as containerd does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

from hafen.errors import InvalidArgument
from hafen.spec import reference
from hafen.spec.units import parse_period, parse_size

_DAY: Final = 86400.0
_HUB: Final = "registry-1.docker.io"
_HUBS: Final = ("docker.io", "index.docker.io", "hub.docker.com")  # names that people know it by


@dataclass(frozen=True, slots=True)
class Proxy:
    """One registry that is cached. Times in seconds: how long a tag is taken for right, and how long what nobody asks
    for is kept; `limit` in bytes, None for any number; `mirror` is a HOST:PORT, empty for none."""

    prefix: str
    url: str
    username: str = ""
    password: str = field(default="", repr=False)
    ttl: float = 300.0
    keep: float = 30 * _DAY
    limit: int | None = None
    mirror: str = ""

    def path(self, name: str) -> str:
        """What the other registry calls a name under the prefix."""
        parts = urlsplit(self.url)
        above, below = parts.path.strip("/"), name.removeprefix(f"{self.prefix}/")
        if parts.hostname == _HUB and "/" not in below:
            return f"library/{below}"  # as people write it
        return f"{above}/{below}" if above else below


def parse(words: Iterable[str], read: Callable[[str], str]) -> tuple[Proxy, ...]:
    """`read` gives a file's text. InvalidArgument."""
    proxies: list[Proxy] = []
    for word in words:
        made = _proxy(word, read)
        for other in proxies:
            if f"{made.prefix}/".startswith(f"{other.prefix}/") or f"{other.prefix}/".startswith(f"{made.prefix}/"):
                raise InvalidArgument(f"--proxy: {made.prefix} and {other.prefix} overlap")
        proxies.append(made)
    return tuple(proxies)


def _proxy(word: str, read: Callable[[str], str]) -> Proxy:
    first, *rest = word.split(",")
    prefix, _, url = first.partition("=")
    prefix = prefix.removesuffix("/*")
    parts = urlsplit(url)
    if (
        not reference.is_path(prefix)
        or parts.scheme not in ("http", "https")
        or not parts.netloc
        or "@" in parts.netloc
    ):
        raise InvalidArgument(f"--proxy is PREFIX=https://HOST[,OPTION...], not {word!r}")
    if parts.path.strip("/") and not reference.is_path(parts.path.strip("/")):
        raise InvalidArgument(f"--proxy: the path of {url!r} is no part of a repository's name")
    options = dict(option.partition("=")[::2] for option in rest)
    unknown = options.keys() - {"username", "password-file", "ttl", "keep", "limit", "mirror"}
    if unknown or ("username" in options) != ("password-file" in options):
        raise InvalidArgument(
            "--proxy: options are username= with password-file=, ttl=5m, keep=30d, limit=50g and mirror=HOST:PORT, not "
            f"{','.join(rest)!r}"
        )
    if parts.hostname in _HUBS:
        url = f"https://{_HUB}"
    return Proxy(
        prefix, url.rstrip("/"), options.get("username", ""),
        read(options["password-file"]).strip() if "password-file" in options else "",
        parse_period(options.get("ttl", "300s")), parse_period(options.get("keep", "30d")),
        parse_size(options["limit"]) if "limit" in options else None, options.get("mirror", ""),
    )  # fmt: skip


def of_name(proxies: Iterable[Proxy], name: str) -> Proxy | None:
    """The proxy that a whole name belongs to."""
    return next((proxy for proxy in proxies if name.startswith(f"{proxy.prefix}/")), None)


def whole_name(prefix: str, name: str) -> str:
    """What a client of a mirror means; one that says the prefix itself means the same."""
    return name if not prefix or name.startswith(f"{prefix}/") else f"{prefix}/{name}"
