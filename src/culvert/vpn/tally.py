"""What a VPN has carried and refused."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Tally:
    """Numbers of packets and bytes of one VPN since its process began, for the list and for metrics.

    An offloaded packet counts once. Dropped were: `busy`, because a peer's link had no room; `unroutable`,
    because nobody has their destination; `malformed`, no packets at all; `spoofed`, whose source was not
    their sender's; `strayed`, whose destination was not for that one to reach.
    """

    packets_in: int = 0
    bytes_in: int = 0
    packets_out: int = 0
    bytes_out: int = 0
    busy: int = 0
    unroutable: int = 0
    malformed: int = 0
    spoofed: int = 0
    strayed: int = 0
    met: int = 0
    refused: int = 0

    def __str__(self) -> str:
        return (
            f"{self.packets_in} packet(s) and {self.bytes_in} byte(s) in, {self.packets_out} packet(s) and "
            f"{self.bytes_out} byte(s) out; dropped: {self.busy} busy, {self.unroutable} unroutable, "
            f"{self.malformed} malformed, {self.spoofed} spoofed, {self.strayed} strayed; "
            f"{self.met} peer(s) met, {self.refused} refused"
        )
