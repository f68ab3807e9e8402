"""Links: variables, /etc/hosts and names on the default bridge, an alias of one container's own elsewhere."""

import itertools
import json
import uuid
from collections.abc import Iterator

import pytest

from tests.harness.engine import EngineProcess

pytestmark = pytest.mark.root

SLEEP = ("busybox", "sleep", "1000")


def hosts(engine: EngineProcess, container: str) -> dict[str, str]:
    """Address by the rest of its line, of what is not the local host's."""
    lines = engine.docker("exec", container, "cat", "/etc/hosts").stdout.splitlines()
    return {names: address for address, names in (line.split("\t") for line in lines) if "ip6-" not in names}


def address(engine: EngineProcess, container: str) -> str:
    shown = engine.docker("inspect", "-f", "{{.NetworkSettings.Networks.bridge.IPAddress}}", container)
    return shown.stdout.strip()


def links(engine: EngineProcess, container: str) -> list[str] | None:
    shown = engine.docker("inspect", "-f", "{{json .HostConfig.Links}}", container).stdout
    found: list[str] | None = json.loads(shown)
    return found


@pytest.fixture
def db(engine: EngineProcess) -> Iterator[str]:
    """A container that others link to; its name and those that begin with it go at the end."""
    name = f"db{uuid.uuid4().hex[:8]}"
    options = (
        "-e",
        "USER_NAME=me",
        "-e",
        "PATH=/bin",
        "--expose",
        "5432",
        "--expose",
        "6000-6001",
        "--expose",
        "53/udp",
    )
    engine.docker("run", "-d", "--name", name, *options, *SLEEP)
    yield name
    for one in engine.docker("ps", "-aq", "--filter", f"name={name}").stdout.split():
        engine.docker("rm", "-f", one)


def test_variables_and_hosts(engine: EngineProcess, db: str) -> None:
    own = f"{db}-w"
    shown = engine.docker(
        "run", "--rm", "--name", own, "--link", f"{db}:my-sql", "busybox", "sh", "-c", "env; cat /etc/hosts"
    )
    lines = shown.stdout.splitlines()
    ip = address(engine, db)
    assert {line for line in lines if line.startswith("MY_SQL_")} == {
        f"MY_SQL_NAME=/{own}/my-sql", "MY_SQL_ENV_USER_NAME=me", f"MY_SQL_PORT=udp://{ip}:53",
        *(f"MY_SQL_PORT_53_UDP{rest}" for rest in (f"=udp://{ip}:53", f"_ADDR={ip}", "_PORT=53", "_PROTO=udp")),
        *(f"MY_SQL_PORT_5432_TCP{rest}" for rest in (f"=tcp://{ip}:5432", f"_ADDR={ip}", "_PORT=5432", "_PROTO=tcp")),
        *(f"MY_SQL_PORT_6000_TCP{rest}" for rest in (f"=tcp://{ip}:6000", f"_ADDR={ip}", "_PORT=6000", "_PROTO=tcp")),
        *(f"MY_SQL_PORT_6000_TCP_{rest}" for rest in (
            f"START=tcp://{ip}:6000", f"END=tcp://{ip}:6001", "PORT_START=6000", "PORT_END=6001")),
        *(f"MY_SQL_PORT_6001_TCP{rest}" for rest in (f"=tcp://{ip}:6001", f"_ADDR={ip}", "_PORT=6001", "_PROTO=tcp")),
    }  # fmt: skip
    hostname = engine.docker("inspect", "-f", "{{.Config.Hostname}}", db).stdout.strip()
    assert f"{ip}\tmy-sql {hostname} {db}" in lines


def test_an_exec_and_names(engine: EngineProcess, db: str) -> None:
    web = f"{db}-web"
    engine.docker("run", "-d", "--name", web, "--link", f"{db}:sql", "--link", db, *SLEEP)
    assert f"SQL_NAME=/{web}/sql" in engine.docker("exec", web, "env").stdout.splitlines()
    assert links(engine, web) == [f"/{db}:/{web}/sql", f"/{db}:/{web}/{db}"]
    shown = engine.docker("ps", "--no-trunc", "--filter", f"name={web}/sql", "--format", "{{.Names}}").stdout
    assert sorted(shown.strip().split(",")) == sorted((db, f"{web}/{db}", f"{web}/sql"))
    assert engine.docker("exec", f"{web}/sql", "hostname").stdout == engine.docker("exec", db, "hostname").stdout
    engine.docker("rename", web, f"{web}2")
    assert links(engine, f"{web}2") == [f"/{db}:/{web}2/sql", f"/{db}:/{web}2/{db}"]


