"""Keys must not get into a core dump, whichever process of the daemon it would be of."""

from __future__ import annotations

import resource
from collections.abc import Callable

import pytest

from .certificates import Certificates
from .echo import echo_service
from .harness import Culvert, require


@pytest.mark.parametrize("workers", [0, 2])
def test_no_process_leaves_one(
    culvert: Callable[..., Culvert], certificates: Certificates, workers: int
) -> None:
    _, highest = resource.getrlimit(resource.RLIMIT_CORE)
    generous = [require("prlimit"), f"--core={'unlimited' if highest < 0 else highest}"]
    daemon = culvert(echo_service(certificates), workers=workers, prefix=generous)
    limits = {pid: resource.prlimit(pid, resource.RLIMIT_CORE)[0] for pid in daemon.tree()}
    assert set(limits.values()) == {0}, limits
