"""The trace encoder: DCT basis, lattice evidence, shapes, and blindness to flat colour in its residual layer."""

from __future__ import annotations

import io

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from seamline.encoders.traces import (
    BINS,
    LOW,
    ROUGHNESS,
    WORDS,
    Counts,
    Lattice,
    Statistics,
    TraceEncoder,
    dct_basis,
    relative,
)


def test_basis_is_orthonormal_and_equals_opencv() -> None:
    basis = dct_basis().flatten(1)
    torch.testing.assert_close(basis @ basis.T, torch.eye(64), atol=1e-6, rtol=0)
    block = np.random.default_rng(0).normal(0, 50, (8, 8)).astype(np.float32)
    ours = (basis @ torch.from_numpy(block).flatten()).numpy()
    zigzag = [cv2.dct(block)[i, j] for i, j in ((0, 0), (0, 1), (1, 0), (2, 0), (1, 1), (0, 2))]
    np.testing.assert_allclose(ours[:6], zigzag, atol=1e-3)


def test_lattice_sees_the_quantisation_step_of_a_jpeg_and_not_off_the_grid() -> None:
    rng = np.random.default_rng(1)
    noise = np.clip(cv2.GaussianBlur(rng.normal(0, 160, (256, 256)).astype(np.float32), (0, 0), 0.8) + 128, 0, 255)
    out = io.BytesIO()
    Image.fromarray(noise.astype(np.uint8)).save(out, "JPEG", qtables=[[8] * 64])
    grey = torch.from_numpy(np.array(Image.open(out), np.float32)) - 128

    def fit(pixels: torch.Tensor) -> float:
        coefficients = torch.nn.functional.conv2d(pixels[None, None], Lattice().basis, stride=8)[:, 1:LOW]
        return float(torch.cos(coefficients * (2 * torch.pi / 8)).mean())

    assert fit(grey) > 0.8
    assert abs(fit(grey[3:251, 5:253])) < 0.2


def test_shapes_and_gradients() -> None:
    encoder = TraceEncoder(width=32, depth=2).train()
    pixels = torch.rand(2, 3, 64, 96) * 2 - 1
    features = encoder(pixels)
    assert features.grid.shape == (2, 32, 8, 12)
    assert features.pooled.shape == (2, 32)
    (features.grid.square().mean() + features.pooled.sum()).backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in encoder.parameters())


def test_residual_filters_ignore_flat_colour() -> None:
    encoder = TraceEncoder(width=16, depth=1)
    kernel = encoder.highpass - encoder.highpass.mean((2, 3), keepdim=True)
    flat = torch.nn.functional.conv2d(torch.full((1, 3, 16, 16), 0.3), kernel)
    torch.testing.assert_close(flat, torch.zeros_like(flat), atol=1e-6, rtol=0)


def test_relative_traces_tell_a_patch_from_the_rest_whatever_the_photo() -> None:
    quiet = torch.zeros(1, 1, 16, 16)
    quiet[..., 4:8, 4:8] = 1
    loud = quiet * 30 + 500
    torch.testing.assert_close(relative(loud), relative(quiet), atol=0.8, rtol=0)
    assert relative(quiet)[..., 4:8, 4:8].min() > 2 > 0 > relative(quiet)[..., 10:, 10:].max()
    assert torch.isfinite(relative(torch.full((1, 1, 4, 4), 7.0))).all()


def test_statistics_count_every_word_once_and_do_not_mind_mirrors_negatives_or_quarter_turns() -> None:
    luma = torch.from_numpy(np.random.default_rng(2).normal(0, 2, (2, 1, 48, 64)).astype(np.float32))
    shares = Statistics()(luma)
    assert shares.shape == (2, Statistics.channels, 6, 8)
    torch.testing.assert_close(shares.view(2, -1, WORDS, 6, 8).sum(2), torch.ones(2, 4, 6, 8))
    torch.testing.assert_close(Statistics()(-luma), shares)
    torch.testing.assert_close(Statistics()(luma.transpose(2, 3)).transpose(2, 3), shares)


def test_statistics_by_the_definition() -> None:
    luma = np.random.default_rng(3).normal(0, 2, (24, 24)).astype(np.float32)
    shares = Statistics()(torch.from_numpy(luma)[None, None])[0]
    for number, step in enumerate(ROUGHNESS):
        symbols = np.clip(np.round((luma[:, 3:] - 3 * luma[:, 2:-1] + 3 * luma[:, 1:-2] - luma[:, :-3]) / step), -1, 1)
        flat = symbols[8:16, 7:18]  # the words of the middle block: four neighbours along the row
        zeros = sum(not flat[y, x : x + 4].any() for y in range(8) for x in range(8))
        turned = np.clip(np.round(np.diff(luma, 3, axis=0) / step), -1, 1)[7:18, 8:16]
        zeros += sum(not turned[y : y + 4, x].any() for y in range(8) for x in range(8))
        quiet = int(Statistics().kinds[40])  # the word 0 0 0 0
        assert shares[2 * number * WORDS + quiet, 1, 1] == pytest.approx(zeros / 128)


