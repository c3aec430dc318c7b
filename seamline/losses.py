"""Elementary losses, costs and matching. Tensors in, tensors out; what a paper does with them is in its detector.

Sources: poly-1 focal loss (Leng et al., PolyLoss, ICLR 2022, on Lin et al., Focal Loss, ICCV 2017); Tversky loss
(Salehi et al., 2017); point sampling (Kirillov et al., PointRend, CVPR 2020); matching costs (Cheng et al.,
Mask2Former, CVPR 2022); generalised IoU (Rezatofighi et al., CVPR 2019). Every function is differentiable in its
logits or boxes; points and assignments are not.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

Uniform = Callable[[tuple[int, ...]], Tensor]  # shape -> uniform draws in [0, 1)


def poly1_focal(logits: Tensor, targets: Tensor, alpha: float, gamma: float = 2.0, epsilon: float = 1.0) -> Tensor:
    """Poly-1 focal loss of every element, not reduced.

    ``alpha`` weighs positives and ``1 - alpha`` negatives in the focal term; the polynomial term is not weighted.

    Args:
        logits: any shape.
        targets: same shape, in [0, 1]; soft targets mix both sides linearly.
        alpha: weight of the positive side, 0..1.
        gamma: focusing exponent.
        epsilon: weight of the first polynomial term.
    """
    p = logits.sigmoid()
    p_true = targets * p + (1 - targets) * (1 - p)
    weight = alpha * targets + (1 - alpha) * (1 - targets)
    entropy = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    missing = 1 - p_true
    return weight * entropy * missing**gamma + epsilon * missing ** (gamma + 1)


def tversky(logits: Tensor, targets: Tensor, alpha: float, beta: float, smooth: float = 1e-6) -> Tensor:
    """Tversky loss of each row with soft counts: (M, P) logits and targets to (M,).

    ``alpha`` weighs false positives, ``beta`` false negatives.
    """
    p = logits.sigmoid()
    hit = (p * targets).sum(-1)
    false_positive = (p * (1 - targets)).sum(-1)
    false_negative = ((1 - p) * targets).sum(-1)
    return 1 - (hit + smooth) / (hit + alpha * false_positive + beta * false_negative + smooth)


def bce_cost(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean binary cross entropy of every query with its image's target: (B, Q, P) and (B, P) to (B, Q)."""
    return F.binary_cross_entropy_with_logits(logits, targets[:, None].expand_as(logits), reduction="none").mean(-1)


def dice_cost(logits: Tensor, targets: Tensor) -> Tensor:
    """Dice cost, smoothed by 1, of every query with its image's target: (B, Q, P) and (B, P) to (B, Q)."""
    s = logits.sigmoid()
    together = torch.einsum("bqp,bp->bq", s, targets)
    return 1 - (2 * together + 1) / (s.sum(-1) + targets.sum(-1)[:, None] + 1)


def match_one(costs: Tensor) -> Tensor:
    """The cheapest query of each image: (B, Q) costs to (B,) indices.

    An image has one target mask or none, and a Hungarian assignment of a single column is its arg-min. NaN costs
    count as 0 and all are clipped to 1e10, so that a diverged query is still matched with something.
    """
    return costs.nan_to_num(0.0).clamp(-1e10, 1e10).argmin(1)


def box_l1(boxes: Tensor, targets: Tensor) -> Tensor:
    """Sum of absolute differences of two sets of boxes: (..., 4) each to (...)."""
    return (boxes - targets).abs().sum(-1)


def generalised_iou(boxes: Tensor, targets: Tensor) -> Tensor:
    """Generalised IoU in [-1, 1] of boxes given as centre x, centre y, width, height: (..., 4) each to (...)."""
    low_a, high_a = boxes[..., :2] - boxes[..., 2:] / 2, boxes[..., :2] + boxes[..., 2:] / 2
    low_b, high_b = targets[..., :2] - targets[..., 2:] / 2, targets[..., :2] + targets[..., 2:] / 2
    shared = (torch.minimum(high_a, high_b) - torch.maximum(low_a, low_b)).clamp(min=0).prod(-1)
    union = boxes[..., 2:].prod(-1) + targets[..., 2:].prod(-1) - shared
    hull = (torch.maximum(high_a, high_b) - torch.minimum(low_a, low_b)).prod(-1)
    tiny = torch.finfo(boxes.dtype).eps
    return shared / (union + tiny) - (hull - union) / (hull + tiny)


def mask_boxes(masks: Tensor) -> Tensor:
    """The tight box around the set pixels of each mask, as centre x, centre y, width, height in [0, 1].

    (B, H, W) bool to (B, 4) float32. An empty mask gives zeros.
    """
    spans = []
    for other in (1, 2):  # columns that hold a set pixel, then rows
        line = masks.any(other)  # (B, W) or (B, H)
        n = line.shape[1]
        first = line.int().argmax(1)
        last = n - line.flip(1).int().argmax(1)
        spans.append((first / n, last / n))
    (x0, x1), (y0, y1) = spans
    boxes = torch.stack([(x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0], 1).float()
    return boxes * masks.flatten(1).any(1)[:, None]


def sample_points(maps: Tensor, points: Tensor) -> Tensor:
    """Bilinear values of maps at points, half-pixel centres, zeros outside.

    Args:
        maps: (N, C, h, w).
        points: (N, P, 2) as x, y in [0, 1].

    Returns:
        (N, C, P).
    """
    return F.grid_sample(maps, 2 * points[:, None] - 1, align_corners=False)[:, :, 0]


@torch.no_grad()
def uncertain_points(logits: Tensor, count: int, uniform: Uniform, oversample: float, importance: float) -> Tensor:
    """Points where the masks are least certain, and some anywhere: (M, h, w) logits to (M, count, 2) in [0, 1].

    Of ``oversample * count`` uniform candidates the ``importance * count`` with the smallest absolute logit stay;
    uniform points fill the rest.
    """
    m = len(logits)
    candidates = uniform((m, int(count * oversample), 2))
    kept = int(importance * count)
    doubt = -sample_points(logits[:, None], candidates)[:, 0].abs()  # (M, candidates)
    best = doubt.topk(kept, dim=1).indices[..., None].expand(-1, -1, 2)
    chosen = candidates.gather(1, best)
    return torch.cat([chosen, uniform((m, count - kept, 2))], 1) if kept < count else chosen
