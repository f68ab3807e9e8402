import hashlib
import json
from pathlib import Path

import pytest

from hafen.client.address import DEFAULT_SOCKET, Choice, Endpoint, parse_host, resolve
from hafen.errors import InvalidArgument, NotFound


def choice(directory: Path, **given: str) -> Choice:
    return Choice(config_dir=str(directory), **given)  # type: ignore[arg-type]  # the flags used here are texts


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("unix:///a/b", ("unix", "/a/b")),
        ("/a/b", ("unix", "/a/b")),
        ("unix://", ("unix", DEFAULT_SOCKET)),
        ("tcp://h:1", ("tcp", "h:1")),
        ("tcp://h", ("tcp", "h:2375")),
        ("h", ("tcp", "h:2375")),
        ("tcp://[::1]", ("tcp", "[::1]:2375")),
        ("tcp://[::1]:5/", ("tcp", "[::1]:5")),
        ("ssh://u@h:22", ("ssh", "ssh://u@h:22")),
    ],
)
def test_hosts(host: str, expected: tuple[str, str]) -> None:
    endpoint = parse_host(host)
    assert (endpoint.scheme, endpoint.target) == expected


def test_an_unknown_scheme_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="npipe"):
        parse_host("npipe:////./pipe/docker")


def test_order_of_what_names_an_engine(tmp_path: Path) -> None:
    everything = {"HAFEN_HOST": "unix:///h", "DOCKER_HOST": "unix:///d"}
    assert resolve(choice(tmp_path, host="unix:///f"), everything).target == "/f"
    assert resolve(choice(tmp_path), everything).target == "/h"
    assert resolve(choice(tmp_path), {"DOCKER_HOST": "unix:///d"}).target == "/d"
    assert resolve(choice(tmp_path), {}) == Endpoint("unix", DEFAULT_SOCKET)
    assert resolve(choice(tmp_path), {}).may_start
    assert not resolve(choice(tmp_path), everything).may_start


def test_a_context_gives_host_and_certificates(tmp_path: Path) -> None:
    key = hashlib.sha256(b"far").hexdigest()
    meta, tls = tmp_path / "contexts/meta" / key, tmp_path / "contexts/tls" / key / "docker"
    meta.mkdir(parents=True)
    tls.mkdir(parents=True)
    (tls / "ca.pem").write_text("x")
    (meta / "meta.json").write_text(json.dumps({"Name": "far", "Endpoints": {"docker": {"Host": "tcp://far"}}}))
    endpoint = resolve(choice(tmp_path, context="far"), {"DOCKER_HOST": "unix:///not-this"})
    assert (endpoint.target, endpoint.context) == ("far:2376", "far")
    assert endpoint.tls is not None
    assert endpoint.tls.verify
    assert (endpoint.tls.ca, endpoint.tls.key) == (str(tls / "ca.pem"), "")
    (tmp_path / "config.json").write_text('{"currentContext": "far"}')
    assert resolve(choice(tmp_path), {}).context == "far"


def test_wrong_contexts(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="nosuch"):
        resolve(choice(tmp_path, context="nosuch"), {})
    with pytest.raises(InvalidArgument, match="conflicting"):
        resolve(choice(tmp_path, context="a", host="b"), {})
    meta = tmp_path / "contexts/meta" / hashlib.sha256(b"broken").hexdigest()
    meta.mkdir(parents=True)
    (meta / "meta.json").write_text("{")
    with pytest.raises(InvalidArgument, match="broken"):
        resolve(choice(tmp_path, context="broken"), {})


def test_a_broken_configuration_file_is_an_empty_one(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("not json")
    assert resolve(choice(tmp_path), {}).context == "default"
