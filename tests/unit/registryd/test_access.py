"""Users and rights: who is asked for a name, who is refused, and what no rule allows."""

from __future__ import annotations

import base64
import re
import shutil
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import bcrypt
import pytest

from hafen.errors import InvalidArgument
from hafen.registryd.access import parse_rules
from hafen.registryd.passwords import parse_htpasswd
from hafen.registryd.watched import INTERVAL
from tests.harness.registry import RegistryProcess, sha256

RULES = """
# who  repositories  may
*      public/*      pull
@      shared/*      pull,push
anna   team/*        pull,push,delete
"""


@pytest.fixture(scope="module")
def users(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Paths of a password file with anna and ben, and of rules."""
    folder = tmp_path_factory.mktemp("users")
    lines = [f"{name}:{bcrypt.hashpw(word.encode(), bcrypt.gensalt(4)).decode()}" for name, word in
             (("anna", "apple"), ("ben", "bee"))]  # fmt: skip
    (folder / "htpasswd").write_text("\n".join(lines))
    (folder / "rules").write_text(RULES)
    return folder / "htpasswd", folder / "rules"


@pytest.fixture(scope="module")
def registry(users: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryProcess]:
    flags = ("--htpasswd", str(users[0]), "--rules", str(users[1]))
    with RegistryProcess(tmp_path_factory.mktemp("registry"), *flags) as process:
        yield process


def who(user: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


ANNA, BEN = who("anna", "apple"), who("ben", "bee")


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", "/v2/", {}, 401),
        ("GET", "/v2/", ANNA, 200),
        ("GET", "/v2/", who("anna", "bee"), 401),
        ("GET", "/v2/", who("nobody", "apple"), 401),
        ("GET", "/v2/", {"Authorization": "Bearer x"}, 401),
        ("GET", "/v2/", {"Authorization": "Basic ???"}, 401),
        ("GET", "/v2/public/a/manifests/v1", {}, 404),
        ("GET", "/v2/team/a/manifests/v1", {}, 401),
        ("GET", "/v2/team/a/manifests/v1", BEN, 403),
        ("GET", "/v2/team/a/manifests/v1", ANNA, 404),
        ("POST", "/v2/public/a/blobs/uploads/", {}, 401),
        ("POST", "/v2/public/a/blobs/uploads/", BEN, 403),
        ("POST", "/v2/shared/deep/er/blobs/uploads/", BEN, 202),
        ("DELETE", "/v2/shared/a/manifests/v1", BEN, 403),
        ("DELETE", "/v2/team/a/manifests/v1", ANNA, 404),
    ],
)
def test_rights(registry: RegistryProcess, method: str, path: str, headers: dict[str, str], status: int) -> None:
    with closing(registry.client()) as client:
        answer = client(method, path, headers=headers)
    assert answer.status == status
    assert ("www-authenticate" in answer.headers) == (status == 401)
    if status in (401, 403):
        assert answer.code == {401: "UNAUTHORIZED", 403: "DENIED"}[status]


def test_a_mount_takes_the_right_to_read_where_it_comes_from(registry: RegistryProcess) -> None:
    with closing(registry.client()) as client:
        digest = sha256(b"secret")
        client("POST", f"/v2/team/a/blobs/uploads/?digest={digest}", b"secret", ANNA)
        for source in ("&from=team/a", ""):
            path = f"/v2/shared/a/blobs/uploads/?mount={digest}{source}"
            assert client("POST", path, headers=BEN).status == 202
        assert client("POST", f"/v2/shared/a/blobs/uploads/?mount={digest}&from=team/a", headers=ANNA).status == 201


def test_without_rules_users_may_all_and_others_nothing(users: tuple[Path, Path], tmp_path: Path) -> None:
    with RegistryProcess(tmp_path, "--htpasswd", str(users[0])) as process, closing(process.client()) as client:
        assert client("POST", "/v2/a/blobs/uploads/", headers=BEN).status == 202
        assert client("GET", "/v2/a/tags/list").status == 401


@pytest.mark.parametrize("text", ["anna:plain", "anna:$apr1$x$y", "no colon", ":$2y$05$x"])
def test_weak_passwords_are_refused(text: str) -> None:
    with pytest.raises(InvalidArgument, match="line 1"):
        parse_htpasswd(text)


@pytest.mark.parametrize("text", ["anna team/*", "anna team/* read", "anna team/* pull push"])
def test_bad_rules_are_refused(text: str) -> None:
    with pytest.raises(InvalidArgument, match="line 2"):
        parse_rules("\n" + text)


def written(path: Path, text: str) -> None:
    """As editors do it."""
    path.with_suffix(".new").write_text(text)
    path.with_suffix(".new").rename(path)


def test_files_are_read_again_when_they_have_changed(users: tuple[Path, Path], tmp_path: Path) -> None:
    passwords, rules = tmp_path / "htpasswd", tmp_path / "rules"
    anna, ben = users[0].read_text().splitlines()
    passwords.write_text(anna)
    rules.write_text("@ team/* pull")
    flags = ("--htpasswd", str(passwords), "--rules", str(rules))
    with RegistryProcess(tmp_path / "root", *flags) as process, closing(process.client()) as client:

        def wait_answer(method: str, headers: dict[str, str], status: int) -> None:
            end = time.monotonic() + 20
            while client(method, "/v2/team/a/manifests/v1", headers=headers).status != status:
                assert time.monotonic() < end
                time.sleep(0.05)

        wait_answer("GET", ANNA, 404)
        wait_answer("GET", BEN, 401)
        written(passwords, ben)
        wait_answer("GET", BEN, 404)
        wait_answer("GET", ANNA, 401)  # though it was right a moment ago
        wait_answer("DELETE", BEN, 403)
        written(rules, "@ team/* pull,delete")
        wait_answer("DELETE", BEN, 404)
        written(rules, "nonsense")
        written(passwords, f"{anna}\n{ben}")
        wait_answer("GET", ANNA, 404)
        looked_at = time.monotonic() + INTERVAL  # the rules too, by the first request from then on
        while time.monotonic() < looked_at:
            wait_answer("DELETE", BEN, 404)
        wait_answer("DELETE", BEN, 404)
        process.stop()
        assert "what it said before counts: line 1 of the rules" in process.log


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")
def test_tls(tmp_path: Path) -> None:
    certificate, key = tmp_path / "c.pem", tmp_path / "k.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate],
        check=True, capture_output=True,
    )  # fmt: skip
    flags = ("--tls-cert", str(certificate), "--tls-key", str(key))
    with RegistryProcess(tmp_path / "root", *flags) as process:
        base, context = f"https://127.0.0.1:{process.port}/v2/a/blobs", ssl.create_default_context(cafile=certificate)
        data = bytes(range(256)) * 20_000
        push = urllib.request.Request(f"{base}/uploads/?digest={sha256(data)}", data, method="POST")
        with urllib.request.urlopen(push, context=context) as answer:
            assert answer.status == 201
        with urllib.request.urlopen(f"{base}/{sha256(data)}", context=context) as answer:
            assert answer.read() == data
    (tmp_path / "rules").write_text("* public/* pull")
    with RegistryProcess(tmp_path / "root", *flags, "--rules", str(tmp_path / "rules")) as process:
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"https://127.0.0.1:{process.port}/v2/", context=context)
        with refused.value as answer:
            assert f'realm="https://127.0.0.1:{process.port}/token"' in answer.headers["www-authenticate"]


def test_a_second_registry_on_one_root_is_refused(tmp_path: Path) -> None:
    with RegistryProcess(tmp_path), pytest.raises(AssertionError, match=re.escape("is in use")):
        RegistryProcess(tmp_path)


def test_an_address_that_is_taken_is_an_error_of_one_line(tmp_path: Path) -> None:
    with RegistryProcess(tmp_path / "a") as process:
        refused = subprocess.run(
            [sys.executable, "-I", "-m", "hafen.registryd.main", "--addr", f"127.0.0.1:{process.port}", "--root",
             str(tmp_path / "b")], capture_output=True, text=True, check=False,
        )  # fmt: skip
    assert refused.returncode == 1
    assert refused.stderr.splitlines() == [
        f"hafen registry: cannot listen on tcp://127.0.0.1:{process.port}: Address already in use"
    ]
