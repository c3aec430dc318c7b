"""Named protocols: official formulas by hand, official variants to the digit, both readings, missing predictions."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import cv2
import numpy as np
import pytest

from seamline.errors import DataError
from seamline.metrics import protocols, temporal
from seamline.metrics.items import Item, finder
from seamline.metrics.protocols import PROTOCOLS, ddl_final, ddl_s, figures, intervals, measure, onem_score, score
from seamline.report import Artifacts, Media, Report, Segment

# Leaderboard of the 1M-Deepfakes challenge 2025, temporal localisation: AP .5 .75 .9 .95, AR 50 30 20 10 5, score
# (deepfakes1m.github.io/2025/evaluation).
PUBLISHED = {
    "first, testA": ((0.7794, 0.6652, 0.4466, 0.3427), (0.8030, 0.8009, 0.7959, 0.7784, 0.7493), 0.6720),
    "second, testA": ((0.7281, 0.5830, 0.3268, 0.1546), (0.6520, 0.6520, 0.6520, 0.6520, 0.6514), 0.5500),
    "BA-TFD+, testA": ((0.1401, 0.0235, 0.0005, 0.0000), (0.3280, 0.3017, 0.2661, 0.2088, 0.1611), 0.1471),
    "BA-TFD+, testB": ((0.1620, 0.0339, 0.0012, 0.0001), (0.3245, 0.2935, 0.2651, 0.2156, 0.1698), 0.1515),
}


def photo(name: str, forged: bool, probability: float | None = None, mask: np.ndarray | None = None, **more) -> Report:
    verdict = "forged" if forged else "authentic"
    return Report(
        Media(name, kind="image"), verdict, float(forged) if probability is None else probability, mask=mask, **more
    )


def clip(name: str, spans=(), probability: float | None = None, proposals=(), modality="video", **more) -> Report:
    segments = tuple(Segment(s, e, 1.0, modality) for s, e in spans)
    verdict = "forged" if (segments or (probability or 0) > 0.5) else "authentic"
    media = Media(name, kind="video", duration=10.0, fps=25.0)
    probability = float(bool(segments)) if probability is None else probability
    return Report(media, verdict, probability, segments=segments, proposals=tuple(proposals), **more)


def square(size: int, shape=(40, 50)) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[:size, :size] = True
    return mask


def clips(rng: np.random.Generator, n: int = 60, most: int = 12) -> tuple[list[Report], list[Report]]:
    """Truths and predictions of n clips, one third authentic; scores are distinct, sorted within each clip."""
    truths, found = [], []
    for i in range(n):
        spans = (
            [] if i % 3 == 0 else [(2.0, 2.0 + rng.uniform(0.3, 1.5)), (6.0, 6.0 + rng.uniform(0.3, 1.5))][: 1 + i % 2]
        )
        rows = []
        for _ in range(int(rng.integers(1, most))):
            start, length = rng.uniform(0, 8), rng.uniform(0.3, 1.5)
            if spans and rng.random() < 0.5:
                start, end = np.array(spans[0]) + rng.normal(0, 0.1, 2)
                start, length = max(start, 0.0), max(end - start, 0.05)
            rows.append((round(float(rng.random()), 6), round(float(start), 3), round(float(start + length), 3)))
        rows.sort(reverse=True)
        truths.append(clip(f"{i:06}.mp4", spans, modality=("video", "audio", "audio_visual")[i % 3 if i % 2 else 1]))
        found.append(clip(f"{i:06}.mp4", (), float(rng.random()), rows))
    return truths, found


# ---------------------------------------------------------------------------------------------- formulas by hand


@pytest.mark.parametrize(("ap", "ar", "published"), PUBLISHED.values(), ids=PUBLISHED)
def test_the_published_score_of_1m_deepfakes_follows_from_its_published_parts(ap, ar, published) -> None:
    parts = dict(zip(("ap50", "ap75", "ap90", "ap95"), ap, strict=True))
    parts |= dict(zip(("ar50", "ar30", "ar20", "ar10", "ar5"), ar, strict=True))
    assert onem_score(parts) == pytest.approx(published, abs=1e-4)


def test_s_of_ddl_track_2_weighs_the_eight_figures_by_sixteenths() -> None:
    names = ("ap50", "ap75", "ap90", "ap95", "ar30", "ar20", "ar10", "ar5")
    parts = dict(zip(names, (0.8, 0.6, 0.4, 0.2, 0.9, 0.7, 0.5, 0.3), strict=True))
    by_hand = (1 * 0.8 + 2 * 0.6 + 2 * 0.4 + 3 * 0.2 + 1 * 0.9 + 2 * 0.7 + 2 * 0.5 + 3 * 0.3) / 16
    assert ddl_s(parts) == pytest.approx(by_hand)
    assert ddl_s(parts, plain=True) == pytest.approx(sum(parts.values()) / 8)
    assert ddl_s(dict.fromkeys(names, 1.0)) == 1.0


def test_the_final_of_ddl_track_1_is_that_of_the_leaderboard() -> None:
    assert ddl_final(0.963, 0.819, 0.756) == pytest.approx(0.846, abs=5e-4)  # Loupe, first place


def test_ddl_track_1_by_hand() -> None:
    """Two forged photos of different size, so that the mean over photos and the pooled pixels differ."""
    large, small = square(20), square(4, (10, 10))
    half = large & (np.arange(50) < 10)  # 200 of 400 pixels found
    truths = [photo("a.png", True, mask=large), photo("b.png", True, mask=small), photo("c.png", False)]
    found = [
        photo("c.png", True, 0.7, np.ones((40, 50), bool)),  # the alarm on an authentic photo costs only AUC
        photo("a.png", True, 0.9, half),
        photo("b.png", False, 0.6, small),
    ]
    values = score("ddl-track1", truths, found)
    assert values["auc"] == 0.5
    assert values["f1"] == pytest.approx((2 * 200 / (2 * 200 + 200) + 1) / 2)
    assert values["iou"] == pytest.approx((0.5 + 1) / 2)
    assert values["final"] == pytest.approx((values["auc"] + values["iou"] + values["f1"]) / 3)
    tp, fn = 200 + 16, 200
    assert values["f1_pooled"] == pytest.approx(2 * tp / (2 * tp + fn))
    assert values["iou_pooled"] == pytest.approx(tp / (tp + fn))
    assert values["final_pooled"] == pytest.approx((0.5 + values["iou_pooled"] + values["f1_pooled"]) / 3)


def test_ddl_track_2_by_hand() -> None:
    truths = [clip("a.mp4", [(1.0, 2.0)]), clip("b.mp4", [(3.0, 4.0)]), clip("c.mp4")]
    found = [
        clip("a.mp4", (), 0.9, [(0.9, 1.0, 2.0)]),
        clip("b.mp4", (), 0.4, [(0.8, 3.0, 3.8)]),  # IoU 0.8
        clip("c.mp4", (), 0.5, [(1.0, 1.0, 2.0)]),  # on an authentic clip: costs nothing
    ]
    values = score("ddl-track2", truths, found)
    assert values["auc"] == 0.5
    assert [values[f"ap{n}"] for n in (50, 75, 90, 95)] == [1.0, 1.0, 0.5, 0.5]
    recall = (10 + 7) / 20  # thresholds 0.50 ... 0.80 are seven of ten
    assert values["ar5"] == pytest.approx(recall)
    by_hand = (1 + 2 + 2 * 0.5 + 3 * 0.5 + (1 + 2 + 2 + 3) * recall) / 16
    assert values["s"] == pytest.approx(by_hand)
    assert values["final"] == pytest.approx((0.5 + by_hand) / 2)
    assert values["s_plain"] == pytest.approx((1 + 1 + 0.5 + 0.5 + 4 * recall) / 8)
    assert values["s_ap_grid"] == pytest.approx((1 + 2 + 1 + 1.5 + 8 * 0.75) / 16)  # 2 of 2, 2, 1, 1 at the four IoUs


def test_deepfakebench_merges_videos_whose_folders_share_a_name() -> None:
    truths, found = [], []
    for method, forged, values in (("Deepfakes", True, (0.9, 0.5)), ("youtube", False, (0.2, 0.6))):
        for i, value in enumerate(values):
            name = f"{method}/frames/000_003/{i:03}.png"
            truths.append(photo(name, forged))
            found.append(photo(name, value > 0.5, value))
    other = "youtube/frames/004/000.png"
    truths.append(photo(other, False))
    found.append(photo(other, False, 0.1))
    values = score("deepfakebench", truths, found)
    assert values["auc"] == pytest.approx(5 / 6)  # of six pairs of frames, one is wrong
    assert values["acc"] == pytest.approx(3 / 5)  # 0.5 is not above 0.5
    assert values["video_auc_apart"] == 1.0  # means .7 against .4 and .1
    assert math.isnan(values["video_auc"])  # both 000_003 are one video, which counts as real


def test_deepfakebench_takes_32_frames_of_the_curve_of_a_clip() -> None:
    curve = np.linspace(0, 1, 100, dtype=np.float32)
    truths = [clip("a.mp4", [(0.0, 10.0)]), clip("b.mp4")]
    found = [clip("a.mp4", (), 0.9, curves={"video": curve}), clip("b.mp4", (), 0.1)]
    items = [measure("deepfakebench", t, f) for t, f in zip(truths, found, strict=True)]
    assert [len(item.frames) for item in items] == [32, 1]
    assert figures("deepfakebench", items)["video_auc"] == 1.0


def test_deepfakebench_is_what_scikit_learn_says_of_its_frames() -> None:
    from sklearn import metrics

    rng = np.random.default_rng(5)
    for _ in range(20):
        label, value = rng.random(60) < 0.5, np.round(rng.random(60), 2)
        truths = [photo(f"v{i // 6}/{i}.png", bool(y)) for i, y in enumerate(label)]
        found = [photo(t.media.path, v > 0.5, float(v)) for t, v in zip(truths, value, strict=True)]
        fpr, tpr, _ = metrics.roc_curve(label, value)
        values = score("deepfakebench", truths, found)
        assert values["eer"] == pytest.approx(fpr[np.nanargmin(np.abs(1 - tpr - fpr))])
        assert values["auc"] == pytest.approx(metrics.roc_auc_score(label, value))
        assert values["ap"] == pytest.approx(metrics.average_precision_score(label, value))
        assert values["acc"] == pytest.approx(metrics.accuracy_score(label, value > 0.5))
        whole = label.reshape(10, 6).all(1)  # a video is fake if all its frames are
        if whole.any() and not whole.all():
            assert values["video_auc"] == pytest.approx(metrics.roc_auc_score(whole, value.reshape(10, 6).mean(1)))


def test_imdl_benco_gives_an_authentic_photo_nothing_for_a_perfect_answer() -> None:
    mask = square(20)
    truths = [photo("a.png", True, mask=mask), photo("b.png", False)]
    found = [photo("a.png", True, 0.9, mask), photo("b.png", False, 0.1, np.zeros_like(mask))]
    values = score("imdl-benco", truths, found)
    assert values["f1"] == pytest.approx(0.5, abs=1e-7)
    assert values["f1_forged"] == pytest.approx(1.0, abs=1e-7)
    assert values["image_f1"] == values["image_acc"] == values["image_auc"] == 1.0
    wrong = [photo("a.png", True, 0.9, ~mask), photo("b.png", False, 0.1, np.zeros_like(mask))]
    values = score("imdl-benco", truths, wrong)
    assert values["f1"] == 0.0
    assert values["f1_double"] == values["f1_reverse"] == pytest.approx(0.5, abs=1e-7)


def test_trufor_takes_the_better_of_map_and_inverse_at_a_threshold_that_the_truth_tells() -> None:
    mask = square(30, (60, 80))
    heat = np.where(mask, 0.3, 0.1).astype(np.float32)  # right everywhere, and below 0.5 everywhere
    truths = [photo("a.png", True, mask=mask), photo("b.png", False)]
    found = [photo("a.png", True, 0.9, heatmap=heat), photo("b.png", False, 0.1, heatmap=heat)]
    values = score("trufor", truths, found)
    assert values["f1_best"] == 1.0
    inner, outer = 23 * 23, 60 * 80 - 35 * 35  # the ring takes 7 pixels inside and 5 outside
    assert values["f1_fixed"] == pytest.approx(
        2 * inner / (2 * inner + outer)
    )  # of the inverse, which calls all forged
    assert values["balanced_accuracy"] == 1.0
    inverse = [dataclasses.replace(found[0], heatmap=1 - heat), found[1]]
    assert score("trufor", truths, inverse)["f1_best"] == 1.0


def test_loupe_released_reports_the_mean_of_two_classes() -> None:
    mask = square(20)
    truths = [photo("a.png", True, mask=mask), photo("b.png", False)]
    found = [photo("a.png", True, 0.9, np.zeros_like(mask)), photo("b.png", False, 0.1, np.ones_like(mask))]
    values = score("loupe-released", truths, found)
    assert values == pytest.approx({"auc": 1, "f1": 0, "iou": (1600 / 2000) / 2, "overall": 1.4 / 3})


def test_asvspoof5_turns_probabilities_into_ratios_and_takes_scores_of_its_files_the_other_way_round() -> None:
    llr = np.array([4.0, 2.5, 3.0, -1.0, 2.0, -3.0, -50.0])  # high = bona fide
    bona_fide = np.array([1, 1, 1, 1, 0, 0, 0], bool)
    truths = [photo(f"{i}.flac", not good) for i, good in enumerate(bona_fide)]
    raw = [
        photo(f"{i}.flac", s < 0, float(1 / (1 + np.exp(s))), environment={"score": repr(float(s))})
        for i, s in enumerate(llr)
    ]
    values = score("asvspoof5", truths, raw)
    miss = {s: float((llr[bona_fide] < s).mean()) for s in llr}
    accept = {s: float((llr[~bona_fide] >= s).mean()) for s in llr}
    assert values["min_dcf"] == pytest.approx(min(0.95 * miss[s] + 0.05 * 10 * accept[s] for s in llr) / 0.5)
    threshold = math.log(0.05 * 10 / 0.95)
    called = llr >= threshold
    cost = 0.95 * (~called[bona_fide]).mean() + 0.5 * called[~bona_fide].mean()
    assert values["act_dcf"] == pytest.approx(cost / 0.5)
    bits = np.log2(1 + np.exp(-llr[bona_fide])).mean(), np.log2(1 + np.exp(llr[~bona_fide])).mean()
    assert values["cllr"] == pytest.approx(sum(bits) / 2)
    plain = [dataclasses.replace(report, environment={}) for report in raw]
    assert score("asvspoof5", truths[:-1], plain[:-1]) == pytest.approx(score("asvspoof5", truths[:-1], raw[:-1]))


# ------------------------------------------------------------------------------------- released variants to the digit


def test_released_temporal_figures_are_those_of_the_variants() -> None:
    truths, found = clips(np.random.default_rng(1))
    rows, spans = [f.proposals for f in found], [temporal.spans_of(t) for t in truths]
    ious = (0.5, 0.75, 0.9, 0.95)
    values = score("1m-deepfakes", truths, found)
    assert [values[f"ap{round(100 * i)}"] for i in ious] == [*temporal.avdeepfake1m_ap(rows, spans, ious).values()]
    numbers = (50, 30, 20, 10, 5)
    assert [values[f"ar{n}"] for n in numbers] == [*temporal.avdeepfake1m_ar(rows, spans, numbers).values()]
    assert values["score"] == pytest.approx(onem_score(values))
    assert values["score_corrected"] > values["score"]  # the first step of recall is not lost
    values = score("activitynet", truths, found)
    assert values["ap75"] == [*temporal.activitynet_ap(rows, spans).values()][5]
    assert values["map"] == pytest.approx(np.mean([*temporal.activitynet_ap(rows, spans).values()]))
    assert values["ar10"] == temporal.activitynet_ar(rows, spans)[10]
    values = score("lavdf", truths, found)  # none has 100 proposals, at which the original stops
    assert values["ap50"] == pytest.approx(temporal.lavdf_ap(rows, spans)[0.5], abs=1e-6)
    assert values["ar10"] == pytest.approx(temporal.avdeepfake1m_ar(rows, spans, (10,))[10], abs=1e-6)
    heard = [t.segments == () or t.segments[0].modality != "audio" for t in truths]
    kept = [i for i, keep in enumerate(heard) if keep]
    alone = score("lavdf", [truths[i] for i in kept], [found[i] for i in kept])
    assert 0 < len(kept) < len(truths)
    assert values["ap75_visual"] == alone["ap75"]
    assert values["ar20_visual"] == alone["ar20"]


@pytest.mark.parametrize("name", ["1m-deepfakes", "lavdf", "activitynet", "ddl-track2", "deepfakebench", "seamline"])
def test_a_resample_has_the_figures_of_the_repeated_files(name: str) -> None:
    """What intervals rest on: drawing a file twice is having it twice."""
    rng = np.random.default_rng(2)
    truths, found = clips(rng, 40)
    items = [measure(name, t, f) for t, f in zip(truths, found, strict=True)]
    times = rng.integers(0, 3, len(items))
    if name in ("1m-deepfakes", "lavdf"):
        times[[i for i, f in enumerate(found) if f.proposals[0][0] > 0.97]] = 0  # see released.py: copies at the top
    drawn = protocols._prepared(name, items, None)(times)
    repeated = [
        dataclasses.replace(item, name=f"{k}-{item.name}")
        for item, n in zip(items, times, strict=True)
        for k in range(n)
    ]
    whole = figures(name, repeated)
    assert drawn.keys() == whole.keys()
    assert drawn == pytest.approx(whole, abs=2e-3, nan_ok=True)  # copies tie, which the released rules resolve by order
    assert protocols._prepared(name, items, None)(np.ones(len(items), int)) == pytest.approx(
        figures(name, items), abs=1e-6, nan_ok=True
    )


# ------------------------------------------------------------------------------------------------ all protocols


def everything(name: str) -> tuple[list[Report], list[Report]]:
    """Truths of the protocol's medium and a perfect answer to them."""
    if PROTOCOLS[name].medium == "clip":
        truths = [clip(f"{i}.mp4", [(1.0 + i, 2.0 + i)] if i % 2 else ()) for i in range(8)]
        return truths, [
            clip(t.media.path, (), 0.9 if t.forged else 0.1, [(0.9 - i / 100, s.start, s.end) for s in t.segments])
            for i, t in enumerate(truths)
        ]
    masks = [square(20 + i) if i % 2 else None for i in range(8)]
    truths = [photo(f"v{i}/{i}.png", m is not None, mask=m) for i, m in enumerate(masks)]
    return truths, [
        photo(t.media.path, t.forged, 0.9 if t.forged else 0.1, np.zeros((40, 50), bool) if m is None else m)
        for t, m in zip(truths, masks, strict=True)
    ]


