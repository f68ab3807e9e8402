"""An engine on a machine of its own (network namespaces), with a neighbour beside it: the old examples as people were
given them, who must not get through, and two hosts whose containers talk."""

import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hafen.kernel.nftables import Nftables
from hafen.network import dnswire
from tests.harness.engine import EngineProcess
from tests.harness.netns import Netns, World

pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]

PAGE = "mkdir -p /www; echo hello >/www/index.html; exec httpd -f -p {listen}:80 -h /www"


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    made.give_ipv6()
    yield made
    made.close()


@pytest.fixture
def machine(world: World) -> Iterator[EngineProcess]:
    """The engine runs in the namespace that plays the host, and has it for itself."""
    with tempfile.TemporaryDirectory(prefix="hafen-networks-") as folder:
        with EngineProcess(Path(folder) / "e", "--bridge", "hafen0") as engine:
            engine.load_busybox()
            yield engine
        deadline = time.monotonic() + 5
        while world.links() != {
            "lo",
            "uplink",
        }:  # a veth goes with its namespace, when a worker of the kernel gets to it
            assert time.monotonic() < deadline, world.links()
            time.sleep(0.05)
        assert Nftables().run("list ruleset") == ""


@contextmanager
def second_host(world: World) -> Iterator[EngineProcess]:
    """Another engine, on the machine next door."""
    with (
        world.neighbour.entered(),
        tempfile.TemporaryDirectory(prefix="hafen-networks-") as folder,
        EngineProcess(Path(folder) / "e", "--bridge", "hafen1") as engine,
    ):
        engine.load_busybox()
        yield engine


def page(engine: EngineProcess, name: str, *options: str, listen: str = "0.0.0.0") -> None:
    """A container that serves "hello" on its port 80."""
    engine.docker("run", "-d", "--name", name, *options, "busybox", "sh", "-c", PAGE.format(listen=listen))


def curl(netns: Netns, url: str) -> str:
    return netns.run("curl", "-sg", "--noproxy", "*", "-m", "3", "--retry", "3", "--retry-all-errors", url).stdout


def refused(netns: Netns, url: str) -> bool:
    return netns.run("curl", "-sg", "--noproxy", "*", "-m", "1", url).returncode != 0


def fetch(engine: EngineProcess, container: str, host: str, port: int = 80) -> str:
    """The page that the container gets from there; "" for none."""
    request = f"printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 2 {host} {port}"
    return engine.docker("exec", container, "sh", "-c", request, check=False).stdout.rpartition("\r\n\r\n")[2]


