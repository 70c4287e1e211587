"""What the log says at the start of how long certificates are still valid."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from .certificates import Certificates
from .echo import echo_service
from .harness import Culvert


@pytest.mark.parametrize(
    ("days", "level", "words"),
    [
        (60, 6, "expires in (59|60) days"),
        (20, 4, "expires in (19|20) days"),
        (-3, 4, "expired [34] days ago"),
    ],
)
def test_the_days_that_are_left_are_logged(
    culvert: Callable[..., Culvert], certificates: Certificates, days: int, level: int, words: str
) -> None:
    leaf = certificates.ca.leaf(f"left {days}", days=days)
    services = echo_service(certificates)
    services = services.replace(str(certificates.server.cert), str(leaf.cert))
    daemon = culvert(services.replace(str(certificates.server.key), str(leaf.key)))
    date = f"{leaf.certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC"
    name = f"CN=left {days},O=Test,C=CH"
    assert daemon.log.find(
        rf"LOG{level}\[main\]: Service \[echo\]: the certificate {name} {words} \({date}\)$"
    )
    assert len(daemon.log.find("the certificate")) == 1


def test_an_intermediate_is_named_where_it_ends(
    culvert: Callable[..., Culvert], certificates: Certificates
) -> None:
    leaf = certificates.chained
    text = f"[echo]\naccept = 127.0.0.1:0\nexec = /bin/cat\ncert = {leaf.chain}\nkey = {leaf.key}\n"
    daemon = culvert(text)
    assert len(daemon.log.find("the certificate")) == 1  # the intermediate has 90 days
