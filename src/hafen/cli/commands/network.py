"""`network create`, `rm`, `connect`, `disconnect`."""

from hafen.cli.command import Call, Command
from hafen.cli.flags import as_map
from hafen.cli.output import err, out
from hafen.cli.report import report
from hafen.client import networks
from hafen.client.engine import Document
from hafen.errors import HafenError, InvalidArgument, NotFound


def _create(call: Call) -> int:
    flags = call.flags
    body: Document = {
        "Name": call.arguments[0], "Driver": flags.text("driver", "bridge"), "Options": as_map(flags.values("opt")),
        "Labels": as_map(flags.values("label")), "Internal": flags.on("internal"),
        "Attachable": flags.on("attachable"), "Ingress": flags.on("ingress"), "Scope": flags.text("scope"),
        "ConfigOnly": flags.on("config-only"),
        "IPAM": {
            "Driver": flags.text("ipam-driver", "default"), "Options": as_map(flags.values("ipam-opt")),
            "Config": _pools(call),
        },
    }  # fmt: skip
    if flags.text("config-from"):
        body["ConfigFrom"] = {"Network": flags.text("config-from")}
    for name, key in (("ipv4", "EnableIPv4"), ("ipv6", "EnableIPv6")):
        if flags.changed(name):
            body[key] = flags.on(name)
    answer = networks.create(call.engine, body)
    if answer.get("Warning"):
        err(f"WARNING: {answer['Warning']}")
    out(str(answer["Id"]))
    return 0


def _pools(call: Call) -> list[Document]:
    """--ip-range, --gateway and --aux-address belong to the subnet that contains them. InvalidArgument as docker's own
    client says it; what is wrong with a subnet alone is left to the engine."""
    flags = call.flags
    subnets = flags.values("subnet")
    ranges, gateways = flags.values("ip-range"), flags.values("gateway")
    if len(subnets) < max(len(ranges), len(gateways)):
        raise InvalidArgument("every ip-range or gateway must have a corresponding subnet")
    pools: dict[str, Document] = {}
    for subnet in subnets:
        if any(_contains(subnet, other) or _contains(other, subnet) for other in pools):
            raise InvalidArgument("multiple overlapping subnet configuration is not supported")
        pools[subnet] = Document(Subnet=subnet)
    for key, what, several, texts in (
        ("IPRange", "range", "ranges", ranges),
        ("Gateway", "gateway", "gateways", gateways),
    ):
        for text in texts:
            pool = _pool_of(pools, text, what)
            if key in pool:
                where = f"{'on' if key == 'IPRange' else 'for'} the same subnet ({pool['Subnet']})"
                raise InvalidArgument(f"cannot configure multiple {several} ({text}, {pool[key]}) {where}")
            pool[key] = text
    for host, text in sorted(as_map(flags.values("aux-address")).items()):
        _pool_of(pools, text, "aux-address").setdefault("AuxiliaryAddresses", {})[host] = text
    return list(pools.values())


def _pool_of(pools: dict[str, Document], text: str, what: str) -> Document:
    for subnet, pool in pools.items():
        if _contains(subnet, text):
            return pool
    raise InvalidArgument(f"no matching subnet for {what} {text}")


def _contains(subnet: str, text: str) -> bool:
    """Whether the address, or the first one of the range, is in the subnet."""
    from ipaddress import ip_address, ip_network

    try:
        network = ip_network(subnet, strict=False)
    except ValueError:
        raise InvalidArgument(f"invalid subnet: invalid CIDR address: {subnet}") from None
    try:
        return ip_address(text.partition("/")[0]) in network
    except ValueError:
        return False


def _remove(call: Call) -> int:
    force, failed = call.flags.on("force"), False
    for name in call.arguments:
        try:
            networks.remove(call.engine, name)
        except HafenError as error:
            if not (force and isinstance(error, NotFound)):
                report(error)
                failed = True
        else:
            out(name)
    if failed:
        err("exit status 1")
    return 1 if failed else 0


def _connect(call: Call) -> int:
    flags = call.flags
    endpoint: Document = {
        "Aliases": flags.values("alias") or None, "Links": flags.values("link") or None,
        "DriverOpts": as_map(flags.values("driver-opt")), "GwPriority": flags.number("gw-priority"),
    }  # fmt: skip
    addresses = {
        "IPv4Address": flags.text("ip"), "IPv6Address": flags.text("ip6"),
        "LinkLocalIPs": flags.values("link-local-ip"),
    }  # fmt: skip
    if any(addresses.values()):
        endpoint["IPAMConfig"] = addresses
    networks.connect(call.engine, call.arguments[0], {"Container": call.arguments[1], "EndpointConfig": endpoint})
    return 0


def _disconnect(call: Call) -> int:
    network, container = call.arguments
    networks.disconnect(call.engine, network, container, force=call.flags.on("force"))
    return 0


CREATE = Command(
    _create, "[OPTIONS] NETWORK", "Create a network",
    """
    --attachable           Enable manual container attachment
    --aux-address map      Auxiliary IPv4 or IPv6 addresses used by Network driver (default map[])
    --config-from string   The network from which to copy the configuration
    --config-only          Create a configuration only network
-d, --driver string        Driver to manage the Network (default "bridge")
    --gateway strings      IPv4 or IPv6 Gateway for the master subnet
    --ingress              Create swarm routing-mesh network
    --internal             Restrict external access to the network
    --ip-range strings     Allocate container ip from a sub-range
    --ipam-driver string   IP Address Management Driver (default "default")
    --ipam-opt map         Set IPAM driver specific options (default map[])
    --ipv4                 Enable or disable IPv4 address assignment (default true)
    --ipv6                 Enable or disable IPv6 address assignment
    --label list           Set metadata on a network
-o, --opt map              Set driver specific options (default map[])
    --scope string         Control the network's scope
    --subnet strings       Subnet in CIDR format that represents a network segment
""", least=1, most=1,
)  # fmt: skip
REMOVE = Command(
    _remove, "NETWORK [NETWORK...]", "Remove one or more networks",
    "-f, --force   Do not error if the network does not exist", least=1,
)  # fmt: skip
CONNECT = Command(
    _connect, "[OPTIONS] NETWORK CONTAINER", "Connect a container to a network",
    """
    --alias strings           Add network-scoped alias for the container
    --driver-opt strings      driver options for the network
    --gw-priority int         Highest gw-priority provides the default gateway. Accepts positive and negative values.
    --ip string               IPv4 address (e.g., "172.30.100.104")
    --ip6 string              IPv6 address (e.g., "2001:db8::33")
    --link list               Add link to another container
    --link-local-ip strings   Add a link-local address for the container
""", least=2, most=2,
)  # fmt: skip
DISCONNECT = Command(
    _disconnect, "[OPTIONS] NETWORK CONTAINER", "Disconnect a container from a network",
    "-f, --force   Force the container to disconnect from a network", least=2, most=2,
)  # fmt: skip
