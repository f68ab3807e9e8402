"""The ruleset's text: nothing but map elements per container, and adding undone by removing."""

from hafen.network import ruleset
from hafen.network.driver import Network, PublishedPort, Subnet
from hafen.network.ruleset import Published
from hafen.spec.ports import Port

PLAIN = Network("a" * 64, "bridge", "hafen0", (Subnet("172.17.0.0/16", "172.17.0.1"), Subnet("fd00::/64", "fd00::1")))
INTERNAL = Network("b" * 64, "inner", "hf-b", (Subnet("172.18.0.0/16", "172.18.0.1"),), internal=True, icc=False)


def test_whole_table_replaces_whatever_was_there() -> None:
    text = ruleset.build("hafen", [PLAIN, INTERNAL], [])
    assert text.startswith("add table inet hafen\ndelete table inet hafen\ntable inet hafen {")
    assert text.count("{") == text.count("}")
    assert "add element inet hafen leaving { 172.17.0.0/16 : goto from-hafen0 }" in text
    assert "add element inet hafen leaving6 { fd00::/64 : goto from-hafen0 }" in text
    assert "from-hf-b" not in text, "an internal network does not leave"
    assert 'internal { "hf-b" }' in text
    assert 'same { "hf-b"' not in text


def test_ports_are_elements() -> None:
    everywhere = PublishedPort(Port(80), "0.0.0.0", 8080)
    one = PublishedPort(Port(53, "udp"), "127.0.0.1", 5353)
    six = PublishedPort(Port(80), "::", 8080)
    text = ruleset.publish(
        "hafen", [Published(everywhere, "172.17.0.2"), Published(one, "172.17.0.2"), Published(six, "fd00::2")]
    )
    assert text.splitlines() == [
        "add element inet hafen published_everywhere { tcp . 8080 : 172.17.0.2 . 80 }",
        "add element inet hafen published { 127.0.0.1 . udp . 5353 : 172.17.0.2 . 53 }",
        "add element inet hafen published6_everywhere { tcp . 8080 : fd00::2 . 80 }",
    ]
    assert ruleset.withdraw("hafen", [Published(one, "172.17.0.2")]) == (
        "delete element inet hafen published { 127.0.0.1 . udp . 5353 : 172.17.0.2 . 53 }\n"
    )
