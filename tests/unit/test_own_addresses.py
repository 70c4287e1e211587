"""Which addresses are this machine's: asked of the kernel, in a network of the test's own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import pytest

from culvert.own_addresses import is_own

SCRIPT = """
ip link set lo up
ip address add 10.9.0.5/32 dev lo
ip address add 10.9.0.6/24 dev lo
ip -6 address add 2001:db8::5/128 dev lo
ip route add local 10.77.0.0/16 dev lo
ip route add unreachable 10.88.0.0/16
exec "$1" -c "$2"
"""

PROGRAM = """
import json, sys
from culvert.own_addresses import is_own
asked = {4: ["10.9.0.5", "10.9.0.6", "10.77.1.2", "10.88.0.1", "192.0.2.1", "127.0.0.9"],
         6: ["2001:db8::5", "2001:db8::6", "::1", "::ffff:10.9.0.5"]}
found = {address: is_own((address, 80)) for address in asked[4]}
found |= {address: is_own((address, 80, 0, 0)) for address in asked[6]}
print(json.dumps(found))
"""


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("unshare") is None, reason="needs a network namespace")
def test_what_the_routing_table_says() -> None:
    command = ["unshare", "--net", "sh", "-ec", SCRIPT, "sh", sys.executable, PROGRAM]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    assert json.loads(ran.stdout) == {
        "10.9.0.5": True,
        "10.9.0.6": True,
        "10.77.1.2": True,
        "10.88.0.1": False,
        "192.0.2.1": False,
        "127.0.0.9": True,
        "2001:db8::5": True,
        "2001:db8::6": False,
        "::1": True,
        "::ffff:10.9.0.5": True,
    }


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0"])
def test_loopback_is_ours(address: str) -> None:
    assert is_own((address, 80))
