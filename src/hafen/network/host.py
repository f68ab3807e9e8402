"""Host network mode: the container lives in the host's own network namespace, and there is nothing to do."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from hafen.network.driver import Endpoint, Netns, Network, Opening, Wish
from hafen.network.ipam import Taken
from hafen.spec.ports import PortMapping


class HostDriver:
    """Makes no interface."""

    name = "host"

    def occupied(self, but: Collection[str] = ()) -> Taken:
        return Taken()

    def create(self, network: Network) -> None:
        pass

    def retire(self, network: Network) -> None:
        pass

    def delete(self, network: Network) -> None:
        pass

    def attach(self, network: Network, wish: Wish, netns: Netns | None) -> Endpoint:
        return Endpoint(wish.id, wish.container_id, wish.container_name)

    def publish(self, network: Network, endpoint: Endpoint, ports: Iterable[PortMapping]) -> Endpoint:
        return endpoint

    def withdraw(self, network: Network, endpoint: Endpoint) -> Endpoint:
        return endpoint

    def open(self, network: Network, openings: Collection[Opening]) -> None:
        pass

    def unplug(self, endpoint: Endpoint, netns: Netns) -> None:
        pass

    def lead_out(self, network: Network, endpoint: Endpoint, netns: Netns, versions: Collection[int]) -> None:
        pass

    def restore(self, networks: Iterable[Network], endpoints: Iterable[tuple[Network, Endpoint]]) -> list[str]:
        return []

    def close(self) -> None:
        pass
