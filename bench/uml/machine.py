"""Boots user-mode Linux (Debian's package user-mode-linux) as a process, to run one scenario in it.

The guest has the host's files, all of them read-only (hostfs): it runs the host's programs and this very
source, and writes to file systems in its memory alone. It has one processor and powers off at the end.
A scenario is a module with `run(parameters)`, which gives its findings to `bench.uml.guest.report`.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.errors import MeasureError
from bench.uml import console
from bench.uml.console import Record

PROGRAMS = ("linux.uml", "ip", "insmod", "nsenter")
"""What every guest needs."""

_REPOSITORY = Path(__file__).resolve().parent.parent.parent
_GRACE = 20.0
"""Seconds for the boot and the end, beyond what the scenario has."""

_TAIL = 40
"""Lines of the console that a failure shows."""


class MachineError(MeasureError):
    """The machine did not boot, or its scenario did not come to its end: the text shows the console."""


def missing(programs: Sequence[str] = ()) -> list[str]:
    """Which of these programs, and of those that every guest needs, this machine does not have."""
    return [program for program in (*PROGRAMS, *programs) if shutil.which(program) is None]


def boot(
    scenario: str,
    parameters: Mapping[str, Any],
    *,
    seconds: float,
    modules: Sequence[str] = (),
    clock: bool = False,
) -> list[Record]:
    """Run a scenario (the name of its module) for at most so long: what it reported, in order.

    `modules` are kernel modules to load first. `parameters` go through JSON. `clock` has programs read the
    clock as cheaply as on other kernels (`clock.c`); it needs a C compiler. Raises MachineError.
    """
    with tempfile.TemporaryDirectory(prefix="culvert-uml-") as name:
        folder = Path(name)
        plan = folder / "plan.json"
        plan.write_text(
            json.dumps(
                {
                    "scenario": scenario,
                    "parameters": dict(parameters),
                    "modules": list(modules),
                    "seconds": seconds,
                }
            )
        )
        preload = _compiled_clock(folder) if clock else None
        output = _run(_kernel(folder, _init(folder, plan, preload)), seconds + _GRACE)
    try:
        found = console.records(output)
    except ValueError as error:
        raise MachineError(f"{error}\n{_end_of(output)}") from None
    if not found or found[-1] != {"end": True}:
        raise MachineError(f"{scenario} did not come to its end:\n{_end_of(output)}")
    return found[:-1]


def has_compiler() -> bool:
    """Whether `boot` can be asked for the cheap clock here."""
    return platform.machine() == "x86_64" and shutil.which("cc") is not None


def _compiled_clock(folder: Path) -> Path:
    library = folder / "clock.so"
    source = Path(__file__).with_name("clock.c")
    words = ["cc", "-O2", "-shared", "-fPIC", "-o", str(library), str(source)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode != 0:
        raise MachineError(f"{source} does not compile:\n{done.stderr}")
    return library


def _init(folder: Path, plan: Path, preload: Path | None) -> Path:
    """The guest's first process: the kernel's command line cannot quote, and a path may need it."""
    words = [sys.executable, "-B", "-m", "bench.uml.guest", str(plan)]
    init = folder / "init"
    init.write_text(
        "#!/bin/sh\n"
        f"export PATH={shlex.quote(os.environ.get('PATH', os.defpath))}:/usr/sbin:/sbin\n"
        f"export PYTHONPATH={shlex.quote(_path())} PYTHONDONTWRITEBYTECODE=1 HOME=/run TMPDIR=/run\n"
        f"{f'export LD_PRELOAD={shlex.quote(str(preload))}' if preload else ''}\n"
        "exec </dev/null >/dev/console 2>&1\n"
        f"exec {shlex.join(words)}\n"
    )
    init.chmod(0o755)
    return init


def _path() -> str:
    """Where a guest finds scenarios: the bench's, and those of tests."""
    return os.pathsep.join([str(_REPOSITORY), str(_REPOSITORY / "tests")])


def _kernel(folder: Path, init: Path) -> list[str]:
    return [
        "linux.uml",
        *("rootfstype=hostfs", "rootflags=/", "ro", "mem=1024M", f"init={init}"),
        *("con=null", "con0=null,fd:1", "ssl=null", "quiet", "loglevel=1", "panic=-1"),
        *(f"uml_dir={folder}/", "umid=guest"),
    ]


def _run(argv: Sequence[str], seconds: float) -> str:
    # A session of its own: the kernel's threads and the guest's processes end with it.
    with subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    ) as process:
        try:
            return process.communicate(timeout=seconds)[0]
        except subprocess.TimeoutExpired as late:
            output = late.stdout or b""
            said = output.decode(errors="replace") if isinstance(output, bytes) else output
            raise MachineError(f"the guest still ran after {seconds:.0f} s:\n{_end_of(said)}") from None
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def _end_of(output: str) -> str:
    return "\n".join(output.splitlines()[-_TAIL:])
