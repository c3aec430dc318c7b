"""Sound to one feature vector per tick, by way of its log-mel spectrogram.

Sources: BA-TFD (Cai et al., DICTA 2022, arXiv:2204.06228) and BA-TFD+ (Cai et al., CVIU 2023, arXiv:2305.01979);
the transformer is torchvision's. Parameters have the names of the released checkpoints. The encoders map
``(B, 64, 4 T)`` to ``(B, C, T)``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ._torchvision import ensure_importable
from .video import ConvUnit, unfilled

BANDS = 64  # of the mel spectrogram
FRAMES = 4  # spectrogram frames per tick
VIT_WIDTHS = {"t": 192, "s": 384, "b": 768}  # hidden width; a head has 64 channels


class LogMel(nn.Module):
    """Waveform to log-mel spectrogram: what BA-TFD+ hears.

    |X|^2 of a 321-sample periodic Hann window every 160 samples, the ends mirrored by 160; triangular filters equally
    spaced on the HTK mel scale from 0 to half the rate, not normalised; then ln(S + 0.01), so silence is ln 0.01.
    The window is odd on purpose: n ticks of 4 hops give 4 n frames, not one more. The filters are those of torchaudio,
    which places the 161 bins evenly from 0 to 8000 Hz inclusive, a little off their true frequencies.

    Args:
        rate: samples per second.
        window: samples of the Hann window and of the transform.
        hop: samples from one frame to the next.
        bands: mel filters.
        floor: added to the power before the logarithm.
    """

    window: Tensor
    filters: Tensor

    def __init__(
        self, rate: int = 16000, window: int = 321, hop: int = 160, bands: int = BANDS, floor: float = 0.01
    ) -> None:
        super().__init__()
        self.hop = hop
        self.floor = floor
        self.register_buffer("window", torch.hann_window(window), persistent=False)
        self.register_buffer("filters", mel_filters(window // 2 + 1, bands, rate / 2), persistent=False)

    def forward(self, sound: Tensor) -> Tensor:
        """(..., n) in [-1, 1] to (..., bands, 1 + (n - 1) // hop).

        Raises:
            ValueError: there are fewer samples than the mirrored ends need, 161.
        """
        size = len(self.window)
        if sound.shape[-1] <= size // 2:
            raise ValueError(f"a spectrogram needs more than {size // 2} samples, not {sound.shape[-1]}")
        # In double, as transforms of 321 samples in single precision differ from processor to processor by 1e-5.
        spectrum = torch.stft(
            sound.double(), size, self.hop, size, self.window.double(), pad_mode="reflect", return_complex=True
        )
        power = (spectrum.real.square() + spectrum.imag.square()).to(sound.dtype)  # (..., bins, frames)
        return (self.filters.T @ power + self.floor).log()


def mel_filters(bins: int, bands: int, highest: float) -> Tensor:
    """Triangular filters on the HTK mel scale, (bins, bands) float32.

    Args:
        bins: of the spectrum, taken as evenly spaced from 0 to ``highest``, both included.
        bands: filters, whose corners are evenly spaced in mel over the same range.
        highest: hertz.
    """
    frequency = torch.linspace(0, highest, bins)
    corners = torch.linspace(0, 2595 * math.log10(1 + highest / 700), bands + 2)
    corners = 700 * (10 ** (corners / 2595) - 1)  # hertz
    step = corners.diff()
    away = corners - frequency[:, None]  # (bins, bands + 2)
    rise, fall = -away[:, :-2] / step[:-1], away[:, 2:] / step[1:]
    return torch.minimum(rise, fall).clamp(min=0)


class AudioCNN(nn.Module):
    """2-D convolutions, the encoder of BA-TFD.

    Args:
        channels: widths of the three blocks; the result has 4 times the last.
    """

    def __init__(self, channels: Sequence[int] = (32, 64, 64)) -> None:
        super().__init__()
        a, b, c = channels
        self.width = 4 * c
        self.block0 = nn.Sequential(
            nn.Unflatten(1, (1, BANDS)), ConvUnit(nn.Conv2d(1, a, 3, padding=1)), nn.MaxPool2d(2)
        )
        self.block1 = nn.Sequential(
            ConvUnit(nn.Conv2d(a, b, 3, padding=1)), ConvUnit(nn.Conv2d(b, b, 3, padding=1)), nn.MaxPool2d(2)
        )
        self.block2 = nn.Sequential(
            ConvUnit(nn.Conv2d(b, c, (2, 1), padding=(1, 0))),  # 16 bands to 17
            nn.MaxPool2d((2, 1)),
            ConvUnit(nn.Conv2d(c, c, (3, 1), padding=(1, 0))),
            nn.MaxPool2d((2, 1)),  # (B, c, 4, T)
        )

    def forward(self, mel: Tensor) -> Tensor:
        """(B, 64, 4 T) to (B, C, T)."""
        out: Tensor = self.block2(self.block1(self.block0(mel)))
        return out.flatten(1, 2)


class AudioViT(nn.Module):
    """Transformer over the columns of the spectrogram, one token per tick, by torchvision: the encoder of BA-TFD+.

    Args:
        size: "t", "s" or "b".
        width: channels C of the result.
        ticks: T; positions are learned, so it is the only length that fits.
        layers: of the transformer.

    Raises:
        ValueError: there is no such size.
    """

    def __init__(self, size: str, width: int, ticks: int, layers: int = 12) -> None:
        super().__init__()
        ensure_importable()
        from torchvision.models.vision_transformer import Encoder  # type: ignore[import-untyped]

        if size not in VIT_WIDTHS:
            raise ValueError(f"the transformer comes in sizes {', '.join(VIT_WIDTHS)}, not {size!r}")
        hidden = VIT_WIDTHS[size]
        self.block: Any = unfilled(lambda: Encoder(ticks, layers, hidden // 64, hidden, 4 * hidden, 0.0, 0.0))
        self.input_proj = _Patches(hidden)
        self.output_proj = nn.Linear(hidden, width)
        self.initialise()

    @torch.no_grad()
    def initialise(self) -> None:
        """Draw the transformer's parameters anew: matrices Xavier uniform, positions normal with deviation 0.02."""
        for module in self.block.modules():
            if isinstance(module, nn.LayerNorm):
                module.reset_parameters()
        for name, parameter in self.block.named_parameters():
            if name == "pos_embedding":
                nn.init.normal_(parameter, std=0.02)
            elif parameter.ndim == 2:
                nn.init.xavier_uniform_(parameter)
            elif name.endswith("bias") and ".ln" not in name and name != "ln.bias":
                nn.init.zeros_(parameter)

    def forward(self, mel: Tensor) -> Tensor:
        """(B, 64, 4 T) to (B, C, T)."""
        x = self.input_proj(mel)  # (B, T, hidden)
        out: Tensor = self.output_proj(self.block(x)).transpose(1, 2)
        return out


class _Patches(nn.Module):
    """One tick of the spectrogram to one token."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, width, (BANDS, FRAMES), stride=(BANDS, FRAMES))

    def forward(self, mel: Tensor) -> Tensor:
        x: Tensor = self.conv(mel[:, None])  # (B, width, 1, T)
        return x.flatten(2).transpose(1, 2)
