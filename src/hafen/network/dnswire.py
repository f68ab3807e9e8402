"""DNS messages: the parts of RFC 1035 that a forwarding resolver needs (sans-I/O).

A query is taken apart as far as its one question; answers are built for names of our own. Everything else is passed on
as it came, so no extension needs to be known here.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

A, NS, CNAME, SOA, PTR, AAAA, OPT, ANY = 1, 2, 5, 6, 12, 28, 41, 255
IN = 1

NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED = 0, 1, 2, 3, 4, 5

TTL = 600  # seconds, as Docker's resolver says
MAX_UDP = 512  # RFC 1035, 2.3.4: where the client does not say more (EDNS)

_OWN_UDP_SIZE = 1232  # what we take by UDP: what passes every path unfragmented (dnsflagday.net, 2020)

_HEADER = struct.Struct(">HHHHHH")
_QR, _AA, _TC, _RD, _RA = 0x8000, 0x0400, 0x0200, 0x0100, 0x0080
_OPCODE = 0x7800
_QUESTION_POINTER = b"\xc0\x0c"  # RFC 1035, 4.1.4: the name at offset 12


class Malformed(ValueError):
    """Not a DNS message; nothing useful can be answered."""


@dataclass(frozen=True, slots=True)
class Query:
    """`name` is lower-case and without the last dot; `question` is the question as it came, its case kept."""

    id: int
    flags: int
    name: str
    type: int
    klass: int
    question: bytes
    udp_size: int = MAX_UDP
    edns: bool = False


def parse_query(data: bytes) -> Query:
    """A standard query with one question. Malformed where it is something else or damaged."""
    if len(data) < 12:
        raise Malformed("shorter than a header")
    ident, flags, questions, answers, authorities, additional = _HEADER.unpack_from(data)
    if flags & (_QR | _OPCODE) or questions != 1:
        raise Malformed("not a standard query with one question")
    labels, offset = _labels(data, 12)
    if offset + 4 > len(data):
        raise Malformed("truncated question")
    kind, klass = struct.unpack_from(">HH", data, offset)
    end = offset + 4
    name = b".".join(labels).decode("ascii", errors="replace").lower()
    size = _udp_size(data, end) if not answers and not authorities and additional == 1 else 0
    return Query(ident, flags, name, kind, klass, data[12:end], max(MAX_UDP, size), bool(size))


def _labels(data: bytes, offset: int) -> tuple[list[bytes], int]:
    """The labels of a name that is not compressed (in a question none is), and where it ends."""
    labels: list[bytes] = []
    start = offset
    while True:
        if offset >= len(data):
            raise Malformed("truncated name")
        length = data[offset]
        offset += 1
        if not length:
            break
        if length > 63 or offset + length > len(data) or offset - start > 255:
            raise Malformed("bad label")
        labels.append(data[offset : offset + length])
        offset += length
    return labels, offset


def _udp_size(data: bytes, offset: int) -> int:
    """How large an answer may be, from the OPT record after the question (RFC 6891); 0 where there is none."""
    if offset + 11 > len(data) or data[offset] or data[offset + 1 : offset + 3] != b"\x00\x29":
        return 0
    return max(MAX_UDP, int.from_bytes(data[offset + 3 : offset + 5], "big"))


def addresses(query: Query, found: Iterable[str]) -> bytes:
    """An answer with the addresses of the family that was asked for; without any it says that the name exists."""
    wanted = {A: IPv4Address, AAAA: IPv6Address}
    packed = [
        address.packed
        for address in map(ip_address, found)
        if query.type == ANY or isinstance(address, wanted.get(query.type, ()))
    ]
    records = [_record(A if len(data) == 4 else AAAA, data) for data in packed]
    return _response(query, NOERROR, records)


def names(query: Query, found: Iterable[str]) -> bytes:
    """An answer with names, to a reverse look-up."""
    return _response(query, NOERROR, [_record(PTR, encode_name(name)) for name in found])


def failure(query: Query, code: int) -> bytes:
    return _response(query, code, [])


def encode_name(name: str) -> bytes:
    labels = [label.encode("ascii", errors="replace")[:63] for label in name.split(".") if label]
    return b"".join(bytes([len(label)]) + label for label in labels) + b"\0"


def reverse_address(name: str) -> str | None:
    """The address that `4.3.2.1.in-addr.arpa` or `....ip6.arpa` asks for, None where it is no such name."""
    labels = name.split(".")
    try:
        if name.endswith(".in-addr.arpa") and len(labels) == 6:
            return str(IPv4Address(".".join(reversed(labels[:4]))))
        if name.endswith(".ip6.arpa") and len(labels) == 34:
            return str(IPv6Address(bytes.fromhex("".join(reversed(labels[:32])))))
    except ValueError:
        return None
    return None


def for_udp(query: Query, response: bytes) -> bytes:
    """The response as it may go by UDP: cut to the question, and marked so, where it is too long for the client."""
    if len(response) <= query.udp_size:
        return response
    ident, flags, *_ = _HEADER.unpack_from(response)
    return _HEADER.pack(ident, flags | _TC, 1, 0, 0, int(query.edns)) + query.question + _opt(query)


def answers(response: bytes, query: bytes) -> bool:
    """Whether a datagram from a server is the response to this query: same id, same question (RFC 5452)."""
    if len(response) < 12 or len(query) < 12 or response[:2] != query[:2] or not response[2] & 0x80:
        return False
    try:
        _, end = _labels(query, 12)
        _, other_end = _labels(response, 12)
    except Malformed:
        return len(response) == 12  # an error without a question
    return response[12 : other_end + 4].lower() == query[12 : end + 4].lower()


def with_id(message: bytes, ident: int) -> bytes:
    return ident.to_bytes(2, "big") + message[2:]


def _record(kind: int, data: bytes) -> bytes:
    return _QUESTION_POINTER + struct.pack(">HHIH", kind, IN, TTL, len(data)) + data


def _response(query: Query, code: int, records: Sequence[bytes]) -> bytes:
    flags = _QR | _RA | (query.flags & _RD) | code
    header = _HEADER.pack(query.id, flags, 1, len(records), 0, int(query.edns))
    return header + query.question + b"".join(records) + _opt(query)


def _opt(query: Query) -> bytes:
    """Who asks with an OPT record is answered with one (RFC 6891, 6.1.1)."""
    return b"\0" + struct.pack(">HHIH", OPT, _OWN_UDP_SIZE, 0, 0) if query.edns else b""
