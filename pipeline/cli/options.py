"""What commands share: options, how their text is read, and how a result is printed."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from rsup.models.base.errors import ArgumentError
from rsup.pipeline.public import printable

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on standard output.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the plan and touch nothing.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the output of an earlier run, starting afresh.")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a setting of the recipe; repeatable.")
]


def numbers(option: str, text: str) -> tuple[float, float, float, float]:
    """West, south, east and north of "W,S,E,N". Raises ArgumentError, naming `option`, for anything else."""
    try:
        west, south, east, north = (float(part) for part in text.split(","))
    except ValueError:
        raise ArgumentError(f"{option} {text!r}: give four numbers, west,south,east,north") from None
    return west, south, east, north


def names(text: str) -> tuple[str, ...]:
    """What stands between the commas, without spaces and without what is empty."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def asked(option: str, text: str) -> tuple[str, ...]:
    """As `names`; raises ArgumentError, naming `option`, where nothing stands there."""
    if not (found := names(text)):
        raise ArgumentError(f"{option} {text!r} names nothing; leave it out, or give names with commas between them")
    return found


def print_result(result: dict[str, Any], as_json: bool) -> None:
    """Print a result: JSON for machines, `key: value` lines for people."""
    if as_json:
        typer.echo(json.dumps(result, indent=2, default=str))
        return
    for key, value in result.items():
        if isinstance(value, dict):
            text = printable(", ".join(f"{name} {_brief(part)}" for name, part in value.items()))
        elif isinstance(value, (list, tuple)):
            lines = ["  ".join(map(str, part.values())) if isinstance(part, dict) else str(part) for part in value]
            lines = [printable(line) for line in lines]  # ids and names of files are others' words
            text = ", ".join(lines) if sum(map(len, lines)) < 80 else "".join(f"\n  {line}" for line in lines)
        else:
            text = printable(str(value))
        typer.echo(f"{key.replace('_', ' ')}: {text}")


def _brief(value: Any) -> str:
    """A figure for people: three digits that count, or hundredths where that is more; anything else as it is."""
    if not isinstance(value, float):
        return str(value)
    return f"{value:.3g}" if abs(value) < 1 else f"{value:.2f}".rstrip("0").rstrip(".")
