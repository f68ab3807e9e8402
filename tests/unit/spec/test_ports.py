"""`-p`, EXPOSE and the API's PortBindings, in every form that docker takes."""

import pytest

from hafen.errors import InvalidArgument
from hafen.spec import ports
from hafen.spec.ports import EPHEMERAL, Port, PortMapping, PortRange
from hafen.spec.wire.network import PortBinding


def one(number: int, host: int = 0, ip: str = "", protocol: str = "tcp") -> PortMapping:
    return PortMapping(Port(number, protocol), ip, PortRange(host, host))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("80", [one(80)]),
        ("8080:80", [one(80, 8080)]),
        ("8080:80/udp", [one(80, 8080, protocol="udp")]),
        ("8080:80/UDP", [one(80, 8080, protocol="udp")]),
        ("127.0.0.1:8080:80", [one(80, 8080, "127.0.0.1")]),
        ("127.0.0.1::80", [one(80, 0, "127.0.0.1")]),
        ("[::1]:8080:80/tcp", [one(80, 8080, "::1")]),
        ("[::]::80", [one(80, 0, "::")]),
        ("80-81", [one(80), one(81)]),
        ("8000-8001:80-81", [one(80, 8000), one(81, 8001)]),
        ("8000-8010:80", [PortMapping(Port(80), "", PortRange(8000, 8010))]),
        ("8080:80/sctp", [one(80, 8080, protocol="sctp")]),
        ("0:80", [one(80)]),
        ("target=80,published=8080,protocol=udp", [one(80, 8080, protocol="udp")]),
        ("published=8080,target=80,mode=host", [one(80, 8080)]),
    ],
)
def test_publish(text: str, expected: list[PortMapping]) -> None:
    assert list(ports.parse_publish(text)) == expected


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "no port specified"),
        ("8080:", "no port specified"),
        ("80/foo", "invalid proto: foo"),
        ("80/", "invalid proto"),
        ("x:80", "invalid hostPort: x"),
        ("8080:x", "invalid containerPort: x"),
        ("65536:80", "invalid hostPort: 65536"),
        ("0", "invalid containerPort: 0"),
        ("-1:80", "invalid hostPort: -1"),
        ("²:80", "invalid hostPort"),
        ("90-80:80", "invalid hostPort: 90-80"),
        ("8000-8002:80-81", "invalid ranges specified for container and host Ports: 80-81 and 8000-8002"),
        ("1.2.3:8080:80", "invalid IP address: 1.2.3"),
        ("::1:8080:80", "invalid IP address"),
        ("[::1:8080:80", "invalid IP address"),
        ("target=80,foo=1", "invalid publish opts name: foo"),
        ("target=80,published", "should be name=value but got 'published'"),
        ("published=80", "missing target port"),
    ],
)
def test_publish_refused(text: str, complaint: str) -> None:
    with pytest.raises(InvalidArgument, match=complaint):
        ports.parse_publish(text)


def test_bindings_of_the_api() -> None:
    bindings = {"80/tcp": [PortBinding(host_port="8080"), PortBinding("127.0.0.1", "")], "53/udp": None}
    assert ports.from_bindings(bindings) == (one(80, 8080), one(80, 0, "127.0.0.1"))
    assert ports.from_bindings({"80/tcp": [PortBinding(host_port="8000-8010")]})[0].host == PortRange(8000, 8010)
    assert ports.from_bindings(None) == ()
    with pytest.raises(InvalidArgument, match="invalid port: abc"):
        ports.from_bindings({"80/tcp": [PortBinding(host_port="abc")]})


def test_exposed_and_publish_all() -> None:
    assert ports.parse_exposed("3000-3001/udp") == (Port(3000, "udp"), Port(3001, "udp"))
    found = ports.publish_all((Port(80), Port(81)), (one(80, 8080),))
    assert found == (PortMapping(Port(81), "", EPHEMERAL),)
    assert str(Port(80, "udp")) == "80/udp"
    assert [str(PortRange(1, 2)), str(PortRange(1, 1)), str(EPHEMERAL)] == ["1-2", "1", ""]
