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

from . import output
from .errors import SeamlineError
from .errors import printable as clean
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
    bundle: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Folder for an evidence bundle of every file: page, record, pictures, hashes."
        ),
    ] = None,
    sign: Annotated[
        Path | None, typer.Option(metavar="KEY.pem", help="Ed25519 private key to sign the bundles with.")
    ] = None,
    fail_on_forged: Annotated[bool, typer.Option(help="Exit with 1 if any file is forged.")] = False,
    journal: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Where to note what is done; by default in the folder of --out."),
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Scan again what the journal says is done.")] = False,
    isolation: Annotated[
        bool, typer.Option(help="Decode files in processes that can do nothing else; without: files you trust only.")
    ] = True,
) -> None:
    """Scan photos, videos and sound recordings for forgeries, and those in zip and tar archives.

    A scan with --out or --journal that was stopped goes on where it was when it is given again.

    Exit code: 0 all analysed, 1 with --fail-on-forged if any is forged, 2 if any file could not be analysed.
    """
    with _clean_errors():
        raise typer.Exit(
            run_scan(
                paths, model, out, json_to, device, fail_on_forged, proposals, bundle, sign, journal, fresh, isolation
            )
        )


def run_scan(
    paths: Sequence[str],
    model: str = "default",
    out: Path | None = None,
    json_to: str | None = None,
    device: str = "cpu",
    fail_on_forged: bool = False,
    proposals: int = 0,
    bundle: Path | None = None,
    sign: Path | None = None,
    journal: Path | None = None,
    fresh: bool = False,
    isolate: bool = True,
) -> int:
    """What ``seamline scan`` does; returns its exit code.

    Raises:
        SeamlineError: nothing to scan, no such device, unusable weights or key, or options that exclude each other.
    """
    from .journal import NAME, Journal
    from .media import ARCHIVES, EXTENSIONS, expand

    if out is not None and bundle is not None:
        raise SeamlineError("a bundle holds all pictures of --out: give one of --out and --bundle")
    if sign is not None and bundle is None:
        raise SeamlineError("only bundles are signed: give --bundle with --sign")
    if journal is not None and bundle is not None:
        raise SeamlineError("bundles are not noted in a journal: give one of --journal and --bundle")
    files = expand(paths, endings=EXTENSIONS | ARCHIVES)
    if not files:
        raise SeamlineError(f"no photos, videos or sound found in {', '.join(paths)}")
    reports: list[Report] = []
    if journal is None and out is not None:
        journal = out / NAME
    with contextlib.ExitStack() as stack:
        write, step = stack.enter_context(_json_lines(json_to)), stack.enter_context(_progress("scanning"))
        step(0, len(files))
        session = seamline.Session(model, device, proposals=proposals, isolate=isolate)
        notes = stack.enter_context(Journal(journal, fresh)) if journal is not None else None
        for report in _bundles(session, files, bundle, sign) if bundle else session.scan(files, out, notes):
            write(report)
            # What a folder of large photos or long clips would fill the memory with.
            reports.append(replace(report, mask=None, heatmap=None, curves={}, proposals=()))
            step(len(reports), max(len(reports), len(files)))
            del report
    console = _console(stderr=json_to == "-")
    console.print(table(reports))
    console.print(summary(reports), highlight=False)
    if out is not None:
        console.print(f"pictures are in {escape(clean(str(out)))}", highlight=False)
    if bundle is not None:
        pages = escape(clean(str(bundle / "*" / "report.html")))
        console.print(f"open {pages}; check with seamline verify", highlight=False)
    if any(report.verdict == "error" for report in reports):
        return 2
    return 1 if fail_on_forged and any(report.forged for report in reports) else 0


