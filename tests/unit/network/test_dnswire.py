"""The DNS codec against dnspython, and against what is not DNS."""

import dns.flags
import dns.message
import dns.rdatatype
import dns.reversename
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hafen.network import dnswire
from hafen.network.dnswire import Malformed


def query(name: str, kind: str = "A", **options: int) -> bytes:
    return dns.message.make_query(name, kind, **options).to_wire()  # type: ignore[arg-type]  # dnspython's own defaults


def test_query_is_taken_apart() -> None:
    parsed = dnswire.parse_query(query("Web.Example.ORG", "AAAA"))
    assert (parsed.name, parsed.type, parsed.klass, parsed.udp_size) == ("web.example.org", dnswire.AAAA, 1, 512)
    assert dnswire.parse_query(query("a", use_edns=0, payload=1232)).udp_size == 1232
    assert dnswire.parse_query(query(".", "NS")).name == ""


@pytest.mark.parametrize(("kind", "expected"), [("A", ["172.18.0.2", "172.18.0.3"]), ("AAAA", ["fd00::2"]), ("MX", [])])
def test_addresses(kind: str, expected: list[str]) -> None:
    asked = dns.message.make_query("Web", kind)
    response = dns.message.from_wire(
        dnswire.addresses(dnswire.parse_query(asked.to_wire()), ["172.18.0.2", "fd00::2", "172.18.0.3"])
    )
    assert asked.is_response(response)
    assert response.rcode() == 0
    assert response.flags & dns.flags.RA
    assert [str(record) for answer in response.answer for record in answer] == expected


def test_reverse() -> None:
    for address in ("172.18.0.2", "fd00::2"):
        asked = dns.message.make_query(dns.reversename.from_address(address), "PTR")
        parsed = dnswire.parse_query(asked.to_wire())
        assert dnswire.reverse_address(parsed.name) == address
        response = dns.message.from_wire(dnswire.names(parsed, ["web.mine"]))
        assert [str(record) for answer in response.answer for record in answer] == ["web.mine."]
    for name in ("x.in-addr.arpa", "1.2.3.in-addr.arpa", "300.1.1.1.in-addr.arpa", "zz.ip6.arpa", "web"):
        assert dnswire.reverse_address(name) is None


def test_failure_and_truncation() -> None:
    parsed = dnswire.parse_query(query("nope"))
    assert dns.message.from_wire(dnswire.failure(parsed, dnswire.NXDOMAIN)).rcode() == 3
    many = dnswire.addresses(parsed, [f"10.0.0.{n}" for n in range(100)])
    cut = dnswire.for_udp(parsed, many)
    assert dns.message.from_wire(cut).flags & dns.flags.TC
    assert len(cut) < 512
    large = dnswire.parse_query(query("nope", use_edns=0, payload=4096))
    assert dnswire.for_udp(large, many) == many


def test_only_the_response_to_the_question_counts() -> None:
    asked = query("web.example.org")
    good = dnswire.failure(dnswire.parse_query(asked), dnswire.NXDOMAIN)
    assert dnswire.answers(good, asked)
    assert not dnswire.answers(dnswire.with_id(good, int.from_bytes(asked[:2], "big") ^ 1), asked)
    other = dnswire.failure(dnswire.parse_query(asked[:2] + query("evil.example.org")[2:]), 0)
    assert not dnswire.answers(other, asked)
    assert not dnswire.answers(asked, asked), "a query is no response"
    assert not dnswire.answers(b"", asked)


@given(st.binary(max_size=80))
def test_garbage(data: bytes) -> None:
    try:
        parsed = dnswire.parse_query(data)
    except Malformed:
        return
    dnswire.for_udp(parsed, dnswire.addresses(parsed, ["10.0.0.1"]))
    dnswire.reverse_address(parsed.name)
    dnswire.answers(data, data)


@pytest.mark.parametrize("size", [0, 11, 13, 20])
def test_truncated(size: int) -> None:
    with pytest.raises(Malformed):
        dnswire.parse_query(query("web.example.org")[:size])
