"""`hafen registry serve`: the process, from its flags to its end."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from collections.abc import Sequence

from hafen.errors import HafenError
from hafen.registryd.config import Config, parse
from hafen.registryd.service import opened, serving


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 0 after an orderly end, 1 where the registry cannot start, with the reason on stderr."""
    logging.basicConfig(level="INFO", stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        asyncio.run(serve(parse(sys.argv[1:] if arguments is None else arguments)))
    except HafenError as error:
        print(f"hafen registry: {error.message}", file=sys.stderr)
        return 1
    return 0


async def serve(config: Config) -> None:
    """Run a registry until it is told to stop."""
    with opened(config.root) as kept:
        async with serving(config, kept):
            await _wait_told()


async def _wait_told() -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await stop.wait()


if __name__ == "__main__":
    sys.exit(main())