ZERO_IS_BEST = {"eer", "min_dcf", "act_dcf", "cllr", "false_alarms", "ece", "brier", "boundary_ms"}
FLATTERED = {"f1_reverse", "iou_reverse"}  # figures of the inverted map


@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_perfect_answer_is_perfect_where_the_protocol_can_tell(name: str) -> None:
    truths, found = everything(name)
    values = score(name, truths, found)
    assert PROTOCOLS[name].headline in values
    for key, value in values.items():
        if key in FLATTERED or math.isnan(value):
            continue
        best = 0.0 if key in ZERO_IS_BEST else 1.0
        if name in ("1m-deepfakes", "lavdf") and key.startswith("ap"):
            best = 3 / 4  # of four forged clips, the first step of recall is lost
        elif (name, key) == ("1m-deepfakes", "score"):
            best = 3 / 8 + 1 / 2
        elif name == "imdl-benco" and key in ("f1", "iou", "f1_double", "iou_double"):
            best = 1 / 2  # authentic photos count 0
        unsure = {"cllr": -math.log2(0.9), "ece": 0.1, "brier": 0.01}.get(key, 0.0) + 1e-6  # 0.9 is no certainty
        assert value == pytest.approx(best, abs=unsure), key


@pytest.mark.parametrize("name", PROTOCOLS)
def test_every_figure_has_a_seeded_interval_about_it(name: str) -> None:
    truths, found = everything(name)
    found[1] = dataclasses.replace(
        found[1],
        probability=0.05,
        verdict="authentic",
        proposals=tuple((c, s, s + 0.6) for c, s, _ in found[1].proposals),
    )
    items = [measure(name, t, f) for t, f in zip(truths, found, strict=True)]
    whole, ranges = figures(name, items), intervals(name, items, draws=40, seed=3)
    assert ranges.keys() == {key for key, value in whole.items() if not math.isnan(value)}
    assert all(low <= high for low, high in ranges.values())
    assert ranges == intervals(name, items, draws=40, seed=3)
    assert ranges != intervals(name, items, draws=40, seed=4)
    again = [Item.from_dict(json.loads(json.dumps(item.to_dict()))) for item in items]
    assert again == items
    assert figures(name, again) == pytest.approx(whole, nan_ok=True)


