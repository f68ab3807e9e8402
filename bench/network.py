"""Workloads of networks: making them, starting on them, and what goes through them, by Debian's iperf3."""

import io
import json
import re
import shutil
import statistics
import subprocess
import tarfile
import time
from urllib.parse import quote

from bench.api import ApiError, Engine, UnixConnection

IMAGE = "bench-iperf3"
SECONDS = 2  # of one measurement of throughput
_PORT = 5201


def _archive() -> bytes:
    """A root with iperf3, busybox and the libraries that they need."""
    iperf3 = shutil.which("iperf3")
    if iperf3 is None:
        raise SystemExit("bench: iperf3 is not installed (package iperf3)")
    listed = subprocess.run(["ldd", iperf3], capture_output=True, text=True, check=True).stdout
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", dereference=True) as archive:
        for path in [*re.findall(r"(/\S+) \(0x", listed)]:
            archive.add(path, path.lstrip("/"))
        archive.add(iperf3, "bin/iperf3")
        archive.add("/bin/busybox", "bin/sleep")
        folder = tarfile.TarInfo("tmp")
        folder.type, folder.mode = tarfile.DIRTYPE, 0o1777
        archive.addfile(folder)
    return packed.getvalue()


def _bring_image(engine: Engine) -> None:
    try:
        engine.call("GET", f"/images/{IMAGE}/json")
    except ApiError:
        connection = UnixConnection(engine.path)
        connection.request("POST", f"/images/create?fromSrc=-&repo={quote(IMAGE)}", _archive())
        connection.getresponse().read()
        connection.close()


def create_and_remove(engine: Engine) -> float:
    """One network made and removed, in ms."""
    begin = time.perf_counter()
    ident = engine.call("POST", "/networks/create", {"Name": "bench-network"})["Id"]
    engine.call("DELETE", f"/networks/{ident}")
    return (time.perf_counter() - begin) * 1e3


def _start(engine: Engine, network: str) -> float:
    ident = engine.create("busybox", ["sleep", "60"], network=network)
    begin = time.perf_counter()
    engine.start(ident)
    spent = (time.perf_counter() - begin) * 1e3
    engine.remove(ident)
    return spent


def bridge_cost(engine: Engine) -> float:
    """What a start on a bridge takes beyond one without a network: the medians of twenty pairs, in ms."""
    pairs = [(_start(engine, "bridge"), _start(engine, "none")) for _ in range(20)]
    return statistics.median(bridge for bridge, _ in pairs) - statistics.median(none for _, none in pairs)


def start_beside_ports(engine: Engine) -> float:
    """What a start takes with 500 published ports of others, as a share of what it takes with none."""

    def start() -> float:
        return statistics.median(_start_published(engine) for _ in range(9))

    alone = start()
    bindings = {f"{number}/tcp": [{"HostIp": "0.0.0.0", "HostPort": str(number)}] for number in range(20000, 20500)}
    exposed: dict[str, dict[str, str]] = {port: {} for port in bindings}
    crowd = engine.create("busybox", ["sleep", "600"], HostConfig={"PortBindings": bindings}, ExposedPorts=exposed)
    engine.start(crowd)
    try:
        return start() / alone
    finally:
        engine.remove(crowd)


def _start_published(engine: Engine) -> float:
    bindings = {"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "21000"}]}
    ident = engine.create(
        "busybox", ["sleep", "60"], HostConfig={"PortBindings": bindings}, ExposedPorts={"80/tcp": {}}
    )
    begin = time.perf_counter()
    engine.start(ident)
    spent = (time.perf_counter() - begin) * 1e3
    engine.remove(ident)
    return spent


def between_containers(engine: Engine) -> float:
    """MB/s from one container to another on one bridge."""
    return _throughput(engine, client="bridge", published=False)


def through_a_port(engine: Engine) -> float:
    """MB/s from the host to a container, through a port published on the bridge's address."""
    return _throughput(engine, client="host", published=True)


def _throughput(engine: Engine, *, client: str, published: bool) -> float:
    _bring_image(engine)
    bindings = {f"{_PORT}/tcp": [{"HostIp": "0.0.0.0", "HostPort": str(_PORT)}]} if published else {}
    exposed: dict[str, dict[str, str]] = {port: {} for port in bindings}  # Docker publishes no others
    server = engine.create(IMAGE, ["iperf3", "-s"], HostConfig={"PortBindings": bindings}, ExposedPorts=exposed)
    asker = engine.create(IMAGE, ["sleep", "600"], network=client)
    try:
        engine.start(server)
        engine.start(asker)
        settings = engine.call("GET", f"/containers/{server}/json")["NetworkSettings"]["Networks"]["bridge"]
        address = settings["Gateway"] if published else settings["IPAddress"]
        return _measure(engine, asker, address)
    finally:
        engine.remove(server)
        engine.remove(asker)


def _measure(engine: Engine, asker: str, address: str) -> float:
    for _ in range(100):
        said = json.loads(engine.exec(asker, ["iperf3", "-J", "-c", address, "-t", str(SECONDS)]))
        if "error" not in said:
            return float(said["end"]["sum_received"]["bits_per_second"]) / 8e6
        time.sleep(0.1)  # the server is not listening yet
    raise SystemExit(f"bench: iperf3: {said['error']}")
