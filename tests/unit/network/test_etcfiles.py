"""The text of a container's /etc files, compared with what Docker 26.1 writes."""

from pathlib import Path

import pytest

from hafen.errors import InvalidArgument
from hafen.network import etcfiles
from hafen.network.etcfiles import EtcFiles, Resolver

HOST = Resolver(("10.0.0.53",), ("example.org",), ("edns0",))


def test_resolv_conf_is_parsed() -> None:
    text = "# comment\nnameserver 1.1.1.1 # one\nnameserver fe80::1%eth0\ndomain a\nsearch b c\n"
    found = etcfiles.parse_resolv_conf(text + "options ndots:2\noptions x\n;\nnameserver\nnonsense\n")
    assert found == Resolver(("1.1.1.1", "fe80::1%eth0"), ("b", "c"), ("ndots:2", "x"))


def test_what_the_user_gives_replaces_the_hosts() -> None:
    assert etcfiles.override(HOST, (), (), ()) == HOST
    assert etcfiles.override(HOST, ("8.8.8.8",), (".",), ("ndots:1",)) == Resolver(("8.8.8.8",), (), ("ndots:1",))


@pytest.mark.parametrize(
    ("servers", "expected"),
    [
        (("127.0.0.53",), ("8.8.8.8", "8.8.4.4")),
        (("127.0.0.1", "10.0.0.1", "::1"), ("10.0.0.1",)),
        (("fe80::1%eth0",), ("fe80::1%eth0",)),
        ((), ("8.8.8.8", "8.8.4.4")),
    ],
)
def test_loopback_servers_are_not_the_containers(servers: tuple[str, ...], expected: tuple[str, ...]) -> None:
    assert etcfiles.without_loopback(Resolver(servers)).servers == expected


def test_resolv_conf_of_a_user_defined_network() -> None:
    text = etcfiles.resolv_conf(etcfiles.embedded(HOST), HOST.servers)
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert lines == ["nameserver 127.0.0.11", "search example.org", "options edns0 ndots:0"]
    assert "10.0.0.53" in text
    assert etcfiles.embedded(Resolver(options=("ndots:5",))).options == ("ndots:5",)


def test_hosts() -> None:
    text = etcfiles.hosts(["172.17.0.3", ""], "h1", "dom.x", [("1.2.3.4", "foo"), ("172.17.0.1", "gw")])
    assert text == (
        "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::0\tip6-localnet\n"
        "ff00::0\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n"
        "1.2.3.4\tfoo\n172.17.0.1\tgw\n172.17.0.3\th1.dom.x h1\n"
    )
    assert etcfiles.hosts(["172.17.0.3"], "h1", "", []).endswith("172.17.0.3\th1\n")
    assert etcfiles.hosts(["172.17.0.3"], "h1.dom.x", "", []).endswith("172.17.0.3\th1.dom.x h1\n")


def test_extra_hosts() -> None:
    assert etcfiles.parse_extra_host("a:1.2.3.4", ()) == [("1.2.3.4", "a")]
    assert etcfiles.parse_extra_host("a=1.2.3.4", ()) == [("1.2.3.4", "a")]
    assert etcfiles.parse_extra_host("a:::1", ()) == [("::1", "a")]
    assert etcfiles.parse_extra_host("a:[::1]", ()) == [("::1", "a")]
    assert etcfiles.parse_extra_host("gw:host-gateway", ["172.17.0.1", "fd00::1"]) == [
        ("172.17.0.1", "gw"), ("fd00::1", "gw"),
    ]  # fmt: skip
    for text, complaint in (
        ("foo", "bad format"),
        ("foo:bar", "invalid IP address in add-host"),
        (":1.2.3.4", "bad format"),
    ):
        with pytest.raises(InvalidArgument, match=complaint):
            etcfiles.parse_extra_host(text, ())
    with pytest.raises(InvalidArgument, match="host-gateway"):
        etcfiles.parse_extra_host("gw:host-gateway", ())


def test_files_are_rewritten_in_place(tmp_path: Path) -> None:
    etcfiles.write(str(tmp_path), EtcFiles("long hosts\n", "resolv\n", "name\n"))
    inode = (tmp_path / "hosts").stat().st_ino
    etcfiles.write(str(tmp_path), EtcFiles("h\n", "resolv\n", "name\n"))
    assert (tmp_path / "hosts").read_text() == "h\n"
    assert (tmp_path / "hosts").stat().st_ino == inode
    (tmp_path / "hosts").unlink()
    (tmp_path / "hosts").symlink_to("/etc/hosts")
    with pytest.raises(OSError, match="symbolic links"):
        etcfiles.write(str(tmp_path), EtcFiles("", "", ""))