def test_a_new_address_is_followed(engine: EngineProcess, db: str) -> None:
    web = f"{db}-web"
    engine.docker("run", "-d", "--name", web, "--link", f"{db}:sql", *SLEEP)
    engine.docker("exec", web, "sh", "-c", "echo '10.9.8.7\tmine' >>/etc/hosts")
    before = address(engine, db)
    for number in itertools.count():
        engine.docker("kill", db)
        engine.kill()  # who had which address is forgotten: the lowest free one is the taker's
        engine.start()
        engine.docker("run", "-d", "--name", f"{db}-taker-{number}", *SLEEP)
        engine.docker("start", db)
        if address(engine, db) != before:
            break
    found = hosts(engine, web)
    assert {names.split()[0]: ip for names, ip in found.items() if names.startswith("sql ")} == {
        "sql": address(engine, db)
    }
    assert found["mine"] == "10.9.8.7"


def test_links_outlive_the_engine(engine: EngineProcess, db: str) -> None:
    web = f"{db}-web"
    engine.docker("run", "-d", "--name", web, "--link", f"{db}:sql", *SLEEP)
    engine.kill()
    engine.start()
    assert links(engine, web) == [f"/{db}:/{web}/sql"]
    engine.docker("restart", "-t", "0", web)
    assert any(names.startswith("sql ") for names in hosts(engine, web))


def test_rm_link(engine: EngineProcess, db: str) -> None:
    web = f"{db}-web"
    engine.docker("run", "-d", "--name", web, "--link", f"{db}:sql", "--link", db, *SLEEP)
    assert engine.docker("rm", "--link", f"/{web}/sql").stdout == f"/{web}/sql\n"
    assert links(engine, web) == [f"/{db}:/{web}/{db}"]
    assert not any(names.startswith("sql ") for names in hosts(engine, web))
    absent = engine.docker("rm", "--link", f"{web}/sql", check=False)
    assert f"No such container: {web}/sql" in absent.stderr
    own = engine.docker("rm", "--link", db, check=False)
    assert "Conflict, cannot remove the default link name of the container" in own.stderr


def test_a_target_that_is_away(engine: EngineProcess, db: str) -> None:
    web = f"{db}-web"
    engine.docker("run", "-d", "--name", web, "--link", f"{db}:sql", *SLEEP)
    engine.docker("rm", "-f", db)
    text = f"Cannot link to a non running container: /{db} AS /{web}/sql"
    assert text in engine.docker("exec", web, "true", check=False).stderr
    assert text in engine.docker("restart", "-t", "0", web, check=False).stderr
    assert links(engine, web) == [f"/{db}:/{web}/sql"]


@pytest.mark.parametrize(
    ("mode", "text"),
    [
        ("host", "conflicting options: host type networking can't be used with links"),
        ("none", "Cannot link to /{target}, as it does not belong to the default network"),
    ],
)
def test_targets_that_cannot_be(engine: EngineProcess, db: str, mode: str, text: str) -> None:
    target = f"{db}-{mode}"
    engine.docker("run", "-d", "--name", target, "--network", mode, *SLEEP)
    refused = engine.docker("run", "--name", f"{db}-x", "--link", f"{target}:t", "busybox", "true", check=False)
    assert refused.code == 125
    assert text.format(target=target) in refused.stderr


def test_no_such_target(engine: EngineProcess) -> None:
    refused = engine.docker("create", "--link", "nobody:x", "busybox", check=False)
    assert "could not get container for nobody: No such container: nobody" in refused.stderr


def test_on_a_network_of_ones_own(engine: EngineProcess, db: str) -> None:
    network = f"n{db}"
    engine.docker("network", "create", network)
    try:
        engine.docker("run", "-d", "--name", f"{db}-t", "--network", network, *SLEEP)
        engine.docker("run", "-d", "--name", f"{db}-o", "--network", network, *SLEEP)
        engine.docker("run", "-d", "--name", f"{db}-w", "--network", network, "--link", f"{db}-t:sql", *SLEEP)
        assert engine.docker("exec", f"{db}-w", "ping", "-c", "1", "sql").code == 0
        assert engine.docker("exec", f"{db}-o", "nslookup", "sql", check=False).code != 0
        assert "SQL_" not in engine.docker("exec", f"{db}-w", "env").stdout
        assert links(engine, f"{db}-w") is None
    finally:
        for letter in "two":
            engine.docker("rm", "-f", f"{db}-{letter}", check=False)
        engine.docker("network", "rm", network)
