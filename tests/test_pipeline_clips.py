"""A clip through the pipeline: windows, merging, streams, verdicts. The detector is a toy, the files are real."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import pytest
import torch

from seamline import zoo
from seamline.detectors.base import ClipDetector, ClipFinding, ClipTruth, ClipWindow, Clock
from seamline.draw import Looks
from seamline.errors import SeamlineError
from seamline.media import Clip, open_media
from seamline.pipeline import Merged, Session, windows

RATE = 16000
CARD = zoo.Card(name="loud", detector="loud", threshold=0.7, segment_threshold=0.5)


@dataclass(frozen=True)
class LoudSizes:
    nothing: int = 0


class Loud(ClipDetector):
    """Calls a tick forged when it is louder than .5; never looks at faces."""

    uses = frozenset({"audio"})
    parts = {}  # noqa: RUF012  a ClassVar

    def __init__(self, ticks: int = 64, overlap: int = 16) -> None:
        super().__init__()
        self.sizes, self.loss_weights = LoudSizes(), {}
        self.clock = Clock(ticks, overlap)
        self.seen: list[ClipWindow] = []

    def preprocess(self, window: ClipWindow) -> Any:
        self.seen.append(window)
        return torch.zeros(0) if window.sound is None else torch.from_numpy(window.sound)

    def collate(self, inputs: Sequence[Any]) -> Any:
        return torch.stack(list(inputs))

    def targets(self, truths: Sequence[ClipTruth], ticks: Sequence[int]) -> Any:
        raise NotImplementedError

    def criterion(self, outputs: Any, targets: Any, generator: torch.Generator | None = None) -> dict[str, Any]:
        raise NotImplementedError

    def forward(self, batch: Any, targets: Any = None) -> Any:
        return batch.view(len(batch), -1, RATE // 25).abs().amax(-1) if batch.numel() else batch

    def postprocess(self, outputs: Any, ticks: Sequence[int]) -> list[ClipFinding]:
        findings = []
        for row, n in zip(outputs, ticks, strict=True):
            if not len(row):
                findings.append(ClipFinding({}, {}, {}))
                continue
            assert len(row) == n
            loud = np.flatnonzero(np.diff(np.r_[False, row.numpy() > 0.5, False].astype(int)))
            spans = np.array([(0.9, s, e) for s, e in loud.reshape(-1, 2)], np.float64).reshape(-1, 3)
            findings.append(
                ClipFinding({"audio": 4.0 if len(spans) else -4.0}, {"audio": row.clamp(0, 1)}, {"audio": spans})
            )
        return findings


def wave(path: Path, seconds: float, loud: Sequence[tuple[float, float]] = (), level: float = 0.1) -> Path:
    """A tone in a wav file, louder in the given spans."""
    t = np.arange(round(seconds * RATE)) / RATE
    gain = np.full(len(t), level)
    for s, e in loud:
        gain[(t >= s) & (t < e)] = 0.9
    tone = (gain * np.sin(2 * np.pi * 440 * t) * 32767).astype(np.int16)
    with av.open(str(path), "w") as out:
        stream = out.add_stream("pcm_s16le", rate=RATE, layout="mono")
        frame = av.AudioFrame.from_ndarray(tone[None], format="s16", layout="mono")
        frame.sample_rate = RATE
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            out.mux(packet)
    return path


def film(path: Path, seconds: float) -> Path:
    """A silent film of a grey field."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p"
        for i in range(round(seconds * 25)):
            frame = av.VideoFrame.from_ndarray(np.full((96, 128, 3), i % 250, np.uint8), format="rgb24")
            for packet in stream.encode(frame):
                out.mux(packet)
        for packet in stream.encode(None):
            out.mux(packet)
    return path


