"""daemon.json and flags: what counts, what is refused, and where an engine listens."""

import json
from pathlib import Path

import pytest

from hafen.daemon.config import DaemonConfig, check, load
from hafen.errors import InvalidArgument


def written(folder: Path, **values: object) -> str:
    path = folder / "daemon.json"
    path.write_text(json.dumps(values))
    return str(path)


def test_defaults() -> None:
    config = DaemonConfig()
    assert config.addresses == ("unix:///run/hafen/hafen.sock",)
    assert (config.data_root, config.log_driver, config.networks.bridge) == ("/var/lib/hafen", "local", "hafen0")


def test_flags_win_over_the_file(tmp_path: Path) -> None:
    file = written(tmp_path, **{"data-root": "/from/file", "debug": True, "labels": ["a=b"], "bridge": "file0"})
    config = load(["--config-file", file, "--root", str(tmp_path), "--bridge", "flag0"])
    assert (config.data_root, config.networks.bridge) == (str(tmp_path), "flag0")
    assert config.debug
    assert config.labels == ("a=b",)


def test_addresses(tmp_path: Path) -> None:
    config = load(
        ["--config-file", written(tmp_path), "--socket", "/x.sock", "-H", "unix:///y.sock", "--docker-socket"]
    )
    assert config.addresses == ("unix:///x.sock", "unix:///y.sock", "unix:///var/run/docker.sock")


def test_runtimes(tmp_path: Path) -> None:
    config = load(["--config-file", written(tmp_path, runtimes={"kata": {"path": "/usr/bin/kata"}})])
    assert config.runtimes == {"kata": "/usr/bin/kata"}


def test_a_registry(tmp_path: Path) -> None:
    assert load(["--config-file", written(tmp_path, registry="127.0.0.1:1")]).registry == "127.0.0.1:1"
    options = {"addr": "127.0.0.1:1", "no-delete": True, "quota": ["a=1g", "b=2g"], "gc-interval": 5}
    file = written(tmp_path, registry={**options, "images": "local"})
    config = load(["--config-file", file, "--registry", "127.0.0.1:2"])
    assert (config.registry, config.registry_opts, config.registry_images) == ("127.0.0.1:2", options, "local")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"foo": 1, "bar": 2}, "the following directives don't match any configuration option: foo, bar"),
        ({"debug": "yes"}, "the value of debug has the wrong type"),
        ({"hosts": "unix:///x"}, "the value of hosts has the wrong type"),
        ({"log-level": "loud"}, "unknown log level 'loud'"),
        ({"hosts": ["http://x"]}, "cannot listen on 'http://x'"),
        ({"registry": {"htpasswd": "users"}}, "registry is HOST:PORT, or an object with it as addr"),
        ({"registry": {"addr": "127.0.0.1:1", "colour": "red"}}, "registry: unrecognized arguments: --colour=red"),
        ({"registry": {"addr": "127.0.0.1:1", "root": "/x"}}, "registry: root cannot be chosen here"),
        ({"registry": {"addr": "127.0.0.1:1", "images": "A b"}}, "images is a prefix of names, not 'A b'"),
        ({"registry": {"addr": "127.0.0.1:1", "quota": ["team"]}}, "a quota is PREFIX=SIZE"),
    ],
)
def test_bad_files(tmp_path: Path, values: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        load(["--config-file", written(tmp_path, **values)])
    assert message in caught.value.message


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="No such file"):
        load(["--config-file", str(tmp_path / "absent")])
    (tmp_path / "broken").write_text("{")
    with pytest.raises(InvalidArgument, match="is not JSON"):
        load(["--config-file", str(tmp_path / "broken")])


def test_tcp_needs_client_certificates_or_a_word() -> None:
    with pytest.raises(InvalidArgument, match="would give root on this machine to whoever reaches it"):
        check(DaemonConfig(hosts=("tcp://0.0.0.0:2375",)))
    with pytest.raises(InvalidArgument, match="TLS needs --tlscert and --tlskey"):
        check(DaemonConfig(hosts=("tcp://0.0.0.0:2376",), tls_verify=True))
    with pytest.raises(InvalidArgument, match="--tlsverify needs --tlscacert"):
        check(DaemonConfig(tls_verify=True, tls_cert="c", tls_key="k"))
    assert check(DaemonConfig(hosts=("tcp://127.0.0.1:2375",), insecure=True)).insecure


def test_log_options_by_flag(tmp_path: Path) -> None:
    flags = ["--config-file", written(tmp_path), "--log-driver", "json-file"]
    config = load([*flags, "--log-opt", "max-size=1k", "--log-opt", "tag=a=b"])
    assert (config.log_driver, config.log_opts) == ("json-file", {"max-size": "1k", "tag": "a=b"})
