"""The jail of the demo: what a program needs is found, and a jail that cannot be had is refused in words."""

from __future__ import annotations

import os
import shutil
import struct
import sys
from pathlib import Path

import pytest

from culvert.cli.demo.jail import JailError, build_jail, elf_interpreter, unprivileged_identity

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can build a jail")


def image(bits: int, order: str, interpreter: bytes | None) -> bytes:
    """An ELF image with two program headers, of which the second may name a loader."""
    wide = bits == 64
    header = b"\x7fELF" + bytes([2 if wide else 1, 2 if order == ">" else 1, 1]) + bytes(9)
    size = 64 if wide else 52
    entry_size = 56 if wide else 32
    text = size + 2 * entry_size
    path = b"" if interpreter is None else interpreter + b"\0"
    kinds = (1, 3 if interpreter is not None else 1)
    if wide:
        fields = struct.pack(order + "HHIQQQIHHHHHH", 2, 62, 1, 0, size, 0, 0, size, entry_size, 2, 0, 0, 0)
        entries = [
            struct.pack(order + "IIQQQQQQ", kind, 0, text, 0, 0, len(path), len(path), 1) for kind in kinds
        ]
    else:
        fields = struct.pack(order + "HHIIIIIHHHHHH", 2, 3, 1, 0, size, 0, 0, size, entry_size, 2, 0, 0, 0)
        entries = [
            struct.pack(order + "IIIIIIII", kind, text, 0, 0, len(path), len(path), 0, 1) for kind in kinds
        ]
    return header + fields + b"".join(entries) + path


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("order", ["<", ">"])
def test_the_loader_of_every_kind_of_image(bits: int, order: str) -> None:
    assert elf_interpreter(image(bits, order, b"/lib/ld.so.1")) == "/lib/ld.so.1"
    assert elf_interpreter(image(bits, order, None)) is None


def test_a_program_of_this_machine_has_a_loader_that_exists() -> None:
    loader = elf_interpreter(Path(sys.executable).resolve().read_bytes())
    assert loader is None or Path(loader).exists()


@pytest.mark.parametrize("data", [b"", b"#!/bin/sh\n", image(64, "<", b"/lib/ld.so")[:70]])
def test_what_is_no_program_is_refused(data: bytes) -> None:
    with pytest.raises(JailError, match="ELF image"):
        elf_interpreter(data)


@AS_ROOT
def test_a_program_runs_in_the_jail_that_was_built_for_it(tmp_path: Path) -> None:
    cat = shutil.which("cat")
    assert cat is not None
    jail = tmp_path / "jail"
    jail.mkdir(mode=0o755)
    identity = unprivileged_identity()
    program = build_jail(jail, Path(cat), identity)
    assert program == "/bin/cat"
    assert (jail / "bin/cat").read_bytes() == Path(cat).resolve().read_bytes()
    assert (jail / "run").stat().st_uid == identity.user.pw_uid


@AS_ROOT
def test_a_program_that_does_not_echo_is_refused(tmp_path: Path) -> None:
    true = shutil.which("true")
    assert true is not None
    jail = tmp_path / "jail"
    jail.mkdir(mode=0o755)
    with pytest.raises(JailError, match="a trial in the jail failed"):
        build_jail(jail, Path(true), unprivileged_identity())
