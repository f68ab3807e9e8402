"""Which names lead into an insecure network: `insecure-registries` with `10.0.0.0/8` is meant for `registry.corp` too.

The resolver is asked only where there are such networks. (moby `registry/config.go: isCIDRMatch`; that a name which
leads to loopback is insecure as well, without being configured, is left out.)
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from dataclasses import replace
from urllib.parse import urlsplit

from hafen.distribution.endpoint import Rules, check_host, insecure, networks
from hafen.spec.reference import DEFAULT_DOMAIN


async def looked_up(domain: str, rules: Rules) -> Rules:
    """The rules with those hosts as insecure ones whose addresses are in such a network: a registry's, and its
    mirrors'. InvalidArgument where there can be no such host."""
    check_host(domain)
    if not networks(rules):
        return rules
    hosts = [domain]
    if domain == DEFAULT_DOMAIN:
        hosts = [urlsplit(mirror).netloc for mirror in rules.mirrors]
    found = [host for host in hosts if not insecure(host, rules) and await _is_inside(host, rules)]
    return replace(rules, insecure=(*rules.insecure, *found))


async def _is_inside(host: str, rules: Rules) -> bool:
    name = urlsplit(f"//{host}").hostname or ""
    try:
        answers = await asyncio.get_running_loop().getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return False
    addresses = {ipaddress.ip_address(answer[4][0]) for answer in answers}
    return any(address in network for network in networks(rules) for address in addresses)
