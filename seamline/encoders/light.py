"""Small encoders for a CPU: a feature vector per tick of face crops and of sound, a logit of the order of pictures.

Ours. Those of faces and of spectra follow what paid for photos (``traces.py``): give the network the traces themselves
(high-pass residuals, their local energy, the change since the last tick; the fine spectrum), and set each against the
rest of the window, because a camera, a codec or a voice differs more from the next one than a forged second from its
neighbours.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

TINY = 1e-5  # below any energy that an 8-bit picture can hold
LUMA = (0.299, 0.587, 0.114)
NOTHING = -20.0  # logit of what is not there
PIECE = 64  # faces that are looked at together where no statistics of them all are asked for: more only costs memory


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Mean over time of what is there: (B, C, T), (B, 1, T) to (B, C, 1); zeros where nothing is."""
    return (x * mask).sum(-1, keepdim=True) / mask.sum(-1, keepdim=True).clamp(min=1)


def _apart(x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The mean over what is there, the difference from it and its spread: (B, C, 1), (B, C, T), (B, C, 1)."""
    mean = masked_mean(x, mask)
    away = (x - mean) * mask
    return mean, away, (masked_mean(away.square(), mask) + TINY).sqrt()


def laplace(y: Tensor) -> Tensor:
    """The sum of a pixel's four neighbours less four times itself, borders replicated: (..., H, W) to the same.

    Ten times faster than a convolution of one channel.
    """
    z = F.pad(y, (1, 1, 1, 1), mode="replicate")
    return z[..., :-2, 1:-1] + z[..., 2:, 1:-1] + z[..., 1:-1, :-2] + z[..., 1:-1, 2:] - 4 * y


class Against(nn.Module):
    """A feature beside its difference from the window's own mean and spread: (B, C, T) to (B, C, T).

    The temporal sister of :class:`seamline.encoders.traces.Contrast`.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mix = nn.Conv1d(2 * width, width, 1)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B, C, T), (B, 1, T) of 0 and 1 to (B, C, T)."""
        _, away, spread = _apart(x, mask)
        out: Tensor = self.mix(torch.cat([x, away / spread], 1)) * mask
        return out


def mix_style(x: Tensor, mask: Tensor) -> Tensor:
    """MixStyle (Zhou et al., ICLR 2021) over time: every second call, windows take on part of the style of others.

    (B, C, T), (B, 1, T) of 0 and 1 to (B, C, T). A style is a mean and a spread: what is true of a window as a whole,
    such as who films whom, is worth less to a network that is trained so; what changes within it stays.
    """
    some = torch.nonzero(mask.flatten(1).any(1))[:, 0]
    if len(some) < 2 or torch.rand(()) < 0.5:
        return x
    mean, away, spread = _apart(x, mask)
    other = torch.arange(len(x), device=x.device)
    other[some] = some[torch.randperm(len(some)).to(x.device)]
    share = torch.distributions.Beta(0.1, 0.1).sample((len(x), 1, 1)).to(x)
    mean, spread = mean.detach(), spread.detach()
    mixed = share * spread + (1 - share) * spread[other]
    return (away / spread * mixed + share * mean + (1 - share) * mean[other]) * mask


class LightVideo(nn.Module):
    """Face crops to one vector per tick: (B, 3, T, S, S) in [0, 1] to (B, width, T).

    Per tick and without memory: luma, its Laplacian and its change since the last tick go through one patchifying
    convolution of stride 4 (texture finer than a patch is still seen); the log energy of the Laplacian and of the
    change in each patch join as channels of their own (blur, a blended patch and a frozen picture show there); three
    strided convolutions follow, and what is left of the face's layout is flattened, not pooled.
    """

    def __init__(self, width: int, side: int = 96, channels: tuple[int, int, int, int] = (32, 48, 64, 80)) -> None:
        super().__init__()
        if side % 32:
            raise ValueError(f"the side of a face crop is a multiple of 32, not {side}")
        a, b, c, d = channels
        self.patches = nn.Conv2d(3, a, 4, stride=4)
        self.body = nn.Sequential(
            *_unit(a + 2 + 3, b, 2),
            *_unit(b, c, 1),
            *_unit(c, d, 2),
            nn.Conv2d(d, d, 3, stride=2, padding=1, groups=d),
            nn.Flatten(1),
        )
        self.out = nn.Conv1d(d * (side // 32) ** 2, width, 1)
        self.against = Against(width)
        self.register_buffer("luma", torch.tensor(LUMA)[None, :, None, None], persistent=False)
        self.luma: Tensor

    def forward(self, faces: Tensor, mask: Tensor) -> Tensor:
        """Faces (B, 3, T, S, S), uint8 or in [0, 1], and (B, 1, T) of 1 where a face is, to (B, width, T).

        Ticks without a face cost nothing and stay out of the batch statistics.
        """
        b, _, t = faces.shape[:3]
        there = mask[:, 0] > 0
        index = there.flatten().nonzero()[:, 0]  # (K,) the ticks with a face, in order
        x = mask.new_zeros(b * t, self.out.in_channels)
        if len(index):
            frames = faces.transpose(1, 2)[there]  # (K, 3, S, S)
            follows = F.pad((index[1:] - index[:-1] == 1) & (index[1:] % t != 0), (1, 0))  # the same face a tick later
            piece = len(index) if self.training else PIECE
            for first in range(0, len(index), piece):
                some = slice(max(0, first - 1), first + piece)  # the face before comes along
                seen = self._look(frames[some], follows[some])[min(first, 1) :]
                x = x.index_copy(0, index[first : first + piece], seen.to(x.dtype))
        x = self.out(x.view(b, t, -1).transpose(1, 2)) * mask
        return self.against(mix_style(x, mask) if self.training else x, mask)  # type: ignore[no-any-return]

    def _look(self, faces: Tensor, follows: Tensor) -> Tensor:
        """(K, 3, S, S), and (K,) whether each follows the one before it, to (K, features)."""
        frames = faces.to(self.luma.dtype)
        if not faces.is_floating_point():
            frames = frames / 255
        y = (frames * self.luma).sum(1, keepdim=True)  # (K, 1, S, S)
        change = F.pad((y[1:] - y[:-1]) * follows[1:, None, None, None], (0, 0, 0, 0, 0, 0, 1, 0))
        edge = laplace(y)
        energy = F.avg_pool2d(torch.cat([edge, change], 1).square(), 4).add(TINY).log() / 4  # (K, 2, S/4, S/4)
        fine = self.patches(torch.cat([y - 0.5, 4 * edge, 4 * change], 1))
        seen: Tensor = self.body(torch.cat([fine, energy, F.avg_pool2d(frames, 4) - 0.5], 1))
        return seen


class WindowNorm(nn.Module):
    """Group normalisation (Wu & He, ECCV 2018) over the ticks that are there: what differs by file goes."""

    def __init__(self, width: int, groups: int) -> None:
        super().__init__()
        self.groups = groups
        self.weight, self.bias = nn.Parameter(torch.ones(width, 1)), nn.Parameter(torch.zeros(width, 1))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B, C, T), (B, 1, T) of 0 and 1 to (B, C, T), zero where nothing is."""
        parts, there = x.unflatten(1, (self.groups, -1)), mask[:, None]
        count = (there.sum(-1, keepdim=True) * parts.shape[2]).clamp(min=1)
        away = (parts - (parts * there).sum((2, 3), keepdim=True) / count) * there
        spread = (away.square().sum((2, 3), keepdim=True) / count + TINY).sqrt()
        out: Tensor = ((away / spread).flatten(1, 2) * self.weight + self.bias) * mask
        return out


