"""What the enhanced receptive field, long proposals and UMMA are each worth: same features, data, budget and judges.

    seamline forge MEDIA LEARN --recipe recipes/forge-clips-ablation.toml
    seamline forge MEDIA JUDGE --recipe recipes/forge-clips-ablation-val.toml
    python benchmarks/ablations/erf.py LEARN JUDGE OUT

The encoders of the default weights are frozen and read every clip once; what follows them is trained from random
weights, variant by variant, three seeds each, and judged on clips of people that neither encoders nor heads have met.
``plain`` has BA-TFD+'s field and rows: two convolutions of three ticks, and proposals of 1 to 40 ticks (1.6 s), decoded
without D5. Prints a table and writes OUT; finished runs are not repeated.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from seamline import zoo
from seamline.data import Sample, open_data
from seamline.data.clips import STORE, prepare
from seamline.detectors.base import ClipTruth
from seamline.detectors.erf_batfd_plus import ErfBatfdPlus, ErfSizes
from seamline.feeds import visible
from seamline.metrics.detection import roc_auc
from seamline.metrics.temporal import average_precision, average_recall, union
from seamline.train import wsd

TICKS = 256
VARIANTS: dict[str, dict[str, bool]] = {
    "plain": {"erf": False, "long": False, "umma": False},
    "field": {"erf": True, "long": False, "umma": False},
    "ERF": {"erf": True, "long": True, "umma": False},
    "ERF + UMMA": {"erf": True, "long": True, "umma": True},
}
SCORES = ("AP@.5", "AP@.75", "AP@.95", "AR@10", "AP@.5 one modality", "AUC")


class Given(NamedTuple):
    """What the encoders said of one clip."""

    video: Tensor  # (C, T)
    audio: Tensor  # (C, T)
    masks: Tensor  # (2, T)
    truth: ClipTruth
    ticks: int


@torch.inference_mode()
def encode(detector: ErfBatfdPlus, samples: Sequence[Sample], store: Path) -> list[Given]:
    """Every clip, its first ``TICKS`` ticks, through the frozen encoders."""
    found = []
    for sample in samples:
        clip = prepare(sample, detector.clock, store)
        window, truth = clip.window(0, min(clip.ticks, TICKS), detector.clock)
        if window.faces is None and window.sound is None:
            continue
        batch = detector.collate([detector.preprocess(window)])
        faces = batch.faces.permute(0, 4, 1, 2, 3).float() / 255
        video = detector.video.encoder(faces, batch.faces_mask)[0]
        audio = detector.audio.encoder(batch.sound, batch.sound_mask)[0]
        masks = torch.cat([batch.faces_mask[0], batch.sound_mask[0]])
        found.append(
            Given(video, audio, masks, visible(truth, window.faces is not None, window.sound is not None), window.ticks)
        )
    return found


def collate(items: Sequence[Given]) -> tuple[list[Tensor], list[Tensor], Tensor]:
    """Features of video and audio (B, C, T), their masks (B, 1, T), and the window's."""
    length = math.ceil(max(item.ticks for item in items) / 32) * 32

    def grown(x: Tensor) -> Tensor:
        return torch.nn.functional.pad(x[..., :length], (0, max(0, length - x.shape[-1])))

    inside = torch.zeros(len(items), 1, length)
    for row, item in zip(inside, items, strict=True):
        row[:, : item.ticks] = 1
    features = [torch.stack([grown(item[i]) for item in items]) for i in range(2)]
    masks = [torch.stack([grown(item.masks[i : i + 1]) for item in items]) for i in range(2)]
    return features, masks, inside


