"""README's section "A first tunnel" and docs/first-tunnel.md, done to the letter.

What one machine cannot do is adapted: the ports are the kernel's, both ends are on 127.0.0.1, each machine
is a folder, and scp is a copy between them.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from .daemon import answers, fixed_ports
from .echo import refused_tls
from .harness import PATIENCE, LogLines, eventually, marked, require
from .peers import client_context

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PAGE = ROOT / "docs" / "first-tunnel.md"
TITLE = "## A first tunnel\n"
MACHINES = ("server", "client")
LISTENS = {"http.server": "8000", "server.conf": "8443", "client.conf": "8080"}
"""Where each program that is left running can be reached, as the section has it."""


@dataclass(frozen=True)
class Block:
    """A block of the section, on one machine: a file's content, or commands where no file is named."""

    machine: str
    file: str | None
    text: str


def read_blocks(section: str) -> list[Block]:
    """The indented blocks; the paragraph before one says on which machine, and of which file it is."""
    blocks: list[Block] = []
    machine, file = "", None
    for paragraph in section.split("\n\n"):
        if paragraph.startswith("    "):
            text = re.sub(r"^    ", "", paragraph, flags=re.MULTILINE)
            blocks.append(Block(machine, file, text))
            continue
        machine = next((name for name in MACHINES if paragraph.startswith(f"On the {name},")), machine)
        named = re.search(r"`(\w+\.conf)`:$", paragraph)
        file = named[1] if named is not None else None
    return blocks


class Machines:
    """Both machines, as folders; what was started on them ends with `stop`."""

    def __init__(self, folder: Path, ports: dict[str, int]) -> None:
        self.folders = {name: folder / name for name in MACHINES}
        for each in self.folders.values():
            each.mkdir()
        self._ports = ports
        self._mark = uuid.uuid4().hex
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self._environment = {**os.environ, "PATH": path, "CULVERT_TEST_MARK": self._mark}
        self._started: list[subprocess.Popen[str]] = []
        self.logs: dict[str, LogLines] = {}
        self.output = ""

    def adapt(self, text: str) -> str:
        """What a single machine must have otherwise: ports and addresses."""
        text = text.replace("connect = server.example.com:", "connect = 127.0.0.1:")
        text = text.replace("accept = 8443", "accept = 127.0.0.1:8443")
        text = re.sub(
            r"^scp (.*) client\.example\.com:$", rf"cp \1 {self.folders['client']}", text, flags=re.M
        )
        return re.sub(r"\b(8000|8443|8080)\b", lambda port: str(self._ports[port[0]]), text)

    def follow(self, block: Block) -> None:
        text = self.adapt(block.text)
        folder = self.folders[block.machine]
        if block.file is not None:
            (folder / block.file).write_text(f"{text}\n")
            return
        for line in text.splitlines():
            if line.endswith(" &"):
                self._start(line.removesuffix(" &"), folder)
            else:
                self._run(line, folder)

    def _run(self, line: str, folder: Path) -> None:
        done = subprocess.run(
            ["sh", "-c", line],
            cwd=folder,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert done.returncode == 0, f"{line}: {done.stderr}"
        self.output += done.stdout

    def _start(self, line: str, folder: Path) -> None:
        process = subprocess.Popen(
            shlex.split(line),
            cwd=folder,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        )
        self._started.append(process)
        assert process.stderr is not None
        self.logs[line] = LogLines(process.stderr)
        written = next(port for words, port in LISTENS.items() if words in line)
        eventually(lambda: answers(self._ports[written]), f"a listener of {line}")

    def stop(self) -> None:
        for process in self._started:
            process.send_signal(signal.SIGTERM)
        for process in self._started:
            process.wait(PATIENCE)
        for log in self.logs.values():
            log.wait_end()
        assert not marked(self._mark)


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[Machines]:
    with fixed_ports(3) as ports:
        machines = Machines(tmp_path, dict(zip(LISTENS.values(), ports, strict=True)))
        yield machines
        machines.stop()


def shown(text: str) -> list[str]:
    """The lines that a page shows, or that were seen, without what differs from run to run: numbers."""
    return [re.sub(r"\d+", "0", line) for line in text.splitlines()]


def test_each_step_of_the_first_tunnel_shows_what_its_page_says(machines: Machines) -> None:
    require("curl")
    steps = PAGE.read_text().partition("## 1. ")[2].partition("## When it does not work")[0]
    for block in read_blocks(steps):
        machines.follow(block)
    promised = "".join(re.findall(r"^```text\n(.*?)^```$", steps, re.M | re.S))
    refusal = "peer did not return a certificate"
    assert refusal in promised
    machines.logs["culvert run server.conf"].wait(refusal)
    machines.logs["culvert run client.conf"].wait("Connection closed: [1-9]")
    logged = [line for log in machines.logs.values() for line in log.lines]
    seen = {*shown(machines.output), *shown("\n".join(logged))}
    assert [line for line in shown(promised) if line not in seen] == []


def test_the_quick_start_leads_to_a_mutually_authenticated_tunnel(machines: Machines) -> None:
    require("curl")
    section = README.read_text().partition(TITLE)[2].partition("\n## ")[0]
    blocks = read_blocks(section)
    assert {block.file for block in blocks} == {None, "server.conf", "client.conf"}
    for block in blocks:
        machines.follow(block)
    assert machines.output.endswith("\nHello through Culvert\n")
    for config, peer in (("server.conf", "client.example.com"), ("client.conf", "server.example.com")):
        machines.logs[f"culvert run {config}"].wait(f"Certificate accepted at depth=0: CN={peer}")
    trust = machines.folders["client"] / "ca.pem"
    port = int(machines.adapt("8443"))
    refused_tls(port, client_context(trust=trust))
    machines.logs["culvert run server.conf"].wait("peer did not return a certificate")
    assert not list(machines.folders["client"].glob("**/ca.key"))
