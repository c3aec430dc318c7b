"""Model cards and their tables, in Markdown, written from what training and evaluation recorded."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .. import zoo
from ..errors import DataError

SPOKEN = {"auc": "AUC", "f1": "F1", "ap50": "AP@.5"}
STEPS = {
    "none": "as they are",
    "jpeg": "JPEG {}",
    "resize": "resized x {}",
    "crop": "{} px cut off",
    "blur": "blurred, {} px",
    "noise": "noise, {} levels",
    "screenshot": "screenshot",
    "crf": "H.264 CRF {}",
    "fps": "{} frames/s",
    "aac": "AAC {} kbit/s",
    "opus": "Opus {} kbit/s",
    "snr": "noise, SNR {} dB",
    "band": "up to {} Hz",
    "mute": "muted",
}
JUDGED = ("detected", "false alarms", "no verdict", "ECE")
ROBUST = {
    "auc": "AUC",
    "f1": "pixel F1",
    "ap50": "AP@.5",
    "detected": "detected",
    "false_alarms": "false alarms",
    "ece": "ECE",
    "inconclusive": "inconclusive",
}


def card_table(rows: Sequence[dict[str, Any]]) -> str:
    """The tables of a model card, in Markdown, from rows of :func:`evaluate`: all of photos, or all of clips.

    Rows of photos differ in their perturbation, rows of clips in their data.
    """
    clips = rows[0].get("modality") == "audio_visual"
    lines = _clip_lines(rows) if clips else _photo_lines(rows)
    first = rows[0]
    cuts = f"Threshold {first['threshold']:.3g}"
    cuts += "." if clips else f", mask threshold {first['mask_threshold']:.3g}."
    digests = ", ".join(dict.fromkeys(f"`{row['data']['sha256']}`" for row in (rows if clips else rows[:1])))
    lines += [
        "",
        f"{cuts} In brackets: 95 % interval, from resampling whole groups of {'clips' if clips else 'photos'}.",
        f"Weights SHA-256 `{first['model']['sha256']}`, data manifest {digests}"
        + (f", commit `{first['commit']}`." if first["commit"] else "."),
    ]
    return "\n".join(lines) + "\n"


def tables(row: dict[str, Any]) -> str:
    """All tables of one row, in Markdown: figures, those of its protocol, robustness."""
    parts = [card_table([row])]
    if row["protocol"]:
        parts += [protocol_table(row)]
    if row["robustness"]:
        parts += [robustness_table(row)]
    return "\n".join(parts)


def protocol_table(row: dict[str, Any]) -> str:
    """The figures of a row's protocol, the one that it ranks by first."""
    official = row["protocol"]
    names = sorted(official["figures"], key=lambda name: name != official["headline"])
    lines = [f"Protocol {official['name']}:", "", "| figure | value [95 % interval] |", "|---|---|"]
    lines += [line(name, cell(official["figures"][name], official["ci95"].get(name))) for name in names]
    return "\n".join(lines) + "\n"


def robustness_table(row: dict[str, Any]) -> str:
    """What each perturbation does, done to authentic and forged files alike."""
    names = [name for name in row["robustness"][0]["ci95"] if name in ROBUST]
    head = ("done to every file", "authentic", "forged", *(ROBUST[name] for name in names))
    lines = ["Robustness, and in brackets the change from the same files as they are:", "", line(*head)]
    lines.append("|---" * len(head) + "|")
    for entry in row["robustness"]:
        cells = []
        for name in names:
            change = entry.get("change", {}).get(name)
            cells.append(cell(entry[name]) + ("" if change is None else f" ({change:+.3f})"))
        lines.append(line(spoken(entry["perturb"]), entry["n"]["authentic"], entry["n"]["forged"], *cells))
    return "\n".join(lines) + "\n"


def _photo_lines(rows: Sequence[dict[str, Any]]) -> list[str]:
    found = ("image AUC", "pixel F1", "IoU", "F1 as shown")
    lines = [_line_of_heads("photos", "authentic", "forged", *found, *JUDGED)]
    figures = ("auc", "f1", "iou", "f1_shown", "detected", "false_alarms", "inconclusive", "ece")
    for row in rows:
        cells = [cell(row[name], row["ci95"].get(name)) for name in figures]
        lines.append(line(spoken(row["perturb"]), row["n"]["authentic"], row["n"]["forged"], *cells))
    return lines + _kind_lines(rows, [spoken(row["perturb"]) for row in rows], ("auc", "f1", "detected"))


