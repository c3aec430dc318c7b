"""The page that shows a record to people: one HTML file with everything in it, which asks nothing of any network.

Whatever comes from the scanned file (its name, its metadata, messages that quote it) is text to this page: the template
escapes every value, and the policy in the page's head lets no script run but the page's own.
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import jinja2
import numpy as np
import numpy.typing as npt
from markupsafe import Markup

from ..draw import between, length, moment, percent
from ..errors import printable
from .record import canonical

HERE = Path(__file__).parent
COLUMNS = 600  # of a curve
LONGEST_VALUE = 600  # characters of a fact
LISTED = 60  # spans of time that are listed
MIB = 2**20
DASH, TIMES = "\u2013", "\u00d7"

_TITLES = {
    "forged": ("!", "Signs of forgery"),
    "authentic": ("✓", "No forgery found"),
    "inconclusive": ("?", "Inconclusive"),
    "not_applicable": (DASH, "Not judged"),
}
_NOUNS = {"image": ("photo", "a photo"), "video": ("clip", "a video"), "audio": ("recording", "a sound recording")}
_MODALITIES = {"video": "the picture", "audio": "the sound", "audio_visual": "picture and sound together"}
_LANES = {"video": "Picture", "audio": "Sound", "audio_visual": "Picture and sound together"}
_LAYERS = (
    ("original", "original.jpg", "Original", "the photo as it is", "The photo"),
    ("heat", "heat.jpg", "Heat map", "the likelier forged, the brighter", "The photo under its heat map"),
    ("marked", "marked.jpg", "Marked areas", "what is dark was not marked", "The photo with only the marked areas lit"),
)
_CONTAINERS = {"mov": "MP4 or QuickTime", "matroska": "Matroska or WebM", "mpegts": "MPEG transport stream"}
_LONG = ("sha256", "sizes", "seed", "familiarity")  # settings that are not listed, or in words
_TOPICS = {
    "content credentials": "Content Credentials (C2PA)",
    "metadata": "Metadata (EXIF, XMP)",
    "jpeg": "JPEG compression",
    "container": "Container and streams",
    "text": "Text in the file",
}


def template_sha256() -> str:
    """What the page is made from, in one hash: pages of one record differ where this differs."""
    made = hashlib.sha256()
    for name in ("page.html", "page.css", "page.js", "page.py"):
        made.update((HERE / name).read_bytes())
    return made.hexdigest()


def render(record: Mapping[str, Any], run: Mapping[str, Any], parts: Mapping[str, bytes]) -> bytes:
    """The page of a record.

    Args:
        record: as :func:`.record.examine` gives it.
        run: ``utc`` and ``seconds`` of the scan.
        parts: the pictures that the record names, and the clip itself if it is embedded.
    """
    report = record["report"]
    player = record.get("player")
    css, js = (_source(name) for name in ("page.css", "page.js"))
    beside = player is not None and player["how"] == "beside"
    policy = "; ".join(
        [
            "default-src 'none'",
            "img-src data:",
            "media-src 'self' file: data:" if beside else "media-src data:",
            f"style-src '{_hash(css)}'",
            f"script-src '{_hash(js)}'",
            "base-uri 'none'",
            "form-action 'none'",
        ]
    )
    clip = _clip(record, parts) if player is not None else None
    layers = [
        {"key": key, "title": title, "says": says, "alt": alt, "src": _uri(parts[name], "image/jpeg")}
        for key, name, title, says, alt in _LAYERS
        if name in parts
    ]
    data: dict[str, Any] = {"size": [report["media"]["width"], report["media"]["height"]]}
    if clip is not None:
        data = {
            "duration": clip["duration"],
            "tick": 1 / record["examined"]["fps"],
            "faces": record["faces"],
            "frames": [frame["time"] for frame in record["frames"]],
            "unplayable": "This browser does not play the clip, so pictures of it are shown.",
        }
    text = _template().render(
        policy=policy,
        css=Markup(css),
        js=Markup(js),
        name=report["media"]["path"],
        report=report,
        words=_words(record),
        layers=layers,
        regions=_regions(report),
        clip=clip,
        plasma=_plasma(),
        topics=_topics(record["provenance"]),
        unread=record["provenance"].get("error"),
        groups=_groups(record, run),
        record_sha256=hashlib.sha256(canonical(record)).hexdigest(),
        run=run,
        data=data,
    )
    return text.encode("utf-8", "backslashreplace")


@cache
def _source(name: str) -> str:
    return (HERE / name).read_text("utf-8").strip()


@cache
def _template() -> jinja2.Template:
    def finalize(value: Any) -> Any:
        """Text without control characters, or others that would turn or hide what stands beside them."""
        return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value

    env = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, finalize=finalize)
    env.filters |= {"percent": percent, "score": lambda value: f"{value:.2f}"}
    return env.from_string(_source("page.html"))


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _uri(data: bytes, kind: str) -> Markup:
    return Markup(f"data:{kind};base64,{base64.b64encode(data).decode()}")


def _of_hundred(share: float) -> str:
    """A share as ``about 3 of 100``."""
    if share <= 0:
        return "none of 100"
    return "fewer than 1 of 100" if share < 0.005 else f"about {100 * share:.0f} of 100"


def _words(record: Mapping[str, Any]) -> dict[str, Any]:
    """Verdict, meaning and limits, for somebody who has never heard of a detector."""
    report = record["report"]
    verdict, point = report["verdict"], report.get("operating_point")
    noun, a_medium = _NOUNS[report["media"]["kind"]]
    sign, title = _TITLES[verdict]
    lead = {
        "forged": f"Parts of this {noun} look edited or generated.",
        "authentic": f"Seamline found no sign of editing in this {noun}. That is no proof that it is authentic.",
        "inconclusive": f"This {noun} can be called neither forged nor authentic.",
        "not_applicable": f"Seamline has no verdict on this {noun}, for the reason given below.",
    }[verdict]
    means: list[str] = []
    reasons = [reason["words"] for reason in report.get("reasons", ())]
    if reasons:
        means.append(f"Why: {'; '.join(reasons)}.")
    elif verdict == "inconclusive":
        means.append(
            "It is likelier forged than not, but its probability lies below the line from which Seamline calls a file"
            " forged. To call it either would promise too much."
        )
    if verdict == "forged":
        means.append(
            "This is a reason to look closer, and not a proof: look at the marked places, at the original source, and"
            " at who published it first."
        )
    elif verdict == "authentic":
        means.append("It is one piece of evidence. Careful, small or much compressed edits leave little to find.")
    if report["probability"] is not None:
        means.append(_how_often(point, record["weights"]["scores"], noun, report["threshold"]))
    return {
        "a_medium": a_medium,
        "sign": sign,
        "title": title,
        "lead": lead,
        "means": means,
        "limits": record["limits"]
        or ["No limits were recorded with these weights. They see only what resembles their training data."],
    }


def _how_often(point: Mapping[str, Any] | None, scores: Mapping[str, float], noun: str, threshold: float) -> str:
    """What the threshold costs, in numbers of files: as calibration measured it, or else as the catalogue has it."""
    things = f"{noun}s"
    if point is None:
        alarms = scores.get("val_false_alarms")
        if alarms is None:
            return (
                f"How often these weights are wrong at their threshold of {percent(threshold)} was not recorded with"
                " them, so the number says little."
            )
        return (
            f"How often this is wrong: at this threshold ({percent(threshold)}), {_of_hundred(alarms)} authentic"
            f" {things} were flagged by mistake when the model was measured on {things} that it had not been trained"
            f" on; a {noun} of another kind may fare worse. The card of the model says how many forged ones it finds."
        )
    low, high = (round(100 * point[key]) for key in ("low", "high"))
    return (
        f"How often this is wrong: at this threshold ({percent(point['threshold'])}),"
        f" {_of_hundred(point['false_alarms'])} authentic {things} are flagged by mistake (95 % interval {low} to"
        f" {high}), {_of_hundred(point['detected'])}"
        f" forged ones are found, and {_of_hundred(point['missed'])} forged ones are called authentic. Measured on"
        f" {point['authentic']} authentic and {point['forged']} forged {things} that the model had not been trained on;"
        f" a {noun} of another kind may fare worse."
    )


def _regions(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Marked areas of a photo, with words for their place."""
    width, height = report["media"]["width"], report["media"]["height"]
    rows = []
    for region in report["regions"]:
        x0, y0, x1, y1 = region["box"]
        column = ("left", "centre", "right")[min(2, int(3 * (x0 + x1) / 2 / width))]
        row = ("upper", "middle", "lower")[min(2, int(3 * (y0 + y1) / 2 / height))]
        where = {"middle centre": "centre"}.get(f"{row} {column}", f"{row} {column}")
        share = f"{percent(region['area'] / (width * height))} (pixels {x0}{DASH}{x1} by {y0}{DASH}{y1})"
        told = {key: region.get(key) for key in ("probability", "box", "twin")}
        rows.append({"where": where, "share": share} | told)
    return rows


