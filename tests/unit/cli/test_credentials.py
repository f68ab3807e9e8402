"""Where login keeps what: config.json, and external credential helpers."""

import json
import os
from pathlib import Path

import pytest

from hafen.cli import credentials

HELPER = """#!/bin/sh
read -r given
case "$1" in
get) [ -f "$0.kept" ] || { echo "credentials not found in native keychain"; exit 1; }; cat "$0.kept" ;;
store) echo "$given" >"$0.kept" ;;
erase) rm -f "$0.kept" ;;
esac
"""


@pytest.mark.parametrize("given", ["x", "library/x", "docker.io/x", "index.docker.io/library/x"])
def test_the_hub_has_an_old_name(given: str) -> None:
    assert credentials.server_of(given) == "https://index.docker.io/v1/"


def test_other_registries_have_theirs() -> None:
    assert credentials.server_of("127.0.0.1:5000/a/b") == "127.0.0.1:5000"
    assert credentials.server_of("localhost/a") == "localhost"


def test_the_plain_file(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "config.json"
    auth = {"username": "joe", "password": "se:cret", "serveraddress": "reg.test"}
    assert credentials.store({"psFormat": "x"}, str(path), auth)
    settings = json.loads(path.read_text())
    assert settings["psFormat"] == "x"
    assert path.stat().st_mode & 0o777 == 0o600
    assert credentials.lookup(settings, "reg.test") == auth
    assert credentials.lookup(settings, "other.test") == {}
    credentials.erase(settings, str(path), "reg.test")
    assert json.loads(path.read_text())["auths"] == {}


@pytest.mark.parametrize("settings", [{"credsStore": "test"}, {"credHelpers": {"reg.test": "test"}}])
@pytest.mark.parametrize("token", [False, True])
def test_a_helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, object], token: bool) -> None:
    program = tmp_path / "docker-credential-test"
    program.write_text(HELPER)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    path = str(tmp_path / "config.json")
    auth = {"identitytoken": "t"} if token else {"username": "joe", "password": "secret"}
    assert credentials.lookup(settings, "reg.test") == {}
    assert not credentials.store(settings, path, {**auth, "serveraddress": "reg.test"})
    assert "secret" not in Path(path).read_text()
    assert credentials.lookup(settings, "reg.test") == {**auth, "serveraddress": "reg.test"}
    credentials.erase(settings, path, "reg.test")
    assert credentials.lookup(settings, "reg.test") == {}
