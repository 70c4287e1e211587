"""The figures of all rounds as lines of a table, and the table as text, markdown or JSON."""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from bench.measures import QUANTITIES, Quantity

_HEADINGS = ("what", "stunnel", "Culvert", "ratio", "goal", "reached?")


@dataclass(slots=True)
class Report:
    """What a run found. `rounds` maps a quantity to pairs of one round's figures: stunnel's, Culvert's."""

    facts: Mapping[str, str]
    rounds: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Line:
    """Medians over the rounds; `ratio` is the median of the ratios within each round."""

    what: str
    unit: str
    stunnel: float
    culvert: float
    ratio: float
    goal: str
    reached: bool | None


def lines(report: Report) -> list[Line]:
    """The lines for which there are figures, in the order of QUANTITIES."""
    return [_line(quantity, pairs) for quantity in QUANTITIES if (pairs := report.rounds.get(quantity.name))]


def _line(quantity: Quantity, pairs: Sequence[tuple[float, float]]) -> Line:
    culvert = statistics.median(pair[1] for pair in pairs)
    ratio = statistics.median(pair[1] / pair[0] for pair in pairs)
    goal, reached = "", None
    if quantity.ratio_at_most is not None:
        goal, reached = f"≤ {quantity.ratio_at_most}", ratio <= quantity.ratio_at_most
    elif quantity.figure_below is not None:
        goal, reached = f"< {quantity.figure_below:.0f} {quantity.unit}", culvert < quantity.figure_below
    stunnel = statistics.median(pair[0] for pair in pairs)
    return Line(quantity.what, quantity.unit, stunnel, culvert, ratio, goal, reached)


def as_text(report: Report) -> str:
    """Columns of equal width, for a terminal."""
    rows = _rows(report)
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADINGS))]
    table = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    return "\n".join([*_heads(report), "", *(line.rstrip() for line in table), "", *_remarks(report)])


def as_markdown(report: Report) -> str:
    """A table for a README."""
    heading, *rows = _rows(report)
    table = [f"| {' | '.join(row)} |" for row in (heading, ["---"] * len(_HEADINGS), *rows)]
    remarks = [f"- {remark}" for remark in (*_heads(report), *_remarks(report))]
    return "\n".join([*table, "", *remarks])


def as_json(report: Report) -> str:
    """Everything, the figures of each round included."""
    return json.dumps(
        {
            "facts": report.facts,
            "lines": [dataclasses.asdict(line) for line in lines(report)],
            "rounds": report.rounds,
            "notes": report.notes,
            "failures": report.failures,
        },
        indent=2,
        ensure_ascii=False,
    )


def _rows(report: Report) -> list[list[str]]:
    shown = {None: "", True: "yes", False: "NO"}
    return [
        list(_HEADINGS),
        *(
            [
                line.what,
                f"{_three_digits(line.stunnel)} {line.unit}",
                f"{_three_digits(line.culvert)} {line.unit}",
                f"{line.ratio:.2f}",
                line.goal,
                shown[line.reached],
            ]
            for line in lines(report)
        ),
    ]


def _three_digits(figure: float) -> str:
    return f"{figure:.0f}" if figure >= 100 else f"{figure:#.3g}"


def _heads(report: Report) -> list[str]:
    return [f"{name}: {fact}" for name, fact in report.facts.items()]


def _remarks(report: Report) -> list[str]:
    return [*report.notes, *(f"failed: {failure}" for failure in report.failures)]
