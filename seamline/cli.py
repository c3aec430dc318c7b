"""The ``seamline`` command: words to one call, and Reports to words.

Exit codes: 0 it ran; 1 ``scan --fail-on-forged`` found a forgery; 2 something could not be analysed or done; 130
stopped by the user.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import IO, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

import seamline

from .errors import SeamlineError
from .report import VERDICTS, Report

app = typer.Typer(
    help="Find forged photos, videos and sound recordings, and show where they were forged.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

LISTED = 2  # segments of a clip that the table names
DASH = "\u2013"  # between two times
COLOURS = {"forged": "bold red", "authentic": "green", "error": "yellow"}


@app.callback(invoke_without_command=True)
def _seamline(version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False) -> None:
    # Before torch is imported: threads that spin while they wait are several times slower on a busy machine.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if version:
        print(seamline.__version__)
        raise typer.Exit


@app.command()
def scan(
    paths: Annotated[list[str], typer.Argument(metavar="PATH...", help="Files, folders or globs.")],
    model: Annotated[str, typer.Option(help="Catalogue name, or path of a .safetensors file.")] = "default",
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for pictures: mask, heat map and overlay of every photo, timeline of every clip."),
    ] = None,
    json_to: Annotated[
        str | None, typer.Option("--json", metavar="FILE|-", help="Write reports as JSON Lines; - is stdout.")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda or auto.")] = "cpu",
    proposals: Annotated[
        int,
        typer.Option(min=0, metavar="N", help="List the N likeliest [score, start, end] of every clip in --json."),
    ] = 0,
    fail_on_forged: Annotated[bool, typer.Option(help="Exit with 1 if any file is forged.")] = False,
) -> None:
    """Scan photos, videos and sound recordings for forgeries.

    Exit code: 0 all analysed, 1 with --fail-on-forged if any is forged, 2 if any file could not be analysed.
    """
    with _clean_errors():
        raise typer.Exit(run_scan(paths, model, out, json_to, device, fail_on_forged, proposals))


def run_scan(
    paths: Sequence[str],
    model: str = "default",
    out: Path | None = None,
    json_to: str | None = None,
    device: str = "cpu",
    fail_on_forged: bool = False,
    proposals: int = 0,
) -> int:
    """What ``seamline scan`` does; returns its exit code.

    Raises:
        SeamlineError: nothing to scan, no such device, or unusable weights.
    """
    from .media import expand

    files = expand(paths)
    if not files:
        raise SeamlineError(f"no photos, videos or sound found in {', '.join(paths)}")
    reports: list[Report] = []
    with _json_lines(json_to) as write, _progress("scanning") as step:
        step(0, len(files))
        for report in seamline.Session(model, device, proposals=proposals).scan(files, out):
            write(report)
            # What a folder of large photos or long clips would fill the memory with.
            reports.append(replace(report, mask=None, heatmap=None, curves={}, proposals=()))
            step(len(reports), len(files))
            del report
    console = _console(stderr=json_to == "-")
    console.print(table(reports))
    console.print(summary(reports), highlight=False)
    if out is not None:
        console.print(f"pictures are in {escape(clean(str(out)))}", highlight=False)
    if any(report.verdict == "error" for report in reports):
        return 2
    return 1 if fail_on_forged and any(report.forged for report in reports) else 0


def table(reports: Sequence[Report]) -> Table:
    """Reports as a table to read."""
    from .draw import length, percent

    grid = Table(box=None, pad_edge=False, header_style="bold", show_edge=False)
    grid.add_column("file", overflow="fold")
    grid.add_column("verdict", no_wrap=True)
    grid.add_column("probability", justify="right", no_wrap=True)
    grid.add_column("regions", justify="right")
    grid.add_column("size", justify="right", no_wrap=True)
    grid.add_column("note", overflow="fold")
    for report in reports:
        media = report.media
        note = (report.error or "").removeprefix(f"{media.path}: ") or "; ".join(report.warnings)
        grid.add_row(
            Text(clean(media.path)),
            Text(report.verdict.replace("_", " "), style=COLOURS.get(report.verdict, "")),
            percent(report.probability),
            where(report),
            length(media.duration) if media.duration else f"{media.width}x{media.height}" if media.width else "-",
            Text(clean(note)),
        )
    return grid


def where(report: Report) -> str:
    """How many areas of a photo are forged, or which spans of a clip, the first ``LISTED`` by time."""
    from .draw import MODALITIES, between

    if report.probability is None:
        return "-"
    if not report.segments:
        return str(len(report.regions))
    longest = report.media.duration or max(segment.end for segment in report.segments)
    spans = [
        f"{between(s.start, s.end, longest, dash=DASH)} {MODALITIES.get(s.modality, s.modality)}"
        for s in report.segments[:LISTED]
    ]
    more = len(report.segments) - len(spans)
    return ", ".join(spans) + (f" and {more} more" if more else "")


def summary(reports: Sequence[Report]) -> str:
    """One line: how many files, and how many of each verdict."""
    words = {"error": "could not be analysed", "not_applicable": "not applicable"}
    counts = Counter(report.verdict for report in reports)
    parts = (f"{counts[verdict]} {words.get(verdict, verdict)}" for verdict in VERDICTS if counts[verdict])
    return f"{len(reports)} {'file' if len(reports) == 1 else 'files'}: {', '.join(parts)}"


@app.command()
def models(as_json: Annotated[bool, typer.Option("--json", help="Print all facts as JSON.")] = False) -> None:
    """List the catalogue of weights."""
    with _clean_errors():
        cards = seamline.models()
        if as_json:
            print(json.dumps([asdict(card) for card in cards], indent=2))
            return
        grid = Table(box=None, pad_edge=False, header_style="bold")
        for heading in ("name", "version", "threshold", "windowing", "trained on", "licence"):
            grid.add_column(heading)
        for card in cards:
            facts = (card.name, card.version, f"{card.threshold:g}", card.windowing, card.training_data, card.licence)
            grid.add_row(*(Text(fact or "-") for fact in facts))
        _console().print(grid)


@app.command()
def forge(
    source: Annotated[Path, typer.Argument(metavar="IN", help="Folder of authentic photos.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder for media, masks and the manifest.")],
    recipe: Annotated[Path, typer.Option(help="TOML file that says what to forge and how.")],
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 1,
) -> None:
    """Make forgeries whose truth is exact, from authentic photos."""
    with _clean_errors(), _progress("forging") as step:
        from .synthesis.recipe import forge as run

        print(run(source, out, recipe, workers=workers, progress=step))


@app.command()
def train(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="TOML file of the training run.")],
    data: Annotated[Path, typer.Option(help="Folder of samples, such as seamline forge writes.")],
    out: Annotated[Path, typer.Option(help="Folder for weights, logs and the state to resume from.")],
    fresh: Annotated[bool, typer.Option(help="Start over instead of resuming.")] = False,
) -> None:
    """Train a detector; a run that was stopped goes on where it was."""
    with _clean_errors():
        from .train import train as run

        print(run(recipe, data, out, resume=not fresh))


@app.command()
def evaluate(
    model: Annotated[str, typer.Option(help="Catalogue name, or path of a .safetensors file.")],
    data: Annotated[Path, typer.Option(help="Folder of samples with known truth.")],
    out: Annotated[Path | None, typer.Option(help="JSON file for the row; a CSV of all files goes beside it.")] = None,
    perturb: Annotated[str, typer.Option(help="Done to every photo first: none, jpegQ or resizeF.")] = "none",
    device: Annotated[str, typer.Option(help="cpu, cuda or auto.")] = "cpu",
    limit: Annotated[int | None, typer.Option(min=1, help="Only so many files, spread evenly.")] = None,
) -> None:
    """Measure a model on samples whose truth is known."""
    with _clean_errors():
        from .evaluate import card_table
        from .evaluate import evaluate as run

        print(card_table([run(model, data, out=out, perturb=perturb, device=device, limit=limit)]))


@app.command()
def calibrate(
    weights: Annotated[str, typer.Argument(metavar="WEIGHTS", help="A .safetensors file of a training run.")],
    data: Annotated[Path, typer.Option(help="Samples that neither trained these weights nor will judge them.")],
    out: Annotated[Path, typer.Option(help="The same weights with their probability and thresholds.")],
    false_alarms: Annotated[float, typer.Option(help="Share of authentic files that may be flagged.")] = 0.03,
) -> None:
    """Fit a model's probability and thresholds on held-out samples whose truth is known."""
    with _clean_errors():
        from .evaluate import calibrate as run

        print(json.dumps(run(weights, data, out, false_alarms=false_alarms)))