def train(detector: ErfBatfdPlus, data: Sequence[Given], steps: int, batch: int, seed: int) -> None:
    """AdamW on everything behind the encoders."""
    parameters = [p for name, p in detector.named_parameters() if ".encoder." not in name]
    optimizer = torch.optim.AdamW(parameters, lr=2e-3, weight_decay=2e-2)
    rng = np.random.default_rng(seed)
    detector.train()
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * wsd(step, steps, 0.05, 0.6)
        items = [data[i] for i in rng.choice(len(data), batch, replace=False)]
        outputs = detector.judge(*collate(items))
        losses = detector.criterion(outputs, detector.targets([i.truth for i in items], [i.ticks for i in items]))
        torch.stack([detector.loss_weights[name] * value for name, value in losses.items()]).sum().backward()
        torch.nn.utils.clip_grad_norm_(parameters, 2.0)
        optimizer.step()
        optimizer.zero_grad()


@torch.inference_mode()
def judge(detector: ErfBatfdPlus, data: Sequence[Given]) -> dict[str, float]:
    """Both modalities together where both are there; ``one modality``: of clips forged in one of two."""
    detector.eval()
    found, truths, logits, single = [], [], [], []
    for item in data:
        finding = detector.postprocess(detector.judge(*collate([item])), [item.ticks])[0]
        key = next(key for key in ("audio_visual", "video", "audio") if key in finding.logits)
        found.append(finding.proposals[key])
        logits.append(finding.logits[key])
        truths.append(union(item.truth.video + item.truth.audio))
        single.append(key == "audio_visual" and bool(item.truth.video) != bool(item.truth.audio))
    ap = average_precision(found, truths, (0.5, 0.75, 0.95))
    some = [i for i, one in enumerate(single) if one or not len(truths[i])]
    alone = average_precision([found[i] for i in some], [truths[i] for i in some], (0.5,))[0.5]
    recall = average_recall(found, truths, (10,))[10]
    auc = roc_auc(logits, [len(truth) > 0 for truth in truths])
    return dict(zip(SCORES, (ap[0.5], ap[0.75], ap[0.95], recall, alone, auc), strict=True))


def main() -> None:
    """Run what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("learn", type=Path)
    parser.add_argument("judge", type=Path)
    parser.add_argument("out", type=Path, help="CSV file")
    parser.add_argument("--model", default="default")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=250)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--hidden", type=int, default=24)
    options = parser.parse_args()
    teacher, _ = zoo.load_detector(zoo.default("clip") if options.model == "default" else options.model)
    assert isinstance(teacher, ErfBatfdPlus)
    learn = encode(teacher, open_data(options.learn), options.learn / STORE)
    judges = encode(teacher, open_data(options.judge), options.judge / STORE)
    print(f"{len(learn)} clips to learn from, {len(judges)} to be judged on", flush=True)
    clock = dataclasses.replace(teacher.clock, ticks=TICKS)
    rows: list[dict[str, Any]] = []
    if options.out.is_file():
        with options.out.open() as file:
            rows = list(csv.DictReader(file))
    done = {(row["variant"], int(row["seed"])) for row in rows}
    for seed in range(options.seeds):
        for name, switches in VARIANTS.items():
            if (name, seed) in done:
                continue
            torch.manual_seed(seed)
            sizes = ErfSizes.from_dict(teacher.sizes.to_dict())
            detector = ErfBatfdPlus(dataclasses.replace(sizes, clock=clock, hidden=options.hidden, **switches))
            train(detector, learn, options.steps, options.batch, seed)
            rows.append({"variant": name, "seed": seed} | judge(detector, judges))
            print(rows[-1], flush=True)
            with options.out.open("w", newline="") as file:
                writer = csv.DictWriter(file, ["variant", "seed", *SCORES])
                writer.writeheader()
                writer.writerows(rows)
    print("| variant | " + " | ".join(SCORES) + " |\n" + "|---" * (len(SCORES) + 1) + "|")
    for name in VARIANTS:
        cells = []
        for score in SCORES:
            values = [float(row[score]) for row in rows if row["variant"] == name]
            cells.append(f"{mean(values):.3f} ± {stdev(values):.3f}" if len(values) > 1 else f"{mean(values):.3f}")
        print(f"| {name} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