def _clip_lines(rows: Sequence[dict[str, Any]]) -> list[str]:
    names = [row["data"]["name"] for row in rows]
    lines = [_line_of_heads("clips", "authentic", "forged", "clip AUC", "of video", "of audio", *JUDGED)]
    for name, row in zip(names, rows, strict=True):
        figures = ("auc", "auc_video", "auc_audio", "detected", "false_alarms", "inconclusive", "ece")
        cells = [cell(row[figure], row["ci95"].get(figure)) for figure in figures]
        lines.append(line(name, row["n"]["authentic"], row["n"]["forged"], *cells))
    lines += ["", "| clips | AP@.5 | AP@.75 | AP@.95 | AR@100 | AR@50 | AR@20 | AR@10 | frame F1 | ends off by |"]
    lines.append("|---" * 10 + "|")
    for name, row in zip(names, rows, strict=True):
        spans = ("ap50", "ap75", "ap95", "ar100", "ar50", "ar20", "ar10", "frame_f1")
        cells = [cell(row[figure], row["ci95"].get(figure)) for figure in spans]
        lines.append(line(name, *cells, _milliseconds(row["boundary_ms"], row["ci95"].get("boundary_ms"))))
    lines += _kind_lines(rows, names, ("auc", "ap50", "detected"), "forged_in")
    return lines + _kind_lines(rows, names, ("auc", "ap50", "detected"))


def _kind_lines(
    rows: Sequence[dict[str, Any]], names: Sequence[str], figures: Sequence[str], where: str = "kinds"
) -> list[str]:
    """A table of parts of the data by kind of forgery, or by modality that is forged; a column for every row."""
    spoken = " / ".join(SPOKEN.get(figure, figure) for figure in figures)
    lines = ["", f"Per {'kind of forgery' if where == 'kinds' else 'modality that is forged'}, as {spoken}:", ""]
    lines += [line("kind" if where == "kinds" else "forged in", *names), "|---" * (len(rows) + 1) + "|"]
    kinds = sorted({kind for row in rows for kind in row[where]})
    forgeries = [kind for kind in kinds if any("detected" in row[where].get(kind, {}) for row in rows)]
    for kind in forgeries:
        parts = [[cell(row[where].get(kind, {}).get(name)) for name in figures] for row in rows]
        lines.append(line(kind, *(" / ".join(part) for part in parts)))
    for kind in (kind for kind in kinds if kind not in forgeries):
        alarms = (cell(row[where].get(kind, {}).get("false_alarms")) for row in rows)
        lines.append(line(f"false alarms: {kind}", *alarms))
    return lines


