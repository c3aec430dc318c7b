"""The pace of pictures: what is held, repeated or left out shows in how far pictures lie from those before."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from seamline.detectors.erf_batfd_plus import build
from seamline.encoders.light import NOTHING, LightPace
from seamline.pace import LAGS, Pace, repeated, slower
from seamline.windows import ClipWindow


def film(count: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    """A scene that drifts by a pixel a picture, with grain."""
    rng = np.random.default_rng(seed)
    scene = rng.normal(0, 1, (90, 120 + count, 3)).cumsum(1).cumsum(0)
    scene = 128 + 40 * (scene - scene.mean()) / scene.std()
    grain = rng.normal(0, 2, (count, 90, 120, 3))
    return np.stack([np.clip(scene[:, k : k + 120] + grain[k], 0, 255).astype(np.uint8) for k in range(count)])


def rows(pictures: Any) -> npt.NDArray[np.float32]:
    pace = Pace()
    return np.stack([pace.add(picture) for picture in pictures])


def test_a_row_is_the_mean_square_difference_from_each_picture_before() -> None:
    made = rows([np.full((60, 80, 3), level, np.uint8) for level in (10, 14, 30)])
    assert made.shape == (3, LAGS)
    assert np.isnan(made[0]).all()
    assert made[1, 0] == pytest.approx(16)
    assert made[2, :2].tolist() == pytest.approx([256, 400])
    assert np.isnan(made[2, 2:]).all()


def test_what_is_shown_again_lies_nearer_than_any_new_picture() -> None:
    pictures = film(60)
    plain = rows(pictures)
    back = np.concatenate([np.arange(30), 29 - np.arange(10), np.arange(30, 50)])  # ten pictures back and again
    again = rows([pictures[k].copy() for k in back])
    natural = np.nanmin(plain[LAGS:, 1:])
    assert np.nanmin(again[31, 1:]) == 0  # picture 28, two ticks before
    assert natural > 0.5
    held = rows([pictures[min(k, 40)].copy() for k in range(60)])
    assert (held[41:, 0] == 0).all()
    assert (held[:41, 0] > 0.5)[1:].all()


def test_the_size_of_a_picture_hardly_matters() -> None:
    pictures = film(20)
    large = np.repeat(np.repeat(pictures, 8, 1), 8, 2)
    np.testing.assert_allclose(rows(large)[5:, :4], rows(pictures)[5:, :4], rtol=0.2)


def test_a_file_with_fewer_pictures_says_so_where_the_clock_repeats_them() -> None:
    pictures = film(40)
    fewer = slower(rows(pictures), 0.6, 0.3)
    new = np.diff(np.floor(np.arange(-1, 40) * 0.6 + 0.3)) > 0
    shown = pictures[0]
    played = []
    for picture, fresh in zip(pictures, new, strict=True):
        shown = picture if fresh else shown
        played.append(shown)
    np.testing.assert_array_equal(fewer, rows(played))
    assert np.isnan(fewer[~new]).all()
    assert np.isfinite(fewer[new][5:]).any(1).all()
    np.testing.assert_array_equal(slower(rows(pictures), 1.0), rows(pictures))


def test_a_file_in_which_pictures_were_coded_again_is_known_from_the_rows_of_the_whole_one() -> None:
    pictures = film(40)
    new = np.diff(np.floor(np.arange(-1, 40) * 0.7 + 0.6)) > 0
    assert not new.all()
    shown = np.maximum.accumulate(np.where(new, np.arange(40), 0))
    made = repeated(rows(pictures), new, np.zeros((40, LAGS), np.float32))
    expected = rows([pictures[k].copy() for k in shown])
    same = shown[:, None] - shown[np.maximum(np.arange(40)[:, None] - 1 - np.arange(LAGS), 0)] <= LAGS
    np.testing.assert_allclose(made[same], expected[same], rtol=1e-5)
    np.testing.assert_array_equal(np.isnan(made), np.isnan(expected))
    assert np.nanmin(np.abs(made[~new, 0])) == 0


def test_the_stem_ignores_padding_and_survives_what_is_unknown() -> None:
    torch.manual_seed(0)
    stem = LightPace(LAGS, hidden=16, dilations=(1, 2)).eval()
    pace = torch.from_numpy(rows(film(30)).T.copy())[None]
    said = stem(pace)
    assert said.shape == (1, 30)
    longer = stem(torch.cat([pace, torch.full((1, LAGS, 10), torch.nan)], 2))
    torch.testing.assert_close(longer[:, :30], said, atol=1e-5, rtol=1e-4)
    assert (longer[:, 30:] == NOTHING).all()
    assert (stem(torch.full_like(pace, torch.nan)) == NOTHING).all()
    held = slower(pace[0].T.numpy(), 0.5)
    assert (stem(torch.from_numpy(held.T.copy())[None])[:, :28] > NOTHING).all()


def test_what_the_order_says_reaches_ticks_proposals_and_verdict() -> None:
    torch.manual_seed(0)
    detector = build("erf-batfd-plus-tiny").eval()
    torch.nn.init.normal_(detector.video.proposals.out.weight)  # type: ignore[union-attr,arg-type]
    faces = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), dtype=np.uint8)
    window = ClipWindow(faces, np.ones(40, bool), None, 40, rows(film(40)))
    batch = detector.collate([detector.preprocess(window)])
    with torch.no_grad():
        before = detector(batch)
        detector.pace.frames.bias.fill_(9.0)
        after = detector(batch)
    assert (after.order > before.order + 5)[0, :40].all()
    assert (after.video.frames[0, :40] > before.video.frames[0, :40]).all()
    assert after.video.logit > before.video.logit
    assert (after.video.map != before.video.map).any()
