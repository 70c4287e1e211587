"""The first process of a guest: makes a machine of the bare kernel, runs one scenario, and powers off.

Whatever goes wrong is on the console as a traceback, for the host to show.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import traceback
from pathlib import Path
from types import FrameType
from typing import Any

from bench.uml import console

_POWER_OFF = 0x4321FEDC
"""LINUX_REBOOT_CMD_POWER_OFF (reboot(2))."""

_MEMORY_FILE_SYSTEMS = {
    "/proc": ("proc", ""),
    "/sys": ("sysfs", ""),
    "/run": ("tmpfs", "mode=755"),
    "/dev/pts": ("devpts", "ptmxmode=666"),
    "/dev/shm": ("tmpfs", ""),
}


def report(**record: Any) -> None:
    """Tell the host something, in values that JSON has."""
    # In one write: the kernel's own lines come between two writes, not into one.
    os.write(1, f"\n{console.line(record)}\n".encode())


def finish() -> None:
    """Be over, and power off: a scenario whose programs may end with the machine calls it by itself."""
    report(end=True)
    _power_off()


def main() -> None:
    """Run the plan that the command line names."""
    try:
        _prepare()
        plan = json.loads(Path(sys.argv[1]).read_text())
        signal.signal(signal.SIGALRM, _too_late)
        signal.setitimer(signal.ITIMER_REAL, plan["seconds"])
        if library := os.environ.get("LD_PRELOAD"):
            _start_clock(library)
        for module in plan["modules"]:
            load(module)
        importlib.import_module(plan["scenario"]).run(plan["parameters"])
    except BaseException:
        traceback.print_exc()
    else:
        report(end=True)
    finally:
        _power_off()


def _power_off() -> None:
    sys.stdout.flush()
    os.sync()
    ctypes.CDLL(None).reboot(_POWER_OFF)


def _too_late(number: int, frame: FrameType | None) -> None:
    raise TimeoutError("the scenario took too long")


def _prepare() -> None:
    for place, (kind, options) in _MEMORY_FILE_SYSTEMS.items():
        if place.startswith("/dev/"):
            Path(place).mkdir(exist_ok=True)
        subprocess.run(["mount", "-t", kind, "-o", options or "rw", kind, place], check=True)
    for place in ("/run/netns", "/run/lock"):
        Path(place).mkdir()
    os.chdir("/run")


def _start_clock(library: str) -> None:
    """Have the programs that follow read the clock by `clock.c`."""
    rate = ctypes.CDLL(library).guest_clock_rate
    rate.restype = ctypes.c_double
    os.environ["GUEST_CLOCK_RATE"] = repr(rate())


def load(module: str) -> None:
    """Load a kernel module and what it needs; what is loaded or built in needs no loading."""
    folder = Path("/usr/lib/uml/modules", platform.release())
    built_in = {Path(line).stem for line in (folder / "modules.builtin").read_text().splitlines()}
    if module in built_in:
        return
    needed = {
        Path(path).stem: [path, *others.split()]
        for path, _, others in (
            line.partition(":") for line in (folder / "modules.dep").read_text().splitlines()
        )
    }
    if module not in needed:
        raise FileNotFoundError(f"the kernel module {module} is neither in {folder} nor built in")
    loaded = {line.split()[0] for line in Path("/proc/modules").read_text().splitlines()}
    for path in reversed(needed[module]):  # modules.dep(5): the last one is to be loaded first
        if Path(path).stem.replace("-", "_") not in loaded:
            subprocess.run(["insmod", str(folder / path)], check=True)


def own_folder(path: str) -> None:
    """Put a copy of a folder over it that can be written to, in memory."""
    copy = Path("/run/copies", path.lstrip("/"))
    shutil.copytree(path, copy)
    subprocess.run(["mount", "--bind", str(copy), path], check=True)


if __name__ == "__main__":
    # Under its own name, so that scenarios which import it find this module and not a second one.
    importlib.import_module("bench.uml.guest").main()