@pytest.mark.parametrize("seconds", [0.2, 1.0, 2.56, 2.6, 7.3, 20.0])
def test_windows_cover_every_tick_once_read(tmp_path: Path, seconds: float) -> None:
    clip = open_media(wave(tmp_path / "a.wav", seconds))
    assert isinstance(clip, Clip)
    clock = Clock(64, 16)
    spans = []
    for start, tracks, sound, ticks, _ in windows(clip, clock, Looks()):
        assert tracks == []
        assert sound is not None
        assert len(sound) == ticks * RATE // 25
        t = (start * RATE // 25 + np.arange(len(sound))) / RATE
        inside = t < seconds - 0.001
        np.testing.assert_allclose(sound[inside], 0.1 * np.sin(2 * np.pi * 440 * t[inside]), atol=2e-4)
        spans.append((start, start + ticks))
    total = math.ceil(seconds * 25 - 1e-6)
    assert spans[0][0] == 0
    assert spans[-1][1] == total
    assert all(b[0] <= a[1] - 16 and b[1] > a[1] for a, b in itertools.pairwise(spans))
    assert all(stop - start == min(64, total) for start, stop in spans)  # the last is shifted back, not short


def test_a_forgery_across_windows_is_one_segment(tmp_path: Path) -> None:
    report = Session(Loud(), card=CARD, proposals=5)(wave(tmp_path / "a.wav", 20.0, [(2.0, 2.8), (12.0, 12.4)]))
    assert report.verdict == "forged"
    assert [(round(s.start, 2), round(s.end, 2), s.modality) for s in report.segments] == [
        (2.0, 2.8, "audio"),
        (12.0, 12.4, "audio"),
    ]
    assert len(report.proposals) == 2
    assert report.proposals[0][0] == pytest.approx(0.9)
    assert report.modalities == {"audio": pytest.approx(1 / (1 + math.exp(-4)))}
    assert report.streams == {"video": "absent", "audio": "scored"}
    assert report.media.duration == pytest.approx(20.0)
    curve = report.curves["audio"]
    assert curve.shape == (500,)
    assert (curve[51:69] > 0.85).all()
    assert curve[150] == pytest.approx(0.1, abs=0.01)


def test_an_authentic_sound_has_no_segments(tmp_path: Path) -> None:
    report = Session(Loud(), card=CARD)(wave(tmp_path / "a.wav", 3.0))
    assert (report.verdict, report.segments, report.proposals) == ("authentic", (), ())


def test_silence_is_not_scored(tmp_path: Path) -> None:
    report = Session(Loud(), card=CARD)(wave(tmp_path / "a.wav", 3.0, level=0.0))
    assert report.verdict == "not_applicable"
    assert report.streams["audio"] == "not applicable: it is silent"
    assert [reason.code for reason in report.reasons] == ["silent"]


def test_a_film_without_faces_and_sound_is_not_applicable(tmp_path: Path) -> None:
    report = Session(Loud(), card=CARD)(film(tmp_path / "a.mp4", 2.0))
    assert report.verdict == "not_applicable"
    assert report.streams["audio"] == "absent"
    assert report.streams["video"].startswith("not applicable")
    assert (report.media.kind, report.media.width, report.media.fps) == ("video", 128, 25.0)


def test_a_blink_of_sound_is_too_short(tmp_path: Path) -> None:
    report = Session(Loud(), card=CARD)(wave(tmp_path / "a.wav", 0.1))
    assert report.verdict == "not_applicable"
    assert [reason.code for reason in report.reasons] == ["too_short"]


def test_a_model_for_clips_says_so_of_a_photo_and_the_batch_goes_on(tmp_path: Path) -> None:
    session = Session(Loud(), card=CARD)
    with pytest.raises(SeamlineError, match="'loud' judges video and sound, not photos"):
        session(np.zeros((80, 80, 3), np.uint8))
    broken = tmp_path / "b.wav"
    broken.write_bytes(b"RIFF\x10\0\0\0WAVEnothing")
    good = wave(tmp_path / "a.wav", 1.0)
    first, second = session.scan([broken, good])
    assert first.verdict == "error"
    assert str(broken) in (first.error or "")
    assert second.verdict == "authentic"


def test_the_timeline_is_written(tmp_path: Path) -> None:
    good = wave(tmp_path / "a.wav", 3.0, [(1.0, 1.5)])
    (report,) = Session(Loud(), card=CARD).scan([good], tmp_path / "out")
    assert report.artifacts.timeline is not None
    assert Path(report.artifacts.timeline).stat().st_size > 1000
    assert report.artifacts.mask is None


def test_curves_of_overlapping_windows_are_averaged_towards_the_inner_one() -> None:
    merged = Merged(Clock(8, 4))
    for start, level in ((0, 0.0), (4, 1.0)):
        merged.add(
            start, 8, [ClipFinding({"audio": 0.0}, {"audio": torch.full((8,), level)}, {"audio": np.zeros((0, 3))})]
        )
    curve: npt.NDArray[np.float32] = merged.curve("audio")
    assert curve[:4].tolist() == [0] * 4
    assert (np.diff(curve[3:9]) > 0).all()
    assert curve[8:].tolist() == [1] * 4
