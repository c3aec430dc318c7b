"""The timm feature encoder: shapes for every kind of model, strict weights, no timm until it is asked for."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from seamline.encoders.perception import PERCEPTION, TimmEncoder, resample_positions
from seamline.errors import WeightsError


def test_importing_the_detector_imports_neither_timm_nor_torchvision() -> None:
    code = "import sys, seamline.detectors.loupe; print([m for m in ('timm', 'torchvision') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.parametrize(
    ("name", "size", "width", "stride"),
    [
        ("pe-tiny", 56, 64, 14),
        ("pe-tiny", 84, 64, 14),  # another size than the first: other table of positions
        ("resnet18", 64, 512, 32),  # convolutions, own average pooling
        ("vit_tiny_patch16_224", 64, 192, 16),  # plain transformer, class token pooling
        ("mobilenetv3_small_050", 64, 288, 32),  # its head is wider than its features: their mean is the pooled feature
        ("swin_tiny_patch4_window7_224", 64, 768, 32),  # channels last
    ],
)
def test_any_timm_encoder(name: str, size: int, width: int, stride: int) -> None:
    encoder = TimmEncoder(name, size).eval()
    assert (encoder.width, encoder.stride) == (width, stride)
    with torch.no_grad():
        features = encoder(torch.randn(2, 3, size, size))
    assert features.grid.shape == (2, width, size // stride, size // stride)
    assert features.pooled.shape == (2, width)


def test_named_perception_encoders_on_the_meta_device() -> None:
    widths = {"pe-l14-336": 1024, "pe-b16-224": 768, "pe-s16-384": 384, "pe-t16-384": 192, "pe-tiny": 64}
    assert widths.keys() == PERCEPTION.keys()
    for name, width in widths.items():
        size = 56 if name == "pe-tiny" else int(name[-3:])
        with torch.device("meta"):
            encoder = TimmEncoder(name, size)
        assert encoder.width == width
        assert encoder.stride == (14 if "14" in name or name == "pe-tiny" else 16)


def test_unknown_name() -> None:
    with pytest.raises(
        ValueError, match="timm has no model 'PE-Core-L16-224'; Perception Encoders here are pe-l14-336"
    ):
        TimmEncoder("PE-Core-L16-224", 224)


def test_weights_are_strict() -> None:
    encoder = TimmEncoder("pe-tiny", 56)
    state = encoder.model.state_dict()
    encoder.load_weights(state)
    with pytest.raises(WeightsError, match=r"encoder pe-tiny: missing norm\.weight"):
        encoder.load_weights({key: value for key, value in state.items() if key != "norm.weight"})
    with pytest.raises(WeightsError, match="unexpected extra"):
        encoder.load_weights(state | {"extra": torch.zeros(1)})
    with pytest.raises(WeightsError, match=r"norm\.weight is \(3,\), not \(64,\)"):
        encoder.load_weights(state | {"norm.weight": torch.zeros(3)})


def test_positions_at_the_same_size_stay() -> None:
    table = torch.randn(1, 17, 8)
    assert resample_positions(table, 1, 4).equal(table)
    assert resample_positions(table, 1, 6).shape == (1, 37, 8)
    assert resample_positions(table, 1, 6)[:, :1].equal(table[:, :1])