def test_two_containers_in_their_own_subnet_with_fixed_addresses(machine: EngineProcess, tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("from the host's directory\n")
    machine.docker("network", "create", "--subnet=172.18.0.0/16", "mynet")
    machine.docker(
        "run", "-d", "--net", "mynet", "--ip", "172.18.0.22", "--name", "one", "-v", f"{tmp_path}:/www", "busybox",
        "httpd", "-f", "-h", "/www",
    )  # fmt: skip
    machine.docker("run", "-d", "--net", "mynet", "--ip", "172.18.0.23", "--name", "two", "busybox", "sleep", "600")
    assert fetch(machine, "two", "172.18.0.22") == "from the host's directory\n"
    assert fetch(machine, "two", "one") == "from the host's directory\n"
    shown = machine.docker("inspect", "-f", "{{.NetworkSettings.Networks.mynet.IPAddress}}", "one", "two").stdout
    assert shown.split() == ["172.18.0.22", "172.18.0.23"]
    machine.docker("restart", "-t", "0", "one")
    assert fetch(machine, "two", "172.18.0.22") == "from the host's directory\n"


DATABASE = """
set -e
install -d -o mysql -g mysql /var/lib/data /run/mysqld
mariadb-install-db --user=mysql --datadir=/var/lib/data --auth-root-authentication-method=normal >/dev/null
exec mariadbd --user=mysql --datadir=/var/lib/data --bind-address=0.0.0.0 --skip-name-resolve \
  --init-file=/etc/hafen-init.sql
"""
INIT = "CREATE DATABASE app;\nCREATE USER app@'%' IDENTIFIED BY 'secret';\nGRANT ALL ON app.* TO app@'%';\n"
APPLICATION = (
    'mariadb -h mysql -P "$MYSQL_PORT_3306_TCP_PORT" -uapp -p"$MYSQL_ENV_PASSWORD" app -Nse '
    "\"CREATE TABLE ships (name TEXT); INSERT INTO ships VALUES ('Rickmer Rickmers'); SELECT name FROM ships\" && "
    'echo "$MYSQL_PORT_3306_TCP_ADDR" && grep -c mysql /etc/hosts'
)


def test_an_application_linked_to_its_database(machine: EngineProcess, tmp_path: Path) -> None:
    """MariaDB of Debian's packages, in containers of the `host` image."""
    (tmp_path / "init.sql").write_text(INIT)
    machine.docker(
        "run", "-d", "--name", "db", "-e", "PASSWORD=secret", "--expose", "3306",
        "-v", f"{tmp_path}/init.sql:/etc/hafen-init.sql:ro", "host", "sh", "-c", DATABASE,
    )  # fmt: skip
    ready = ("exec", "db", "mariadb", "-h", "127.0.0.1", "-uapp", "-psecret", "app", "-Nse", "SELECT 1")
    deadline = time.monotonic() + 60
    while machine.docker(*ready, check=False).stdout != "1\n":
        assert time.monotonic() < deadline, machine.docker("logs", "--tail", "20", "db").stderr
        time.sleep(0.2)  # a server has no other sign for a client than to answer
    said = machine.docker("run", "--rm", "--link", "db:mysql", "host", "sh", "-c", APPLICATION).stdout.splitlines()
    address = machine.docker("inspect", "-f", "{{.NetworkSettings.Networks.bridge.IPAddress}}", "db").stdout.strip()
    assert said == ["Rickmer Rickmers", address, "1"]


def test_a_published_port_from_everywhere(machine: EngineProcess, world: World) -> None:
    page(machine, "web", "-p", "8080:80")
    assert machine.docker("port", "web").stdout.splitlines() == ["80/tcp -> 0.0.0.0:8080", "80/tcp -> [::]:8080"]
    for url in ("127.0.0.1", "192.0.2.2", "[::1]", "[2001:db8::2]", "172.17.0.1"):
        assert curl(world.host, f"http://{url}:8080/") == "hello\n", url
    for url in ("192.0.2.2", "[2001:db8::2]"):
        assert curl(world.neighbour, f"http://{url}:8080/") == "hello\n", url
    machine.docker("run", "-d", "--name", "other", "busybox", "sleep", "600")
    machine.docker("network", "create", "--ipv6", "apart")
    machine.docker("run", "-d", "--name", "apart", "--net", "apart", "busybox", "sleep", "600")
    for container in ("other", "apart", "web"):
        assert fetch(machine, container, "192.0.2.2", 8080) == "hello\n", container
    assert fetch(machine, "apart", "2001:db8::2", 8080) == "hello\n"
    page(machine, "dual", "-p", "8081:80", "--net", "apart", listen="[::]")
    assert curl(world.neighbour, "http://192.0.2.2:8081/") == "hello\n"
    assert curl(world.neighbour, "http://[2001:db8::2]:8081/") == "hello\n"
    taken = machine.docker("run", "--rm", "-p", "8080:80", "busybox", "true", check=False)
    assert "Bind for 0.0.0.0:8080 failed: port is already allocated (by web)" in taken.stderr
    machine.docker("rm", "-f", "web")
    assert refused(world.neighbour, "http://192.0.2.2:8080/")


def test_published_ports_outlive_the_engine(machine: EngineProcess, world: World) -> None:
    page(machine, "web", "-p", "8080:80")
    assert curl(world.neighbour, "http://192.0.2.2:8080/") == "hello\n"
    machine.kill()
    assert curl(world.neighbour, "http://192.0.2.2:8080/") == "hello\n", "redirected by the kernel"
    machine.start()
    for url in ("192.0.2.2", "[2001:db8::2]"):
        assert curl(world.neighbour, f"http://{url}:8080/") == "hello\n"


def test_who_must_not_get_through(machine: EngineProcess, world: World) -> None:
    machine.docker("network", "create", "one")
    machine.docker("network", "create", "two")
    machine.docker("network", "create", "--internal", "inner")
    for container, network in (("aa", "one"), ("bb", "two"), ("cc", "inner"), ("dd", "inner")):
        page(machine, container, "--net", network)
    address = {
        name: machine.docker(
            "inspect", "-f", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", name
        ).stdout.strip()
        for name in ("aa", "bb", "cc", "dd")
    }
    assert fetch(machine, "aa", f"{address['bb']}") == "", "another bridge"
    assert fetch(machine, "aa", "bb") == "", "whose names are not known either"
    assert fetch(machine, "cc", f"{address['dd']}") == "hello\n"
    assert fetch(machine, "cc", "192.0.2.1") == ""
    assert machine.docker("exec", "cc", "ping", "-c1", "-W1", "192.0.2.1", check=False).code != 0, "an internal network"
    assert fetch(machine, "aa", f"{address['cc']}") == ""
    page(machine, "local", "-p", "127.0.0.1:8080:80")
    assert curl(world.host, "http://127.0.0.1:8080/") == "hello\n"
    assert refused(world.neighbour, "http://192.0.2.2:8080/"), "published on the loopback"
    world.neighbour.run("ip", "route", "add", "127.0.0.2", "via", "192.0.2.2")
    world.neighbour.run("sysctl", "-qw", "net.ipv4.conf.uplink.route_localnet=1")
    assert refused(world.neighbour, "http://127.0.0.2:8080/")
    world.neighbour.run("ip", "route", "add", "172.16.0.0/12", "via", "192.0.2.2")
    for name in ("aa", "bb", "cc"):
        assert refused(world.neighbour, f"http://{address[name]}/"), "a container's own address, past what is published"


HOST_RULES = """
table inet hosts {
  chain input {
    type filter hook input priority filter; policy drop;
    iif lo accept
    ct state established,related accept
    tcp dport 8081 accept
  }
}
"""


def test_the_hosts_firewall_is_respected_where_it_is_told(world: World) -> None:
    with tempfile.TemporaryDirectory(prefix="hafen-networks-") as folder:
        base = Path(folder) / "e"
        base.mkdir()
        (base / "daemon.json").write_text('{"firewall": "respect"}')
        flags = ("--bridge", "hafen0", "--config-file", str(base / "daemon.json"))
        with EngineProcess(base, *flags) as engine:
            engine.load_busybox()
            page(engine, "web", "-p", "8080:80", "-p", "8081:80")
            assert curl(world.neighbour, "http://192.0.2.2:8080/") == "hello\n"
            Nftables().run(HOST_RULES)
            assert refused(world.neighbour, "http://192.0.2.2:8080/")
            assert curl(world.neighbour, "http://192.0.2.2:8081/") == "hello\n"
            assert curl(world.host, "http://127.0.0.1:8080/") == "hello\n"
            Nftables().run("delete table inet hosts")
        assert Nftables().run("list ruleset") == ""
        assert "fwmark" not in world.host.run("ip", "rule").stdout


def test_macvlan_on_two_hosts(machine: EngineProcess, world: World) -> None:
    """The neighbour is the second host: its container is on the same cable."""
    create = ("network", "create", "-d", "macvlan", "--subnet", "192.0.2.0/24", "--gateway", "192.0.2.1")
    machine.docker(*create, "--ip-range", "192.0.2.64/27", "-o", "parent=uplink", "home")
    page(machine, "web", "--net", "home", "--ip", "192.0.2.70")
    assert curl(world.neighbour, "http://192.0.2.70/") == "hello\n"
    with second_host(world) as second:
        second.docker(*create, "--ip-range", "192.0.2.96/27", "-o", "parent=uplink", "home")
        page(second, "web", "--net", "home", "--ip", "192.0.2.100")
        assert fetch(second, "web", "192.0.2.70") == "hello\n"
        assert fetch(machine, "web", "192.0.2.100") == "hello\n"
        machine.docker("run", "-d", "--name", "late", "--net", "home", "busybox", "sleep", "600")
        assert fetch(machine, "late", "192.0.2.100") == "hello\n"


def test_routed_bridges_on_two_hosts(machine: EngineProcess, world: World) -> None:
    """Each host routes the other's containers; nothing is translated on the way."""
    routed = ("network", "create", "-o", "com.docker.network.bridge.gateway_mode_ipv4=routed", "--subnet")
    machine.docker(*routed, "10.1.0.0/24", "left")
    world.host.run("ip", "route", "add", "10.2.0.0/24", "via", "192.0.2.1")
    world.neighbour.run("ip", "route", "add", "10.1.0.0/24", "via", "192.0.2.2")
    page(machine, "web", "--net", "left", "--ip", "10.1.0.7", "-p", "80")
    with second_host(world) as second:
        second.docker(*routed, "10.2.0.0/24", "right")
        page(second, "web", "--net", "right", "--ip", "10.2.0.7", "-p", "80")
        assert fetch(second, "web", "10.1.0.7") == "hello\n"
        assert fetch(machine, "web", "10.2.0.7") == "hello\n"
        assert fetch(second, "web", "10.1.0.7", 81) == "", "only what is published"
        assert second.docker("exec", "web", "ping", "-c1", "-W2", "10.1.0.7").code == 0


def test_sysctls_and_names_of_an_interface(machine: EngineProcess) -> None:
    """Written by a child of the zygote, which can enter the namespace; also where the container runs already."""
    machine.docker("network", "create", "mine")
    opts = "driver-opt=com.docker.network.endpoint.sysctls=net.ipv4.conf.IFNAME.log_martians=1"
    name = "driver-opt=com.docker.network.endpoint.ifname=lan0"
    machine.docker("run", "-d", "--name", "cc", "--network", f"name=mine,{opts},{name}", "busybox", "sleep", "600")
    sysctl = "/proc/sys/net/ipv4/conf/{}/log_martians"
    assert machine.docker("exec", "cc", "cat", sysctl.format("lan0")).stdout == "1\n"
    machine.docker("network", "connect", "--driver-opt", opts.removeprefix("driver-opt="), "bridge", "cc")
    assert machine.docker("exec", "cc", "cat", sysctl.format("eth0")).stdout == "1\n"


def answer_names(server: socket.socket) -> None:
    """Knows every name as 192.0.2.99, until it is told to end by an empty datagram."""
    while True:
        data, client = server.recvfrom(1000)
        if not data:
            return
        server.sendto(dnswire.addresses(dnswire.parse_query(data), ["192.0.2.99"]), client)


def test_names_are_asked_of_the_servers_that_the_host_has_now(world: World, tmp_path: Path) -> None:
    """The engine sees a resolv.conf of this test's own, which changes while a container runs; a container with servers
    of its own asks those, from inside."""
    resolv_conf = tmp_path / "resolv.conf"
    resolv_conf.write_text("nameserver 192.0.2.77\n")
    server = world.neighbour.udp(53, "192.0.2.1")
    server.settimeout(None)
    thread = threading.Thread(target=answer_names, args=(server,), daemon=True)
    thread.start()
    engine = EngineProcess(tmp_path / "e", "--bridge", "hafen0")
    bind = f'mount --bind {resolv_conf} /etc/resolv.conf && exec "$@"'
    engine.prefix = ("unshare", "-m", "sh", "-c", bind, "sh")
    with engine:
        engine.load_busybox()
        engine.docker("network", "create", "mine")
        engine.docker("run", "-d", "--name", "web", "--net", "mine", "busybox", "sleep", "600")
        look_up = ("exec", "web", "nslookup", "-type=a", "somewhere.test")
        assert "192.0.2.99" not in engine.docker(*look_up, check=False).stdout
        own = ("run", "--rm", "--net", "mine", "--dns", "192.0.2.1", "busybox", "nslookup", "-type=a", "somewhere.test")
        assert "192.0.2.99" in engine.docker(*own, check=False).stdout
        resolv_conf.write_text("nameserver 192.0.2.1\n")
        assert "192.0.2.99" in engine.docker(*look_up, check=False).stdout
    world.host.udp().sendto(b"", ("192.0.2.1", 53))
    thread.join(5)
