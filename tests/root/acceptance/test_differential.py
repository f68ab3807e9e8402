"""The requests of `tests/differential` get Docker's answers: status, headers, keys, types, values and messages."""

import json

import pytest

from tests.differential.compare import Accepted, accepted, differences
from tests.differential.play import SCENARIOS, Answer, clean, parse, play
from tests.harness.engine import EngineProcess

Difference = tuple[str, str]  # the request, and what is different


@pytest.fixture(scope="module")
def found(engine: EngineProcess) -> list[Difference]:
    seen: list[Difference] = []
    for scenario, answers in SCENARIOS.items():
        recorded: list[Answer] = json.loads(answers.read_text())
        requests = parse(scenario.read_text())
        ours = list(play(requests, str(engine.socket)))
        assert [answer["request"] for answer in ours] == [answer["request"] for answer in recorded], "record again"
        seen += [
            (request.text, difference)
            for request, answer, theirs in zip(requests, ours, recorded, strict=True)
            for difference in differences(answer, theirs)
        ]
        clean(str(engine.socket))
    return seen


def test_every_difference_is_accepted(found: list[Difference]) -> None:
    allowed = accepted()
    unexpected = [
        f"{request}\n    {what}" for request, what in found if not any(one.allows(request, what) for one in allowed)
    ]
    assert not unexpected, "\n".join(unexpected)


@pytest.mark.parametrize(
    "one", [one for one in accepted() if not one.sometimes], ids=lambda one: f"{one.request} {one.difference}"
)
def test_what_is_accepted_is_there(one: Accepted, found: list[Difference]) -> None:
    assert any(one.allows(*difference) for difference in found), "the engines agree: take the entry out"
