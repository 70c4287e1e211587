"""`culvert ca` and secrets: the modes of files that hold keys, and a CA whose key has a pass phrase."""

from __future__ import annotations

import stat
import subprocess
from pathlib import Path

from .daemon import command, run
from .harness import PATIENCE, require
from .terminal import Terminal


def test_every_key_is_its_owners_alone_whatever_the_umask(tmp_path: Path) -> None:
    script = 'umask 0 && "$@" ca init && "$@" ca issue a && "$@" ca issue b --bundle'
    done = run(["sh", "-c", script, "sh", *command()], folder=tmp_path)
    assert done.returncode == 0, done.stderr
    holders = [p for p in tmp_path.rglob("*") if p.is_file() and b"PRIVATE KEY" in p.read_bytes()]
    assert sorted(path.name for path in holders) == ["a.key", "b.pem", "ca.key"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in holders} == {0o600}


def launch(folder: Path, terminal: Terminal, *arguments: str) -> subprocess.Popen[str]:
    """`culvert ca ARGUMENTS` on a terminal."""
    return subprocess.Popen(
        [require("setsid"), "--ctty", "--wait", *command("ca", *arguments)],
        cwd=folder,
        stdin=terminal.slave,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_pass_phrase_is_chosen_once_and_asked_for_to_sign(tmp_path: Path, terminal: Terminal) -> None:
    process = launch(tmp_path, terminal, "init", "--encrypt")
    terminal.answer("New pass phrase for ca/ca.key: ", "open sesame")
    terminal.answer("The same once more: ", "open sesame")
    assert process.communicate(timeout=PATIENCE)[1] == ""
    assert process.returncode == 0
    assert b"ENCRYPTED" in (tmp_path / "ca" / "ca.key").read_bytes()
    process = launch(tmp_path, terminal, "issue", "db.example")
    terminal.answer("Pass phrase for ca/ca.key: ", "wrong guess")
    terminal.answer("Pass phrase for ca/ca.key: ", "open sesame")
    assert process.communicate(timeout=PATIENCE)[1] == ""
    assert process.returncode == 0
    assert (tmp_path / "db.example.key").exists()
    assert "sesame" not in terminal.shown
    unlocked = ["pkey", "-in", "ca/ca.key", "-passin", "pass:open sesame", "-noout"]
    assert run([require("openssl"), *unlocked], folder=tmp_path).returncode == 0


def test_two_pass_phrases_that_differ_make_no_ca(tmp_path: Path, terminal: Terminal) -> None:
    process = launch(tmp_path, terminal, "init", "--encrypt")
    terminal.answer("New pass phrase for ca/ca.key: ", "open sesame")
    terminal.answer("The same once more: ", "open sesam")
    complaints = process.communicate(timeout=PATIENCE)[1]
    assert (process.returncode, complaints) == (
        1,
        "[!] The CA is not made: the two pass phrases differ\n",
    )
    assert list(tmp_path.iterdir()) == []


def test_without_a_terminal_nothing_is_signed(tmp_path: Path) -> None:
    done = run([require("setsid"), "--wait", *command("ca", "init", "--encrypt")], folder=tmp_path)
    assert done.returncode == 1
    assert "there is no terminal to ask for its pass phrase on" in done.stderr
    assert list(tmp_path.iterdir()) == []
