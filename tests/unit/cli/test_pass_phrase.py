"""The prompt for a pass phrase: on the terminal, without an echo, and nowhere else."""

from __future__ import annotations

import os
import select
import subprocess
import sys

import pytest

from culvert.cli.pass_phrase import Prompt

TIME_LIMIT = 20.0

ASK = """
import sys
from culvert.cli.pass_phrase import Prompt
sys.stdout.buffer.write(Prompt()('/etc/key.pem'))
"""
ON_A_TERMINAL = f"import fcntl, os, termios; os.setsid(); fcntl.ioctl(2, termios.TIOCSCTTY, 0){ASK}"


def read_until(terminal: int, words: bytes) -> bytes:
    """What the terminal shows, up to `words`."""
    shown = b""
    while words not in shown:
        assert select.select([terminal], [], [], TIME_LIMIT)[0], shown
        shown += os.read(terminal, 4096)
    return shown


@pytest.mark.parametrize(
    ("typed", "phrase", "reason"),
    [
        (b"open sesame\n", b"open sesame", b""),
        ("öffne dich\n".encode(), "öffne dich".encode(), b""),
        (b"\x04", b"", b"no pass phrase was given"),
        (b"\xff\n", b"", b"no text in this locale"),
    ],
)
def test_what_is_typed_is_returned_and_not_shown(typed: bytes, phrase: bytes, reason: bytes) -> None:
    terminal, end = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", ON_A_TERMINAL],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=end,
        env={**os.environ, "LC_ALL": "C.UTF-8", "PYTHONUTF8": "0"},
    )
    os.close(end)
    try:
        read_until(terminal, b"Pass phrase for /etc/key.pem: ")
        os.write(terminal, typed)
        shown = read_until(terminal, reason or b"\n")
        output, _ = process.communicate(timeout=TIME_LIMIT)
    finally:
        process.kill()
        process.wait()
        os.close(terminal)
    assert output == phrase
    assert typed.strip(b"\n") not in shown


def test_without_a_terminal_nobody_is_asked() -> None:
    result = subprocess.run(
        [sys.executable, "-c", ASK],
        input=b"from standard input\n",
        capture_output=True,
        timeout=TIME_LIMIT,
        check=False,
        start_new_session=True,
    )
    assert result.stdout == b""
    assert result.stderr.splitlines()[-1].startswith(b"OSError: there is no terminal")


def test_a_running_daemon_asks_nobody() -> None:
    prompt = Prompt()
    prompt.closed = True
    with pytest.raises(OSError, match="at the start only"):
        prompt("/etc/key.pem")
