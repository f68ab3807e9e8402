"""Links open ports where the default network keeps its containers apart, and close them again."""

import asyncio
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from hafen.engine.guests import Guest
from hafen.engine.netdefaults import NetworkDefaults
from hafen.kernel.nftables import Nftables
from hafen.spec.ports import Port
from tests.harness.engine import EngineProcess
from tests.harness.netns import Netns, World
from tests.harness.networks import NetworkEngine

pytestmark = pytest.mark.root

SLEEP = ("busybox", "sleep", "1000")


@pytest.fixture
def engine(world: World, tmp_path: Path) -> Iterator[NetworkEngine]:
    made = NetworkEngine(world, tmp_path, NetworkDefaults(icc=False))
    asyncio.run(made.networks.restore())
    yield made
    made.crash()


async def joined(engine: NetworkEngine) -> tuple[Guest, Netns, str]:
    """A container, its namespace and its address."""
    guest = engine.guest()
    got = await engine.attach(guest)
    return guest, engine.namespaces[guest.id], got.networks["bridge"].ip_address


async def test_exposed_ports_and_no_others(engine: NetworkEngine) -> None:
    web, inside_web, _ = await joined(engine)
    _, stranger, _ = await joined(engine)
    db = engine.guest()
    engine.members.links = [(web.id, db.id, [Port(80), Port(53, "udp")])]
    address = (await engine.attach(db)).networks["bridge"].ip_address
    inside_db = engine.namespaces[db.id]
    servers = [inside_db.serve(80), inside_db.serve(81)]
    inside_web.connect(address, 80).close()
    questions, question = inside_db.udp(53), inside_web.udp()
    question.sendto(b"question", (address, 53))
    data, sender = questions.recvfrom(100)
    questions.sendto(b"answer", sender)
    assert (data, question.recv(100)) == (b"question", b"answer")
    assert not inside_web.reaches(address, 81), "not exposed"
    assert not stranger.reaches(address, 80), "not linked"
    own = inside_web.serve(80)
    assert not inside_db.reaches(sender[0], 80), "linked the other way round"
    for server in (*servers, own):
        server.close()
    engine.members.links = []
    engine.networks.follow_links()
    assert not inside_web.reaches(address, 80), "the link was removed"


async def test_both_may_come_and_go(engine: NetworkEngine) -> None:
    web, db = engine.guest(), engine.guest()
    engine.members.links = [(web.id, db.id, [Port(80)]), (web.id, "of one that is gone", [Port(80)])]
    await engine.attach(web)
    for _ in range(2):
        address = (await engine.attach(db)).networks["bridge"].ip_address
        server = engine.namespaces[db.id].serve(80)
        engine.namespaces[web.id].connect(address, 80).close()
        server.close()
        assert f". {address} . tcp . 80" in linked()
        engine.networks.release(db.id)
        assert "80" not in linked(), "nobody has the address"
    await engine.attach(db)
    engine.networks.release(web.id)
    assert "80" not in linked()


def linked() -> str:
    return Nftables().run("list set inet hafen linked").partition("elements")[2]


async def test_engine_that_was_killed(engine: NetworkEngine) -> None:
    web, inside, _ = await joined(engine)
    db, inside_db, address = await joined(engine)
    engine.members.links = [(web.id, db.id, [Port(80)])]
    engine.networks.follow_links()
    before = linked()
    assert address in before
    engine.crash()
    engine.start()
    await engine.networks.restore([web, db])
    assert linked() == before
    server = inside_db.serve(80)
    inside.connect(address, 80).close()
    server.close()


async def test_nothing_of_it_where_containers_reach_each_other(world: World, tmp_path: Path) -> None:
    engine = NetworkEngine(world, tmp_path)
    await engine.networks.restore()
    web, _, _ = await joined(engine)
    db, _, _ = await joined(engine)
    engine.members.links = [(web.id, db.id, [Port(80)])]
    engine.networks.follow_links()
    assert "80" not in linked()
    assert Path("/proc/sys/net/ipv4/conf/hafen0/proxy_arp_pvlan").read_text() == "0\n"  # noqa: ASYNC240 - the kernel's
    engine.crash()


def test_of_the_command(world: World) -> None:
    with (
        tempfile.TemporaryDirectory(prefix="hafen-links-") as folder,
        EngineProcess(Path(folder) / "e", "--bridge", "hafen0", "--icc=false") as engine,
    ):
        engine.load_busybox()
        engine.docker("run", "-d", "--name", "db", "--expose", "80", *SLEEP)
        engine.docker("run", "-d", "--name", "web", "--link", "db", *SLEEP)
        assert ". 172.17.0.2 . tcp . 80" in linked()
        engine.docker("rm", "--link", "/web/db")
        assert "80" not in linked()
