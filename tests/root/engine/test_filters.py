"""What `ps` finds by each filter, compared with what Docker 26.1 found for the same requests."""

import json
import shlex

from tests.harness.engine import EngineProcess
from tests.root.engine.filterscenarios import RECORDED, answers


def test_filters_are_dockers(engine: EngineProcess) -> None:
    found = answers(str(engine.socket), lambda line: engine.docker(*shlex.split(line), check=False).code)
    peer = json.loads(RECORDED.read_text())
    assert {request: answer for request, answer in found.items() if answer != peer[request]} == {}
    assert found.keys() == peer.keys()
