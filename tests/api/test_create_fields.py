"""The audit: every field of `POST /containers/create` in the newest API definition is shown to work, to be kept or
ignored as Docker does on Linux, or to be refused; and the tests that are named for it exist."""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

from tests.harness import createfields

ROOT = Path(__file__).resolve().parents[2]
PREFIXES = {"ContainerConfig": "Config", "HostConfig": "HostConfig", "EndpointSettings": "Endpoint", "Mount": "Mount"}


def newest() -> dict[str, Any]:
    versions = json.loads((ROOT / "tests/api/schemas.json").read_text())
    found: dict[str, Any] = versions[max(versions, key=lambda text: tuple(map(int, text.split("."))))]["definitions"]
    return found


def properties(definitions: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """All properties of an object, those of what it is composed of included."""
    found = dict(schema.get("properties", {}))
    for part in schema.get("allOf", ()):
        found |= properties(definitions, part)
    if "$ref" in schema:
        found |= properties(definitions, definitions[schema["$ref"].rpartition("/")[2]])
    return found


def fields() -> set[str]:
    definitions = newest()
    found = set()
    for definition, prefix in PREFIXES.items():
        for name, schema in properties(definitions, definitions[definition]).items():
            options = schema.get("properties", {}) if definition == "Mount" else {}
            found |= {f"{prefix}.{name}.{option}" for option in options} or {f"{prefix}.{name}"}
    return found


def test_every_field_has_one_place_in_the_table() -> None:
    rows = (*createfields.WORKS, *createfields.REFUSED)
    listed = Counter(name for row in rows for name in row.fields.split())
    listed.update((*createfields.KEPT, *createfields.ELSEWHERE, *createfields.IGNORED))
    assert fields() - set(listed) == set()
    assert set(listed) - fields() == set()
    assert [name for name, count in listed.items() if count > 1] == []


def test_the_tests_that_are_named_exist() -> None:
    for field, place in createfields.ELSEWHERE.items():
        path, _, function = place.partition("::")
        assert re.search(rf"def {function}\(", (ROOT / path).read_text()), (field, place)
