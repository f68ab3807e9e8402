"""Plug-ins of Docker's: found by a socket or a file, spoken to by JSON over HTTP.

https://docs.docker.com/engine/extend/plugin_api/. A plug-in `NAME` is, first found first taken:

    /run/docker/plugins/NAME.sock       or .../NAME/NAME.sock
    /etc/docker/plugins/NAME.spec       its address: unix:///path or tcp://host:port
    /etc/docker/plugins/NAME.json       {"Name", "Addr", "TLSConfig": {"CAFile", "CertFile", "KeyFile", ...}}
    /usr/lib/docker/plugins/            the same two

Calls block. A plug-in that is named but does not answer (it starts, or starts again) is tried for a while.
"""

from __future__ import annotations

import http.client
import json
import logging
import os
import socket
import ssl
import stat
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from hafen.errors import NotFound, System, Unavailable

log = logging.getLogger(__name__)

SOCKETS = "/run/docker/plugins"
SPECS = ("/etc/docker/plugins", "/usr/lib/docker/plugins")
_MIME = "application/vnd.docker.plugins.v1.2+json"
_ANSWER_SECONDS = 120.0  # a mount may wait for a server far away
_ANSWER_BYTES = 16 << 20

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Places:
    """Where plug-ins are looked for, and for how many seconds one that does not answer is tried (moby: 15)."""

    sockets: str = SOCKETS
    specs: tuple[str, ...] = SPECS
    patience: float = 15.0


@dataclass(frozen=True, slots=True)
class Address:
    """`unix:///path`, `tcp://host:port` or `http(s)://host:port`; `tls` are the fields of TLSConfig."""

    url: str
    tls: Mapping[str, Any] | None = None


def find(name: str, places: Places) -> Address | None:
    """The plug-in's address; None where nothing has this name. Unavailable for a file that makes no sense."""
    if not name or name.startswith(".") or "/" in name:
        return None
    for path in _candidates(places.sockets, name, ".sock"):
        if stat.S_ISSOCK(os.stat(path).st_mode):
            return Address(f"unix://{path}")
    for directory in places.specs:
        for path in _candidates(directory, name, ".spec"):
            with open(path, encoding="utf-8") as file:
                return _checked(name, Address(file.read().strip()))
        for path in _candidates(directory, name, ".json"):
            return _from_json(name, path)
    return None


def names(places: Places) -> list[str]:
    """Names of all that could be found, sorted."""
    found: set[str] = set()
    for directory, suffixes in ((places.sockets, (".sock",)), *((one, (".spec", ".json")) for one in places.specs)):
        try:
            entries = os.listdir(directory)
        except OSError:
            continue
        for entry in entries:
            base, suffix = os.path.splitext(entry)
            if suffix in suffixes:
                found.add(base)
            elif any(os.path.exists(os.path.join(directory, entry, entry + suffix)) for suffix in suffixes):
                found.add(entry)
    return sorted(found)


def _candidates(directory: str, name: str, suffix: str) -> Iterator[str]:
    for path in (os.path.join(directory, name + suffix), os.path.join(directory, name, name + suffix)):
        if os.path.exists(path):
            yield path


def _from_json(name: str, path: str) -> Address:
    try:
        with open(path, encoding="utf-8") as file:
            wire = json.load(file)
        return _checked(name, Address(str(wire["Addr"]), wire.get("TLSConfig") or {}))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise Unavailable(f"plugin {name}: {path}: {error}") from error


def _checked(name: str, address: Address) -> Address:
    if urlsplit(address.url).scheme not in ("unix", "tcp", "http", "https"):
        raise Unavailable(f"plugin {name}: unknown protocol")
    return address


class Plugin:
    """A plug-in that may or may not answer. `implements` is what it said it does when it was activated."""

    def __init__(self, name: str, address: Address, patience: float) -> None:
        self.name = name
        self.address = address
        self._patience = patience
        self.implements: Sequence[str] = ()

    def activate(self, *, patient: bool = True) -> None:
        """The first call to every plug-in (`Plugin.Activate`). Unavailable where it does not answer."""
        self.implements = tuple(self.call("Plugin.Activate", patient=patient).get("Implements") or ())

    def call(self, method: str, body: Document | None = None, *, patient: bool = True) -> Document:
        """Its answer; not `patient`: it is asked once.

        System with the plug-in's own words where it refuses, NotFound for a method that it has not, Unavailable where
        it does not answer in time.
        """
        raw = b"" if body is None else json.dumps(body).encode()
        status, answer = self._answer(method, raw, self._patience if patient else 0.0)
        try:
            document = json.loads(answer) if answer.strip() else {}
        except ValueError:
            document = {"Err": answer.decode(errors="replace").strip()}
        if not isinstance(document, dict):
            raise System(f"{method}: the plug-in's answer is no JSON object")
        words = str(document.get("Err") or "")
        if status == http.HTTPStatus.NOT_FOUND:
            raise NotFound(f"{method}: {words or 'not found'}")
        if status != http.HTTPStatus.OK:
            raise System(f"{method}: {words or status}")
        if words:
            raise System(words)
        return document

    def _answer(self, method: str, body: bytes, patience: float) -> tuple[int, bytes]:
        """Status and body. A connection that fails before anything was sent is tried again, with growing pauses."""
        pause, since = 0.1, time.monotonic()
        while True:
            connection = _connection(self.address)
            try:
                try:
                    connection.connect()
                except OSError as error:
                    if time.monotonic() + pause - since >= patience:
                        raise Unavailable(f"{method}: plugin {self.name}: {error.strerror or error}") from error
                else:
                    headers = {"Accept": _MIME, "Content-Type": "application/json"}
                    connection.request("POST", f"/{method}", body, headers)
                    response = connection.getresponse()
                    return response.status, response.read(_ANSWER_BYTES)
            except (OSError, http.client.HTTPException) as error:
                raise Unavailable(f"{method}: plugin {self.name}: {error}") from error
            finally:
                connection.close()
            log.warning("plugin %s does not answer; trying again in %.1f s", self.name, pause)
            time.sleep(pause)
            pause *= 2


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=_ANSWER_SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def _connection(address: Address) -> http.client.HTTPConnection:
    parts = urlsplit(address.url)
    if parts.scheme == "unix":
        return _UnixConnection(parts.path)
    host, port = parts.hostname or "localhost", parts.port
    if parts.scheme == "https" or (parts.scheme == "tcp" and address.tls is not None):
        return http.client.HTTPSConnection(host, port, timeout=_ANSWER_SECONDS, context=_tls(address.tls or {}))
    return http.client.HTTPConnection(host, port, timeout=_ANSWER_SECONDS)


def _tls(wire: Mapping[str, Any]) -> ssl.SSLContext:
    """As moby: without a CAFile the plug-in's certificate is not checked."""
    authority = wire.get("CAFile") or None
    context = ssl.create_default_context(cafile=authority)
    if authority is None or wire.get("InsecureSkipVerify"):
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if wire.get("CertFile"):
        context.load_cert_chain(wire["CertFile"], wire.get("KeyFile") or None)
    return context