@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_missing_prediction_is_refused_by_name_or_counts_as_wrong(name: str) -> None:
    truths, found = everything(name)
    whole = score(name, truths, found)
    if PROTOCOLS[name].missing == "refuse":
        with pytest.raises(DataError, match=rf"1 of 8 files have no prediction.*{found[1].media.path}"):
            score(name, truths, found[:1] + found[2:])
    worse = score(name, truths, found[:1] + found[2:], missing="wrong")
    head = PROTOCOLS[name].headline
    assert worse[head] > whole[head] if head in ZERO_IS_BEST else worse[head] < whole[head]
    failed = Report(found[1].media, "error", error="cannot be read")
    assert score(name, truths, [found[0], failed, *found[2:]], missing="wrong") == pytest.approx(worse, nan_ok=True)


def test_only_spans_or_only_scores_leave_the_other_task_undefined() -> None:
    truths, found = clips(np.random.default_rng(4), 12)
    scores = [dataclasses.replace(f, proposals=(), environment={"spans": "absent"}) for f in found]
    values = score("1m-deepfakes", truths, scores)
    assert not math.isnan(values["auc"])
    assert math.isnan(values["score"])
    spans = [dataclasses.replace(f, probability=None, verdict="not_applicable") for f in found]
    values = score("1m-deepfakes", truths, spans)
    assert math.isnan(values["auc"])
    assert not math.isnan(values["score"])


