"""A photo of nothing that repeats, and the same with a copy in it."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from seamline.zoo import Card

WEIGHED = Card("test", "red", calibration={"copies": 1.0, "bias": -0.5}, threshold=0.7, mask_threshold=0.95)


def field(seed: int, height: int = 400, width: int = 600) -> npt.NDArray[np.uint8]:
    """A photo (H, W, 3) of nothing that repeats: clouds of every size, and grain."""
    rng = np.random.default_rng(seed)
    light = np.full((height, width), 128.0)
    for sigma, power in ((30, 30), (8, 25), (2.5, 20), (1, 8)):
        cloud = cv2.GaussianBlur(rng.standard_normal((height, width)), (0, 0), sigma)
        light += power * cloud / cloud.std()
    rgb = light[..., None] + rng.normal(0, 2, (height, width, 3))
    return np.clip(rgb, 0, 255).astype(np.uint8)


def shown_twice(angle: float = 0.0, scale: float = 1.0) -> npt.NDArray[np.uint8]:
    """The field with a round area around (120, 130) shown again around (400, 220), turned and rescaled."""
    rgb = field(0)
    matrix = cv2.getRotationMatrix2D((120, 130), angle, scale)
    matrix[:, 2] += (280, 90)
    moved = cv2.warpAffine(rgb, matrix, (600, 400), flags=cv2.INTER_CUBIC)
    inside = np.zeros((400, 600), np.uint8)
    cv2.circle(inside, (400, 220), 70, 1, -1)
    return np.where(inside[..., None] > 0, moved, rgb).astype(np.uint8)
