"""What `login` keeps and `pull` and `push` send: in Docker's config.json, or with an external credential helper.

A helper is a program `docker-credential-<name>` that is called with `get`, `store` or `erase`, named for all registries
by `credsStore` or for one by `credHelpers`; https://github.com/docker/docker-credential-helpers
"""

import base64
import binascii
import json
import os
import subprocess
import tempfile
from collections.abc import Mapping

from hafen.errors import InvalidArgument, System

HUB = "https://index.docker.io/v1/"
_TOKEN = "<token>"  # user name of an identity token
_ABSENT = "credentials not found in native keychain"

Auth = dict[str, str]
"""As the API takes it: `username`, `password`, `identitytoken`, `serveraddress`."""


def server_of(repository: str) -> str:
    """The name under which credentials for a repository are kept."""
    first, slash, _ = repository.partition("/")
    known = slash and ("." in first or ":" in first or first == "localhost")
    return first if known and first not in ("docker.io", "index.docker.io") else HUB


def header(settings: Mapping[str, object], repository: str) -> str:
    """The value of X-Registry-Auth: anonymous where nothing is kept."""
    document = json.dumps(lookup(settings, server_of(repository)))
    return base64.urlsafe_b64encode(document.encode()).decode()


def all_header(settings: Mapping[str, object]) -> str:
    """The value of X-Registry-Config: what is kept for every server."""
    single = settings.get("credHelpers")
    servers = {*_entries(settings), *(single if isinstance(single, dict) else ())}
    document = json.dumps({server: found for server in sorted(servers) if (found := lookup(settings, server))})
    return base64.urlsafe_b64encode(document.encode()).decode()


def lookup(settings: Mapping[str, object], server: str) -> Auth:
    """What is kept for a server; empty where nothing is."""
    helper = _helper(settings, server)
    if helper:
        answer = _call(helper, "get", server)
        if not answer:
            return {}
        user, secret = str(answer.get("Username", "")), str(answer.get("Secret", ""))
        found = {"identitytoken": secret} if user == _TOKEN else {"username": user, "password": secret}
        return {**found, "serveraddress": server}
    entry = _entries(settings).get(server)
    if not isinstance(entry, dict):
        return {}
    auth: Auth = {"serveraddress": server}
    if entry.get("auth"):
        try:
            auth["username"], _, auth["password"] = base64.b64decode(str(entry["auth"])).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError) as error:
            raise InvalidArgument(f"invalid auth configuration for {server}: {error}") from None
    for name in ("identitytoken", "registrytoken"):
        if entry.get(name):
            auth[name] = str(entry[name])
    return auth


def store(settings: Mapping[str, object], path: str, auth: Auth) -> bool:
    """Keep them; whether something was written into the plain file."""
    server, token = auth["serveraddress"], auth.get("identitytoken", "")
    helper = _helper(settings, server)
    if helper:
        secret = {"ServerURL": server, "Username": _TOKEN if token else auth.get("username", "")}
        _call(helper, "store", json.dumps({**secret, "Secret": token or auth.get("password", "")}))
        _write(path, {**settings, "auths": {**_entries(settings), server: {}}})
        return False
    pair = f"{auth.get('username', '')}:{'' if token else auth.get('password', '')}"
    before = _entries(settings).get(server)
    entry = {"auth": base64.b64encode(pair.encode()).decode(), **({"identitytoken": token} if token else {})}
    if entry == before:
        return False
    _write(path, {**settings, "auths": {**_entries(settings), server: entry}})
    return True


def erase(settings: Mapping[str, object], path: str, server: str) -> None:
    """Forget them; harmless where nothing is kept."""
    helper = _helper(settings, server)
    if helper:
        _call(helper, "erase", server)
    entries = {name: entry for name, entry in _entries(settings).items() if name != server}
    if entries != _entries(settings):
        _write(path, {**settings, "auths": entries})


def _entries(settings: Mapping[str, object]) -> dict[str, object]:
    found = settings.get("auths")
    return found if isinstance(found, dict) else {}


def _helper(settings: Mapping[str, object], server: str) -> str:
    single = settings.get("credHelpers")
    chosen = single.get(server) if isinstance(single, dict) else None
    return str(chosen or settings.get("credsStore") or "")


def _call(helper: str, action: str, given: str) -> dict[str, object]:
    program = f"docker-credential-{helper}"
    try:
        run = subprocess.run([program, action], input=given.encode(), capture_output=True, check=False)
    except FileNotFoundError:
        raise System(
            f'error getting credentials - err: exec: "{program}": executable file not found in $PATH, out: ``'
        ) from None
    said = run.stdout.decode(errors="replace").strip()
    if run.returncode:
        if _ABSENT in said:
            return {}
        raise System(f"error {action} credentials - err: exit status {run.returncode}, out: `{said}`")
    if action != "get":
        return {}
    try:
        answer = json.loads(said)
    except ValueError as error:
        raise System(f"{program}: {error}") from None
    return answer if isinstance(answer, dict) else {}


def _write(path: str, document: Mapping[str, object]) -> None:
    """In one step, and readable for its owner alone."""
    path = os.path.realpath(path)
    directory = os.path.dirname(path)
    os.makedirs(directory, mode=0o700, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(prefix="config.json", dir=directory)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(document, file, indent="\t")
        os.rename(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