def test_a_detector_that_finds_nothing_has_zero_and_not_an_error() -> None:
    truths = [clip(f"{i}.mp4", [(1.0, 2.0)] if i % 2 else ()) for i in range(6)]
    found = [clip(t.media.path, (), 0.3) for t in truths]
    for name in ("1m-deepfakes", "lavdf", "activitynet", "ddl-track2", "seamline"):
        values = score(name, truths, found)
        assert values["ap50"] == values["ar10"] == 0.0, name


def test_large_logits_get_the_sigmoid_of_the_package_and_lose_their_order() -> None:
    truths = [clip(f"{i}.mp4", [(1.0, 2.0)] if i < 2 else ()) for i in range(4)]
    found = [
        clip(t.media.path, (), 1.0, environment={"score": str(raw), "spans": "absent"})
        for t, raw in zip(truths, (90.0, 80.0, 70.0, -5.0), strict=True)
    ]
    assert score("1m-deepfakes", truths, found)["auc"] == 0.75  # 90, 80 and 70 are all 1.0


def test_masks_are_read_from_files_and_their_size_is_checked(tmp_path: Path) -> None:
    mask = square(20)
    cv2.imwrite(str(tmp_path / "truth.png"), mask * np.uint8(255))
    cv2.imwrite(str(tmp_path / "map.png"), mask * np.uint8(130) + np.uint8(10))
    cv2.imwrite(str(tmp_path / "small.png"), np.zeros((20, 25), np.uint8))
    truth = photo("a.png", True, artifacts=Artifacts(mask=str(tmp_path / "truth.png")))
    found = photo("a.png", True, 0.9, artifacts=Artifacts(heatmap=str(tmp_path / "map.png")))
    assert measure("ddl-track1", truth, found).pixels["mask"] == (400, 0, 0, 1600)
    assert measure("ddl-track1", truth, found, mask_threshold=0.6).pixels["mask"] == (0, 0, 400, 1600)
    wrong = dataclasses.replace(found, artifacts=Artifacts(mask=str(tmp_path / "small.png")))
    with pytest.raises(DataError, match=r"a\.png: its mask is 25x20, that of the truth 50x40"):
        measure("ddl-track1", truth, wrong)
    gone = dataclasses.replace(found, artifacts=Artifacts(mask=str(tmp_path / "gone.png")))
    with pytest.raises(DataError, match=r"a\.png: its mask .*gone\.png is missing"):
        measure("ddl-track1", truth, gone)


