"""`hafen registry token` and `retention`: speak with the registry that runs on this root, over its private socket."""

from __future__ import annotations

import argparse
import http.client
import os
import socket
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec

from hafen.errors import HafenError, InvalidArgument, System, Unavailable
from hafen.registryd.admin import SOCKET, RetentionAnswer, RetentionRequest, TokenAnswer, TokenRequest
from hafen.registryd.config import DEFAULT_ROOT
from hafen.spec.units import parse_period

_TIMEOUT: Final = 60.0  # seconds


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 1 where the registry refuses or is not there, with the reason on stderr."""
    flags = _parser().parse_args(sys.argv[1:] if arguments is None else arguments)
    try:
        flags.run(flags)
    except HafenError as error:
        print(f"hafen registry {flags.command}: {error.message}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="hafen registry")
    commands = parser.add_subparsers(dest="command", required=True)
    token = commands.add_parser("token", help="access tokens: passwords for machines")
    verbs = token.add_subparsers(required=True)
    create = verbs.add_parser("create", help="make one; its secret goes to stdout, and nowhere else")
    create.add_argument("--user", required=True, help="whose name goes with it")
    create.add_argument("--scope", action="append", default=[], metavar="REPOSITORIES:ACTIONS",
        help="team/*:pull,push; repeatable; without it all that the user may")  # fmt: skip
    create.add_argument("--expires", default="90d", metavar="PERIOD", help="90d, 12h, never (default 90d)")
    create.set_defaults(run=_create)
    listing = verbs.add_parser("list", aliases=["ls"], help="what there is")
    listing.set_defaults(run=_list)
    revoke = verbs.add_parser("revoke", aliases=["rm"], help="end some, at once")
    revoke.add_argument("number", nargs="+", type=int)
    revoke.set_defaults(run=_revoke)
    retention = commands.add_parser("retention", help="what has had its time")
    retention.add_argument("--dry-run", action="store_true", help="tell what would be removed, and remove nothing")
    retention.add_argument("--rules", metavar="FILE", help="other rules than the registry's; for a dry run only")
    retention.set_defaults(run=_retention)
    for verb in (create, listing, revoke, retention):
        _add_root(verb)
    return parser


def _add_root(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--root", default=DEFAULT_ROOT, metavar="DIR", help=f"the registry's (default {DEFAULT_ROOT})")


def _create(flags: argparse.Namespace) -> None:
    lifetime = None if flags.expires == "never" else parse_period(flags.expires)
    request = TokenRequest(flags.user, flags.scope, lifetime)
    made = msgspec.json.decode(ask(flags.root, "POST", "/tokens", msgspec.json.encode(request)), type=TokenAnswer)
    print(made.secret)
    print(f"access token {made.number} of {made.user}, until {_time(made.expires_at, 'revoked')}", file=sys.stderr)


def _list(flags: argparse.Namespace) -> None:
    found = msgspec.json.decode(ask(flags.root, "GET", "/tokens"), type=list[TokenAnswer])
    rows = [("NUMBER", "USER", "CREATED", "EXPIRES", "LAST USED", "SCOPE")]
    rows += [
        (
            str(one.number), one.user, _time(one.created_at, ""), _time(one.expires_at, "never"),
            _time(one.used_at, "never"), "all" if one.scope is None else " ".join(one.scope),
        )
        for one in found
    ]  # fmt: skip
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("   ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)).rstrip())


def _revoke(flags: argparse.Namespace) -> None:
    for number in flags.number:
        ask(flags.root, "DELETE", f"/tokens/{number}")
        print(number)


def _retention(flags: argparse.Namespace) -> None:
    try:
        rules = Path(flags.rules).read_text(encoding="utf-8") if flags.rules else None
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidArgument(f"cannot read {flags.rules}: {error}") from error
    request = RetentionRequest(not flags.dry_run, rules)
    found = msgspec.json.decode(
        ask(flags.root, "POST", "/retention", msgspec.json.encode(request)), type=RetentionAnswer
    )
    for step in found.steps:
        print(step)
    verb = "would be removed" if flags.dry_run else "removed"
    print(f"{found.tags} tags and {found.manifests} manifests {verb}", file=sys.stderr)


def _time(seconds: float | None, otherwise: str) -> str:
    return otherwise if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class _Connection(http.client.HTTPConnection):
    """To the socket in a root."""

    def __init__(self, root: str) -> None:
        super().__init__("registry", timeout=_TIMEOUT)
        self._root = root

    def connect(self) -> None:
        directory = os.open(self._root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
            self.sock.settimeout(_TIMEOUT)
            self.sock.connect(f"/proc/self/fd/{directory}/{SOCKET}")
        finally:
            os.close(directory)


class _Problem(msgspec.Struct):
    message: str


class _Problems(msgspec.Struct):
    errors: list[_Problem]


def ask(root: str, method: str, path: str, body: bytes | None = None) -> bytes:
    """The answer's body. Unavailable where no registry runs there; else what it refused, and why."""
    connection = _Connection(root)
    try:
        connection.request(method, path, body)
        answer = connection.getresponse()
        data = answer.read()
    except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
        raise Unavailable(f"no registry runs on {root}: `hafen registry serve --root` names another") from None
    except (OSError, http.client.HTTPException) as error:
        raise System(f"cannot ask the registry on {root}: {error}") from error
    finally:
        connection.close()
    if answer.status >= 300:
        try:
            raise InvalidArgument(msgspec.json.decode(data, type=_Problems).errors[0].message)
        except msgspec.MsgspecError:
            raise System(f"status {answer.status}") from None
    return data


if __name__ == "__main__":
    sys.exit(main())
