"""The real job: a PostgreSQL from Debian's packages in a container, its data on the host or in a volume."""

import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.engine import EngineProcess, Output

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

INSTALL = """
set -e
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends postgresql >/dev/null
"""

SERVE = """
set -e
data=/var/lib/postgresql/data
bin=$(echo /usr/lib/postgresql/*/bin)
if [ ! -s $data/PG_VERSION ]; then
  install -d -o postgres -g postgres -m 700 $data
  su postgres -c "$bin/initdb -D $data --auth-local=trust >/dev/null"
  su postgres -c "$bin/pg_ctl -D $data -w -o '-c listen_addresses=' start >/dev/null"
  su postgres -c "createdb $POSTGRES_DB"
  su postgres -c "$bin/pg_ctl -D $data -w stop >/dev/null"
fi
exec su postgres -c "exec $bin/postgres -D $data"
"""


@pytest.fixture(scope="module")
def demo(engine: EngineProcess) -> Iterator[EngineProcess]:
    """An engine with `postgres-demo` in it: bootstrapped, installed into and committed."""
    engine.hafen("image", "bootstrap", "debian:bookworm", timeout=400)
    engine.docker("run", "--name", "install", "debian:bookworm", "sh", "-c", INSTALL, timeout=400)
    engine.docker("commit", "install", "postgres-demo", timeout=120)
    engine.docker("rm", "install")
    yield engine
    engine.docker("rmi", "postgres-demo", "debian:bookworm")


def psql(engine: EngineProcess, statement: str) -> Output:
    return engine.docker("exec", "-u", "postgres", "db", "psql", "-qAt", "-d", "demo", "-c", statement, check=False)


def serve(engine: EngineProcess, data: Path | str) -> None:
    engine.docker(
        "run", "-d", "--name", "db", "-e", "POSTGRES_DB=demo", "-v", f"{data}:/var/lib/postgresql",
        "postgres-demo", "sh", "-c", SERVE,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while psql(engine, "select 1").stdout != "1\n":
        assert time.monotonic() < deadline, engine.docker("logs", "db").stderr
        time.sleep(0.2)  # PostgreSQL has no other sign for a client than to answer


def test_a_database_keeps_its_rows(demo: EngineProcess) -> None:
    with tempfile.TemporaryDirectory(prefix="hafen-mydb-") as folder:
        data = Path(folder) / "mydb"
        try:
            serve(demo, data)
            assert psql(demo, "create table ships (name text, length int)").code == 0
            assert psql(demo, "insert into ships values ('Cap San Diego', 159), ('Rickmer Rickmers', 97)").code == 0
            demo.docker("rm", "-f", "db")
            assert (data / "data/PG_VERSION").exists()
            serve(demo, data)
            rows = psql(demo, "select name, length from ships order by length").stdout.splitlines()
            assert rows == ["Rickmer Rickmers|97", "Cap San Diego|159"]
            uid, gid = demo.docker("exec", "db", "stat", "-c", "%u %g", "/var/lib/postgresql/data").stdout.split()
            owner = os.stat(data / "data")
            assert (owner.st_uid, owner.st_gid) == (int(uid), int(gid))
            assert int(uid) != 0
        finally:
            demo.docker("rm", "-f", "db", check=False)


# One committed row after the other; the number of the last is told once the database has said that it is committed.
WRITER = """
i=0
while i=$((i+1)); do
  psql -qd demo -c "insert into log values ($i)" && echo $i >/tmp/.last && mv /tmp/.last /tmp/last
done
"""


def committed(engine: EngineProcess) -> int:
    return int(engine.docker("exec", "db", "cat", "/tmp/last", check=False).stdout or "0")


def wait_committed(engine: EngineProcess, number: int) -> None:
    deadline = time.monotonic() + 60
    while committed(engine) < number:
        assert time.monotonic() < deadline
        time.sleep(0.05)  # rows come as fast as the database takes them


def test_a_snapshot_of_a_running_database_has_every_committed_row(demo: EngineProcess) -> None:
    try:
        serve(demo, "ledger")
        assert psql(demo, "create table log (number int primary key)").code == 0
        demo.docker("exec", "-d", "-u", "postgres", "db", "sh", "-c", WRITER)
        wait_committed(demo, 20)
        before = committed(demo)
        demo.hafen("volume", "snapshot", "create", "ledger", "noon", timeout=120)
        after = committed(demo)
        wait_committed(demo, after + 20)
        demo.docker("rm", "-f", "db")
        demo.hafen("volume", "restore", "ledger", "noon", timeout=120)
        serve(demo, "ledger")
        rows = [int(row) for row in psql(demo, "select number from log order by number").stdout.split()]
        assert rows == list(range(1, len(rows) + 1))
        assert before <= len(rows) <= after + 1
        assert "database system was interrupted" in demo.docker("logs", "db").stderr
    finally:
        demo.docker("rm", "-f", "db", check=False)
        demo.docker("volume", "rm", "ledger", check=False)