def test_masks_of_a_generator_are_held_one_at_a_time() -> None:
    import weakref

    mask = square(20)
    truths = [photo(f"{i}.png", True, mask=mask) for i in range(20)] + [photo("real.png", False)]
    held: list[weakref.ref[np.ndarray]] = []
    most = 0

    def predictions():
        nonlocal most
        for truth in truths:
            own = mask.copy()
            held.append(weakref.ref(own))
            yield photo(truth.media.path, truth.forged, 0.9 if truth.forged else 0.1, own)
            del own
            most = max(most, sum(ref() is not None for ref in held))

    assert score("ddl-track1", truths, predictions())["final"] == 1.0
    assert most <= 2


def test_names_agree_by_their_longest_common_end() -> None:
    find = finder(["/data/real/1.png", "/data/fake/1.png", "/data/fake/2.png"])
    assert find("fake/1.png") == 1
    assert find("2.png") == 2
    assert find("C:\\elsewhere\\fake\\1.png") == 1
    with pytest.raises(DataError, match=r"1\.png: could be /data/real/1\.png or /data/fake/1\.png"):
        find("1.png")
    with pytest.raises(DataError, match=r"3\.png: there is no truth"):
        find("3.png")
    with pytest.raises(DataError, match=r"among the truths twice"):
        finder(["a/1.png", "a/1.png"])
    with pytest.raises(DataError, match=r"predicted twice"):
        score("ddl-track1", [photo("1.png", False)], [photo("1.png", False), photo("1.png", False)])


