"""The boundary module of BA-TFD+ at its published size against the dense formulation of the released code.

    python benchmarks/batfd_boundary.py [--repeats 7] [--threads 2] [--out benchmarks/batfd_boundary.csv]

512 ticks, 40 rows, 10 samples, 257 features, widths 512 and 128, one clip, reference mode. The baseline, written here:
the features times a dense sampling tensor (T, N, D, T), then a 3-D convolution; attention as softmax of a matrix of
20480 x 5120 that is in memory. Both have the same weights and take turns in one process; a ratio is the median of
those of the pairs. ``sample``: sampling, first convolution, leaky ReLU. ``module``: all of it. Memory is that which one
such pass adds at its peak to what a fresh process holds before it (dense tensor, inputs and weights).

And what surrounds it, against plain loops: ``targets``, the IoU maps of a batch of 8 clips of 400 ticks with three
forgeries each; ``nms``, soft-NMS of the 19 227 proposals of such a clip; ``construction``, of a network whose weights
are read from a file: a sampling table of each modality, cell by cell, and a network with random weights, against none
drawn.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from _record import record
from torch import Tensor

from seamline.detectors import batfd
from seamline.heads.boundary import BoundaryModule, _sampling, iou_map, sampling
from seamline.heads.proposals import dense_table, soft_nms
from seamline.zoo import undrawn

TICKS, ROWS, SAMPLES, FEATURES = 512, 40, 10, 257
CLIP, SPANS = 400, [(30.0, 47.5), (120.2, 133.0), (310.0, 361.7)]  # ticks
BATCH = [[(start - i, stop - i) for start, stop in SPANS] for i in range(8)]
LIMITS = {
    "sample_forward": 12,
    "sample_both": 6,
    "sample_memory": 4,
    "module_forward": 3,
    "targets": 500,
    "nms": 25,
    "construction": 20,
    "difference": 1e-5,
}
RELEASED = {"segment": False, "weight": False, "layout": False, "scale": False}


def dense_sampling() -> Tensor:
    """The sampling tensor as the released code multiplies with it: (T, N D T)."""
    return sampling(TICKS, ROWS, SAMPLES, segment=False, weight=False).dense().reshape(TICKS, -1)


def dense_sample(module: BoundaryModule, table: Tensor, x: Tensor) -> Tensor:
    """(B, F, T) to (B, 512, D, T)."""
    conv = module.block0[0].conv
    sampled = (x @ table).view(len(x), FEATURES, SAMPLES, ROWS, TICKS)
    return F.leaky_relu(F.conv3d(sampled, conv.weight, conv.bias, stride=(SAMPLES, 1, 1)).squeeze(2))


def dense_module(module: BoundaryModule, table: Tensor, x: Tensor) -> Tensor:
    """(B, F, T) to (B, 3, D, T)."""
    block = module.proposal_block
    x = module.block1(dense_sample(module, table, x))

    y, net = block.conv0_0(x), block.p_net
    values, keys, queries = net.g(y).flatten(2), net.phi(y).flatten(2), net.theta(y).flatten(2)
    weights = (queries.transpose(1, 2) @ keys).softmax(-1)  # (B, 20480, 5120)
    seen = (weights @ values.transpose(1, 2)).transpose(1, 2).reshape(y.shape)
    position = block.conv1(net.W(seen) + y)

    y, net = block.conv0_1(x), block.c_net
    values, keys, queries = net.g(y).flatten(2), net.phi(y).flatten(2), net.theta(y).flatten(2)
    seen = (queries @ keys.transpose(1, 2)).softmax(-1) @ values
    channel = block.conv4(net.W(seen.transpose(1, 2).contiguous().view(y.shape)) + y)
    return torch.cat([block.conv2(position), block.conv5(channel), block.conv3(position + channel)], 1)


def looped_targets(spans: list[tuple[float, float]]) -> Tensor:
    """The IoU map of one clip, cell by cell."""
    out = torch.zeros(ROWS, TICKS)
    for b in range(CLIP):
        for d in range(ROWS):
            if b + d > CLIP:
                continue
            start, stop, best = b / CLIP, (b + d + 1) / CLIP, 0.0
            for first, last in spans:
                first, last = first / CLIP, last / CLIP
                shared = max(0.0, min(stop, last) - max(start, first))
                best = max(best, shared / (stop - start - shared + last - first))
            out[d, b] = best
    return out


def looped_nms(found: np.ndarray) -> np.ndarray:
    """Soft-NMS of (n, 3) score, start, end in ticks, as released, pair by pair."""
    alpha, low, high, fps = 0.7234, 0.1968, 0.4123, 25.0
    ranked = sorted(found.tolist(), key=lambda row: -row[0])
    score, start, stop = [row[0] for row in ranked], [row[1] / fps for row in ranked], [row[2] / fps for row in ranked]
    out = []
    while len(score) > 1 and len(out) < 101:
        best = score.index(max(score))
        width = stop[best] - start[best]
        for k in range(len(score)):
            if k != best:
                shared = min(stop[best], stop[k]) - max(start[best], start[k])
                if shared > 0:
                    iou = shared / (width + stop[k] - start[k] - shared)
                    if iou > low + (high - low) * width:
                        score[k] *= float(np.exp(-(iou**2) / alpha))
        out.append((score.pop(best), start.pop(best) * fps, stop.pop(best) * fps))
    return np.array(sorted(out, key=lambda row: -row[0]))


def looped_sampling() -> Tensor:
    """The sampling tensor (T, N, D, T) of the released code, cell by cell."""
    table = np.zeros((TICKS, SAMPLES, ROWS, TICKS), np.float32)
    for i in range(TICKS):
        for j in range(ROWS):
            if i + j + 1 > TICKS - 1:
                continue
            length = j + 1 - i  # the wrong segment, D1
            points = np.linspace(i - length / 2, j + 1 + length / 2, SAMPLES)
            for n, x in enumerate(points):
                if 0 <= x <= TICKS - 1:
                    left, right = int(np.floor(x)), int(np.ceil(x))
                    table[left, n, j, i] += 1 - (x - left)
                    table[right, n, j, i] += 1 - (right - x)  # a point that is a tick counts twice, D2
    return torch.from_numpy(table)


def looped_construction() -> batfd.BATFD:
    """The network, and the sampling tensors of its two boundary modules."""
    for _ in range(2):
        looped_sampling()
    return batfd.build("ba-tfd-plus")


def construction() -> batfd.BATFD:
    """The network as loading weights builds it, its sampling table not remembered from the last time."""
    _sampling.cache_clear()
    with undrawn():
        return batfd.build("ba-tfd-plus")


def build() -> tuple[BoundaryModule, Tensor]:
    torch.manual_seed(0)
    return BoundaryModule(FEATURES, (512, 128), SAMPLES, ROWS, **RELEASED).eval(), torch.randn(1, FEATURES, TICKS)


def memory(what: str) -> None:
    """Print the megabytes that one pass adds."""
    step, kind = what.split()
    module, x = build()
    table = dense_sampling() if kind == "dense" else None
    sampling(TICKS, ROWS, SAMPLES, segment=False, weight=False)
    x.requires_grad_(step == "both")
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = resident("VmRSS")
    with torch.set_grad_enabled(step == "both"):
        y = module.block0(x) if table is None else dense_sample(module, table, x)
        if step == "both":
            y.sum().backward()
    print((resident("VmHWM") - before) / 1000)


def resident(name: str) -> int:
    """A field of this process' status, in kilobytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(name)))


