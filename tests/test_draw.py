"""The pictures: exact where computed with, readable where looked at, and never on top of each other."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image as PILImage
from PIL import ImageFont

from seamline import draw
from seamline.report import Media, Region, Report, Segment, Verdict
from seamline.windows import Clock

SPOT = (np.s_[30:90], np.s_[40:140])


def report(height: int, width: int, forged: bool = True) -> Report:
    heatmap = np.full((height, width), 0.04, np.float32)
    heatmap[SPOT] = 0.9
    mask = (heatmap > 0.5) & forged
    regions = (Region((40, 30, 140, 90), 0.9, 6000),) if forged else ()
    verdict, probability = ("forged", 0.97) if forged else ("authentic", 0.03)
    return Report(Media("x"), verdict, probability, 0.5, regions=regions, mask=mask, heatmap=heatmap)


def photo(height: int, width: int) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(0).integers(60, 180, (height, width, 3), np.uint8)


def read(path: str | None) -> npt.NDArray[np.uint8]:
    assert path is not None
    with PILImage.open(path) as picture:
        assert picture.format == "PNG"
        assert picture.mode == ("RGB" if "overlay" in path or "timeline" in path else "L")
        return np.asarray(picture)


def test_mask_and_heat_map_are_lossless_at_the_size_of_the_photo(tmp_path: Path) -> None:
    truth = report(211, 317)
    made = draw.write(truth, photo(211, 317), tmp_path / "new", "photo")
    assert truth.mask is not None
    assert truth.heatmap is not None
    np.testing.assert_array_equal(read(made.mask), truth.mask * np.uint8(255))
    np.testing.assert_array_equal(read(made.heatmap), np.rint(truth.heatmap * 255).astype(np.uint8))
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == [
        "photo.heatmap.png",
        "photo.mask.png",
        "photo.overlay.png",
    ]


def test_the_mask_of_an_authentic_photo_is_all_zero(tmp_path: Path) -> None:
    made = draw.write(report(100, 150, forged=False), photo(100, 150), tmp_path, "photo")
    assert not read(made.mask).any()


@pytest.mark.parametrize(
    ("size", "longest"), [((100, 150), 640), ((900, 1500), 1500), ((3000, 2500), 2000), ((160, 4000), 2000)]
)
def test_the_overlay_is_of_a_size_to_look_at(size: tuple[int, int], longest: int) -> None:
    picture = draw.overlay(report(*size), photo(*size))
    assert longest <= max(picture.shape[:2]) <= longest * 1.35
    assert picture.dtype == np.uint8


def test_the_overlay_marks_the_forged_area_and_greys_the_rest() -> None:
    picture = draw.overlay(report(640, 640), photo(640, 640))
    top = 63  # height of the bar at this size
    body = picture[top : top + 640].astype(int)
    colour = np.abs(body[..., 0] - body[..., 2])
    assert colour[SPOT].mean() > 3 * colour[300:600, 300:600].mean()
    plain = draw.overlay(report(640, 640, forged=False), photo(640, 640))
    np.testing.assert_array_equal(plain[top:], photo(640, 640))
    assert tuple(picture[2, 2]) == draw.BARS["forged"]
    assert tuple(plain[2, 2]) == draw.BARS["authentic"]


def test_areas_on_the_border_and_of_one_pixel_are_drawn() -> None:
    corner = (Region((0, 0, 1, 1), 0.6, 1), Region((139, 99, 140, 100), 0.7, 1), Region((0, 0, 140, 100), 1.0, 14000))
    draw.overlay(dataclasses.replace(report(100, 140), regions=corner), photo(100, 140))


@pytest.mark.parametrize(
    ("probability", "text"),
    [(None, "-"), (0.0, "<1 %"), (0.034, "3 %"), (0.5, "50 %"), (0.986, "99 %"), (1.0, ">99 %")],
)
def test_percent_never_claims_certainty(probability: float | None, text: str) -> None:
    assert draw.percent(probability) == text


def test_no_two_inputs_share_a_name() -> None:
    paths = [
        "a/x.jpg",
        "a/x.png",
        "b/y.jpg",
        "b/z.png",
        "c/z.png",
        "c/X.JPG",
        "d/w",
        "d/w.jpg",
        "e/q.tar.png",
        "e/q.tar",
    ]
    names = draw.stems(paths, "out")
    assert len({name.casefold() for name in names}) == len(paths)
    assert names[1:3] == ["x.png", "y"]
    assert names[3] != names[4]
    assert names[3].startswith("z.png.")
    assert names == draw.stems(paths, "out")


def test_a_picture_never_falls_on_an_input() -> None:
    names = draw.stems(["in/photo.jpg", "in/photo.mask.png"], "in")
    assert names[0] == "photo.jpg"
    assert draw.stems(["in/photo.jpg", "in/photo.mask.png"], "out")[0] == "photo"
    assert draw.stems(["in/clip.mp4", "in/clip.timeline.png"], "in")[0] == "clip.mp4"


def test_a_long_name_is_cut(tmp_path: Path) -> None:
    (name,) = draw.stems([f"in/{'ä' * 120}.jpg"], tmp_path)
    draw.write(report(100, 150), photo(100, 150), tmp_path, name)


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "photo.heatmap.png").mkdir()
    with pytest.raises(OSError, match="heatmap"):
        draw.write(report(100, 150), photo(100, 150), tmp_path, "photo")
    assert not list(tmp_path.glob(".*"))


# ---- timelines


SPANS = (Segment(1.2, 2.04, 0.91, "audio"), Segment(5.0, 6.48, 0.97, "video"))
BOTH = {"video": "scored", "audio": "scored"}


def clip(
    duration: float,
    segments: Sequence[Segment] = (),
    verdict: Verdict = "forged",
    streams: dict[str, str] | None = None,
    fps: float = 25.0,
) -> Report:
    """A report whose curves are 0.9 within segments and 0.1 elsewhere."""
    streams = BOTH if streams is None else streams
    curves = {}
    for name in [name for name in ("video", "audio") if streams.get(name) == "scored"]:
        times = np.arange(max(1, round(duration * fps))) / fps
        inside = np.zeros(len(times), bool)
        for segment in segments:
            inside |= (segment.modality == name) & (times >= segment.start) & (times < segment.end)
        curves[name] = np.where(inside, 0.9, 0.1).astype(np.float32)
    probability = {"forged": 0.97, "authentic": 0.03, "inconclusive": 0.55}.get(verdict)
    media = Media("in/clip.mp4", kind="video", duration=duration, width=640, height=480, fps=25.0)
    return Report(
        media, verdict, probability, 0.62, segments=tuple(segments), streams=streams, curves=curves, modalities={}
    )


def glance(duration: float, pictures: int = 12) -> Any:
    """Pictures in shades of grey and an even sound: what ``timeline`` is given besides the report."""
    strip = [np.full((96, 96, 3), 90 + i, np.uint8) for i in range(pictures)]
    times = [(i + 0.5) * duration / pictures for i in range(pictures)]
    return strip, times, np.tile(np.array([[-0.5, 0.5]], np.float32), (2000, 1)), 2000 / duration


def bands(picture: npt.NDArray[np.uint8], modality: str) -> list[tuple[int, int]]:
    """Columns [first, last) of the plot that are solid in a modality's colour, ``BAR`` pixels high, each once."""
    plot = picture[81:, draw.GUTTER : draw.GUTTER + draw.PLOT]  # without the bar that states the verdict
    solid = (plot == draw.COLOURS[modality]).all(axis=2)
    found = set()
    for y in range(len(solid) - draw.BAR + 1):
        row = solid[y : y + draw.BAR].all(axis=0).astype(np.int8)
        edges = np.flatnonzero(np.diff(row, prepend=0, append=0))
        if len(edges) and (y + draw.BAR == len(solid) or not solid[y + draw.BAR, edges[0]]):
            found |= {(int(a), int(b)) for a, b in edges.reshape(-1, 2)}
    return sorted(found)