def model_card(
    weights: str | Path, runs: Sequence[str | Path], rows: Sequence[tuple[str, dict[str, Any]]], words: str | Path
) -> str:
    """A model card in Markdown, written from what training and evaluation recorded.

    Args:
        weights: the calibrated ``.safetensors`` file, or a catalogue name.
        runs: the folders of the training runs that led to them, in order, for the ``run.json`` of each.
        rows: a heading and a row of :func:`evaluate` each; rows of one heading share a table.
        words: a Markdown file with what no measurement knows: title, use, method, limits, licence.

    Raises:
        WeightsError: the weights cannot be loaded.
        DataError: the run or the words are not there.
    """
    detector, card = zoo.load_detector(weights)
    facts = zoo.facts(weights)
    try:
        trained = [json.loads((Path(run) / "run.json").read_text("utf-8")) for run in runs]
        text = Path(words).read_text("utf-8").rstrip()
    except (OSError, ValueError) as cause:
        places = ", ".join(map(str, [*runs, words]))
        raise DataError(f"{places}: a card needs a training run and its words: {cause}") from cause
    if unfinished := [str(run) for run, about in zip(runs, trained, strict=True) if "seconds" not in about]:
        raise DataError(f"{', '.join(unfinished)}: a run that has not come to its end yet")
    fitted = facts.get("calibrated_on", {})
    parameters = sum(p.numel() for p in detector.parameters())
    clips = detector.modality != "image"
    lines = [
        text,
        "",
        "## Training, as recorded",
        "",
        f"* {parameters / 1e6:.2f} M parameters.",
        *(_trained(about, "ticks" if clips else "pixels") for about in trained),
        f"* Probability: {_fitted(card)}, for a prior of one half; threshold {card.threshold:g},"
        + (f" segment threshold {card.segment_threshold:g}" if clips else f" mask threshold {card.mask_threshold:g}")
        + f". Fitted on {fitted.get('authentic')} authentic and {fitted.get('forged')} forged"
        f" {'clips' if clips else 'photos'} of groups that training never saw (manifest `{fitted.get('sha256')}`).",
        "",
    ]
    if card.operating_points:
        lines += ["Verdicts on those files, each judged with a threshold that others set:", ""]
        lines += [_line_of_heads("threshold", "false alarms", "detected", "called authentic though forged", "rests on")]
        for point in card.operating_points:
            alarms = cell(point.false_alarms, (point.low, point.high))
            shares = (alarms, cell(point.detected), cell(point.missed))
            lines.append(line(f"{point.threshold:g}", *shares, f"{point.authentic} + {point.forged}"))
        lines.append("")
    lines += ["## Figures, as measured", ""]
    for heading in dict.fromkeys(heading for heading, _ in rows):
        members = [row for name, row in rows if name == heading]
        lines += [f"### {heading}", "", card_table(members)]
        lines += [robustness_table(row) for row in members if row["robustness"]]
    return "\n".join(lines)


def _trained(about: dict[str, Any], unit: str) -> str:
    """A training run, from its ``run.json``."""
    recipe, data = about["recipe"], about["data"]
    stages = "; ".join(f"{s['name']}: {s['steps']} steps of {s['batch'] * s['accumulation']}" for s in recipe["stage"])
    threads = f"{about['threads']} CPU thread" + "s" * (about["threads"] > 1)
    return (
        f"* Recipe `{about['recipe_file']}`, seed {about['seed']}; {stages}; windows of {recipe['crop']} {unit};"
        f" {about['seconds'] / 60:.0f} minutes on {threads}. Trained on {data['training']} samples;"
        f" {data['held_out']} of other groups held out (`{data['sha256']}`)."
    )


def _line_of_heads(*heads: str) -> str:
    """The first two lines of a Markdown table."""
    return line(*heads) + "\n" + "|---" * len(heads) + "|"


def _fitted(card: zoo.Card) -> str:
    """How evidence becomes a probability, in words."""
    main = {"": card.calibration} if card.modality == "image" else {}
    apart = main | {f" of {name}": fit for name, fit in card.calibrations.items()} or {"": card.calibration}

    def terms(fit: Mapping[str, float], name: str) -> str:
        weighed = " ".join(f"{weight:+g} x {key}{name}" for key, weight in fit.items() if key != "bias")
        return f"{weighed.removeprefix('+')} {fit.get('bias', 0.0):+g}"

    return ", ".join(f"sigmoid({terms(fit, name)})" for name, fit in apart.items())


def spoken(perturb: str) -> str:
    """A perturbation for people: ``jpeg95+resize0.5`` is JPEG 95, resized x 0.5."""
    steps = []
    for step in perturb.split("+"):
        word = step.rstrip("0123456789.")
        steps.append(STEPS.get(word, word + " {}").format(step[len(word) :]))
    return ", ".join(steps)


def cell(value: float | None, interval: Sequence[float] | None = None) -> str:
    """A figure, with its interval if there is one."""
    text = "–" if value is None else f"{value:.3f}"  # noqa: RUF001
    return text + (f" [{interval[0]:.2f}, {interval[1]:.2f}]" if interval and value is not None else "")


def _milliseconds(value: float | None, interval: Sequence[float] | None = None) -> str:
    text = "–" if value is None else f"{value:.0f} ms"  # noqa: RUF001
    return text + (f" [{interval[0]:.0f}, {interval[1]:.0f}]" if interval and value is not None else "")


def line(*cells: object) -> str:
    """A line of a Markdown table."""
    return "| " + " | ".join(str(cell) for cell in cells) + " |"
