"""An engine that is killed among random connects, disconnects, starts, kills and removes: nothing of them is left."""

import contextlib
import json
import random
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from hafen.kernel.nftables import Nftables
from tests.harness.engine import EngineProcess
from tests.harness.netns import World

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

CYCLES = 200
SEED = 1705
NETWORKS = ("one", "two", "six", "home")


@pytest.fixture
def machine(world: World) -> Iterator[EngineProcess]:
    world.give_ipv6()
    with (
        tempfile.TemporaryDirectory(prefix="hafen-netfaults-") as folder,
        EngineProcess(Path(folder) / "e", "--bridge", "hafen0") as engine,
    ):
        engine.load_busybox()
        for command in (
            ("--subnet", "10.1.0.0/24", "one"),
            ("--internal", "two"),
            ("--ipv6", "six"),
            ("-d", "macvlan", "--subnet", "192.0.2.0/24", "--ip-range", "192.0.2.64/26", "-o", "parent=uplink", "home"),
        ):
            engine.docker("network", "create", *command)
        yield engine


def random_step(engine: EngineProcess, chance: random.Random, number: int) -> str:
    """One thing that people do, and what it was, "" where it failed: the container may not be there, or be gone."""
    name, network = f"c{chance.randrange(6)}", chance.choice(NETWORKS)
    kind = chance.choice(["run", "run", "connect", "connect", "disconnect", "start", "kill", "remove", "crash"])
    if kind == "run":
        done = engine.docker(
            "run", "-d", "--name", name, "--net", network, "-p", f"{9000 + number % 50}:80", "-p", "81/udp",
            "--restart", chance.choice(["no", "always"]), "busybox", "sleep", "600", check=False,
        )  # fmt: skip
    elif kind == "crash":
        with engine.docker_beside("network", "connect", network, name):
            time.sleep(chance.uniform(0, 0.05))  # somewhere in the middle of it
            engine.kill()
        engine.start()
        return kind
    else:
        command = {
            "connect": ("network", "connect", network, name),
            "disconnect": ("network", "disconnect", network, name),
            "start": ("start", name),
            "kill": ("kill", name),
            "remove": ("rm", "-f", name),
        }[kind]
        done = engine.docker(*command, check=False)
    return "" if done.code else kind


def test_nothing_is_left_of_two_hundred_cycles(machine: EngineProcess, world: World) -> None:
    chance = random.Random(SEED)
    done = Counter(random_step(machine, chance, number) for number in range(CYCLES))
    assert all(done[kind] > 3 for kind in ("run", "connect", "disconnect", "start", "kill", "remove", "crash")), done
    machine.kill()
    machine.start()
    check_truth(machine, world)
    names = machine.docker("ps", "-aq").stdout.split()
    if names:
        machine.docker("rm", "-f", *names)
    check_truth(machine, world)
    machine.docker("network", "rm", *NETWORKS)
    assert {name for name in world.links() if name.startswith("hf")} == set(), "links"
    assert not list((machine.data / "containers").iterdir()), "files"
    machine.stop()
    assert world.links() == {"lo", "uplink"}
    assert Nftables().run("list ruleset") == ""
    machine.start()
    addresses(machine)


def check_truth(engine: EngineProcess, world: World) -> None:
    """Links, map elements and addresses are those of the containers that run, as the engine shows them."""
    running = engine.docker("ps", "-q").stdout.split()
    shown = json.loads(engine.docker("inspect", *running).stdout) if running else []
    settings = [one for container in shown for one in container["NetworkSettings"]["Networks"].values()]
    ours = {one["EndpointID"][:11] for one in settings if not one["IPAddress"].startswith("192.0.2.")}
    deadline = time.monotonic() + 5
    while (links := {name[2:] for name in world.links() if len(name) == 13 and name.startswith("hf")}) != ours:
        assert time.monotonic() < deadline, f"links {links}, endpoints {ours}"
        time.sleep(0.05)  # a link goes with its namespace, which the kernel takes apart in its own time
    bindings = [
        binding["HostIp"]
        for container in shown
        for several in container["NetworkSettings"]["Ports"].values()
        for binding in several or ()
    ]
    assert redirected("") == bindings.count("0.0.0.0")
    assert redirected("6") <= bindings.count("::"), "the others are relayed"
    told = json.loads(engine.docker("network", "inspect", *NETWORKS, "bridge").stdout)
    assert sum(len(network["Containers"]) for network in told) == len(settings)


def redirected(version: str) -> int:
    """How many ports the ruleset redirects."""
    listed = json.loads(Nftables().run("list table inet hafen", json=True))["nftables"]
    maps = [item["map"] for item in listed if "map" in item]
    return sum(len(one.get("elem", ())) for one in maps if one["name"].startswith(f"published{version}_"))


def addresses(engine: EngineProcess) -> None:
    """A pool that has leaked addresses has no room for as many containers as it is made for."""
    with contextlib.ExitStack() as undo:
        undo.callback(engine.docker, "network", "rm", "tiny")
        engine.docker("network", "create", "--subnet", "10.9.0.0/29", "tiny")
        for _ in range(2):
            for number in range(5):
                engine.docker("run", "-d", "--name", f"t{number}", "--net", "tiny", "busybox", "sleep", "600")
            full = engine.docker("run", "--rm", "--net", "tiny", "busybox", "true", check=False)
            assert "no available IPv4 addresses on this network's address pools: tiny (" in full.stderr
            engine.docker("rm", "-f", *(f"t{number}" for number in range(5)))
