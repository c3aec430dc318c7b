"""Elementary losses: values by hand, gradients against finite differences, degenerate input."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from seamline.losses import (
    bce_cost,
    box_l1,
    dice_cost,
    generalised_iou,
    mask_boxes,
    match_one,
    poly1_focal,
    sample_points,
    tversky,
    uncertain_points,
)


def double(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()


TRUTH = torch.rand(3, 7, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
BOXES = torch.tensor([[0.5, 0.5, 0.4, 0.3], [0.2, 0.7, 0.2, 0.2], [0.6, 0.3, 0.5, 0.5]], dtype=torch.float64)
DIFFERENTIABLE: dict[str, Callable[[Tensor], Tensor]] = {
    "poly-1 focal": lambda x: poly1_focal(x, TRUTH, 0.8),
    "poly-1 focal, other exponent": lambda x: poly1_focal(x, TRUTH, 0.2, gamma=1.5, epsilon=0.5),
    "Tversky": lambda x: tversky(x, TRUTH, 0.3, 0.7),
    "BCE cost": lambda x: bce_cost(x[:, None].expand(-1, 2, -1), TRUTH),
    "Dice cost": lambda x: dice_cost(x[:, None].expand(-1, 2, -1), TRUTH),
    "box L1": lambda x: box_l1(x[:, :4].sigmoid(), BOXES),
    "generalised IoU": lambda x: generalised_iou(x[:, :4].sigmoid(), BOXES),
    "generalised IoU, apart": lambda x: generalised_iou(x[:, :4].sigmoid() * 0.1, BOXES + 1),
    "point sampling": lambda x: sample_points(x[:, None, None, :].expand(-1, 1, 5, -1), TRUTH[:, :4].view(3, 2, 2)),
}


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_gradients(name: str) -> None:
    assert torch.autograd.gradcheck(DIFFERENTIABLE[name], double(3, 7))


def test_poly1_focal_by_hand() -> None:
    x, p = torch.tensor([0.3]), torch.tensor([0.3]).sigmoid()
    positive = 0.85 * -p.log() * (1 - p) ** 2 + (1 - p) ** 3
    negative = 0.15 * -(1 - p).log() * p**2 + p**3
    assert torch.allclose(poly1_focal(x, torch.ones(1), 0.85), positive)
    assert torch.allclose(poly1_focal(x, torch.zeros(1), 0.85), negative)


def test_tversky_weighs_misses_and_false_alarms() -> None:
    far = 50.0
    truth = torch.tensor([[1.0, 1.0, 0.0, 0.0]])
    assert tversky(torch.tensor([[far, far, -far, -far]]), truth, 0.3, 0.7).item() == pytest.approx(0, abs=1e-6)
    missed = tversky(torch.tensor([[far, -far, -far, -far]]), truth, 0.3, 0.7)
    false_alarm = tversky(torch.tensor([[far, far, far, -far]]), truth, 0.3, 0.7)
    assert missed.item() == pytest.approx(1 - 1 / 1.7, abs=1e-5)
    assert false_alarm.item() == pytest.approx(1 - 2 / 2.3, abs=1e-5)


def test_generalised_iou_by_hand() -> None:
    one = torch.tensor([0.25, 0.25, 0.5, 0.5])
    assert generalised_iou(one, one).item() == pytest.approx(1, abs=1e-5)
    assert generalised_iou(one, torch.tensor([0.75, 0.75, 0.5, 0.5])).item() == pytest.approx(-0.5, abs=1e-5)
    assert generalised_iou(one, torch.tensor([0.25, 0.25, 0.25, 0.5])).item() == pytest.approx(0.5, abs=1e-5)
    assert generalised_iou(torch.zeros(4), torch.zeros(4)).item() == 0  # two points: no area, and no NaN


def test_mask_boxes() -> None:
    masks = torch.zeros(3, 10, 20, dtype=torch.bool)
    masks[0, 2:5, 4:8] = True
    masks[0, 8, 10] = True
    masks[1] = True
    boxes = mask_boxes(masks)
    assert torch.allclose(boxes[0], torch.tensor([7.5 / 20, 5.5 / 10, 7 / 20, 7 / 10]))
    assert boxes[1].tolist() == [0.5, 0.5, 1, 1]
    assert boxes[2].tolist() == [0, 0, 0, 0]


def test_sample_points_at_pixel_centres_and_outside() -> None:
    maps = torch.arange(12.0).view(1, 1, 3, 4)
    centres = torch.tensor([[[0.125, 1 / 6], [0.875, 5 / 6], [0.25, 1 / 6]]])
    assert torch.allclose(sample_points(maps, centres), torch.tensor([[[0.0, 11.0, 0.5]]]), atol=1e-5)
    assert sample_points(maps + 1, torch.tensor([[[3.0, 3.0]]])).item() == 0


def test_uncertain_points_lie_where_the_mask_changes() -> None:
    edge = torch.linspace(-8, 8, 64).expand(2, 64, 64)  # undecided in the middle column
    generator = torch.Generator().manual_seed(0)

    def uniform(shape: tuple[int, ...]) -> Tensor:
        return torch.rand(shape, generator=generator)

    points = uncertain_points(edge, 100, uniform, 3.0, 0.75)
    assert points.shape == (2, 100, 2)
    assert ((points[:, :75, 0] - 0.5).abs() < 0.2).all()
    assert ((points[:, 75:, 0] - 0.5).abs() > 0.2).any()
    assert uncertain_points(edge, 10, uniform, 3.0, 1.0).shape == (2, 10, 2)
    assert uncertain_points(edge[:0], 10, uniform, 3.0, 0.75).shape == (0, 10, 2)


def test_matching_survives_costs_that_are_not_numbers() -> None:
    costs = torch.tensor([[3.0, 1.0, 2.0], [float("nan"), float("inf"), -1.0]])
    assert match_one(costs).tolist() == [1, 2]