def _bundles(session: seamline.Session, files: Sequence[Path], bundle: Path, sign: Path | None) -> Iterator[Report]:
    from .evidence import scan as run

    return run(session, files, bundle, sign)


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
        note = (report.error or "").removeprefix(f"{media.path}: ") or "; ".join(
            [*(reason.words for reason in report.reasons), *report.warnings]
        )
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
def verify(
    report: Annotated[Path, typer.Argument(metavar="BUNDLE", help="Folder of a bundle, or a report in JSON.")],
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The file that was scanned.")],
    model: Annotated[str | None, typer.Option(help="Path of the weights, if the catalogue lacks them.")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda or auto.")] = "cpu",
    key: Annotated[
        Path | None, typer.Option(metavar="KEY.pub.pem", help="Ed25519 public key that must have signed the bundle.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was found as JSON.")] = False,
) -> None:
    """Scan a file again, and say whether its bundle or report still holds, or what differs.

    Exit code: 0 nothing differs, 1 something does, 2 it could not be checked.
    """
    with _clean_errors():
        from .evidence import verify as run

        found = run(report, file, model=model, device=device, key=key)
        if as_json:
            print(json.dumps(found.to_dict(), indent=2))
        else:
            print(clean(found.headline))
            for difference in found.differences:
                place = f" {difference.where}" if difference.where and difference.where not in difference.words else ""
                print(clean(f"  {difference.kind}:{place} {difference.words}"))
            for note in found.notes:
                print(clean(f"  note: {note}"))
        raise typer.Exit(0 if found.same else 1)


@app.command()
def keygen(
    private: Annotated[Path, typer.Argument(metavar="KEY.pem", help="Where to write the private key.")],
) -> None:
    """Make a key to sign bundles with, and the public key to check them with."""
    with _clean_errors():
        from .evidence import keygen as run

        public = run(private)
        print(f"{private} signs: keep it to yourself. {public} checks: give it to whoever must be able to.")


@app.command()
def facts(
    paths: Annotated[list[str], typer.Argument(metavar="PATH...", help="Files, folders or globs.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
    coordinates: Annotated[bool, typer.Option(help="Tell where it was taken, not only that this is known.")] = False,
    trust: Annotated[
        Path | None, typer.Option(metavar="PEM", help="Certificates whose Content Credentials are trusted.")
    ] = None,
) -> None:
    """Tell what files say of where they came from: credentials, metadata, compression, containers. No verdict.

    Exit code: 0 all were read, 2 if any could not be.
    """
    from . import isolation
    from .media import expand
    from .provenance import Provenance

    failed = False
    with _clean_errors():
        anchors = trust.read_text("utf-8") if trust else None
        files = expand(paths)
        if not files:
            raise SeamlineError(f"no photos, videos or sound found in {', '.join(paths)}")
    for path in files:
        try:
            found = Provenance.from_dict(isolation.facts(path, coordinates, anchors))
        except SeamlineError as cause:
            print(clean(f"error: {cause}"), file=sys.stderr)
            failed = True
            continue
        if as_json:
            sys.stdout.write(found.to_json() + "\n")
            continue
        grid = Table(title=Text(clean(found.path)), title_justify="left", box=None, pad_edge=False, header_style="bold")
        for heading in ("topic", "fact", "value", "note"):
            grid.add_column(heading, overflow="fold")
        for fact in found.facts:
            row = (fact.topic, fact.name.replace("_", " "), _value(fact.value), fact.note)
            grid.add_row(*(Text(clean(text)) for text in row), style="bold" if fact.odd else "")
        _console().print(grid)
    raise typer.Exit(2 if failed else 0)


def _value(value: str | float | bool) -> str:
    return ("yes" if value else "no") if isinstance(value, bool) else str(value)


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
def convert(
    sources: Annotated[list[Path], typer.Argument(metavar="IN...", help="Released checkpoints, which are pickles.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The .safetensors file to write.")],
    model: Annotated[str, typer.Option(help="The network that they belong to, such as ba-tfd-plus.")],
) -> None:
    """Read released checkpoints where they can do no harm, and save them as weights of ours."""
    with _clean_errors():
        from .convert import convert as run

        print(clean(str(run(sources, out, model))))


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
    layout: Annotated[str, typer.Option(help="Of the data set, if it is not to be found out.")] = "auto",
    split: Annotated[str | None, typer.Option(help="Of the data set.")] = None,
) -> None:
    """Train a detector; a run that was stopped goes on where it was."""
    with _clean_errors():
        from .train import train as run

        print(run(recipe, data, out, resume=not fresh, layout=layout, split=split))


@app.command()
def evaluate(
    model: Annotated[str, typer.Option(help="Catalogue name, or path of a .safetensors file.")],
    data: Annotated[Path, typer.Option(help="Folder of samples with known truth.")],
    out: Annotated[Path | None, typer.Option(help="JSON file for the row; a CSV of all files goes beside it.")] = None,
    protocol: Annotated[str | None, typer.Option(help="A benchmark whose own figures are wanted too.")] = None,
    perturb: Annotated[
        str, typer.Option(help="Done to every file first, such as jpeg75 or crf32; grid: all the usual ones in turn.")
    ] = "none",
    plots: Annotated[Path | None, typer.Option(help="Folder for plots, each as SVG and PNG.")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda or auto.")] = "cpu",
    limit: Annotated[int | None, typer.Option(min=1, help="Only so many files, spread evenly.")] = None,
    layout: Annotated[str, typer.Option(help="Of the data set, if it is not to be found out.")] = "auto",
    split: Annotated[str | None, typer.Option(help="Of the data set.")] = None,
) -> None:
    """Measure a model on samples whose truth is known.

    With --out, a run that was killed goes on where it was when it is started again.
    """
    with _clean_errors():
        from .evaluate import evaluate as run
        from .evaluate import tables, write_plots

        row = run(
            model,
            data,
            out=out,
            protocol=protocol,
            perturb=perturb,
            device=device,
            limit=limit,
            layout=layout,
            split=split,
        )
        print(tables(row))
        if plots is not None:
            print(f"plots are in {plots}: {', '.join(path.name for path in write_plots(row, plots))}")


@app.command()
def leaderboard(
    rows: Annotated[list[Path], typer.Argument(metavar="ROWS...", help="Rows that evaluate --out wrote.")],
    out: Annotated[Path, typer.Option(help="Folder for index.html and leaderboard.md.")],
) -> None:
    """Make one page of rows: a table for each data set and protocol, with intervals, hashes and curves."""
    with _clean_errors():
        from .evaluate import leaderboard as run
        from .evaluate import read_row

        for path in run([read_row(path) for path in rows], out):
            print(path)


@app.command()
def average(
    weights: Annotated[list[str], typer.Argument(metavar="WEIGHTS...", help="Files of training runs of one network.")],
    out: Annotated[Path, typer.Option(help="Their mean, with the facts of the first; to be calibrated.")],
) -> None:
    """Take the mean of weights that were trained on from one another; it may be better than any of them."""
    with _clean_errors():
        from . import zoo

        zoo.save(zoo.average(weights), out, **zoo.facts(weights[0]))
        print(out)


@app.command()
def calibrate(
    weights: Annotated[str, typer.Argument(metavar="WEIGHTS", help="A .safetensors file of a training run.")],
    data: Annotated[Path, typer.Option(help="Samples that neither trained these weights nor will judge them.")],
    out: Annotated[Path, typer.Option(help="The same weights with their probability and thresholds.")],
    familiar: Annotated[
        Path | None, typer.Option(help="Samples whose content tells what is familiar, such as those trained on.")
    ] = None,
    false_alarms: Annotated[float, typer.Option(help="Share of authentic files that may be flagged.")] = 0.01,
) -> None:
    """Fit a model's probability, thresholds and limits on held-out samples whose truth is known."""
    with _clean_errors():
        from .evaluate import calibrate as run

        print(json.dumps(run(weights, data, out, familiar=familiar, false_alarms=false_alarms)))


@app.command()
def card(
    weights: Annotated[str, typer.Argument(metavar="WEIGHTS", help="Catalogue name, or path of calibrated weights.")],
    run: Annotated[list[Path], typer.Option(help="Folder of a training run; again for each that followed.")],
    words: Annotated[Path, typer.Option(help="Markdown file with use, limits and licence.")],
    row: Annotated[list[str], typer.Option(metavar="HEADING=FILE", help="A row that evaluate --out wrote.")],
    out: Annotated[Path, typer.Option(help="Markdown file to write.")],
) -> None:
    """Write a model card from what training and evaluation recorded."""
    with _clean_errors():
        from .evaluate import model_card, read_row

        parts = [item.rpartition("=") for item in row]
        rows = [(heading, read_row(file)) for heading, _, file in parts]
        out.write_text(model_card(weights, run, rows, words), encoding="utf-8")
        print(out)


data_app = typer.Typer(help="Look at data sets before they are used.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(data_app, name="data")


@data_app.command("check")
def data_check(
    root: Annotated[Path, typer.Argument(metavar="ROOT", help="Folder, manifest or list of a data set.")],
    layout: Annotated[str, typer.Option(help="Of the data set, if it is not to be found out.")] = "auto",
    json_to: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write all findings as JSON.")] = None,
    quick: Annotated[bool, typer.Option(help="Read headers only: no masks judged, no near duplicates found.")] = False,
) -> None:
    """Find what is missing, damaged, doubled, leaking, inverted or too easy in a data set.

    Exit code: 0 nothing but warnings, 2 there are errors.
    """
    with _clean_errors():
        from .data.check import check

        with _progress("checking") as step:
            found = check(root, layout, quick=quick, progress=step)
        if json_to is not None:
            json_to.write_text(found.to_json() + "\n", encoding="utf-8")
        grid = Table(box=None, pad_edge=False, header_style="bold")
        for heading in ("", "kind", "files", "what", "for example"):
            grid.add_column(heading, overflow="fold")
        for kind, words in found.summary():
            these = [finding for finding in found.findings if finding.kind == kind]
            example = next((finding.paths[0] for finding in these if finding.paths), "")
            text = f"{example}: {these[0].words}" if example else these[0].words
            level = Text("error", style="bold red") if these[0].is_error else Text("warning", style="yellow")
            grid.add_row(level, kind, str(sum(len(f.paths) for f in these) or ""), words, Text(clean(text)))
        console = _console()
        if found.findings:
            console.print(grid)
        console.print(clean(found.line()), highlight=False)
        raise typer.Exit(2 if found.errors else 0)


@data_app.command("miniature")
def data_miniature(
    layout: Annotated[str, typer.Argument(metavar="LAYOUT", help="The data set to copy, such as casia-v2 or lav-df.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="An empty or new folder.")],
    seed: Annotated[int, typer.Option(help="Of every choice.")] = 0,
) -> None:
    """Write a small copy of a data set's layout, with media made here."""
    with _clean_errors():
        from .synthesis.miniature import miniature

        print(miniature(layout, out, seed))


submission_app = typer.Typer(
    help="Check, write and score official submission files of challenges.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(submission_app, name="submission")
_PROTOCOL = typer.Option(help="ddl-track1, ddl-track2, 1m-deepfakes, lavdf, activitynet or asvspoof5.")


@submission_app.command("check")
def submission_check(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="A zip, a folder, or one of the files.")],
    protocol: Annotated[str, _PROTOCOL],
    data: Annotated[Path | None, typer.Option(help="The data set with its truth, to compare with.")] = None,
    names: Annotated[
        Path | None, typer.Option(help="Instead of --data: a folder of the media, or a text file with a name a line.")
    ] = None,
) -> None:
    """Name every fault of a submission before the server does.

    Exit code: 0 if there is none, 2 if a server would refuse or misread it.
    """
    with _clean_errors():
        from .data.submission import validate_submission

        if data is not None and names is not None:
            raise SeamlineError("--data and --names say the same: give one of them")
        faults = validate_submission(path, protocol, _expected(data, names))
        for fault in faults:
            print(clean(f"{'doubtful' if fault.grade == 'doubtful' else 'fault'}: {fault}"))
        bad = sum(fault.grade != "doubtful" for fault in faults)
        print(clean(f"{path}: {f'{bad} faults' if bad > 1 else 'a fault' if bad else 'no fault'} under {protocol}"))
        raise typer.Exit(2 if bad else 0)


@submission_app.command("write")
def submission_write(
    reports: Annotated[Path, typer.Argument(metavar="REPORTS.jsonl", help="What scan --json wrote.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A .zip or a folder; for single files their name.")],
    protocol: Annotated[str, _PROTOCOL],
    root: Annotated[Path | None, typer.Option(help="Name files by their path from this folder.")] = None,
    mask_threshold: Annotated[
        float | None, typer.Option(help="Cut masks from heat maps here, whatever the verdict.")
    ] = None,
    unjudged: Annotated[
        float | None, typer.Option(help="The probability to give files that could not be judged; by default refused.")
    ] = None,
) -> None:
    """Write official submission files from reports, and check them."""
    with _clean_errors():
        from .data.submission import validate_submission, write_submission

        found = _read_reports(reports)
        write_submission(protocol, found, out, root=root, mask_threshold=mask_threshold, unjudged=unjudged)
        if faults := [fault for fault in validate_submission(out, protocol) if fault.grade != "doubtful"]:
            raise SeamlineError(f"{out} was written, but: {faults[0]}")
        print(out)


@submission_app.command("score")
def submission_score(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="A zip, a folder, or one of the files.")],
    protocol: Annotated[str, _PROTOCOL],
    data: Annotated[Path, typer.Option(help="The data set with its truth.")],
    draws: Annotated[int, typer.Option(min=0, help="Resamples for the 95 % intervals; 0: none.")] = 1000,
) -> None:
    """Score a submission by the rules of its protocol, as far as they are known."""
    with _clean_errors():
        from .data import open_data
        from .data.submission import read_submission
        from .metrics.protocols import figures, intervals, measured

        samples = open_data(data)
        truths = [sample.truth for sample in samples]
        items = measured(protocol, truths, read_submission(path, protocol, strict=False))
        items = [replace(item, group=sample.group) for item, sample in zip(items, samples, strict=True)]
        ranges = intervals(protocol, items, draws=draws) if draws else {}
        for name, value in figures(protocol, items).items():
            low_high = " [{:.4f}, {:.4f}]".format(*ranges[name]) if name in ranges else ""
            print(f"{name} {value:.5f}{low_high}")


def _expected(data: Path | None, names: Path | None) -> list[Report] | list[str] | None:
    """The files that a submission should name."""
    if data is not None:
        from .data import open_data

        return [sample.truth for sample in open_data(data)]
    if names is None:
        return None
    if names.is_dir():
        from .media import expand

        return [str(path) for path in expand([names])]
    return [line.strip() for line in names.read_text("utf-8").splitlines() if line.strip()]


def _read_reports(path: Path) -> Iterator[Report]:
    """The reports of a JSON Lines file, one at a time."""
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                try:
                    yield Report.from_json(line)
                except SeamlineError as cause:
                    raise SeamlineError(f"{path}, line {number}: {cause}") from cause


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
    if os.path.exists(target) and not os.path.isfile(target):  # a pipe or a device, such as /dev/stderr
        with open(target, "wb") as device:
            yield writer(device)
        return
    stopped: BaseException | None = None
    with output.whole(target) as file:
        try:
            yield writer(file)
        except BaseException as cause:  # what is there by then is whole lines, and kept
            stopped = cause
    if stopped is not None:
        raise stopped


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
