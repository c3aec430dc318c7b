"""What one file counts, and what many are worth: outcomes in columns, so that any resample is judged at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ..data import Sample
from ..errors import DataError
from ..metrics.detection import Curve, Ranking, brier_score, cllr, expected_calibration_error, log_likelihood_ratio
from ..metrics.image import Confusion, confusion
from ..metrics.items import Item
from ..metrics.temporal import NUMBERS, Matching, frame_labels, proposals_of, spans_of
from ..report import Modality, Report
from ..verdicts import EVEN

PROPOSALS = max(NUMBERS)  # asked for of a clip
RELIABILITY_BINS = 10
PRIOR = 0.5  # share of forged files that probabilities are calibrated for
FRAMES = 25.0  # per second, in which forged frames of a clip are counted
COVERS: dict[str, tuple[Modality, ...]] = {
    "video": ("video",),
    "audio": ("audio",),
    "audio_visual": ("video", "audio"),
}  # which forgeries a modality's score is about

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Scan = Callable[[Any], Report]


@dataclass(frozen=True, eq=False)
class Outcome:
    """What one photo or clip counts."""

    path: str
    kind: str
    group: str
    truth: Report  # of what the model was given, mask left out
    report: Report  # pictures and curves left out
    counts: dict[str, Confusion] = field(default_factory=dict)
    # of photos: "pixels", the heat map at the mask threshold, whatever the verdict; "shown", the mask as delivered
    # of clips: "frames", of the segments as delivered
    seconds: float = 0.0  # that the model took
    size: float = 0.0  # of the medium: megapixels, or seconds
    item: Item | None = None  # what the protocol keeps of it

    @property
    def forged(self) -> bool:
        """What it is."""
        return self.truth.forged

    @property
    def probability(self) -> float:
        """Of forgery; nan if it could not be judged."""
        return math.nan if self.report.probability is None else self.report.probability

    def flagged(self, threshold: float | None) -> bool:
        """Whether it was called forged: by its verdict, or by a threshold of our own."""
        return self.report.forged if threshold is None else self.probability >= threshold

    def unsure(self, threshold: float | None) -> bool:
        """Whether it was called neither forged nor authentic, or could not be judged."""
        if threshold is None:
            return self.report.verdict not in ("forged", "authentic")
        return not self.probability >= threshold and not self.probability < EVEN

    def to_dict(self) -> dict[str, Any]:
        """All that is not known from the sample, as plain values."""
        return {
            "report": self.report.to_dict(),
            "counts": {name: list(count) for name, count in self.counts.items()},
            "seconds": self.seconds,
            "size": self.size,
            "item": None if self.item is None else self.item.to_dict(),
        }

    @classmethod
    def from_dict(cls, sample: Sample, entry: Mapping[str, Any]) -> Outcome:
        """The outcome that :meth:`to_dict` wrote."""
        return cls(
            *(sample.truth.media.path, sample.kind, sample.group, sample.truth),
            report=Report.from_dict(entry["report"]),
            counts={name: Confusion(*count) for name, count in entry["counts"].items()},
            seconds=entry["seconds"],
            size=entry["size"],
            item=None if entry["item"] is None else Item.from_dict(entry["item"]),
        )


class Columns:
    """Outcomes in columns; what is asked of both photos and clips.

    Args:
        outcomes: of n files.
        threshold: of the probability, if not the verdicts are to count.
    """

    def __init__(self, outcomes: Sequence[Outcome], threshold: float | None = None) -> None:
        self.groups = [o.group for o in outcomes]
        self.forged = np.array([o.forged for o in outcomes], bool)
        score = np.array([o.probability for o in outcomes], np.float64)
        self.judged = ~np.isnan(score)
        self.score, self.label = score[self.judged], self.forged[self.judged]  # of those that were judged
        self._ranking = Ranking(self.score, self.label)
        self._llr = log_likelihood_ratio(self.score)
        self._flagged = np.array([o.flagged(threshold) for o in outcomes], bool)
        self._unsure = np.array([o.unsure(threshold) for o in outcomes], bool)

    def curve(self, times: Ints | None = None) -> Curve:
        """The points of ROC and PR; ``times`` as of :meth:`figures`."""
        return self._ranking.curve(None if times is None else times[self.judged])

    def figures(self, times: Ints | None = None, only: Collection[str] | None = None) -> dict[str, float]:
        """Every figure or ``only`` some, nan where not defined; ``times``, (n,): how often each file counts."""
        times = np.ones(len(self.forged), np.int64) if times is None else times
        judged, curve = times[self.judged], self.curve(times)
        whole: dict[str, Callable[[], float]] = {
            "auc": curve.auc,
            "ap": curve.ap,
            "eer": curve.eer,
            "tpr_at_5_fpr": lambda: curve.tpr_at_fpr(0.05),
            "detected": lambda: mean(self._flagged, times * self.forged),
            "false_alarms": lambda: mean(self._flagged[self.judged], judged * ~self.label),
            "inconclusive": lambda: mean(self._unsure, times),
            "ece": lambda: expected_calibration_error(self.score, self.label, times=judged, forged_prior=PRIOR),
            "brier": lambda: brier_score(self.score, self.label, judged),
            "cllr": lambda: cllr(self._llr, self.label, judged),
            "min_cllr": curve.minimum_cllr,
        }
        found = {name: figure() for name, figure in whole.items() if only is None or name in only}
        return found | {name: value for name, value in self.local(times).items() if only is None or name in only}

    def reliability(self) -> list[list[float]]:
        """Of equal bins of probability that hold any: mean probability, share of forged, how many files.

        Mean and share are as if ``PRIOR`` of all files were forged, unless all or none are.
        """
        share = self.label.mean() if len(self.label) else 0.0
        odds = (1 - PRIOR) / PRIOR * share / (1 - share) if 0 < share < 1 else 1.0
        weight = np.where(self.label, 1.0, odds)
        place = np.minimum((self.score * RELIABILITY_BINS).astype(int), RELIABILITY_BINS - 1)
        found: list[list[float]] = []
        for k in np.unique(place):
            here = place == k
            mean, forged = (np.average(of[here], weights=weight[here]) for of in (self.score, self.label))
            found.append([round(float(mean), 5), round(float(forged), 5), int(here.sum())])
        return found

    def local(self, times: Ints) -> dict[str, float]:
        """The figures of where a forgery is."""
        raise NotImplementedError


class Photos(Columns):
    """Outcomes of photos."""

    def __init__(self, outcomes: Sequence[Outcome], threshold: float | None = None) -> None:
        super().__init__(outcomes, threshold)
        counts = [(o.counts["pixels"], o.counts["shown"]) for o in outcomes]
        self._marked = np.array([pixels.tp + pixels.fn > 0 for pixels, _ in counts], bool)  # has forged pixels to find
        values = [(pixels.f1, pixels.iou, shown.f1) for pixels, shown in counts]
        self._values = np.where(self._marked[:, None], np.array(values).reshape(-1, 3), 0.0)

    def local(self, times: Ints) -> dict[str, float]:
        """Means over the forged photos."""
        weight = times * self._marked
        return {name: mean(self._values[:, i], weight) for i, name in enumerate(("f1", "iou", "f1_shown"))}


class Clips(Columns):
    """Outcomes of clips."""

    def __init__(self, outcomes: Sequence[Outcome], threshold: float | None = None) -> None:
        super().__init__(outcomes, threshold)
        self.matching = Matching([proposals_of(o.report) for o in outcomes], [spans_of(o.truth) for o in outcomes])
        self._apart: dict[str, tuple[npt.NDArray[np.bool_], Ranking]] = {}
        for key in COVERS["audio_visual"]:
            score = np.array([o.report.modalities.get(key, math.nan) for o in outcomes], np.float64)
            label = np.array([key in forged_in(o.truth) for o in outcomes], bool)
            there = ~np.isnan(score)
            self._apart[key] = there, Ranking(score[there], label[there])
        self._frames = np.array([o.counts["frames"] for o in outcomes], np.int64).reshape(-1, 4)

    def local(self, times: Ints) -> dict[str, float]:
        """Of proposals, segments and modalities."""
        return {
            **{f"ap{round(100 * iou)}": value for iou, value in self.matching.ap(times).items()},
            **{f"ar{number}": value for number, value in self.matching.ar(times).items()},
            **{f"auc_{key}": ranking.curve(times[there]).auc() for key, (there, ranking) in self._apart.items()},
            "boundary_ms": self.matching.boundary(times).mean,
            "frame_f1": Confusion(*(times @ self._frames).tolist()).f1,
        }


def mean(values: npt.NDArray[Any], weight: Ints) -> float:
    """The mean of values that count so often; nan if none does."""
    total = int(weight.sum())
    return float(values @ weight / total) if total else math.nan


def holds_clips(samples: Sequence[Sample], data: object) -> bool:
    """Whether these are clips; photos and clips together are neither.

    Raises:
        DataError: both are there.
    """
    clips = sum(sample.is_clip for sample in samples)
    if 0 < clips < len(samples):
        raise DataError(f"{data}: holds {len(samples) - clips} photos and {clips} clips; keep them in folders apart")
    return clips > 0


def forged_in(truth: Report) -> frozenset[Modality]:
    """Which of video and audio are forged."""
    return frozenset(key for segment in truth.segments for key in COVERS.get(segment.modality, ()))


def in_words(modalities: frozenset[Modality]) -> str:
    """``video``, ``audio``, ``audio_visual``, or nothing."""
    return next((name for name, covered in COVERS.items() if modalities == set(covered)), "")


def ticks_of(truth: Report, report: Report) -> int:
    """How many frames of ``1 / FRAMES`` seconds a clip lasts."""
    ends = [s.end for s in (*truth.segments, *report.segments)]
    duration = report.media.duration or truth.media.duration or max(ends, default=0.0)
    return math.ceil(duration * FRAMES - 1e-6)


def compare_frames(found: Floats, truth: Floats, ticks: int) -> Confusion:
    """Counts of the frames that are called forged, and are."""
    return confusion(frame_labels(found, ticks, FRAMES), frame_labels(truth, ticks, FRAMES))