def _clip(record: Mapping[str, Any], parts: Mapping[str, bytes]) -> dict[str, Any]:
    """What the page shows of a clip: player, segments, lanes, pictures."""
    report, player = record["report"], record["player"]
    media = report["media"]
    duration = media["duration"] or 1.0
    src: str | None = None
    if player["how"] == "embedded":
        src = _uri(parts[player["name"]], player["type"])
    elif player["how"] == "beside":
        src = player["name"]

    def spans(pairs: Sequence[tuple[float, float]]) -> list[dict[str, float]]:
        placed = []
        for start, end in pairs:
            x, wide = 1000 * start / duration, max(3.0, 1000 * (end - start) / duration)
            placed.append({"x": round(min(x, 1000 - wide), 2), "width": round(wide, 2)})
        return placed

    marked = {key: [(s["start"], s["end"]) for s in report["segments"] if s["modality"] == key] for key in _LANES}
    lanes: list[dict[str, Any]] = []

    def lane(kind: str, modality: str, title: str, **more: Any) -> None:
        lanes.append(
            {"kind": kind, "modality": modality, "title": title, "spans": [], "paths": [], "words": "", **more}
        )

    for key, title in _LANES.items():
        curve = record["curves"].get(key)
        if key == "audio" and record["waveform"]["low"]:
            shown = spans(marked["audio"] + marked["audio_visual"])
            lane("wave", "audio", "Sound, as a waveform", spans=shown, paths=[_wave(record["waveform"], duration)])
        if curve is not None:
            score = f": {percent(report['modalities'][key])}" if key in report["modalities"] else ""
            paths = _curve(curve, record["examined"]["fps"], duration)
            lane("scores", key, f"{title}, probability of forgery{score}", spans=spans(marked[key]), paths=paths)
        elif state := report["streams"].get(key):
            why = "not in this file" if state == "absent" else state
            lane("scores", key, title, words=why)
    for face in record["faces"]:
        lane("faces", "", f"Face {face['identity'] + 1}, seen", spans=spans([tuple(s) for s in face["spans"]]))

    rows = [
        {
            **segment,
            "span": between(segment["start"], segment["end"], duration, dash=DASH),
            "words": _MODALITIES.get(segment["modality"], segment["modality"]),
        }
        for segment in report["segments"]
    ]
    frames = [
        {
            "time": frame["time"],
            "words": _moment(frame["time"], duration),
            "src": _uri(parts[frame["name"]], "image/jpeg"),
            "marked": any(
                s["start"] <= frame["time"] < s["end"] and s["modality"] != "audio" for s in report["segments"]
            ),
        }
        for frame in record["frames"]
        if frame["name"] in parts
    ]
    return {
        "src": src,
        "why": player["why"],
        "video": media["kind"] == "video",
        "width": media["width"],
        "height": media["height"],
        "duration": duration,
        "zero": _moment(0.0, duration),
        "segments": rows,
        "lanes": lanes,
        "axis": [_moment(duration * part / 4, duration) for part in range(5)],
        "frames": frames,
    }


