"""How the demo speaks to its reader: coloured on a terminal, plain anywhere else."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

_LABEL_WIDTH = 15
_BYTES_SHOWN = 20


class Narrator:
    """Prints the demo's steps and counts what went wrong."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self.failures: list[str] = []

    def step(self, title: str) -> None:
        self._print(Text(f"\n{title}", "bold"))

    def say(self, text: str) -> None:
        self._print(Text(f"  {text}"))

    def show_file(self, text: str) -> None:
        for line in text.splitlines():
            self._print(Text(f"    | {line}", "dim"))

    def fact(self, label: str, value: str, style: str = "") -> None:
        self._print(Text(f"  {label:<{_LABEL_WIDTH}}").append(value, style))

    def wire(self, label: str, data: bytes | bytearray, note: str) -> None:
        """The first bytes of something that crossed the wire."""
        shown = bytes(data[:_BYTES_SHOWN]).hex(" ")
        more = " ..." if len(data) > _BYTES_SHOWN else ""
        self.fact(label, f"{shown}{more}  ({note})", "cyan")

    def judge(self, right: bool, label: str, value: str) -> bool:
        """State one result; a wrong one is remembered for the verdict at the end."""
        self.fact(label, value, "green" if right else "bold red")
        if not right:
            self.failures.append(f"{label} {value}")
        return right

    def fail(self, text: str) -> None:
        self.failures.append(text)
        self._print(Text(f"\n{text}", "bold red"))

    def conclude(self, success: str) -> None:
        """The one-line verdict."""
        if self.failures:
            first = self.failures[0].splitlines()[0]
            self._print(Text(f"\nVerdict: FAILED ({len(self.failures)} step(s)): {first}", "bold red"))
        else:
            self._print(Text(f"\nVerdict: {success}", "bold green"))

    def _print(self, text: Text) -> None:
        self._console.print(text, soft_wrap=True)