@app.command()
def card(
    weights: Annotated[str, typer.Argument(metavar="WEIGHTS", help="Catalogue name, or path of calibrated weights.")],
    run: Annotated[Path, typer.Option(help="Folder of the training run.")],
    words: Annotated[Path, typer.Option(help="Markdown file with use, limits and licence.")],
    row: Annotated[list[str], typer.Option(metavar="HEADING=FILE", help="A row that evaluate --out wrote.")],
    out: Annotated[Path, typer.Option(help="Markdown file to write.")],
) -> None:
    """Write a model card from what training and evaluation recorded."""
    with _clean_errors():
        from .evaluate import model_card

        rows = []
        for item in row:
            heading, _, file = item.rpartition("=")
            try:
                rows.append((heading, json.loads(Path(file).read_text("utf-8"))))
            except ValueError as cause:
                raise SeamlineError(f"{file}: not a row of seamline evaluate: {cause}") from cause
        out.write_text(model_card(weights, run, rows, words), encoding="utf-8")
        print(out)


def clean(text: str) -> str:
    """Text from outside made safe for a terminal: what cannot be printed is shown as an escape."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


@contextlib.contextmanager
def _clean_errors() -> Iterator[None]:
    """One line on stderr instead of a traceback, for what went wrong on purpose or was stopped."""
    try:
        yield
    except SeamlineError as cause:
        _complain(f"error: {cause}", 2, cause)
    except OSError as cause:
        _complain(f"error: {cause.filename or ''}: {cause.strerror or cause}", 2, cause)
    except KeyboardInterrupt as cause:
        _complain("stopped", 130, cause)


def _console(stderr: bool = False) -> Console:
    """Where tables go: as wide as the terminal, or one file a line in a pipe or a log."""
    console = Console(stderr=stderr)
    return console if console.is_terminal else Console(stderr=stderr, width=1000)


def _complain(text: str, code: int, cause: BaseException) -> None:
    print(clean(text), file=sys.stderr)
    raise typer.Exit(code) from cause


@contextlib.contextmanager
def _json_lines(target: str | None) -> Iterator[Callable[[Report], None]]:
    """A writer of JSON Lines to a file, to stdout for ``-``, or to nowhere. Each line is written at once and whole."""
    if target is None:
        yield lambda report: None
        return

    def writer(file: IO[bytes]) -> Callable[[Report], None]:
        def write(report: Report) -> None:
            # A name that is not UTF-8 holds lone surrogates, which JSON writes as escapes.
            file.write(report.to_json().encode("utf-8", "backslashreplace") + b"\n")
            file.flush()

        return write

    if target == "-":
        yield writer(sys.stdout.buffer)
        return
    with open(target, "wb") as file:
        yield writer(file)


@contextlib.contextmanager
def _progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on stderr, which takes (done, in all); nothing where stderr is not a terminal."""
    console = Console(stderr=True)
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=None)

        def step(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        yield step


if __name__ == "__main__":
    app()