def _moment(seconds: float, longest: float) -> str:
    return moment(seconds, longest, 2 if longest < 60 else 1) + (" s" if longest < 60 else "")


def _curve(curve: Sequence[float | None], fps: float, duration: float) -> list[str]:
    """Paths in a box of 1000 x 100, one for every stretch without a gap; of ticks that share a column the highest."""
    values = np.array([math.nan if value is None else value for value in curve], np.float64)
    per = max(1, math.ceil(len(values) / COLUMNS))
    paths: list[str] = []
    points: list[str] = []
    for start in range(0, len(values), per):
        here = values[start : start + per]
        if np.isnan(here).all():
            if points:
                paths.append("M" + "L".join(points))
            points = []
            continue
        x = 1000 * (start + per / 2) / fps / duration
        points.append(f"{min(x, 1000):.1f} {98 - 96 * float(np.nanmax(here)):.1f}")
    if points:
        paths.append("M" + "L".join(points if len(points) > 1 else 2 * points))
    return paths


def _wave(waveform: Mapping[str, Any], duration: float) -> str:
    """The envelope as one closed path in a box of 1000 x 100, its loudest sample as high as the box."""
    low, high = waveform["low"], waveform["high"]
    loudest = max(max(map(abs, low)), max(map(abs, high)), 1e-3)
    step = 1000 / (waveform["rate"] * duration)
    top = [f"{min(i * step, 1000):.1f} {50 - 48 * v / loudest - 0.5:.1f}" for i, v in enumerate(high)]
    bottom = [f"{min(i * step, 1000):.1f} {50 - 48 * v / loudest + 0.5:.1f}" for i, v in enumerate(low)]
    return "M" + "L".join(top + bottom[::-1]) + "Z"


