"""Netlink messages to bytes and back, by declarative attribute tables; sans-I/O.

A message is a header of 16 bytes, a fixed part that depends on its type, and attributes (length, type, value, padded
to 4). Sources: linux/netlink.h, Documentation/userspace-api/netlink/intro.rst. Everything is in the machine's own byte
order. What does not parse raises OSError(EBADMSG).
"""

import errno
import struct
from collections.abc import Callable, Iterator, Mapping
from socket import AF_INET, AF_INET6, inet_ntop, inet_pton

from hafen.values import NamedTuple

NLM_F_REQUEST = 0x1
NLM_F_ACK = 0x4
NLM_F_DUMP_INTR = 0x10
NLM_F_DUMP = 0x300
NLM_F_EXCL = 0x200
NLM_F_CREATE = 0x400
NLM_F_CAPPED = 0x100
NLM_F_ACK_TLVS = 0x200

NLMSG_ERROR = 2
NLMSG_DONE = 3

NLA_F_NESTED = 0x8000
NLA_TYPE_MASK = 0x3FFF

_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_ERROR = struct.Struct("=i")

Value = int | str | bytes


class Kind(NamedTuple):
    """How the value of an attribute is represented here and on the wire."""

    encode: Callable[[Value], bytes]
    decode: Callable[[bytes], Value]


def malformed(what: str) -> OSError:
    return OSError(errno.EBADMSG, f"netlink: {what}")


def _integer(fmt: str) -> Kind:
    packer = struct.Struct(fmt)

    def encode(value: Value) -> bytes:
        return packer.pack(value)

    def decode(data: bytes) -> int:
        if len(data) < packer.size:
            raise malformed(f"integer of {len(data)} bytes where {packer.size} are due")
        return int(packer.unpack_from(data)[0])

    return Kind(encode, decode)


def _encode_string(value: Value) -> bytes:
    if not isinstance(value, str):
        raise TypeError(value)
    return value.encode() + b"\0"


def _encode_bytes(value: Value) -> bytes:
    if not isinstance(value, bytes):
        raise TypeError(value)
    return value


def _encode_mac(value: Value) -> bytes:
    return bytes.fromhex(str(value).replace(":", ""))


def _encode_ip(value: Value) -> bytes:
    return inet_pton(AF_INET6 if ":" in str(value) else AF_INET, str(value))


def _decode_ip(data: bytes) -> str:
    if len(data) not in (4, 16):
        raise malformed(f"address of {len(data)} bytes")
    return inet_ntop(AF_INET if len(data) == 4 else AF_INET6, data)


U8 = _integer("=B")
U16 = _integer("=H")
U32 = _integer("=I")
PORT = _integer("!H")
BYTES = Kind(_encode_bytes, bytes)
STRING = Kind(_encode_string, lambda data: data.partition(b"\0")[0].decode(errors="replace"))
MAC = Kind(_encode_mac, lambda data: data.hex(":"))
IP = Kind(_encode_ip, _decode_ip)
NESTED = Kind(_encode_bytes, bytes)
"""Attributes within; its value is what another table encoded."""


class Attribute(NamedTuple):
    number: int
    kind: Kind


def encode(table: Mapping[str, Attribute], /, **values: Value) -> bytes:
    """Attributes by their names in the table, in the order given."""
    parts = []
    for name, value in values.items():
        number, kind = table[name]
        payload = kind.encode(value)
        length = 4 + len(payload)
        if length > 0xFFFF:
            raise OSError(errno.EMSGSIZE, f"netlink: attribute {name} has {len(payload)} bytes")
        parts.append(_ATTRIBUTE.pack(length, number | NLA_F_NESTED if kind is NESTED else number))
        parts.append(payload)
        parts.append(bytes(-length % 4))
    return b"".join(parts)


def attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(type, payload) of each attribute."""
    offset = 0
    while offset + 4 <= len(data):
        length, number = _ATTRIBUTE.unpack_from(data, offset)
        if length < 4 or offset + length > len(data):
            raise malformed(f"attribute {number & NLA_TYPE_MASK} claims {length} bytes")
        yield number & NLA_TYPE_MASK, data[offset + 4 : offset + length]
        offset += length + -length % 4


def decode(table: Mapping[str, Attribute], data: bytes) -> dict[str, Value]:
    """The attributes that the table knows; the others are skipped, of repeated ones the last counts."""
    by_number = {attribute.number: (name, attribute.kind) for name, attribute in table.items()}
    found: dict[str, Value] = {}
    for number, payload in attributes(data):
        known = by_number.get(number)
        if known is not None:
            found[known[0]] = known[1].decode(payload)
    return found


class Message(NamedTuple):
    type: int
    flags: int
    sequence: int
    payload: bytes


def pack(message: Message) -> bytes:
    length = 16 + len(message.payload)
    header = _HEADER.pack(length, message.type, message.flags, message.sequence, 0)
    return header + message.payload + bytes(-length % 4)


def unpack(datagram: bytes) -> Iterator[Message]:
    """The messages of one datagram."""
    offset = 0
    while offset < len(datagram):
        if offset + 16 > len(datagram):
            raise malformed("truncated header")
        length, kind, flags, sequence, _port = _HEADER.unpack_from(datagram, offset)
        if length < 16 or offset + length > len(datagram):
            raise malformed(f"message of type {kind} claims {length} bytes")
        yield Message(kind, flags, sequence, datagram[offset + 16 : offset + length])
        offset += length + -length % 4


_EXTENDED_ACK = {"message": Attribute(1, STRING)}  # NLMSGERR_ATTR_MSG


class Ack(NamedTuple):
    """The answer to one request: 0, or an errno and perhaps the kernel's own words."""

    errno: int
    text: str


def parse_ack(message: Message) -> Ack:
    """An NLMSG_ERROR, which is an acknowledgement where its code is 0 (NETLINK_EXT_ACK's text included)."""
    if len(message.payload) < 4:
        raise malformed("truncated acknowledgement")
    code = -_ERROR.unpack_from(message.payload)[0]
    text = ""
    if message.flags & NLM_F_ACK_TLVS and len(message.payload) >= 20:
        offset = 20  # the code and the request's header
        if not message.flags & NLM_F_CAPPED:
            request = _HEADER.unpack_from(message.payload, 4)[0]
            offset = 4 + request + -request % 4
        text = str(decode(_EXTENDED_ACK, message.payload[offset:]).get("message", ""))
    return Ack(code, text)
