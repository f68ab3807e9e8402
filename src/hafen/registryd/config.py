"""Flags of `hafen registry serve` -> one frozen `Config`."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import NoReturn

from hafen.errors import InvalidArgument
from hafen.registryd import proxies, quotas, webhooks
from hafen.registryd.access import Access, parse_rules
from hafen.registryd.collect import Limits
from hafen.registryd.passwords import Passwords, parse_htpasswd
from hafen.registryd.proxies import Proxy
from hafen.registryd.retention import Rule
from hafen.registryd.retention import parse as parse_retention
from hafen.registryd.watched import Watched, read
from hafen.registryd.webhooks import Hook

DEFAULT_ADDRESS = "127.0.0.1:5000"
DEFAULT_ROOT = "/var/lib/hafen/registry"
CERTIFICATES = ("/etc/hafen/certs.d", "/etc/docker/certs.d")


@dataclass(frozen=True, slots=True)
class Config:
    """What was asked for. Paths are as given; empty where absent."""

    address: str
    root: str
    certificate: str
    key: str
    url: str
    htpasswd: str
    rules: str
    may_delete: bool
    limits: Limits
    retention: Sequence[Rule] = ()
    quotas: Mapping[str, int] = field(default_factory=dict)  # bytes by prefix
    webhooks: Sequence[Hook] = ()
    proxies: Sequence[Proxy] = ()
    certificates: tuple[str, ...] = ()


class _Parser(argparse.ArgumentParser):
    """Whose flags may have come from elsewhere than a command line: then a usage text is of no help."""

    embedded = False

    def error(self, message: str) -> NoReturn:
        if self.embedded:
            raise InvalidArgument(f"registry: {message}")
        super().error(message)


def of_options(options: Mapping[str, object], root: str) -> Config:
    """The same out of an object: flags by name without dashes, a list for one that repeats. InvalidArgument."""
    words = []
    for name, value in options.items():
        if name in ("root", "help"):
            raise InvalidArgument(f"registry: {name} cannot be chosen here")
        if value is True:
            words.append(f"--{name}")
        elif value is not False:
            words += [f"--{name}={one}" for one in (value if isinstance(value, list) else [value])]
    return parse([*words, "--root", root], embedded=True)


def parse(arguments: Sequence[str], embedded: bool = False) -> Config:
    """InvalidArgument for what makes no sense, exit 2 with a usage text for unknown flags."""
    defaults = Limits()
    parser = _Parser(prog="hafen registry serve", description="Run a registry in the foreground.", allow_abbrev=False)
    parser.embedded = embedded
    add = parser.add_argument
    add("--addr", default=DEFAULT_ADDRESS, metavar="HOST:PORT", help=f"where to listen (default {DEFAULT_ADDRESS})")
    add("--root", default=DEFAULT_ROOT, metavar="DIR", help=f"where everything is kept (default {DEFAULT_ROOT})")
    add("--tls-cert", default="", metavar="FILE", help="certificate chain, PEM")
    add("--tls-key", default="", metavar="FILE", help="its key")
    add("--url", default="", metavar="URL",
        help="how clients reach it, where a proxy stands before it: https://registry.example.com")  # fmt: skip
    add("--htpasswd", default="", metavar="FILE", help="users and their passwords (htpasswd -B)")
    add("--rules", default="", metavar="FILE",
        help="lines WHO REPOSITORIES pull,push,delete; * is everybody, @ everybody with a name")  # fmt: skip
    add("--no-delete", action="store_true", help="refuse to delete tags, manifests and blobs")
    add("--gc-interval", type=float, default=defaults.interval, metavar="SECONDS", help="between collections")
    add("--gc-grace", type=float, default=defaults.grace, metavar="SECONDS", help="a blob may wait for its manifest")
    add("--upload-expiry", type=float, default=defaults.upload, metavar="SECONDS", help="an upload may rest")
    add("--retention", default="", metavar="FILE",
        help="lines such as: keep 10 newest tags of team/*, remove untagged older than 30d")  # fmt: skip
    add("--retention-interval", type=float, default=defaults.retention, metavar="SECONDS", help="between its runs")
    add("--quota", action="append", default=[], metavar="PREFIX=SIZE", help="team=20g; * is everything; repeatable")
    add("--webhook", action="append", default=[], metavar="URL[,OPTION...]",
        help="tell of changes: events=push+delete, secret-file=FILE; repeatable")  # fmt: skip
    add("--proxy", action="append", default=[], metavar="PREFIX=URL[,OPTION...]",
        help="cache another registry as PREFIX/...: username=, password-file=, ttl=5m, keep=30d, limit=50g, "
        "mirror=HOST:PORT; repeatable")  # fmt: skip
    add("--registry-certs", action="append", metavar="DIR", help="where <host:port>/ca.crt of other registries are")
    flags = parser.parse_args(arguments)
    if bool(flags.tls_cert) != bool(flags.tls_key):
        raise InvalidArgument("TLS needs --tls-cert and --tls-key")
    if flags.url and not re.fullmatch(r"https?://[^\s/\"?#]+(/[^\s\"?#]*)?", flags.url):
        raise InvalidArgument(f"--url is http://HOST or https://HOST, not {flags.url!r}")
    if flags.gc_interval <= 0 or flags.retention_interval < 0 or flags.gc_grace < 0 or flags.upload_expiry < 0:
        raise InvalidArgument("times are seconds from 0 on, and an interval is more than 0")
    limits = Limits(flags.gc_interval, flags.retention_interval, flags.gc_grace, flags.upload_expiry)
    return Config(
        flags.addr, flags.root, flags.tls_cert, flags.tls_key, flags.url.rstrip("/"), flags.htpasswd, flags.rules,
        not flags.no_delete, limits, _retention(flags.retention), quotas.parse(flags.quota),
        [webhooks.parse(word, read) for word in flags.webhook],
        proxies.parse(flags.proxy, read), tuple(flags.registry_certs or CERTIFICATES),
    )  # fmt: skip


def _retention(path: str) -> tuple[Rule, ...]:
    return parse_retention(read(path)) if path else ()


def access(config: Config) -> Access:
    if not (config.htpasswd or config.rules):
        return Access()
    return Access(True, Watched(config.rules, parse_rules) if config.rules else None)


def passwords(config: Config, executor: Executor) -> Passwords | None:
    return Passwords(Watched(config.htpasswd, parse_htpasswd), executor) if config.htpasswd else None
