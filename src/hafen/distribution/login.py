"""`docker login`: whether a registry takes these credentials."""

from __future__ import annotations

from hafen.distribution.auth import Credentials
from hafen.distribution.endpoint import Rules, domain_of, endpoints
from hafen.distribution.lookup import looked_up
from hafen.distribution.repository import reachable
from hafen.distribution.transport import Target, Transport
from hafen.errors import InvalidArgument, System


async def login(server: str, credentials: Credentials, rules: Rules, agent: str) -> str:
    """The refresh token that stands for the password from now on, empty where the registry gives none. Unauthorized, or
    System with Docker's text, where the credentials are refused."""
    try:
        rules = await looked_up(domain_of(server), rules)
    except InvalidArgument as error:
        raise InvalidArgument(f"unable to parse server address: {error.message}") from error
    async with Transport(rules, credentials, agent, offline=True) as transport:
        candidates = [one for one in endpoints(domain_of(server), rules) if not one.mirror]
        endpoint = (await reachable(transport, candidates))[-1]
        target = Target("GET", f"{endpoint.base}/")
        async with transport.request(endpoint, target) as response:
            if response.status != 200:
                status = f"{response.status} {response.reason or ''}".rstrip()
                raise System(f"login attempt to {target.url} failed with status: {status}")
        return transport.refresh_token
