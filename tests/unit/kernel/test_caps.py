"""Capability names and bits."""

import pytest

from hafen.kernel import caps


def test_names_are_numbered_as_the_header_does() -> None:
    assert caps.NUMBERS["CAP_CHOWN"] == 0
    assert caps.NUMBERS["CAP_SYS_ADMIN"] == 21
    assert caps.NUMBERS["CAP_SYS_RESOURCE"] == 24
    assert caps.NUMBERS["CAP_CHECKPOINT_RESTORE"] == 40


def test_mask_and_names_are_inverse() -> None:
    chosen = ("CAP_KILL", "CAP_BPF")
    assert caps.names(caps.mask(chosen)) == chosen
    with pytest.raises(KeyError):
        caps.mask(["CAP_X"])


def test_own_sets_agree_with_proc() -> None:
    with open("/proc/self/status", encoding="ascii") as file:
        status = dict(line.rstrip("\n").split(":\t", 1) for line in file if line.startswith("Cap"))
    own = caps.get()
    assert own.effective == int(status["CapEff"], 16)
    assert own.permitted == int(status["CapPrm"], 16)
    assert own.inheritable == int(status["CapInh"], 16)
    assert caps.bounding() == int(status["CapBnd"], 16)
