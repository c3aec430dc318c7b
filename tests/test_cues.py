"""Cues of sound: each measures what it says, and what was copied is found whatever was done to the copy."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from seamline.cues import BANDS, COUNT, HOP, PER_TICK, RATE, coloured, cues
from seamline.data.clips import Prepared
from seamline.detectors.erf_batfd_plus import PRESETS, ErfBatfdPlus, build, durations
from seamline.encoders.light import LightCues
from seamline.synthesis.speech import griffin_lim
from seamline.windows import ClipTruth, ClipWindow

Sound = npt.NDArray[np.float32]
GAIN, KURTOSIS = BANDS + BANDS // 2 + 8, BANDS + BANDS // 2 + 9
PERIODIC, PITCH = BANDS + BANDS // 2 + 14, BANDS + BANDS // 2 + 15
COPY, LONG_COPY, LEVEL = COUNT - 3, COUNT - 2, COUNT - 1


def babble(seconds: float, seed: int = 0, pitch: float = 130.0) -> Sound:
    """Pulses of a wandering pitch through wandering resonances, with pauses and a little noise: nothing comes twice."""
    rng = np.random.default_rng(seed)
    n = round(seconds * RATE)
    steps = n // 800 + 2  # 50 ms

    def wander(low: float, high: float) -> npt.NDArray[Any]:
        return np.interp(np.arange(n) / 800, np.arange(steps), rng.uniform(low, high, steps))

    cycles = np.floor(np.cumsum(pitch * wander(0.8, 1.25) / RATE))
    pulses = np.diff(cycles, prepend=0.0)
    out = np.zeros(n)
    for low, high in ((300, 800), (900, 2200), (2400, 3400)):
        part, centre = np.zeros(n), 2 * np.pi * wander(low, high) / RATE
        for k in range(2, n):
            part[k] = pulses[k] + 1.94 * np.cos(centre[k]) * part[k - 1] - 0.94 * part[k - 2]
        out += part
    out *= wander(0.0, 1.0) ** 2
    return (0.2 * out / np.abs(out).max() + rng.normal(0, 3e-4, n)).astype(np.float32)


@pytest.fixture(scope="module")
def speech() -> Sound:
    return babble(5.0)


@pytest.mark.parametrize("samples", [0, 100, 160, 3000, 4000, 4800, 16_000])
def test_any_sound_has_finite_cues_one_row_in_ten_milliseconds(samples: int) -> None:
    for sound in (np.zeros(samples, np.float32), babble(1.0)[:samples], np.ones(samples, np.float32)):
        made = cues(sound)
        assert (made.shape, made.dtype) == ((samples // HOP, COUNT), np.float32)
        assert np.isfinite(made).all()


def test_gain_moves_levels_alone(speech: Sound) -> None:
    loud, soft = cues(speech), cues(speech * np.float32(0.5))
    np.testing.assert_allclose(np.median(loud[:, :BANDS] - soft[:, :BANDS], 0), 6.02, atol=0.1)
    others = np.abs(loud - soft)[:, BANDS + BANDS // 2 : -1]
    assert np.quantile(others, 0.95) < 0.25
    np.testing.assert_allclose(loud[:, LEVEL], soft[:, LEVEL], atol=0.05)


@pytest.mark.parametrize("hertz", [80.0, 150.0, 330.0])
def test_the_pitch_of_pulses_is_known(hertz: float) -> None:
    tone = sum(np.cos(2 * np.pi * hertz * k * np.arange(RATE) / RATE) for k in range(1, 9))
    made = cues(tone)[20:-20]
    np.testing.assert_allclose(np.exp(np.median(made[:, PITCH])) * 120, hertz, rtol=0.03)
    noise = cues(np.random.default_rng(0).normal(0, 0.1, RATE))[20:-20]
    assert made[:, PERIODIC].min() > 0.5 > 0.35 > np.median(noise[:, PERIODIC])


def test_a_vocoder_smears_what_excites_a_voice(speech: Sound) -> None:
    again = griffin_lim(speech, np.random.default_rng(0))
    loud = cues(speech)[:, LEVEL] > 0
    assert np.median(cues(speech)[loud, KURTOSIS]) > np.median(cues(again)[loud, KURTOSIS]) + 0.3
    assert np.median(cues(speech)[loud, GAIN]) < -1  # resonances are predicted


@pytest.mark.parametrize("how", ["as it is", "softer", "brighter", "noisy", "between two rows"])
def test_a_copy_is_found_at_both_places_and_nowhere_else(speech: Sound, how: str) -> None:
    rng = np.random.default_rng(3)
    sound, piece = speech.copy(), speech[16_000:22_400].copy()
    if how == "softer":
        piece *= np.float32(0.4)
    elif how == "brighter":
        piece = np.convolve(piece, [1, -0.5], "same").astype(np.float32)
    elif how == "noisy":
        piece += rng.normal(0, 5e-4, len(piece)).astype(np.float32)
    start = 48_000 + (70 if how == "between two rows" else 0)
    sound[start : start + len(piece)] = piece
    made, plain = cues(sound), cues(speech)
    for first in (100, 300):
        inside = slice(first + 4, first + 36)
        assert made[inside, COPY].max() < plain[:, COPY].min() - 0.5
        assert made[inside, LONG_COPY].max() < plain[:, LONG_COPY].min() - 0.5
    elsewhere = np.r_[0:80, 160:280, 360:500]
    assert np.abs(made - plain)[elsewhere, COPY].max() < 0.5


def test_copies_are_those_of_all_pairs_one_by_one() -> None:
    """Against the definition in loops, with the spectra that the module uses."""
    from seamline import cues as module

    sound = np.asarray(babble(0.8, 4), np.float64)
    n = len(sound) // HOP
    power = np.abs(np.fft.rfft(module._frames(sound, 1024, n) * np.hanning(1024), axis=1)) ** 2
    whole = 10 * np.log10(power.mean(1) + 1e-12)
    seen = np.maximum(10 * np.log10(power @ module._mel(64, 1024).T + 1e-9), whole.max() - 75)
    for column, length in enumerate(module.COPIED):
        best = np.full(n, np.inf)
        for i in range(n - length + 1):
            for j in range(i + module.APART, n - length + 1):
                away = seen[i : i + length] - seen[j : j + length]
                far = (away**2).mean() - (away.mean(0) ** 2).mean()
                for first in (i, j):
                    best[first : first + length] = np.minimum(best[first : first + length], far)
        expected = np.log(np.clip(best, 0, 400) + 0.1)
        np.testing.assert_allclose(cues(sound)[:, COPY + column], expected, atol=1e-3)


def test_another_microphone_moves_levels_of_bands_and_their_floors_alike(speech: Sound) -> None:
    plain = cues(speech)
    other = coloured(plain, np.random.default_rng(0))
    moved = other - plain
    np.testing.assert_allclose(moved[:, BANDS : BANDS + BANDS // 2], moved[:, :BANDS:2], atol=1e-4)
    np.testing.assert_allclose(moved, moved[:1].repeat(len(moved), 0), atol=1e-4)
    assert not moved[:, BANDS + BANDS // 2 :].any()
    assert np.ptp(moved[0, :BANDS]) > 1


def test_the_encoder_ignores_padding_and_neighbours() -> None:
    torch.manual_seed(0)
    encoder = LightCues(24, COUNT, PER_TICK, hidden=16, dilations=(1, 2))
    rows = torch.from_numpy(cues(babble(2.0)).T.copy())[None]
    mask = torch.ones(1, 1, 50)
    encoder(rows, mask)  # so that what is usual is known
    encoder.eval()
    said = encoder(rows, mask)
    assert said.shape == (1, 24, 50)
    padded = torch.cat([rows, 99 * torch.ones(1, COUNT, 40)], 2)
    longer = encoder(padded, torch.cat([mask, torch.zeros(1, 1, 10)], 2))
    torch.testing.assert_close(longer[..., :50], said, atol=1e-4, rtol=1e-3)
    assert not longer[..., 50:].any()
    both = encoder(torch.cat([padded, padded.flip(2)]), torch.cat([mask, torch.zeros(1, 1, 10)], 2).repeat(2, 1, 1))
    torch.testing.assert_close(both[:1], longer, atol=1e-4, rtol=1e-3)
    assert not encoder(rows, torch.zeros(1, 1, 50)).any()


def test_cues_that_are_given_say_what_cues_that_are_measured_say(speech: Sound) -> None:
    torch.manual_seed(0)
    detector = build("erf-batfd-plus-tiny").eval()
    assert "cues" in detector.uses
    ticks = len(speech) // (HOP * PER_TICK)
    measured = detector.preprocess(ClipWindow(None, None, speech, ticks))
    given = detector.preprocess(ClipWindow(None, None, speech, ticks, cues=cues(speech)))
    torch.testing.assert_close(measured.sound, given.sound)
    with torch.no_grad():
        said = detector(detector.collate([measured]))
        other = detector(detector.collate([detector.preprocess(ClipWindow(None, None, speech[::-1].copy(), ticks))]))
    assert said.audio.there.all()
    assert said.audio.logit != other.audio.logit


def test_a_clip_keeps_its_cues_beside_its_sound_and_windows_get_their_part(speech: Sound) -> None:
    kept = Prepared(None, None, speech, 125, ClipTruth((), ((10.0, 20.0),)), cues=cues(speech))
    window, _ = kept.window(20, 60, PRESETS["erf-batfd-plus-light"].clock)
    assert window.cues is not None
    np.testing.assert_array_equal(window.cues, cues(speech)[80:240])


def test_cues_keep_to_their_clock() -> None:
    tiny = PRESETS["erf-batfd-plus-tiny"]
    with pytest.raises(ValueError, match="16000 Hz and 25 ticks a second only"):
        ErfBatfdPlus(replace(tiny, clock=replace(tiny.clock, fps=50.0)))


def test_weights_without_cues_look_at_spectra_as_before() -> None:
    plain = ErfBatfdPlus(replace(PRESETS["erf-batfd-plus-tiny"], cues=False))
    assert "cues" not in plain.uses
    inputs = plain.preprocess(ClipWindow(None, None, babble(1.0), 25))
    assert inputs.sound.shape == (RATE,)


def test_what_the_encoder_says_early_is_not_changed_by_what_learns_of_it(speech: Sound) -> None:
    torch.manual_seed(0)
    detector = build("erf-batfd-plus-tiny").train()
    ticks = len(speech) // (HOP * PER_TICK)
    truth = ClipTruth((), ((10.0, 20.0),))
    batch = detector.collate([detector.preprocess(ClipWindow(None, None, speech, ticks))])
    losses = detector.criterion(detector(batch), detector.targets([truth], [ticks]))
    (losses["audio_map"] + losses["audio_offsets"]).backward(retain_graph=True)
    assert all(p.grad is None for p in [*detector.audio.encoder.parameters(), *detector.audio.frames.parameters()])
    assert detector.audio.proposals.out.weight.grad.any()  # what is behind it begins with zeros
    (losses["audio_frames"] + losses["audio_score"]).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in detector.audio.encoder.parameters())


def test_the_vote_of_a_window_is_the_sum_of_odds_over_the_root_of_their_number() -> None:
    torch.manual_seed(0)
    branch = build("erf-batfd-plus-tiny").audio.eval()
    x, mask = torch.randn(2, 16, 30), torch.ones(2, 1, 30)
    mask[1, :, 20:] = 0
    cells = torch.ones(2, len(durations(64)), 30)
    there = torch.ones(2, dtype=torch.bool)
    with torch.no_grad():
        _, part = branch(x, mask, cells, there)
        _, ticks = branch(x, mask, cells, there, False)
        votes = branch.frames(torch.nn.functional.gelu(x))[:, 1]
    for k, n in enumerate((30, 20)):
        torch.testing.assert_close(part.logit[k], (votes[k, :n].exp().sum() / n**0.5).log())
    torch.testing.assert_close(ticks.logit, part.logit)
    torch.testing.assert_close(ticks.frames, part.frames)
    assert part.map.any()
    assert not ticks.map.any()