def pairs(ours: Callable[[], object], dense: Callable[[], object], repeats: int) -> tuple[float, float, float]:
    """Median seconds of both, and median of the ratios."""
    times = []
    for i in range(repeats + 1):
        start = time.perf_counter()
        ours()
        middle = time.perf_counter()
        dense()
        end = time.perf_counter()
        if i:  # the first round warms up
            times.append((middle - start, end - middle))
    a, b = (statistics.median(column) for column in zip(*times, strict=True))
    return a, b, statistics.median(dense / ours for ours, dense in times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--memory", help="only print the memory of one pass, e.g. 'forward dense'")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.memory:
        return memory(arguments.memory)

    module, x = build()
    table = dense_sampling()
    row: dict[str, float | str] = {}

    def both(forward: Callable[[Tensor], Tensor]) -> Callable[[], None]:
        def step() -> None:
            forward(x.detach().requires_grad_()).sum().backward()

        return step

    def time_of(name: str, ours: Callable[[], object], dense: Callable[[], object]) -> None:
        a, b, ratio = pairs(ours, dense, arguments.repeats)
        row[f"{name}_ms"], row[f"{name}_dense_ms"] = round(1e3 * a, 1), round(1e3 * b, 1)
        row[f"{name}_ratio"] = round(ratio, 1)

    with torch.inference_mode():
        difference = (module.block0(x) - dense_sample(module, table, x)).abs().max()
        row["sample_difference"] = f"{difference:.1e}"
        row["module_difference"] = f"{(module(x) - dense_module(module, table, x)).abs().max():.1e}"
        time_of("sample_forward", lambda: module.block0(x), lambda: dense_sample(module, table, x))
        time_of("module_forward", lambda: module(x), lambda: dense_module(module, table, x))
    time_of("sample_both", both(module.block0), both(lambda x: dense_sample(module, table, x)))

    def targets() -> list[Tensor]:
        return [iou_map(spans, CLIP, TICKS, ROWS) for spans in BATCH]

    def plain_targets() -> list[Tensor]:
        return [looped_targets(spans) for spans in BATCH]

    apart = max((a - b).abs().max() for a, b in zip(targets(), plain_targets(), strict=True))
    row["targets_difference"] = f"{apart:.1e}"
    time_of("targets", targets, plain_targets)
    scores = np.random.default_rng(0).random((ROWS, TICKS), np.float32)
    found = dense_table(scores, TICKS, span=False)
    row["nms_proposals"] = len(found)
    row["nms_difference"] = f"{np.abs(soft_nms(found, corrected=False) - looped_nms(found)).max():.1e}"
    time_of("nms", lambda: soft_nms(found, corrected=False), lambda: looped_nms(found))
    row["table_difference"] = f"{(looped_sampling().reshape(TICKS, -1) - table).abs().max():.1e}"
    time_of("construction", construction, looped_construction)
    if Path("/proc/self/clear_refs").exists():
        for step in ("forward", "both"):
            again = [sys.executable, __file__, "--threads", str(arguments.threads), "--memory"]
            added = [
                float(subprocess.run([*again, f"{step} {kind}"], check=True, capture_output=True, text=True).stdout)
                for kind in ("ours", "dense")
            ]
            row[f"sample_{step}_mb"], row[f"sample_{step}_dense_mb"] = round(added[0]), round(added[1])
            row[f"sample_{step}_memory_ratio"] = round(added[1] / added[0], 1)
    row |= {f"{name}_limit": limit for name, limit in LIMITS.items()}
    record(row | {"threads": arguments.threads, "repeats": arguments.repeats}, arguments.out)


if __name__ == "__main__":
    main()
