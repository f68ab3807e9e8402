"""`--network`: a name, or its long form `name=web,alias=db,ip=10.0.0.7`; pure."""

import re
from typing import NamedTuple

from hafen.cli.flags import Flags
from hafen.cli.mounts import fields_of
from hafen.client.engine import Document
from hafen.errors import InvalidArgument

_SPECIAL = ("host", "none", "bridge", "default")


class Attachment(NamedTuple):
    """One network of a container, with the API's `EndpointSettings` for it."""

    target: str
    endpoint: Document


def parse_network(text: str) -> Attachment:
    if "=" not in text:
        return Attachment(text, {})
    target, endpoint = "", Document()
    for name, value, has_value in fields_of(text):
        if not has_value:
            raise InvalidArgument(f"invalid field {name}")
        if name == "name":
            target = value
        elif name == "alias":
            endpoint.setdefault("Aliases", []).append(value)
        elif name == "driver-opt":
            key, equals, option = value.partition("=")
            if not equals:
                raise InvalidArgument(f"invalid key value pair format in driver options: {value}")
            endpoint.setdefault("DriverOpts", {})[key.strip().lower()] = option.strip()
        elif name in ("ip", "ip6"):
            endpoint.setdefault("IPAMConfig", {})["IPv4Address" if name == "ip" else "IPv6Address"] = value
        elif name == "link-local-ip":
            endpoint.setdefault("IPAMConfig", {}).setdefault("LinkLocalIPs", []).append(value)
        elif name == "mac-address":
            endpoint["MacAddress"] = value
        elif name == "gw-priority":
            if not value.lstrip("-").isdigit():
                raise InvalidArgument(f"invalid gw-priority ({value}): invalid syntax")
            endpoint["GwPriority"] = int(value)
        else:
            raise InvalidArgument(f"invalid field key {name}")
    return Attachment(target, endpoint)


def attachments(flags: Flags) -> list[Attachment]:
    """All networks of a `run`, the first of which also takes --ip, --network-alias, --link and --mac-address."""
    found = [parse_network(item) for item in flags.values("network")]
    seen: set[str] = set()
    for item in found:
        if item.target in seen:
            raise InvalidArgument(f'network "{item.target}" is specified multiple times')
        seen.add(item.target)
        if len(found) > 1 and (item.target in _SPECIAL[:2] or item.target.startswith("container:")):
            raise InvalidArgument(
                "conflicting options: cannot attach both user-defined and non-user-defined network-modes"
            )
    first = found[0] if found else Attachment("default", {})
    _add_single_flags(flags, first.endpoint, user_defined=_user_defined(first.target))
    return [first, *found[1:]]


def _user_defined(target: str) -> bool:
    return target not in _SPECIAL and not target.startswith("container:")


def _add_single_flags(flags: Flags, endpoint: Document, *, user_defined: bool) -> None:
    for flag, key in (("ip", "IPv4Address"), ("ip6", "IPv6Address")):
        if flags.text(flag):
            if key in endpoint.get("IPAMConfig", {}):
                raise InvalidArgument(f"conflicting options: cannot specify both --{flag} and per-network IP address")
            endpoint.setdefault("IPAMConfig", {})[key] = flags.text(flag)
    if flags.values("link-local-ip"):
        endpoint.setdefault("IPAMConfig", {})["LinkLocalIPs"] = flags.values("link-local-ip")
    if flags.values("network-alias"):
        if endpoint.get("Aliases"):
            raise InvalidArgument("conflicting options: cannot specify both --network-alias and per-network alias")
        if not user_defined:
            raise InvalidArgument("network-scoped aliases are only supported for user-defined networks")
        endpoint["Aliases"] = flags.values("network-alias")
    if flags.values("link") and user_defined:
        endpoint["Links"] = flags.values("link")
    if flags.text("mac-address"):
        if not re.fullmatch(r"([0-9a-f]{2}[:-]){5}[0-9a-f]{2}", flags.text("mac-address"), re.IGNORECASE):
            raise InvalidArgument(f"{flags.text('mac-address')} is not a valid mac address")
        if endpoint.get("MacAddress"):
            raise InvalidArgument("conflicting options: cannot specify both --mac-address and per-network MAC address")
        endpoint["MacAddress"] = flags.text("mac-address")
