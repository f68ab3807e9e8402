"""Execs that outlive an engine on disk."""

import asyncio
from pathlib import Path

from hafen.engine.execrecords import ExecRecords
from hafen.engine.records import Container, Containers, Exec, Record
from hafen.spec.wire.container import ContainerConfig
from hafen.spec.wire.exec import ExecConfig
from hafen.spec.wire.hostconfig import HostConfig
from hafen.storage.database import Database


def container(database: Database, containers: Containers) -> Container:
    record = Record(
        id="c" * 64, name="box", created_ns=1, image="i", image_id="i", config=ContainerConfig(),
        host_config=HostConfig(), path="a", args=(), snapshotter="overlay",
    )  # fmt: skip
    with database.transaction():
        containers.insert(record)
    return containers.publish(record)


def reload(database: Database) -> dict[str, Exec]:
    """What a later engine finds."""
    containers = Containers(database)
    containers.load()
    ExecRecords(database, containers).load()
    return containers.execs


def test_execs_are_found_again_and_forgotten_with_their_container(tmp_path: Path) -> None:
    async def scenario() -> None:
        database = Database(tmp_path / "db")
        containers = Containers(database)
        owner = container(database, containers)
        rows = ExecRecords(database, containers)
        waits = Exec("1", owner, ExecConfig(cmd=["true"]))
        ended = Exec("2", owner, ExecConfig(cmd=["false"], tty=True), started=True)
        for one in (waits, ended):
            containers.execs[one.id] = owner.execs[one.id] = one
            rows.insert(one)
        ended.pid, ended.exit_code = 42, 3
        rows.ended(ended)

        again = reload(database)
        assert (again["1"].started, again["1"].exit_code, again["1"].config.cmd) == (False, None, ["true"])
        assert (again["2"].started, again["2"].exit_code, again["2"].pid, again["2"].config.tty) == (True, 3, 42, True)

        rows.forget([ended])
        assert set(reload(database)) == {"1"} == set(owner.execs) == set(containers.execs)

        with database.transaction():
            containers.delete(owner)
        assert not reload(database)
        assert database.row("SELECT count(*) FROM execs") == (0,)
        database.close()

    asyncio.run(scenario())


def test_a_row_without_its_container_is_removed(tmp_path: Path) -> None:
    async def scenario() -> None:
        database = Database(tmp_path / "db")
        with database.transaction():
            database.execute("INSERT INTO execs (id, container, config) VALUES ('1', 'gone', x'7b7d')")
        assert not reload(database)
        assert database.row("SELECT count(*) FROM execs") == (0,)
        database.close()

    asyncio.run(scenario())