def luma_of(quality: int, shape: tuple[int, int] = (256, 256)) -> tuple[torch.Tensor, list[int]]:
    """The luma of a rough colour picture after JPEG, (1, 1, H, W), and the low steps of the table it was saved with."""
    rng = np.random.default_rng(4)
    rough = cv2.GaussianBlur(rng.normal(0, 90, (*shape, 3)).astype(np.float32), (0, 0), 0.7) + 128
    out = io.BytesIO()
    Image.fromarray(np.clip(rough, 0, 255).astype(np.uint8)).save(out, "JPEG", quality=quality)
    with Image.open(out) as picture:
        table = torch.tensor(picture.quantization[0]).view(8, 8)
        rgb = torch.from_numpy(np.array(picture.convert("RGB"), np.float32))
    zigzag = sorted(((i, j) for i in range(8) for j in range(8)), key=lambda ij: (sum(ij), ij[1 - sum(ij) % 2]))
    return (rgb @ torch.tensor([0.299, 0.587, 0.114]))[None, None], [int(table[ij]) for ij in zigzag[1:LOW]]


@pytest.mark.parametrize("quality", [60, 75, 85, 90, 95])
def test_steps_of_the_last_save_are_read_from_pixels(quality: int) -> None:
    luma, table = luma_of(quality)
    steps = Counts.steps(torch.nn.functional.conv2d(luma, Counts().basis, stride=8)).flatten().tolist()
    assert sum(a == b for a, b in zip(steps, table, strict=True)) >= 19, (steps, table)


def test_without_a_save_the_step_is_one_and_every_coefficient_has_a_bin() -> None:
    luma = torch.from_numpy(np.random.default_rng(5).normal(128, 30, (2, 1, 128, 128)).astype(np.float32))
    assert (Counts.steps(torch.nn.functional.conv2d(luma, Counts().basis, stride=8)) == 1).all()
    counts = Counts()(luma)
    assert counts.shape == (2, Counts.channels, 16, 16)
    torch.testing.assert_close(
        counts.view(2, BINS + 1, LOW - 1, 16, 16)[:, :BINS].sum(1), torch.ones(2, LOW - 1, 16, 16)
    )
    flat = Counts()(torch.full((1, 1, 64, 64), 7.0))
    assert torch.isfinite(flat).all()


def test_a_block_that_was_not_saved_before_falls_out_of_the_counts() -> None:
    saved, _ = luma_of(75)
    changed = saved.clone()
    changed[..., 64:128, 64:128] = luma_of(100, (64, 64))[0]
    fit = Counts()(changed)[:, -(LOW - 1) :].mean(1)[0]
    assert fit[8:16, 8:16].mean() < 0.5 < 0.9 < fit[:8].mean()


def test_traces_are_read_in_full_precision_under_autocast() -> None:
    encoder = TraceEncoder(width=16, depth=1, statistics=True, counts=True).eval()
    pixels = torch.rand(1, 3, 64, 64) * 2 - 1
    plain = encoder._traces(pixels)
    with torch.autocast("cpu", torch.bfloat16):
        half = encoder._traces(pixels)
    for a, b in zip(plain, half, strict=True):
        torch.testing.assert_close(a, b, atol=0, rtol=0)


def test_the_grid_of_a_cropped_photo_is_found_and_none_where_there_is_none() -> None:
    encoder = TraceEncoder(width=16, depth=1)

    def origin(luma: torch.Tensor) -> tuple[int, int] | None:
        return encoder.origin((luma / 127.5 - 1).expand(-1, 3, -1, -1))

    for quality in (75, 85, 92):
        luma, _ = luma_of(quality)
        assert origin(luma) == (0, 0)
        for top, left in ((3, 5), (0, 1), (7, 0), (8, 2)):
            assert origin(luma[..., top:, left:]) == (-top % 8, -left % 8)
    noise = torch.from_numpy(np.random.default_rng(6).normal(128, 30, (1, 1, 200, 200)).astype(np.float32))
    smaller = torch.nn.functional.interpolate(luma, scale_factor=0.75, mode="bilinear", antialias=True)
    for untraced in (noise, torch.full((1, 1, 200, 200), 9.0), luma[..., 3:60, 5:60], smaller):
        assert origin(untraced) is None