def test_bands_are_at_the_columns_of_their_segments() -> None:
    picture = draw.timeline(clip(8.0, SPANS), *glance(8.0))
    assert picture.dtype == np.uint8
    assert picture.shape[1] == draw.GUTTER + draw.PLOT + draw.MARGIN == 1400
    for segment in SPANS:
        first, last = segment.start / 8 * draw.PLOT, segment.end / 8 * draw.PLOT
        assert (int(first), int(np.ceil(last))) in bands(picture, segment.modality)
    assert not (picture == draw.COLOURS["audio_visual"]).all(axis=2).any(), (
        "nothing was found in audio and video together"
    )


def test_a_curve_is_drawn_at_its_height_and_keeps_its_peaks() -> None:
    """One tick of 900 000 stands out of ten hours, and is seen in its column at its height."""
    axis = draw._Axis(36000.0)
    curve = np.full(900_000, 0.1, np.float32)
    curve[450_000] = 0.9
    low, high = axis.columns(curve, curve, 25.0)
    assert len(high) == draw.PLOT
    assert np.flatnonzero(high > 0.5).tolist() == [draw.PLOT // 2]
    assert low.max() == np.float32(0.1)
    body = draw._scores(axis, curve, 25.0, (), draw.COLOURS["audio"]).astype(int)
    height = draw.SCORES - draw.BAR
    bright = (np.abs(body - draw.FAINT).max(axis=2) < 40)[:height]
    tops = np.where(bright.any(axis=0), bright.argmax(axis=0), height)
    assert abs(tops[draw.PLOT // 2] - (1 - 0.9) * (height - 2)) <= 3
    assert abs(np.median(tops) - (1 - 0.1) * (height - 2)) <= 3


def test_a_curve_ends_where_its_stream_ends_and_gaps_stay_gaps() -> None:
    axis = draw._Axis(10.0)
    curve = np.full(125, 0.5, np.float32)  # 5 s
    curve[25:50] = np.nan
    body = draw._scores(axis, curve, 25.0, (), draw.COLOURS["video"])
    empty = draw._scores(axis, None, 25.0, (), draw.COLOURS["video"])
    drawn = (body != empty).any(axis=(0, 2))
    tenth = draw.PLOT // 10
    assert drawn[: tenth - 2].all()
    assert not drawn[tenth + 3 : 2 * tenth - 3].any()
    assert drawn[2 * tenth + 2 : 5 * tenth - 2].all()
    assert not drawn[5 * tenth + 2 :].any()


@pytest.mark.parametrize(
    ("duration", "count", "length"),
    [(8.0, 2, 1.0), (10.0, 25, 0.2), (1200.0, 12, 5.0), (36000.0, 60, 20.0), (36000.0, 3000, 2.0), (0.5, 1, 0.04)],
)
def test_labels_never_overlap_and_name_every_segment(duration: float, count: int, length: float) -> None:
    axis, font = draw._Axis(duration), ImageFont.load_default(15)
    starts = np.sort(np.random.default_rng(count).uniform(0, duration - length, count))
    spans = [Segment(float(t), float(t + length), 0.9, "audio") for t in starts]
    labels = draw._placed(axis, spans, font)
    for a, b in combinations(labels, 2):
        assert a.row != b.row or a.x + a.width <= b.x or b.x + b.width <= a.x, (a, b)
    for label in labels:
        assert 0 <= label.x
        assert label.x + label.width <= draw.PLOT
        assert font.getlength(label.text) <= label.width
        assert label.x < label.last
        assert label.first < label.x + label.width, "a label stands above what it names"
    named = sum(int(label.text.split(" in ")[0]) if " in " in label.text else 1 for label in labels)
    assert named == count
    for span in spans:
        first, last = axis.band(span.start, span.end)
        assert any(label.first <= first and last <= label.last for label in labels)


def test_labels_say_more_where_there_is_room() -> None:
    font = ImageFont.load_default(15)
    alone = draw._placed(draw._Axis(8.0), [Segment(1.2, 2.04, 0.91)], font)
    assert [label.text for label in alone] == ["1.20-2.04 s  91 %"]
    pair = [Segment(100.0, 101.25, 0.9), Segment(102.0, 103.0, 0.9)]
    crowd = [Segment(t, t + 1, 0.9) for t in (99.0, 104.0, 106.0)]
    together = draw._placed(draw._Axis(36000.0), pair + crowd, font)
    assert any(" in 0:01:" in label.text for label in together)


@pytest.mark.parametrize(
    ("duration", "first", "last"),
    [
        (0.08, "0.00 s", "0.08 s"),
        (0.5, "0.00 s", "0.50 s"),
        (8.0, "0 s", "8 s"),
        (59.9, "0 s", "50 s"),
        (60.0, "0:00", "1:00"),
        (1200.0, "0:00", "20:00"),
        (36000.0, "0:00:00", "10:00:00"),
        (1e6, "0:00:00", "264:00:00"),
        (1 / 16000, "0.00000 s", "0.00006 s"),
    ],
)
def test_the_axis_has_round_times_from_a_sample_to_days(duration: float, first: str, last: str) -> None:
    times, words = draw._Axis(duration).ticks()
    assert (words[0], words[-1]) == (first, last)
    assert 2 <= len(times) <= 13
    assert len(set(words)) == len(words)
    font = ImageFont.load_default(15)
    for (a, word), (b, after) in pairwise(zip(times, words, strict=True)):
        room = (b - a) / duration * draw.PLOT
        assert (font.getlength(word) + font.getlength(after)) / 2 < room - 8


@pytest.mark.parametrize(
    ("start", "end", "longest", "text"),
    [
        (1.2, 2.04, 8.0, "1.20-2.04 s"),
        (59.96, 62.04, 100.0, "1:00.0-1:02.0"),
        (3599.99, 3725.5, 36000.0, "1:00:00.0-1:02:05.5"),
    ],
)
def test_times_are_in_seconds_or_on_the_clock(start: float, end: float, longest: float, text: str) -> None:
    assert draw.between(start, end, longest) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (1 / 16000, "under 0.01 s"),
        (0.08, "0.08 s"),
        (42.5, "42.5 s"),
        (59.97, "1:00"),
        (62.0, "1:02"),
        (3602, "1:00:02"),
    ],
)
def test_lengths_are_as_fine_as_they_need_to_be(seconds: float, text: str) -> None:
    assert draw.length(seconds) == text


@pytest.mark.parametrize("verdict", ["authentic", "inconclusive", "not_applicable"])
def test_a_clip_without_a_finding_is_grey_below_its_bar(verdict: Verdict) -> None:
    picture = draw.timeline(clip(12.4, (), verdict), *glance(12.4))
    plot = picture[81:, draw.GUTTER :].astype(int)
    assert (np.ptp(plot, axis=2) <= 5).all()
    assert tuple(picture[2, 2]) == draw.BARS.get(verdict, draw.BARS["inconclusive"])


def test_verdicts_are_told_in_words() -> None:
    assert draw._note(clip(8.0, SPANS)) == "1.20-2.04 s (audio), 5.00-6.48 s (video)"
    many = [Segment(10.0 * i, 10.0 * i + 2, 0.9, "video") for i in range(12)] + [Segment(1.0, 3.0, 0.8, "audio")]
    assert draw._note(clip(1200.0, many)) == "13 segments cover 25.0 s of 20:00", "what overlaps counts once"
    assert draw._note(clip(8.0)) == "no single segment stands out"
    assert draw._note(clip(8.0, (), "authentic")) == "below the threshold of 62 %"
    assert draw._note(clip(8.0, (), "inconclusive")).startswith("likelier forged than not, but below")
    assert "could be judged" in draw._note(clip(8.0, (), "not_applicable"))


@pytest.mark.parametrize(
    ("streams", "said"),
    [
        ({"video": "absent", "audio": "scored"}, ["this file has no video"]),
        ({"video": "scored", "audio": "absent"}, ["this file has no audio"]),
        (
            {"video": "not applicable: no face was found", "audio": "unusable: the codec is unknown"},
            ["not judged: no face was found", "not judged: the codec is unknown"],
        ),
        (BOTH, []),
    ],
)
def test_a_stream_that_was_not_judged_says_so(
    streams: dict[str, str], said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words: list[str] = []
    lane = draw._words
    monkeypatch.setattr(draw, "_words", lambda axis, text: words.append(text) or lane(axis, text))
    draw.timeline(clip(5.0, (), "authentic", streams), *glance(5.0))
    assert words == said


def test_pictures_stand_at_their_times_and_are_framed_where_forged() -> None:
    shown = draw.timeline(clip(8.0, SPANS), *glance(8.0))[81:, draw.GUTTER :]
    for i in range(12):
        grey = np.flatnonzero((shown == 90 + i).all(axis=2)[60])
        time = (i + 0.5) * 8 / 12
        assert abs((grey[0] + grey[-1]) / 2 / draw.PLOT * 8 - time) < 0.02
        framed = tuple(shown[60, grey[0] - 1]) == draw.COLOURS["video"]
        assert framed == (5.0 <= time < 6.48)
    draw.timeline(clip(8.0), *glance(8.0, pictures=100))  # those that do not fit are left out


@pytest.mark.parametrize("size", [(720, 1280), (1280, 720), (3, 2000), (2000, 3), (1, 1)])
def test_pictures_of_any_shape_fit_their_place(size: tuple[int, int]) -> None:
    _, times, waveform, rate = glance(8.0)
    shown = draw.timeline(clip(8.0), [np.full((*size, 3), 99, np.uint8)] * 12, times, waveform, rate)
    row = (shown == 99).all(axis=2)[81 + 60, draw.GUTTER :]
    edges = np.flatnonzero(np.diff(row.astype(np.int8), prepend=0, append=0))
    assert len(edges) == 24, "twelve pictures apart"


def test_looks_keep_what_a_timeline_shows_however_the_clip_is_read() -> None:
    rng = np.random.default_rng(0)
    clock, duration = Clock(ticks=100), 7.3
    sound = rng.uniform(-0.5, 0.5, 5 * 16000).astype(np.float32)  # ends before the pictures do
    sound[40_000], sound[40_001] = 0.9, -0.8
    made = []
    for block in (16000, 777):
        looks = draw.Looks()
        looks.begin(duration, clock, 12, 400)
        for tick in range(183):
            looks.picture(np.full((90, 160, 3), tick, np.uint8), tick)
        for start in range(0, len(sound), block):
            looks.sound(sound[start : start + block])
        made.append(looks)
    looks = made[0]
    np.testing.assert_array_equal(looks.waveform, made[1].waveform)
    assert looks.waveform.shape == (int(np.ceil(400 * 5 / 7.3)), 2)
    loudest = int(looks.waveform[:, 1].argmax())
    assert loudest == int(2.5 * looks.rate)
    assert looks.waveform[loudest].tolist() == [np.float32(-0.8), np.float32(0.9)]
    assert len(looks.strip) == 12
    for picture, time, i in zip(looks.strip, looks.times, range(12), strict=True):
        assert picture.shape == (draw.THUMB, 128, 3)
        assert (picture == math.floor(time * 25)).all()
        assert abs(time - (i + 0.5) * duration / 12) <= 0.5001 / 25


@pytest.mark.parametrize(
    ("duration", "ticks", "samples"), [(1 / 16000, 0, 1), (0.08, 2, 1280), (3.0, 0, 0), (3.0, 90, 60000)]
)
def test_looks_of_the_shortest_and_of_clips_that_are_longer_than_they_say(
    duration: float, ticks: int, samples: int
) -> None:
    looks = draw.Looks()
    looks.begin(duration, Clock(ticks=100), 12, 4000)
    for tick in range(ticks):
        looks.picture(np.zeros((9, 9, 3), np.uint8), tick)
    looks.sound(np.full(samples, 0.25, np.float32))
    assert len(looks.strip) == min(ticks, 12)
    assert len(looks.waveform) <= max(1, round(duration * looks.rate))
    assert (looks.waveform == [0, 0.25]).all()
    draw.timeline(clip(duration), looks.strip, looks.times, looks.waveform, looks.rate, looks.fps)


@pytest.mark.parametrize("duration", [1 / 16000, 0.04, 0.5, 36000.0, None])
def test_any_length_and_nothing_at_all_can_be_drawn(duration: float | None) -> None:
    bare = Report(Media("x", duration=duration), "not_applicable", streams={"video": "absent", "audio": "absent"})
    assert draw.timeline(bare, [], [], np.zeros((0, 2), np.float32), 1.0).shape[1] == 1400
    if duration is not None:
        end = Segment(duration * 0.9, duration * 1.1, 0.9)  # a little beyond the end
        draw.timeline(clip(duration, (end, Segment(0.0, 0.0, 0.6))), *glance(duration))


def test_names_and_warnings_that_the_font_cannot_write_stay_in_the_picture() -> None:
    media = Media("in/" + "Müller \u2013 中文\n\udcff" * 20 + ".mp4", duration=8.0)
    odd = dataclasses.replace(clip(8.0), media=media, warnings=("é" * 400, "b", "c", "d"))
    assert draw._ascii("Müller \u2013 中\n\udcff") == "Muller - ???"
    picture = draw.timeline(odd, *glance(8.0))
    assert (picture[:, -4:][81:] == draw.PAPER).all(), "nothing reaches the edge"


def test_a_timeline_is_written_and_the_same_every_time(tmp_path: Path) -> None:
    looks = draw.Looks()
    looks.begin(8.0, Clock(ticks=100), 12, 2000)
    looks.sound(np.tile(np.array([-0.5, 0.5], np.float32), 64000))
    for tick in range(200):
        looks.picture(photo(72, 96), tick)
    made = [draw.write_timeline(clip(8.0, SPANS), looks, tmp_path / name, "clip") for name in ("a", "b")]
    assert made[0].timeline == str(tmp_path / "a" / "clip.timeline.png")
    assert (made[0].mask, made[0].heatmap, made[0].overlay) == (None, None, None)
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["clip.timeline.png"]
    assert Path(str(made[0].timeline)).read_bytes() == Path(str(made[1].timeline)).read_bytes()
    np.testing.assert_array_equal(
        read(made[0].timeline), draw.timeline(clip(8.0, SPANS), looks.strip, looks.times, looks.waveform, looks.rate)
    )


# Machado, Oliveira and Fernandes (2009): how linear RGB looks without one kind of cone.
BLINDNESS = {
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


@pytest.mark.parametrize("kind", BLINDNESS)
def test_the_colours_of_the_modalities_differ_for_every_reader(kind: str) -> None:
    seen = {}
    for name, colour in (draw.COLOURS | {"grey": draw.GREY, "faint": draw.FAINT, "track": draw.TRACK}).items():
        linear = (np.array(colour) / 255) ** 2.2
        seen[name] = 255 * np.clip(np.array(BLINDNESS[kind]) @ linear, 0, 1) ** (1 / 2.2)
    for a, b in combinations(seen, 2):
        if {a, b} == {"grey", "faint"}:
            continue
        assert np.linalg.norm(seen[a] - seen[b]) > 50, (a, b)
