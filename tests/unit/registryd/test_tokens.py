"""Bearer tokens and access tokens, as clients get and use them, and what is no token."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import quote, urlencode

import bcrypt
import pytest

from hafen.registryd.accesstokens import AccessTokens
from hafen.registryd.schema import MIGRATIONS
from hafen.storage.database import Database
from tests.harness.registry import Answer, Client, RegistryProcess

RULES = """
*      public/*      pull
@      shared/*      pull,push
anna   team/*        pull,push,delete
ci     team/*        pull,push
"""
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


def basic(user: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


ANNA, BEN = basic("anna", "apple"), basic("ben", "bee")


def hashed(password: str) -> str:
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode()


@pytest.fixture(scope="module")
def flags(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    folder = tmp_path_factory.mktemp("users")
    (folder / "htpasswd").write_text(f"anna:{hashed('apple')}\nben:{hashed('bee')}\n")
    (folder / "rules").write_text(RULES)
    return "--htpasswd", str(folder / "htpasswd"), "--rules", str(folder / "rules")


@pytest.fixture(scope="module")
def registry(flags: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryProcess]:
    with RegistryProcess(tmp_path_factory.mktemp("registry"), *flags) as process:
        yield process


@pytest.fixture
def client(registry: RegistryProcess) -> Iterator[Client]:
    with closing(registry.client()) as found:
        yield found


def ask(client: Client, *scopes: str, headers: dict[str, str] | None = None, **more: str) -> Answer:
    query = [("service", "hafen-registry"), *(("scope", one) for one in scopes), *more.items()]
    return client("GET", f"/token?{urlencode(query)}", headers=headers or {})


def token(client: Client, *scopes: str, headers: dict[str, str] | None = None) -> str:
    answer = ask(client, *scopes, headers=headers)
    assert answer.status == 200, answer
    return str(answer.json()["token"])


def control(root: Path, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """`hafen registry token ...`"""
    command = [sys.executable, "-m", "hafen.cli.main", "registry", "token", *words, "--root", str(root)]
    return subprocess.run(command, capture_output=True, text=True, check=check)


# Challenges


@pytest.mark.parametrize(
    ("method", "path", "scope"),
    [
        ("GET", "/v2/", ""),
        ("GET", "/v2/team/a/manifests/v1", "repository:team/a:pull"),
        ("POST", "/v2/team/a/blobs/uploads/", "repository:team/a:pull,push"),
        ("PUT", "/v2/team/a/blobs/uploads/x?digest=y", "repository:team/a:pull,push"),
        ("DELETE", "/v2/team/a/manifests/v1", "repository:team/a:delete"),
        ("GET", "/v2/_catalog", "registry:catalog:*"),
    ],
)
def test_who_is_refused_is_told_what_helps(client: Client, method: str, path: str, scope: str) -> None:
    answer = client(method, path, headers={"Host": "registry.test:5000"})
    assert answer.status == 401
    asked = f',scope="{scope}"' if scope else ""
    expected = f'Bearer realm="http://registry.test:5000/token",service="hafen-registry"{asked}'
    assert answer.headers["www-authenticate"] == expected


def test_a_proxy_before_it_may_say_that_it_does_tls(client: Client) -> None:
    found = client("GET", "/v2/", headers={"Host": "r.test", "X-Forwarded-Proto": "https"}).headers["www-authenticate"]
    assert 'realm="https://r.test/token"' in found


def test_the_url_can_be_said(flags: tuple[str, ...], tmp_path: Path) -> None:
    with (
        RegistryProcess(tmp_path, *flags, "--url", "https://r.test/") as process,
        closing(process.client()) as client,
    ):
        assert 'realm="https://r.test/token"' in client("GET", "/v2/").headers["www-authenticate"]


def test_a_query_that_cannot_be_read_is_refused_like_any_other(client: Client) -> None:
    many = "&".join(f"a{number}=1" for number in range(200))
    assert client("GET", f"/v2/team/a/manifests/v1?{many}").status in (400, 401)
    assert client("GET", f"/v2/?{many}", headers=bearer("x")).status in (400, 401)


@pytest.mark.parametrize("host", ['a"b', "a b", "a,b"])
def test_a_host_that_is_none_is_not_repeated(client: Client, host: str) -> None:
    assert 'realm="/token"' in client("GET", "/v2/", headers={"Host": host}).headers["www-authenticate"]


# What a token is for


def test_a_token_is_for_what_was_asked_and_no_more(client: Client) -> None:
    found = bearer(token(client, "repository:team/a:pull", headers=ANNA))
    assert client("GET", "/v2/team/a/manifests/v1", headers=found).status == 404
    for method, path in (("POST", "/v2/team/a/blobs/uploads/"), ("GET", "/v2/team/b/manifests/v1")):
        refused = client(method, path, headers=found)
        assert refused.status == 401
        assert 'error="insufficient_scope"' in refused.headers["www-authenticate"]
    again = bearer(token(client, "repository:team/a:pull,push", headers=ANNA))
    assert client("POST", "/v2/team/a/blobs/uploads/", headers=again).status == 202


def test_a_token_is_for_no_more_than_the_rules_allow(client: Client) -> None:
    answer = ask(client, "repository:shared/a:*", "repository:team/a:pull registry:catalog:*", headers=BEN)
    assert answer.json()["scope"] == "repository:shared/a:pull,push registry:catalog:*"
    found = bearer(answer.json()["token"])
    assert client("POST", "/v2/shared/a/blobs/uploads/", headers=found).status == 202
    assert client("GET", "/v2/team/a/manifests/v1", headers=found).code == "DENIED"
    assert client("GET", "/v2/_catalog", headers=found).status == 200


def test_two_repositories_for_a_mount(client: Client) -> None:
    data = b"mounted"
    digest = "sha256:" + hashlib.sha256(data).hexdigest()
    client("POST", f"/v2/team/a/blobs/uploads/?digest={digest}", data, ANNA)
    path = f"/v2/team/b/blobs/uploads/?mount={digest}&from={quote('team/a', safe='')}"
    one = token(client, "repository:team/b:pull,push", headers=ANNA)
    assert client("POST", path, headers=bearer(one)).status == 202
    both = token(client, "repository:team/b:pull,push", "repository:team/a:pull", headers=ANNA)
    assert client("POST", path, headers=bearer(both)).status == 201


def test_nobody_in_particular_may_have_a_token_too(client: Client) -> None:
    answer = ask(client, "repository:public/a:pull,push", "repository:team/a:pull", "registry:catalog:*")
    assert answer.json()["scope"] == "repository:public/a:pull"
    found = bearer(answer.json()["token"])
    assert client("GET", "/v2/", headers=found).status == 200
    assert client("GET", "/v2/public/a/manifests/v1", headers=found).status == 404
    for path in ("/v2/team/a/manifests/v1", "/v2/_catalog", "/metrics"):
        assert client("GET", path, headers=found).status == 401


def test_search_takes_the_scope_that_docker_asks_for(client: Client) -> None:
    found = bearer(token(client, "registry:catalog:search", headers=ANNA))
    assert client("GET", "/v1/search?q=a", headers=found).status == 200
    other = bearer(token(client, "repository:team/a:pull", headers=ANNA))
    assert client("GET", "/v1/search?q=a", headers=other).status == 401


def test_the_answer_has_the_specifications_fields(client: Client) -> None:
    answer = ask(client, "repository:team/a:pull", headers=ANNA)
    assert answer.headers["cache-control"] == "no-store"
    found = answer.json()
    assert found["token"] == found["access_token"]
    assert found["expires_in"] >= 60
    assert "refresh_token" not in found
    claims = json.loads(base64.urlsafe_b64decode(found["token"].split(".")[1] + "=="))
    assert claims["access"] == [{"type": "repository", "name": "team/a", "actions": ["pull"]}]
    assert (claims["sub"], claims["aud"]) == ("anna", "hafen-registry")
    assert claims["iat"] <= time.time() < claims["exp"]


def test_wrong_credentials_get_no_token(client: Client) -> None:
    for headers in (basic("anna", "bee"), basic("nobody", "apple"), bearer("x")):
        assert ask(client, "repository:public/a:pull", headers=headers).status == 401
    assert client("GET", "/token?service=elsewhere", headers=ANNA).status == 400


# What is no token


def _signed(claims: dict[str, object], key: bytes, header: bytes = b'{"alg":"HS256","typ":"JWT"}') -> str:
    def text(data: bytes) -> str:
        return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

    body = f"{text(header)}.{text(json.dumps(claims).encode())}"
    return f"{body}.{text(hmac.new(key, body.encode(), hashlib.sha256).digest())}"


def test_a_token_of_somebody_elses_making_is_refused(client: Client) -> None:
    now = int(time.time())
    claims = {"iss": "hafen-registry", "sub": "anna", "aud": "hafen-registry", "exp": now + 60, "nbf": now, "iat": now,
              "jti": "1", "use": "access",
              "access": [{"type": "repository", "name": "team/a", "actions": ["pull"]}]}  # fmt: skip
    ours = token(client, "repository:team/a:pull", headers=BEN)
    header, body, signature = ours.split(".")
    none = base64.urlsafe_b64encode(b'{"alg":"none","typ":"JWT"}').rstrip(b"=").decode()
    other = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()
    for bad in ("", ".", "..", "x", f"{header}.{body}.", f"{header}.{other}.{signature}", f"{none}.{other}.",
                _signed(claims, b""), _signed(claims, b"key"), ours + "A", ours[:-2]):  # fmt: skip
        answer = client("GET", "/v2/team/a/manifests/v1", headers=bearer(bad))
        assert answer.status == 401, bad
        assert 'error="invalid_token"' in answer.headers["www-authenticate"]


def test_a_refresh_token_is_no_access_token(client: Client) -> None:
    refresh = ask(client, headers=ANNA, offline_token="true").json()["refresh_token"]
    assert client("GET", "/v2/", headers=bearer(refresh)).status == 401


# Refresh tokens


def post(client: Client, **form: str) -> Answer:
    return client(
        "POST", "/token", urlencode({"service": "hafen-registry", "client_id": "test", **form}).encode(), FORM
    )


def test_oauth_with_a_password_and_with_a_refresh_token(client: Client) -> None:
    first = post(client, grant_type="password", username="anna", password="apple", access_type="offline",
                 scope="repository:team/a:pull")  # fmt: skip
    assert first.status == 200
    refresh = first.json()["refresh_token"]
    assert client("GET", "/v2/team/a/manifests/v1", headers=bearer(first.json()["access_token"])).status == 404
    second = post(client, grant_type="refresh_token", refresh_token=refresh, scope="repository:team/b:push")
    assert second.json()["refresh_token"] == refresh
    assert client("POST", "/v2/team/b/blobs/uploads/", headers=bearer(second.json()["access_token"])).status == 202
    assert "refresh_token" not in post(client, grant_type="password", username="anna", password="apple").json()
    for wrong in ({"grant_type": "password", "username": "anna", "password": "bee"},
                  {"grant_type": "refresh_token", "refresh_token": first.json()["access_token"]},
                  {"grant_type": "refresh_token"}):  # fmt: skip
        assert post(client, **wrong).status == 401
    assert post(client, grant_type="authorization_code").status == 400


def test_nobody_in_particular_gets_no_refresh_token(client: Client) -> None:
    assert "refresh_token" not in ask(client, offline_token="true").json()


def test_tokens_outlive_a_restart_and_end_with_the_password(tmp_path: Path) -> None:
    passwords = tmp_path / "htpasswd"
    passwords.write_text(f"anna:{hashed('apple')}\nben:{hashed('bee')}\n")
    with RegistryProcess(tmp_path / "root", "--htpasswd", str(passwords)) as process:
        with closing(process.client()) as client:
            found = ask(client, "repository:a:pull", headers=ANNA, offline_token="true").json()
            other = ask(client, headers=BEN, offline_token="true").json()["refresh_token"]
        process.stop()
        process.start()
        with closing(process.client()) as client:
            assert client("GET", "/v2/a/manifests/v1", headers=bearer(found["token"])).status == 404
            assert post(client, grant_type="refresh_token", refresh_token=found["refresh_token"]).status == 200
        process.stop()
        passwords.write_text(f"anna:{hashed('another')}\n")
        process.start()
        with closing(process.client()) as client:
            assert client("GET", "/v2/a/manifests/v1", headers=bearer(found["token"])).status == 401
            for refresh in (found["refresh_token"], other):
                assert post(client, grant_type="refresh_token", refresh_token=refresh).status == 401


# Access tokens


def test_an_access_token_is_a_password_for_its_scope(registry: RegistryProcess, client: Client) -> None:
    made = control(registry.root, "create", "--user", "ci", "--scope", "team/app*:pull,push", "--expires", "1d")
    secret = made.stdout.strip()
    assert "of ci, until 20" in made.stderr
    ci = basic("ci", secret)
    assert client("POST", "/v2/team/app/blobs/uploads/", headers=ci).status == 202
    assert client("GET", "/v2/team/other/manifests/v1", headers=ci).code == "DENIED"
    assert client("DELETE", "/v2/team/app/manifests/v1", headers=ci).code == "DENIED"
    found = ask(client, "repository:team/app:*", "repository:team/other:pull", headers=ci, offline_token="true").json()
    assert found["scope"] == "repository:team/app:pull,push"
    assert client("GET", "/v2/team/app/manifests/v1", headers=bearer(found["token"])).status == 404
    assert client("GET", "/v2/", headers=basic("anna", secret)).status == 401
    number = next(line.split()[0] for line in control(registry.root, "list").stdout.splitlines() if "team/app*" in line)
    assert secret not in control(registry.root, "list").stdout
    control(registry.root, "revoke", number)
    for headers in (ci, bearer(found["token"])):
        assert client("GET", "/v2/team/app/manifests/v1", headers=headers).status == 401
    assert post(client, grant_type="refresh_token", refresh_token=found["refresh_token"]).status == 401
    assert control(registry.root, "revoke", number, check=False).returncode == 1


def test_an_access_token_gives_its_user_no_more_than_the_rules(registry: RegistryProcess, client: Client) -> None:
    secret = control(registry.root, "create", "--user", "ci", "--scope", "*:pull,push,delete").stdout.strip()
    assert client("GET", "/v2/team/a/manifests/v1", headers=basic("ci", secret)).status == 404
    assert client("DELETE", "/v2/team/a/manifests/v1", headers=basic("ci", secret)).code == "DENIED"
    every = control(registry.root, "create", "--user", "anna", "--expires", "never").stdout.strip()
    assert client("DELETE", "/v2/team/a/manifests/v1", headers=basic("anna", every)).status == 404
    line = next(line for line in control(registry.root, "list").stdout.splitlines() if " anna " in line)
    assert line.split()[3:] == ["never", line.split()[4], "all"]


def test_an_access_token_ends(registry: RegistryProcess, client: Client) -> None:
    secret = control(registry.root, "create", "--user", "ci", "--expires", "0s").stdout.strip()
    assert client("GET", "/v2/", headers=basic("ci", secret)).status == 401


def test_one_that_ended_long_ago_is_forgotten(tmp_path: Path) -> None:
    database = Database(tmp_path / "registry.db", MIGRATIONS)
    tokens = AccessTokens(database)
    for ended in (time.time() - 40 * 86400, time.time() - 20 * 86400, None):
        tokens.create("ci", (), ended)
    tokens.forget_ended()
    assert [token.number for token in tokens.all()] == [2, 3]
    assert tokens.create("ci", (), None)[0].number == 4
    database.close()


@pytest.mark.parametrize(
    "words",
    [("--user", "a:b"), ("--user", "ci", "--scope", "team/*"), ("--user", "ci", "--scope", "team/*:write"),
     ("--user", "ci", "--expires", "soon")],
)  # fmt: skip
def test_what_makes_no_token(registry: RegistryProcess, words: tuple[str, ...]) -> None:
    refused = control(registry.root, "create", *words, check=False)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.startswith("hafen registry token: ")


def test_rules_without_passwords(tmp_path: Path) -> None:
    """All users are access tokens', and bcrypt is not needed."""
    (tmp_path / "rules").write_text("* public/* pull\nci * pull,push\n")
    with (
        RegistryProcess(tmp_path / "root", "--rules", str(tmp_path / "rules")) as process,
        closing(process.client()) as client,
    ):
        secret = control(tmp_path / "root", "create", "--user", "ci").stdout.strip()
        assert client("POST", "/v2/public/a/blobs/uploads/", headers=basic("ci", secret)).status == 202
        assert client("GET", "/v2/public/a/manifests/v1").status == 404
        assert client("GET", "/v2/a/manifests/v1", headers=basic("ci", "wrong")).status == 401


def test_a_registry_that_asks_nobody_makes_none(tmp_path: Path) -> None:
    with RegistryProcess(tmp_path / "root") as process, closing(process.client()) as client:
        refused = control(tmp_path / "root", "create", "--user", "ci", check=False)
        assert "asks nobody for a name" in refused.stderr
        assert client("GET", "/token").status == 400
        assert client("GET", "/v2/", headers=bearer("whatever")).status == 200
    assert "no registry runs on" in control(tmp_path / "root", "list", check=False).stderr
    assert "no registry runs on" in control(tmp_path / "nowhere", "list", check=False).stderr


def test_only_the_owner_speaks_with_it_in_private(registry: RegistryProcess) -> None:
    assert (registry.root / "admin.sock").stat().st_mode & 0o777 == 0o600
