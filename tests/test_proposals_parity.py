"""Sampling, attention and soft-NMS of BA-TFD+ against recorded values; skips itself where these are absent."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from seamline.heads.boundary import ChannelAttention, PositionAttention, ProposalConv, sampling
from seamline.heads.proposals import dense_table, soft_nms
from tests.test_batfd_parity import GOLDENS, close

pytestmark = [
    pytest.mark.parity,
    pytest.mark.skipif(not GOLDENS.is_dir(), reason="the goldens are not here (../shared/goldens/av/public)"),
]


@pytest.mark.parametrize("case", ["bm0", "bm1"])
def test_samples_and_the_first_convolution(case: str) -> None:
    golden = load_file(GOLDENS / "batfd" / "modules.safetensors")
    ticks, samples, rows, _ = golden[f"{case}.S"].shape
    ours = sampling(ticks, rows, samples, segment=False, weight=False).dense()
    close("batfd/modules", f"{case}: samples", ours, golden[f"{case}.S"], 1e-6)
    right = sampling(ticks, rows, samples).dense()
    close("batfd/modules", f"{case}: corrected samples", right, golden[f"{case}.S_corrected"], 1e-6)
    weight = golden[f"{case}.conv.state.conv.weight"]
    layer = ProposalConv(weight.shape[1], weight.shape[0], samples, rows, points=True, segment=False, weight=False)
    layer.load_state_dict({"conv.weight": weight, "conv.bias": golden[f"{case}.conv.state.conv.bias"]})
    with torch.no_grad():
        close(
            "batfd/modules", f"{case}: first convolution", layer(golden[f"{case}.x"]), golden[f"{case}.conv_out"], 1e-5
        )


@pytest.mark.parametrize(
    ("case", "want", "layout"), [("pa", "y", None), ("ca", "y", False), ("ca", "y_unscrambled", True)]
)
def test_attention(case: str, want: str, layout: bool | None) -> None:
    golden = load_file(GOLDENS / "batfd" / "modules.safetensors")
    state = {k.removeprefix(f"{case}.state."): v for k, v in golden.items() if k.startswith(f"{case}.state.")}
    k, inner = golden[f"{case}.y"].shape[1], len(state["W.0.weight"][0])
    layer: torch.nn.Module
    if layout is None:
        layer = PositionAttention(k, inner, scale=False)
    else:
        layer = ChannelAttention(k, inner, layout=layout, scale=False)
    layer.load_state_dict(state)
    with torch.no_grad():
        ours = layer.eval()(golden["prb.x"])
    close("batfd/modules", f"{case}.{want}", ours, golden[f"{case}.{want}"], 1e-5)


PUBLISHED = (0.7234, 0.1968, 0.4123)


@pytest.mark.parametrize(
    ("case", "settings"),
    [
        ("tab0", PUBLISHED),
        ("tab1", PUBLISHED),
        ("tab2", PUBLISHED),
        ("tab3", (0.4, 0.2, 0.9)),
        ("tab4", (0.5, 0.3, 0.3)),
    ],
)
def test_soft_nms(case: str, settings: tuple[float, float, float]) -> None:
    golden = load_file(GOLDENS / "post" / "soft_nms.safetensors")
    ours = soft_nms(golden[f"{case}.in"].numpy().astype(np.float64), *settings, corrected=False)
    close("post/soft_nms", case, torch.from_numpy(ours), golden[f"{case}.out"].double(), 1e-9)


@pytest.mark.parametrize("settings", [PUBLISHED, (0.4, 0.2, 0.9)])
@pytest.mark.parametrize(("case", "ticks"), [("map0", 305), ("map1", 512), ("map2", 50)])
def test_decoding_of_a_map(case: str, ticks: int, settings: tuple[float, float, float]) -> None:
    golden = load_file(GOLDENS / "post" / "soft_nms.safetensors")
    table = dense_table(golden[f"{case}.map"].numpy(), ticks, span=False, last=False, decimals=True)
    ours = soft_nms(table, *settings, corrected=False)
    want = golden[f"{case}.nms_" + "_".join(f"{value:g}" for value in settings)].double()
    close("post/soft_nms", f"{case} {settings}", torch.from_numpy(ours), want, 1e-9)