def _topics(provenance: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The facts of ``seamline facts``, by topic."""
    topics: dict[str, list[dict[str, Any]]] = {}
    for fact in provenance["facts"]:
        shown = {"name": str(fact["name"]).replace("_", " "), "value": _value(fact["value"])}
        topics.setdefault(fact["topic"], []).append({**shown, "note": fact["note"], "odd": fact["odd"]})
    return [{"title": _TOPICS.get(topic, topic), "facts": facts} for topic, facts in topics.items()]


def _value(value: Any) -> str:
    """A fact as text."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]}… ({len(text)} characters)"


def _groups(record: Mapping[str, Any], run: Mapping[str, Any]) -> list[dict[str, Any]]:
    """All that a laboratory asks for, in groups of (label, value)."""
    report = record["report"]
    media, settings = report["media"], record["settings"]
    size = f"{media['bytes']} bytes ({media['bytes'] / MIB:.2f} MiB)" if media["bytes"] is not None else None
    file: list[tuple[str, Any]] = [
        ("Name", media["path"]),
        ("SHA-256", media["sha256"]),
        ("Size", size),
        ("Format", _CONTAINERS.get(media["format"], media["format"])),
        ("Picture", f"{media['width']} {TIMES} {media['height']} pixels" if media["width"] else None),
        ("Length", length(media["duration"]) if media["duration"] is not None else None),
    ]
    file += [(_label(key), value) for key, value in record["decoded"].items()]
    groups = [_group("The file", file)]
    for name, title in (("video", "The pictures in it"), ("audio", "The sound in it")):
        if name in record.get("streams", {}):
            facts = record["streams"][name].items()
            groups.append(_group(title, [(_label(key), _unit(key, value)) for key, value in facts]))
    groups.append(_examined(record))
    weights = record["weights"]
    groups.append(
        _group(
            "Weights and settings",
            [
                ("Model", f"{weights['name']}, version {weights['version'] or 'not stated'}"),
                ("SHA-256 of the weights", weights["sha256"]),
                ("SHA-256 of the settings", settings["sha256"]),
                *((_label(key), weights[key]) for key in ("licence", "training_data", "source")),
                *((f"Measured: {_label(key).lower()}", value) for key, value in weights["scores"].items()),
                *((_label(key), value) for key, value in settings.items() if key not in _LONG),
                ("Seed", "none: a scan draws no random numbers" if settings["seed"] is None else settings["seed"]),
            ],
        )
    )
    made = [("Made (UTC)", run["utc"]), ("Took", f"{run['seconds']} s")]
    names = {"seamline": "Seamline", "python": "Python", "torch": "PyTorch", "numpy": "NumPy", "opencv": "OpenCV"}
    made += [(names.get(key, _label(key)), value) for key, value in report["environment"].items()]
    groups.append(_group("Versions, device and time", made))
    tolerance = record["tolerance"]
    groups.append(
        _group(
            "What may differ when it is repeated",
            [
                ("Probabilities", f"{tolerance['probability']:g}"),
                ("Ends of spans", f"{tolerance['seconds']:g} s"),
                ("Sides of areas", f"{tolerance['pixels']} pixels"),
                ("Sizes of areas", f"{100 * tolerance['area']:g} %"),
                (
                    "Pictures",
                    f"{tolerance['picture_mean']:g} of 255 levels on average,"
                    f" and {100 * tolerance['picture_share']:g} % of the pixels by more",
                ),
            ],
            "With the same weights, versions and processor nothing differs at all.",
        )
    )
    return groups


def _group(title: str, rows: Sequence[tuple[str, Any]], words: str = "") -> dict[str, Any]:
    shown = [(label, _plain(value)) for label, value in rows if value not in (None, "", [], {})]
    return {"title": title, "words": words, "rows": shown}


def _examined(record: Mapping[str, Any]) -> dict[str, Any]:
    """Exactly which pixels or moments the detector was given."""
    examined = record["examined"]
    title = "What exactly was examined"
    if "tiles" in examined:
        boxes = [f"{x0}{DASH}{x1} by {y0}{DASH}{y1}" for x0, y0, x1, y1 in examined["tiles"]]
        rows = [("Tiles", len(boxes)), ("Pixels, across by down", _listed(boxes))]
        return _group(title, rows, "" if boxes else "Nothing: the photo was not given to the detector.")
    fps, ticks = examined["fps"], examined["ticks"]
    duration = record["report"]["media"]["duration"] or 1.0
    windows = [
        f"{between(w['start'], w['end'], duration, dash=DASH)}"
        f" (faces: {', '.join(str(face + 1) for face in w['faces']) or 'none'}; sound: {'yes' if w['sound'] else 'no'})"
        for w in examined["windows"]
    ]
    rows = [
        ("Moments", f"{ticks}: 0, {1 / fps:g}, {2 / fps:g}, … {max(0, ticks - 1) / fps:g} s, {fps:g} a second"),
        ("Picture at each", "the last one whose time has come; black before a late first one"),
        ("Sound", f"mono, {examined['sample_rate']} samples a second, from 0 s on"),
        ("Windows", _listed(windows)),
        ("Faces followed", len(record["faces"])),
        ("Pictures shown here", ", ".join(_moment(frame["time"], duration) for frame in record["frames"])),
    ]
    return _group(title, rows)


def _listed(items: Sequence[str]) -> str:
    more = f"; and {len(items) - LISTED} more, in report.json" if len(items) > LISTED else ""
    return "; ".join(items[:LISTED]) + more


def _label(key: str) -> str:
    words = key.replace("_", " ").replace("sha256", "SHA-256").replace("fps", "frames per second")
    return words[:1].upper() + words[1:]


def _unit(key: str, value: Any) -> Any:
    units = {"rate": "Hz", "start": "s", "duration": "s", "rotation": "degrees clockwise"}
    return f"{_plain(value)} {units[key]}" if key in units and value is not None else value


def _plain(value: Any) -> str:
    """A setting as text: numbers plainly, lists and tables in one line."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key.replace('_', ' ')} {_plain(item)}" for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(_plain(item) for item in value)
    return _value(value)


@cache
def _plasma() -> list[str]:
    """Eleven colours of the heat scale, as the heat map has them."""
    ramp: npt.NDArray[np.uint8] = np.linspace(0, 255, 11).astype(np.uint8)[None]
    blue_green_red = cv2.applyColorMap(ramp, cv2.COLORMAP_PLASMA)[0]
    return [f"#{red:02x}{green:02x}{blue:02x}" for blue, green, red in blue_green_red.tolist()]