def _dilated(x: Tensor, mask: Tensor, norms: nn.ModuleList, steps: nn.ModuleList, drop: nn.Module) -> Tensor:
    """Residual convolutions over time, each behind a norm of the window: (B, C, T), (B, 1, T) to (B, C, T)."""
    for norm, step in zip(norms, steps, strict=True):
        x = x + drop(F.gelu(step(norm(x, mask)))) * mask
    return x


class LightPace(nn.Module):
    """How far pictures lie from those before them to a logit per tick that their order is forged.

    The log of every distance, as it is and against the window's own median at that lag (how much moves, how coarse the
    codec is), through residual dilated convolutions that see a little over a second to either side.
    """

    def __init__(
        self, lags: int, hidden: int = 64, dilations: tuple[int, ...] = (1, 2, 4, 8, 16), dropout: float = 0.1
    ) -> None:
        super().__init__()
        self.enter = nn.Conv1d(3 * lags, hidden, 5, padding=2)
        self.norms = nn.ModuleList(WindowNorm(hidden, hidden // 8) for _ in dilations)
        self.steps = nn.ModuleList(nn.Conv1d(hidden, hidden, 3, padding=d, dilation=d) for d in dilations)
        self.drop = nn.Dropout(dropout)
        self.frames = nn.Conv1d(hidden, 1, 1)
        nn.init.constant_(self.frames.bias, -3.0)  # type: ignore[arg-type]  # few ticks are forged

    def forward(self, pace: Tensor) -> Tensor:
        """Squared grey levels (B, lags, T), not a number where unknown, to (B, T); ``NOTHING`` where all are."""
        known = pace.isfinite()
        far = (pace.nan_to_num() + 1e-3).log() / 2
        usual = far.masked_fill(~known, torch.nan).nanmedian(-1, keepdim=True).values.nan_to_num()
        x = torch.cat([(far - usual) * known, far / 3 * known, known.to(far.dtype)], 1)
        some = known.any(1, keepdim=True)
        last = pace.shape[-1] - some.flip(-1).to(torch.int64).argmax(-1, keepdim=True)  # held pictures inside stay
        inside = (torch.arange(pace.shape[-1], device=pace.device) < last).to(far.dtype) * some.any(-1, keepdim=True)
        x = _dilated(F.gelu(self.enter(x)) * inside, inside, self.norms, self.steps, self.drop)
        return self.frames(x)[:, 0].masked_fill(inside[:, 0] == 0, NOTHING)  # type: ignore[no-any-return]


class LightCues(nn.Module):
    """Cues of sound (``cues.py``) to one vector per tick: (B, count, T * PER_TICK) to (B, width, T).

    Every cue as it is, in units of its spread over the training data, and against the window's own median, in units of
    the window's own mean deviation, through residual dilated convolutions that see over a second to either side. In
    training some cues are hidden and all are blurred, as they are few enough to be known by heart, and windows take on
    part of each other's style, as voices are: of the cues as they are, and of the features (:func:`mix_style`).
    """

    def __init__(
        self,
        width: int,
        count: int,
        per_tick: int,
        hidden: int = 64,
        dilations: tuple[int, ...] = (1, 2, 4, 8, 16),
        dropout: float = 0.15,
        blur: float = 0.15,
    ) -> None:
        super().__init__()
        self.per_tick, self.blur = per_tick, blur
        self.usual = nn.BatchNorm1d(count, affine=False)
        self.enter = nn.Conv1d(2 * count, hidden, 1)
        self.gather = nn.Conv1d(hidden, hidden, 2 * per_tick, stride=per_tick, padding=per_tick // 2)
        self.norms = nn.ModuleList(WindowNorm(hidden, hidden // 8) for _ in dilations)
        self.steps = nn.ModuleList(nn.Conv1d(hidden, hidden, 3, padding=d, dilation=d) for d in dilations)
        self.hide = nn.Dropout1d(dropout)
        self.drop = nn.Dropout(dropout)
        self.out = nn.Conv1d(hidden, width, 1)

    def forward(self, cues: Tensor, mask: Tensor) -> Tensor:
        """(B, count, T * per_tick), and (B, 1, T) of 1 where there is sound, to (B, width, T)."""
        fine = mask.repeat_interleave(self.per_tick, -1)
        there = fine[:, 0] > 0
        rows = cues.transpose(1, 2)
        x = rows.new_zeros(rows.shape)
        if there.any():
            x[there] = self.usual(rows[there])
        x = x.transpose(1, 2)
        known = x.masked_fill(fine == 0, torch.nan)
        away = x - known.nanmedian(-1, keepdim=True).values.nan_to_num()
        spread = masked_mean(away.abs(), fine) + 0.1
        if self.training:
            x = mix_style(x, fine)
        x = torch.cat([x.clamp(-5, 5), (away / spread).clamp(-6, 6)], 1)
        if self.training:
            x = self.hide(x + self.blur * torch.randn_like(x))
        x = F.gelu(self.gather(F.gelu(self.enter(x)) * fine)) * mask
        x = _dilated(mix_style(x, mask) if self.training else x, mask, self.norms, self.steps, self.drop)
        return self.out(x) * mask  # type: ignore[no-any-return]


class LightAudio(nn.Module):
    """Sound to one vector per tick: (B, T * samples) in [-1, 1] to (B, width, T).

    The log power spectrum (window 32 ms, hop a quarter of a tick), as it is and against the window's own mean of each
    bin (the room, the microphone and the codec, which all ticks share), through strided 2-D convolutions. ``floor`` is
    added to the power, of sound in [-1, 1] under a Hann window of 512 samples: 1e-4 is white noise of -63 dB, below
    which rooms and the holes of codecs begin; 1e-7, of -93 dB, lies beneath 16 bits.
    """

    def __init__(
        self,
        width: int,
        samples: int = 640,
        channels: tuple[int, int, int, int, int] = (16, 32, 48, 64, 64),
        floor: float = 1e-7,
    ) -> None:
        super().__init__()
        if samples % 4:
            raise ValueError(f"a tick holds a multiple of 4 samples, not {samples}")
        self.samples, self.fft, self.floor = samples, 512, floor
        a, b, c, d, e = channels
        self.body = nn.Sequential(
            nn.Conv2d(2, a, 5, stride=(2, 1), padding=2),
            nn.BatchNorm2d(a),
            nn.ReLU(),
            *_unit(a, b, 2),
            *_unit(b, c, 2),
            *_unit(c, d, (2, 1)),
            *_unit(d, e, (2, 1)),
        )
        bins = self.fft // 2  # the constant bin says nothing
        self.out = nn.Conv1d(e * (bins // 32), width, 1)
        self.against = Against(width)
        self.register_buffer("window", torch.hann_window(self.fft), persistent=False)
        self.window: Tensor

    def forward(self, sound: Tensor, mask: Tensor) -> Tensor:
        """Sound (B, T * samples), and (B, 1, T) of 1 where there is sound, to (B, width, T).

        Windows without sound cost nothing and stay out of the batch statistics.
        """
        heard = mask.flatten(1).any(1)
        x = mask.new_zeros(len(mask), self.out.in_channels, mask.shape[-1])
        if heard.any():
            x[heard] = self._listen(sound[heard], mask[heard]).to(x.dtype)
        return self.against(self.out(x) * mask, mask)  # type: ignore[no-any-return]

    def _listen(self, sound: Tensor, mask: Tensor) -> Tensor:
        """(B, T * samples), (B, 1, T) to (B, channels * bins, T)."""
        t = mask.shape[-1]
        hop = self.samples // 4
        padded = F.pad(sound, (self.fft // 2 - hop // 2, self.fft // 2))
        spectrum = torch.stft(padded, self.fft, hop, window=self.window, center=False, return_complex=True)
        power = spectrum.real.square() + spectrum.imag.square()
        level = (power[:, 1:, : 4 * t] + self.floor).log()  # (B, 256, 4 T)
        fine = mask.repeat_interleave(4, -1)  # (B, 1, 4 T)
        level = (level + 2) / 4 * fine
        x = torch.stack([level, (level - masked_mean(level, fine)) * fine], 1)
        out: Tensor = self.body(x).flatten(1, 2)  # from (B, channels, 8, T)
        return out


def _unit(before: int, after: int, stride: int | tuple[int, int]) -> tuple[nn.Module, ...]:
    return (
        nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(after),
        nn.ReLU(),
    )
