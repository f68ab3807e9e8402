"""64-hex ids, prefix lookup rule, name grammar, random names; pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

from hafen.errors import InvalidArgument

_NAME = re.compile(r"/?[a-zA-Z0-9][a-zA-Z0-9_.-]+")
_VOLUME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")
_ID = re.compile(r"[0-9a-f]{64}")


def is_id(text: str) -> bool:
    """True for a full id."""
    return _ID.fullmatch(text) is not None


def check_container_name(name: str) -> str:
    """A valid container name without its leading slash; InvalidArgument otherwise."""
    if _NAME.fullmatch(name) is None:
        raise InvalidArgument(f"Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")
    return name.removeprefix("/")


def check_volume_name(name: str) -> str:
    """A valid name of a local volume; InvalidArgument with Docker's hint otherwise."""
    if len(name) == 1:
        raise InvalidArgument(
            f"create {name}: volume name is too short, names should be at least two alphanumeric characters"
        )
    if _VOLUME.fullmatch(name) is None:
        raise InvalidArgument(
            f'create {name}: "{name}" includes invalid characters for a local volume name, only '
            '"[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory, use absolute path'
        )
    return name


def find_by_prefix(prefix: str, ids: Iterable[str]) -> str | None:
    """The one id that begins with `prefix`; None for none, InvalidArgument for more than one."""
    found = [known for known in ids if known.startswith(prefix)] if prefix else []
    if len(found) > 1:
        raise InvalidArgument(f"multiple IDs found with provided prefix: {prefix}")
    return found[0] if found else None


_MOODS = (
    "able", "alert", "amber", "ample", "bold", "brave", "bright", "brisk", "calm", "candid", "clear", "clever",
    "coral", "crisp", "daring", "deft", "eager", "early", "fair", "fearless", "fleet", "fond", "frank", "gallant",
    "gentle", "glad", "golden", "grand", "hardy", "hearty", "honest", "humble", "jolly", "keen", "kind", "lively",
    "loyal", "lucid", "lucky", "merry", "mild", "neat", "nimble", "noble", "patient", "placid", "polite", "proud",
    "quick", "quiet", "ready", "robust", "sage", "serene", "sharp", "silver", "smart", "snug", "sober", "spry",
    "stable", "steady", "stout", "sturdy", "sunny", "sure", "swift", "tidal", "tidy", "trusty", "upbeat", "vivid",
    "warm", "wise", "witty", "zesty",
)  # fmt: skip
_THINGS = (
    "anchor", "barge", "basin", "bay", "beacon", "bollard", "boom", "bosun", "bow", "breeze", "bridge", "brig",
    "bulwark", "buoy", "cabin", "canal", "canoe", "capstan", "channel", "cleat", "clipper", "coast", "cog", "compass",
    "cove", "crane", "crew", "current", "cutter", "deck", "delta", "dinghy", "dock", "dory", "ebb", "fathom", "ferry",
    "fjord", "fleet", "frigate", "galley", "gangway", "gull", "halyard", "harbour", "hatch", "hawser", "helm", "hull",
    "inlet", "islet", "jetty", "jib", "kayak", "keel", "ketch", "knot", "lagoon", "lantern", "lighthouse", "lock",
    "lugger", "marina", "mast", "mooring", "oar", "pennant", "pier", "pilot", "port", "prow", "quay", "raft", "reef",
    "rigging", "rudder", "sail", "schooner", "sextant", "ship", "shore", "skiff", "skipper", "sloop", "spar",
    "stern", "strait", "tide", "tiller", "trawler", "tug", "vessel", "wharf", "winch", "yacht", "yawl",
)  # fmt: skip


def random_name(choose: Callable[[Sequence[str]], str], taken: Callable[[str], bool]) -> str:
    """A free `mood_thing` name. `choose` picks one of a sequence; a digit is added where luck runs out."""
    for attempt in range(12):
        name = f"{choose(_MOODS)}_{choose(_THINGS)}" + ("" if attempt < 6 else choose("0123456789"))
        if not taken(name):
            return name
    while taken(name := f"{choose(_MOODS)}_{choose(_THINGS)}{''.join(choose('0123456789abcdef') for _ in range(8))}"):
        pass
    return name
