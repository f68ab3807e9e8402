"""Mirrors, insecure registries and hosts.toml become endpoints in the right order."""

from pathlib import Path

import pytest

from hafen.distribution.endpoint import Rules, check, endpoints, insecure
from hafen.errors import InvalidArgument


def bases(domain: str, rules: Rules = Rules()) -> list[str]:  # noqa: B008 - frozen
    return [one.base for one in endpoints(domain, rules)]


def test_the_hub_and_its_mirrors() -> None:
    assert bases("docker.io") == ["https://registry-1.docker.io/v2"]
    found = endpoints("docker.io", Rules(("https://mirror.test/hub/", "http://127.0.0.1:5000")))
    assert [one.base for one in found] == [
        "https://mirror.test/hub/v2",
        "http://127.0.0.1:5000/v2",
        "https://registry-1.docker.io/v2",
    ]
    assert [one.mirror for one in found] == [True, True, False]
    assert bases("quay.test", Rules(("https://mirror.test",))) == ["https://quay.test/v2"]


@pytest.mark.parametrize(
    "host", ["127.0.0.1:5000", "localhost", "localhost:80", "[::1]:5000", "10.1.2.3:1", "reg.test"]
)
def test_insecure(host: str) -> None:
    rules = Rules(insecure=("10.1.0.0/16", "reg.test"))
    assert insecure(host, rules)
    found = endpoints(host, rules)
    assert [one.base for one in found] == [f"https://{host}/v2", f"http://{host}/v2"]
    assert not any(one.verify for one in found)


@pytest.mark.parametrize("host", ["10.2.0.1", "other.test", "reg.test.evil"])
def test_secure(host: str) -> None:
    (only,) = endpoints(host, Rules(insecure=("10.1.0.0/16", "reg.test")))
    assert (only.base, only.verify) == (f"https://{host}/v2", True)


def test_hosts_file(tmp_path: Path) -> None:
    place = tmp_path / "quay.test"
    place.mkdir()
    (place / "hosts.toml").write_text(
        'server = "https://origin.test"\n[host."https://a.test/v2/proxy"]\noverride_path = true\n'
        'capabilities = ["pull"]\nca = "a.crt"\nclient = [["a.cert", "/keys/a.key"], ["b.pem", ""]]\n'
        '[host."http://b.test/x"]\nskip_verify = true\n[host."https://c.test"]\ncapabilities = ["push"]\n'
    )
    found = endpoints("quay.test", Rules(certificates=(str(tmp_path),)))
    assert [one.base for one in found] == ["https://a.test/v2/proxy", "http://b.test/x/v2", "https://origin.test/v2"]
    assert [one.verify for one in found] == [True, False, True]
    assert [one.resolve for one in found] == [False, True, True]
    assert [one.mirror for one in found] == [True, True, False]
    assert found[0].authorities == (str(place / "a.crt"),)
    assert found[0].clients == ((str(place / "a.cert"), "/keys/a.key"), (str(place / "b.pem"), None))
    (place / "hosts.toml").write_text("= nonsense")
    with pytest.raises(InvalidArgument, match=r"hosts\.toml"):
        endpoints("quay.test", Rules(certificates=(str(tmp_path),)))


def test_what_a_hosts_file_says_of_the_registry_itself(tmp_path: Path) -> None:
    place = tmp_path / "quay.test"
    place.mkdir()
    (place / "hosts.toml").write_text('ca = ["a.crt", "b.crt"]\nclient = "both.pem"\nskip_verify = true\n')
    (only,) = endpoints("quay.test", Rules(certificates=(str(tmp_path),)))
    assert (only.base, only.verify, only.mirror) == ("https://quay.test/v2", False, False)
    assert only.authorities == (str(place / "a.crt"), str(place / "b.crt"))
    assert only.clients == ((str(place / "both.pem"), None),)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[host."https://a.test"]\nheader = {x = "y"}\n', "'header' of 'https://a.test' is not supported"),
        ('servre = "https://a.test"\n', "'servre' of 'quay.test' is not supported"),
        ('[host."https://a.test"]\ncapabilities = "pull"\n', "must be a list"),
        ('[host."https://a.test"]\nca = 1\n', "must be a path or a list of paths"),
        ('[host."https://a.test"]\nclient = [["a", "b", "c"]]\n', "must be a certificate, or one and its key"),
        ('[host."https://[a"]\n', "invalid host"),
    ],
)
def test_hosts_files_that_say_what_is_not_known(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "quay.test").mkdir()
    (tmp_path / "quay.test/hosts.toml").write_text(text)
    with pytest.raises(InvalidArgument, match=words):
        endpoints("quay.test", Rules(certificates=(str(tmp_path),)))


@pytest.mark.parametrize(
    "rules",
    [
        Rules(("mirror.test",)),
        Rules(("ftp://mirror.test",)),
        Rules(("https://user@mirror.test",)),
        Rules(insecure=("10.0.0.0/99",)),
        Rules(insecure=("http://reg.test",)),
    ],
)
def test_rules_that_make_no_sense(rules: Rules) -> None:
    with pytest.raises(InvalidArgument):
        check(rules)
