"""Capabilities, each change in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from culvert import capabilities

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

BECOME = """
import os
from culvert import capabilities, privileges
privileges.drop(None, privileges.Identity(65534, 65534, (65534,)), frozenset({kept}))
print(open("/proc/self/status").read())
"""


GIVE_UP = """
from culvert import capabilities
capabilities.relinquish(capabilities.CAP_NET_ADMIN)
capabilities.relinquish(capabilities.CAP_NET_ADMIN)
print(open("/proc/self/status").read())
"""


VPN = """
import subprocess
from culvert import posts
posts.give_up_powers(stays_root=True)
print(subprocess.run(["cat", "/proc/self/status"], capture_output=True, text=True).stdout)
"""


def sets(kept: set[int]) -> dict[str, int]:
    """The capability sets of a process that became nobody and kept these."""
    return sets_after(BECOME.format(kept=kept or "()"))


def sets_after(program: str) -> dict[str, int]:
    """The capability sets that a program says it has."""
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )
    lines = (line.split(":\t") for line in done.stdout.splitlines() if line.startswith("Cap"))
    return {name: int(value, 16) for name, value in lines}


def test_the_permitted_set_is_what_the_kernel_says() -> None:
    with open("/proc/self/status", encoding="ascii") as file:  # noqa: PTH123 - no path of ours
        said = next(line for line in file if line.startswith("CapPrm"))
    assert capabilities.permitted() == int(said.split()[1], 16)


@needs_root
def test_one_power_is_kept_and_no_other() -> None:
    found = sets({capabilities.CAP_NET_RAW})
    assert found["CapPrm"] == found["CapEff"] == 1 << 13
    assert found["CapInh"] == found["CapAmb"] == found["CapBnd"] == 0


@needs_root
def test_a_power_above_the_lower_32() -> None:
    assert sets({38})["CapEff"] == 1 << 38


@needs_root
def test_nothing_is_kept_unless_asked_for() -> None:
    found = sets(set())
    assert found["CapPrm"] == found["CapEff"] == 0


@needs_root
def test_one_power_is_given_up_and_no_other() -> None:
    before = capabilities.permitted()
    found = sets_after(GIVE_UP)
    assert found["CapPrm"] == found["CapEff"] == before & ~(1 << capabilities.CAP_NET_ADMIN)


@needs_root
def test_a_vpn_that_stays_root_cannot_have_its_powers_back_by_a_program() -> None:
    """What is seen is a program's that it has run."""
    found = sets_after(VPN)
    assert not any(found.values())
