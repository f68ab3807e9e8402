"""Networks on another kernel: Debian's, which has what the tests' own may lack (ipvlan, VLANs, dummies, SCTP)."""

import re

import pytest

from tests.vm.machine import ROOT, Machine, Unavailable

pytestmark = [pytest.mark.root, pytest.mark.slow]

MODULES = "for name in macvlan ipvlan 8021q dummy veth bridge nf_tables sctp ipv6; do modprobe $name; done 2>/dev/null"
TESTS = "tests/root/network/test_macvlan.py tests/root/network/test_publish.py"


@pytest.mark.timeout(660)
def test_networks_on_debians_kernel() -> None:
    try:
        machine = Machine.build(ROOT / ".cache/vm")
    except Unavailable as reason:
        pytest.skip(str(reason))
    pytest_command = f".venv/bin/python -m pytest -q -p no:cacheprovider -m root --tb=short -rs {TESTS}"
    status, output = machine.run(f"{MODULES}; {pytest_command}", seconds=600)
    print(output)
    assert status == 0, output
    assert re.search(r"\d+ passed", output)
    assert "this kernel has no" not in output, "what this machine is for was skipped"
