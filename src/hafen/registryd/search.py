"""Search: what is left of Docker's first registry API, `/v1/_ping` and `/v1/search`, which `docker search` asks."""

from __future__ import annotations

import json
from typing import Final

from hafen.errors import InvalidArgument
from hafen.http.message import Headers, Reply
from hafen.registryd.access import Identity
from hafen.registryd.request import Parts

DEFAULT_PAGE: Final = 25
MAX_PAGE: Final = 100  # as Docker Hub has it

# docker gives such registries, which have no index beside them, the user's name and password.
PING: Final = Reply(200, b'{"standalone":true}\n', "application/json", (("X-Docker-Registry-Standalone", "true"),))


def search(query: dict[str, list[str]], who: Identity, headers: Headers, parts: Parts) -> Reply:
    """Repositories that the user may pull and whose names have `q` in them, in order of their names; `n` on a page.

    Names begin with the host that the client called, as the catalogue's do in `hafen search`: so they can be pulled.
    """
    term = query.get("q", [""])[0]
    size = min(_number(query, "n", DEFAULT_PAGE), MAX_PAGE)
    page = _number(query, "page", 1)
    found = [name for name in parts.rows.named_like(term.lower()) if parts.access.grants(who, name, "pull")]
    prefix = f"{headers['host']}/" if headers.get("host") else ""
    results = [
        {"name": prefix + name, "description": "", "star_count": 0, "is_official": False, "is_automated": False}
        for name in found[(page - 1) * size : page * size]
    ]
    answer = {
        "num_results": len(found), "num_pages": -(-len(found) // size), "page": page, "page_size": size,
        "query": term, "results": results,
    }  # fmt: skip
    return Reply(200, json.dumps(answer).encode() + b"\n", "application/json")


def _number(query: dict[str, list[str]], name: str, default: int) -> int:
    text = query.get(name, [""])[0] or str(default)
    if not text.isascii() or not text.isdecimal() or not 0 < len(text) < 10 or int(text) == 0:
        raise InvalidArgument(f"{name} is a number from 1 on, not {text!r}")
    return int(text)
