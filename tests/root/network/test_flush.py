"""Somebody removes our nftables table, as the restart of another firewall does: it is put back."""

import asyncio
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hafen.kernel.nftables import Nftables
from hafen.network.bridge import BridgeDriver
from tests.harness.engine import EngineProcess
from tests.harness.netns import World
from tests.root.network.test_bridge import BRIDGE, peer_of, plugged

pytestmark = pytest.mark.root


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def driver(world: World, told: list[str]) -> Iterator[BridgeDriver]:
    made = BridgeDriver(warn=told.append)
    yield made
    made.close()


def handle(table: str = "hafen") -> int:
    """The kernel's number of the table, 0 where it is not there."""
    listed = json.loads(Nftables().run("list tables inet", json=True))["nftables"]
    return next((int(i["table"]["handle"]) for i in listed if i.get("table", {}).get("name") == table), 0)


async def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


async def events_are_read() -> None:
    """What the kernel has told already."""
    for _ in range(3):
        await asyncio.sleep(0)


async def test_flushed_table_is_put_back_at_once(world: World, driver: BridgeDriver, told: list[str]) -> None:
    driver.watch(asyncio.get_running_loop())
    one, _ = plugged(driver, world, BRIDGE, "172.17.0.2", "8080:80")
    server = one.serve(80)
    told.clear()
    for command in ("flush ruleset", "delete table inet hafen"):
        Nftables().run(command)
        await wait_until(lambda: bool(told))
        assert told == ["the nftables table hafen was removed by somebody else; it is there again"]
        told.clear()
        assert 'iifname != "lo" ip daddr 127.0.0.0/8 drop' in Nftables().run("list chain inet hafen raw")
        world.neighbour.connect("192.0.2.2", 8080).close()
        assert peer_of(server) == "192.0.2.1"


async def test_sender_that_went_past_it_meanwhile_comes_back(world: World, driver: BridgeDriver) -> None:
    one, _ = plugged(driver, world, BRIDGE, "172.17.0.2", "514:514/udp")
    server, sender = one.udp(514), world.neighbour.udp(5000)
    others = "table ip others {\nchain prerouting { type filter hook prerouting priority 0; ct state new accept; }\n}\n"
    Nftables().run(f"flush ruleset\n{others}")
    sender.sendto(b"past it", ("192.0.2.2", 514))
    driver.watch(asyncio.get_running_loop())
    Nftables().run("add table inet hafen")
    Nftables().run("delete table inet hafen")
    await wait_until(lambda: "172.17.0.2" in Nftables().run("list ruleset"))
    sender.sendto(b"to it", ("192.0.2.2", 514))
    assert server.recv(100) == b"to it"


async def test_old_copy_in_its_place_is_replaced(world: World, driver: BridgeDriver) -> None:
    """Who saves the ruleset to load it again when the machine starts saves our table with it."""
    driver.watch(asyncio.get_running_loop())
    plugged(driver, world, BRIDGE, "172.17.0.2")
    saved = Nftables().run("list ruleset")
    one, _ = plugged(driver, world, BRIDGE, "172.17.0.3", "8080:80")
    server = one.serve(80)
    Nftables().run(f"flush ruleset\n{saved}")
    await wait_until(lambda: "172.17.0.3" in Nftables().run("list table inet hafen"))
    world.neighbour.connect("192.0.2.2", 8080).close()
    peer_of(server)


async def test_what_we_do_ourselves_rebuilds_nothing(world: World, driver: BridgeDriver, told: list[str]) -> None:
    driver.watch(asyncio.get_running_loop())
    driver.restore([BRIDGE], [])
    told.clear()
    before = handle()
    _, endpoint = plugged(driver, world, BRIDGE, "172.17.0.2", "8080:80")
    Nftables().run("add table inet others")
    Nftables().run("delete table inet others")
    await events_are_read()
    driver.withdraw(BRIDGE, endpoint)
    await events_are_read()
    assert (handle(), told) == (before, [])
    driver.delete(BRIDGE)
    await events_are_read()
    assert (handle(), told) == (0, [])


async def test_an_engine_watches(world: World) -> None:
    with tempfile.TemporaryDirectory(prefix="hafen-flush-") as folder, EngineProcess(Path(folder) / "e") as engine:
        table = f"hafen-{engine.flags[1]}"
        before = handle(table)
        assert before
        Nftables().run(f"delete table inet {table}")
        words = f"the nftables table {table} was removed by somebody else"
        await wait_until(lambda: words in engine.log.read_text())
        assert handle(table) > before
