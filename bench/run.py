"""The bench's entry: `python -m bench` or `python bench/run.py`; --help lists the options.

Exit status 0 when everything was measured, 1 when something failed, 2 when the bench could not begin.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from OpenSSL import SSL

if not __package__:  # Run as a script: the folder that holds the package is not on the path.
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench import machine, peers, table
from bench.errors import MeasureError
from bench.measures import MEASURES, Effort, Outcome, Scene
from bench.peers import CULVERT, STUNNEL, Program
from bench.table import Report

_FULL = Effort(rounds=5, budget=450, bulk=3, trips=3, handshakes=2, idle=1000, starts=3)
_QUICK = Effort(rounds=2, budget=75, bulk=1, trips=1, handshakes=1, idle=1000, starts=1)
_FORMATS = {"text": table.as_text, "markdown": table.as_markdown, "json": table.as_json}
_CONDITIONS = (
    f"both: one certificate (ECDSA P-256), {peers.CIPHERSUITE}, group {peers.GROUP} but where said; "
    "Culvert with workers = 1; 1 GB = 10^9 bytes",
    "figures: medians of {rounds} interleaved round(s); ratio: Culvert / stunnel, median of each round's",
    "a handshake includes the connection to the backend and the end in good order; with a request: "
    "openssl s_time -www, without: an own client",
)


def main() -> int:
    """Run what the command line asks for, print the table, and give the exit status."""
    arguments = _arguments()
    missing = [program for program in ("stunnel4", "openssl") if shutil.which(program) is None]
    if missing:
        print(f"bench: not installed: {', '.join(missing)}", file=sys.stderr)
        return 2
    for number in (signal.SIGINT, signal.SIGTERM):
        # As an exception, so that every process and file goes the way it does at the end of a measure.
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    _raise_descriptor_limit()
    effort = _QUICK if arguments.quick else _FULL
    if arguments.rounds is not None:
        effort = replace(effort, rounds=arguments.rounds, budget=float("inf"))
    report = Report(machine.facts())
    with tempfile.TemporaryDirectory(prefix="culvert-bench-") as folder:
        certificate = Path(folder, "certificate.pem")
        peers.make_certificate(certificate)
        done = _rounds(Scene(Path(folder), certificate, effort), arguments.only or list(MEASURES), report)
    report.notes[:0] = [condition.format(rounds=done) for condition in _CONDITIONS]
    print(_FORMATS[arguments.format](report))
    return 1 if report.failures else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench", description="Culvert and Debian's stunnel4 side by side")
    parser.add_argument("--rounds", type=_positive, help="how many rounds, whatever time they take")
    parser.add_argument("--quick", action="store_true", help="a rough result in about a minute")
    parser.add_argument("--only", action="append", choices=list(MEASURES), help="this measure; repeatable")
    parser.add_argument("--format", choices=list(_FORMATS), default="text")
    return parser.parse_args()


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 up")
    return int(text)


def _raise_descriptor_limit() -> None:
    """The idle connections take two descriptors each in the tunnel; what is started inherits the limit."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 16384), hard))


def _rounds(scene: Scene, measures: Sequence[str], report: Report) -> int:
    """Fill the report; gives the number of rounds made, which the time budget bounds."""
    begin = time.monotonic()
    longest = 0.0
    for number in range(1, scene.effort.rounds + 1):
        round_begin = time.monotonic()
        if number > 1 and round_begin - begin + longest > scene.effort.budget:
            return number - 1
        for name in measures:
            print(f"round {number} of {scene.effort.rounds}: {name}", file=sys.stderr)
            _one_round(scene, name, report)
        longest = max(longest, time.monotonic() - round_begin)
    return scene.effort.rounds


def _one_round(scene: Scene, name: str, report: Report) -> None:
    stunnel = _measured(scene, name, STUNNEL, report)
    culvert = _measured(scene, name, CULVERT, report)
    if stunnel is None or culvert is None:
        return
    for quantity, figure in stunnel.figures.items():
        report.rounds.setdefault(quantity, []).append((figure, culvert.figures[quantity]))


def _measured(scene: Scene, name: str, program: Program, report: Report) -> Outcome | None:
    """None, and an entry among the failures, where the measure has no result."""
    try:
        outcome = MEASURES[name](program, scene)
    except (MeasureError, OSError, SSL.Error) as failure:
        report.failures.append(f"{name} of {program.name}: {failure or type(failure).__name__}")
        return None
    report.notes.extend(note for note in outcome.notes if note not in report.notes)
    return outcome


if __name__ == "__main__":
    sys.exit(main())