def test_released_evaluators_have_spans_as_listed_and_the_others_joined() -> None:
    overlapping = clip("a.mp4", [(1.0, 2.0), (1.5, 3.0)])
    item = measure("lavdf", overlapping, None)
    assert item.listed == ((1.0, 2.0), (1.5, 3.0))
    assert item.spans == ((1.0, 3.0),)
    both = [Segment(s, e, 1.0, key) for key in ("video", "audio") for s, e in ((1.0, 2.0), (1.5, 3.0))]
    item = measure("lavdf", dataclasses.replace(overlapping, segments=tuple(both)), None)
    assert item.listed == ((1.0, 2.0), (1.5, 3.0))
    assert item.forged_in == ("audio", "video")
    apart = dataclasses.replace(overlapping, segments=(both[0], dataclasses.replace(both[2], start=1.2)))
    assert measure("lavdf", apart, None).listed == ((1.0, 2.0),)


def test_a_clip_that_is_forged_to_its_end_ends_with_it() -> None:
    whole = clip("a.mp4", [(0.0, math.inf)])
    assert measure("seamline", whole, None).spans == ((0.0, 10.0),)
    endless = dataclasses.replace(whole, media=Media("a.mp4", kind="video"))
    assert measure("seamline", endless, clip("a.mp4", (), 0.9)).spans == ((0.0, 10.0),)
    item = measure("seamline", endless, None)
    assert item.spans == ()
    assert item.forged_in == ("video",)


def test_an_unknown_protocol_and_a_damaged_item_are_named() -> None:
    with pytest.raises(DataError, match=r"unknown protocol 'ddl'; known: ddl-track1, "):
        score("ddl", [], [])
    with pytest.raises(DataError, match=r"not the item of a file"):
        Item.from_dict({"name": "a", "forged": True, "colour": 1})
