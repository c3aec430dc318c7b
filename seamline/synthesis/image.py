"""Forged photos with exact truth.

Every forger takes RGB uint8 arrays and a seeded generator and gives a :class:`Forgery`: the forged pixels, and
the weight (H, W) in [0, 1] with which forged pixels were mixed in: exactly 0 where the photo is untouched, soft
at the edge. What happens to a photo afterwards (:class:`Post`: resize, blur, noise, JPEG once or twice) is drawn
without knowing whether it was forged, so that only the forgery can tell the two apart.

Sources: face blends follow Shiohara and Yamasaki, "Detecting Deepfakes with Self-Blended Images" (CVPR 2022):
a face is blended with a changed copy of itself. The other kinds are the classical ones of the localisation
literature (splicing, copy-move, removal, local retouching), plus texture regenerated through an up-sampling
decoder or from its spectrum.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image as PILImage

from ..errors import DataError

Pixels = npt.NDArray[np.uint8]  # (H, W, 3) RGB
Weight = npt.NDArray[np.float32]  # (H, W) in [0, 1], 1 = forged
Box = tuple[int, int, int, int]  # x0, y0, x1, y1, half-open

MIN_CHANGE = 2.0  # grey levels: a forgery that changes its area by less on average is drawn again
MIN_AREA, MAX_AREA = 0.015, 0.35  # of the photo, for freely drawn areas


class Forgery(NamedTuple):
    """A forged photo and its exact truth."""

    pixels: Pixels
    weight: Weight
    kind: str


# ---------------------------------------------------------------------------------------------------------------
# Areas and mixing
# ---------------------------------------------------------------------------------------------------------------


def area_mask(
    photo: Pixels, rng: np.random.Generator, *, smallest: float = MIN_AREA, largest: float = MAX_AREA
) -> Weight:
    """A binary area (H, W) to forge: a blob, an ellipse, a polygon, or an object-like area grown in the photo.

    The share of the photo it covers lies in [smallest, largest]; area shares are drawn log-uniformly, because
    small forgeries are the common ones.
    """
    height, width = photo.shape[:2]
    draw = (_blob, _ellipse, _polygon, _object)[rng.choice(4, p=(0.3, 0.2, 0.2, 0.3))]
    for _ in range(12):
        share = float(np.exp(rng.uniform(np.log(smallest), np.log(largest))))
        mask = draw(photo, share, rng)
        if smallest * 0.7 <= mask.mean() <= largest * 1.3:
            return mask.astype(np.float32)
    return _ellipse(photo, float(np.sqrt(smallest * largest)), rng).astype(np.float32).reshape(height, width)


def _centre(height: int, width: int, radius: float, rng: np.random.Generator) -> tuple[float, float]:
    """A centre (x, y) that keeps most of an area of the given radius inside the photo."""
    mx, my = min(radius, width / 2), min(radius, height / 2)
    return rng.uniform(mx, width - mx + 1e-6), rng.uniform(my, height - my + 1e-6)


def _ellipse(photo: Pixels, share: float, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    height, width = photo.shape[:2]
    radius = np.sqrt(share * height * width / np.pi)
    stretch = rng.uniform(0.6, 1.6)
    x, y = _centre(height, width, radius, rng)
    mask = np.zeros((height, width), np.uint8)
    axes = (max(2, round(radius * stretch)), max(2, round(radius / stretch)))
    cv2.ellipse(mask, (round(x), round(y)), axes, rng.uniform(0, 180), 0, 360, 1, -1)
    return mask


def _polygon(photo: Pixels, share: float, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    height, width = photo.shape[:2]
    radius = np.sqrt(share * height * width / np.pi) * 1.25
    x, y = _centre(height, width, radius, rng)
    if rng.random() < 0.35:  # an upright rectangle, as a crop-and-paste leaves
        half = np.sqrt(share * height * width) / 2
        stretch = rng.uniform(0.6, 1.6)
        corners = np.array(
            [[-stretch, -1 / stretch], [stretch, -1 / stretch], [stretch, 1 / stretch], [-stretch, 1 / stretch]]
        )
        points = np.array([x, y]) + corners * half
    else:
        angles = np.sort(rng.uniform(0, 2 * np.pi, rng.integers(5, 11)))
        radii = radius * rng.uniform(0.6, 1.2, angles.size)
        points = np.stack([x + radii * np.cos(angles), y + radii * np.sin(angles)], 1)
    mask = np.zeros((height, width), np.uint8)
    cv2.fillPoly(mask, [points.round().astype(np.int32)], 1)
    return mask


def _blob(photo: Pixels, share: float, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Thresholded smooth noise under a bump: an irregular area in one or a few pieces."""
    height, width = photo.shape[:2]
    radius = np.sqrt(share * height * width / np.pi)
    cells = max(3, int(rng.integers(4, 9)))
    noise = cv2.resize(
        rng.standard_normal((cells, cells)).astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC
    )
    x, y = _centre(height, width, radius, rng)
    yy, xx = np.ogrid[:height, :width]
    distance = np.sqrt((xx - x) ** 2 + (yy - y) ** 2) / radius
    field = noise * 0.5 - distance
    return np.asarray(field > np.quantile(field, 1 - share), np.uint8)


def _object(photo: Pixels, share: float, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """An area that follows the edges of the photo: flooded from a seed, then closed."""
    height, width = photo.shape[:2]
    scale = 160 / max(height, width)
    small = cv2.resize(
        photo, (max(8, round(width * scale)), max(8, round(height * scale))), interpolation=cv2.INTER_AREA
    )
    small = cv2.bilateralFilter(small, 7, 40, 7)
    h, w = small.shape[:2]
    seed = (int(rng.integers(w)), int(rng.integers(h)))
    best = np.zeros((h, w), np.uint8)
    for tolerance in (4, 7, 11, 16, 24, 34):
        flood = np.zeros((h + 2, w + 2), np.uint8)
        cv2.floodFill(
            small.copy(), flood, seed, 0, (tolerance,) * 3, (tolerance,) * 3, 4 | cv2.FLOODFILL_MASK_ONLY | (1 << 8)
        )
        grown = cv2.morphologyEx(flood[1:-1, 1:-1], cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8))
        if grown.mean() > share * 1.5:
            break
        best = grown
    big = cv2.resize(best.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    return (cv2.GaussianBlur(big, (0, 0), 1.5 / scale) > 0.5).astype(np.uint8)


def soften(mask: Weight, rng: np.random.Generator, *, widest: float = 3.0) -> Weight:
    """Soft edges inside the area: 1 in its core, falling to exactly 0 outside it. A third stays hard."""
    if rng.random() < 0.33:
        return mask
    sigma = rng.uniform(0.5, widest)
    reach = 2 * int(np.ceil(sigma)) + 1
    core = cv2.erode(mask, np.ones((reach, reach), np.uint8), borderType=cv2.BORDER_REPLICATE)
    if core.sum() < 0.4 * mask.sum():  # too thin to be softened from inside
        return mask
    return np.asarray(cv2.GaussianBlur(core, (reach, reach), sigma) * mask, np.float32)


def mix(photo: Pixels, change: npt.NDArray[Any], weight: Weight) -> Pixels:
    """``photo`` where the weight is 0, ``change`` where it is 1; untouched pixels stay equal to the last bit."""
    blend = photo + (change.astype(np.float32) - photo) * weight[..., None]
    return np.where(weight[..., None] > 0, np.clip(np.rint(blend), 0, 255), photo).astype(np.uint8)


def _grain(photo: Pixels) -> float:
    """Standard deviation of the photo's noise, in grey levels, from the median absolute Laplacian."""
    grey = cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY).astype(np.float32)
    return float(np.median(np.abs(cv2.Laplacian(grey, cv2.CV_32F))) / (0.6745 * np.sqrt(20)))


# ---------------------------------------------------------------------------------------------------------------
# Forgers
# ---------------------------------------------------------------------------------------------------------------


def splice(photo: Pixels, donor: Pixels, rng: np.random.Generator) -> Forgery:
    """Paste an area of another photo: rescaled, perhaps mirrored, re-compressed and toned to its new place."""
    height, width = photo.shape[:2]
    mask = area_mask(photo, rng)
    if rng.random() < 0.3:
        donor = jpeg(donor, int(rng.integers(50, 96)), rng.choice(("4:4:4", "4:2:0")))
    if rng.random() < 0.5:
        donor = np.ascontiguousarray(donor[:, ::-1])
    x0, y0, x1, y1 = bounds(mask)
    need = max((y1 - y0 + 1) / donor.shape[0], (x1 - x0 + 1) / donor.shape[1])
    scale = max(need, rng.uniform(0.5, 1.5) if rng.random() < 0.65 else 1.0)
    if scale != 1.0:
        size = (int(np.ceil(donor.shape[1] * scale)), int(np.ceil(donor.shape[0] * scale)))
        donor = cv2.resize(donor, size, interpolation=_resampler(scale, rng)).astype(np.uint8)
    top = int(rng.integers(donor.shape[0] - (y1 - y0) + 1))
    left = int(rng.integers(donor.shape[1] - (x1 - x0) + 1))
    patch = donor[top : top + y1 - y0, left : left + x1 - x0].astype(np.float32)
    if rng.random() < 0.5:  # match mean and contrast of the surroundings
        place = photo[y0:y1, x0:x1].astype(np.float32)
        gain = np.clip((place.std((0, 1)) + 4) / (patch.std((0, 1)) + 4), 0.6, 1.6)
        patch = (patch - patch.mean((0, 1))) * gain + patch.mean((0, 1)) * 0.4 + place.mean((0, 1)) * 0.6
    change = np.zeros((height, width, 3), np.float32)
    change[y0:y1, x0:x1] = patch
    weight = soften(mask, rng)
    return Forgery(mix(photo, change, weight), weight, "splice")


def copy_move(photo: Pixels, rng: np.random.Generator) -> Forgery:
    """Copy an area onto another place of the same photo, often turned and rescaled."""
    height, width = photo.shape[:2]
    mask = area_mask(photo, rng, largest=0.2)
    x0, y0, x1, y1 = bounds(mask)
    cx, cy = (x0 + x1) / 2, (y0 + y1) / 2
    turned = rng.random() < 0.6
    angle = rng.uniform(-40, 40) if turned else 0.0
    scale = rng.uniform(0.7, 1.4) if turned else 1.0
    matrix: npt.NDArray[Any] = cv2.getRotationMatrix2D((cx, cy), angle, scale)
    apart = max(x1 - x0, y1 - y0)
    shift = np.zeros(2)
    for _ in range(20):
        shift = np.array([rng.integers(-width, width), rng.integers(-height, height)])
        half = apart / 2 / scale
        inside = half * 0.5 < cx + shift[0] < width - half * 0.5 and half * 0.5 < cy + shift[1] < height - half * 0.5
        if inside and np.abs(shift).max() >= apart * 0.7:
            break
    # destination pixel p shows source pixel (p rotated about the centre) + shift
    matrix[:, 2] += matrix[:, :2] @ -shift
    change = cv2.warpAffine(
        photo,
        matrix,
        (width, height),
        flags=_resampler(scale, rng, warp=True) if turned else cv2.INTER_NEAREST,
        borderMode=cv2.BORDER_REFLECT_101,
    )
    weight = soften(mask, rng)
    return Forgery(mix(photo, change, weight), weight, "copy_move")


def remove(photo: Pixels, rng: np.random.Generator) -> Forgery:
    """Remove what an area shows: inpainting from its rim, or a neighbouring patch cloned in by Poisson blending."""
    mask = area_mask(photo, rng, largest=0.12)
    x0, y0, x1, y1 = bounds(mask)
    if rng.random() < 0.5:
        pad = 12
        window = np.s_[max(0, y0 - pad) : y1 + pad, max(0, x0 - pad) : x1 + pad]
        method = cv2.INPAINT_TELEA if rng.random() < 0.5 else cv2.INPAINT_NS
        change: npt.NDArray[Any] = photo.astype(np.float32)
        filled: npt.NDArray[Any] = cv2.inpaint(
            np.ascontiguousarray(photo[window]), mask[window].astype(np.uint8), float(rng.integers(2, 6)), method
        ).astype(np.float32)
        if rng.random() < 0.5:  # a careful hand puts grain back
            filled += rng.normal(0, max(0.6, _grain(photo)), filled.shape[:2])[..., None]
        change[window] = filled
        weight = mask
    else:
        cloned = _clone(photo, mask, rng)
        change = cloned.astype(np.float32)
        weight = mask
    return Forgery(mix(photo, change, weight), weight, "removal")


def _clone(photo: Pixels, mask: Weight, rng: np.random.Generator) -> Pixels:
    """The area filled from a neighbouring place by Poisson blending, as a healing brush does."""
    height, width = photo.shape[:2]
    x0, y0, x1, y1 = bounds(mask)
    w, h = x1 - x0, y1 - y0
    reach = 1.5 * max(w, h)
    left = int(np.clip(x0 + rng.choice((-1, 1)) * rng.uniform(0.6, 1) * reach, 0, width - w))
    top = int(np.clip(y0 + rng.uniform(-0.5, 0.5) * reach, 0, height - h))
    if abs(left - x0) < w * 0.5:
        top = int(np.clip(y0 + (h if y0 < height / 2 else -h), 0, height - h))
    # seamlessClone fails on areas that touch the border, so the photo is padded and the pad dropped
    pad = 3
    big = cv2.copyMakeBorder(photo, pad, pad, pad, pad, cv2.BORDER_REFLECT_101)
    source = big[top : top + h + 2 * pad, left : left + w + 2 * pad].copy()
    inner = np.zeros(source.shape[:2], np.uint8)
    inner[pad:-pad, pad:-pad] = mask[y0:y1, x0:x1].astype(np.uint8) * 255
    by, bx = np.nonzero(inner)
    centre = (x0 + (int(bx.min()) + int(bx.max()) + 1) // 2, y0 + (int(by.min()) + int(by.max()) + 1) // 2)
    cloned = cv2.seamlessClone(source, big, inner, centre, cv2.NORMAL_CLONE)
    return np.asarray(cloned[pad:-pad, pad:-pad], np.uint8)


def face_blend(photo: Pixels, face: Box, rng: np.random.Generator) -> Forgery:
    """Blend a face with a changed copy of itself (self-blended images): colour, sharpness and place differ a little."""
    height, width = photo.shape[:2]
    x0, y0, x1, y1 = face
    cx, cy, w, h = (x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0
    mask = np.zeros((height, width), np.uint8)
    if rng.random() < 0.5:  # whole face, chin and forehead included
        axes = (max(3, round(w * rng.uniform(0.36, 0.46))), max(3, round(h * rng.uniform(0.46, 0.58))))
        cv2.ellipse(mask, (round(cx), round(cy + 0.03 * h)), axes, rng.uniform(-8, 8), 0, 360, 1, -1)
    else:  # a hull over eyes, nose and mouth
        angles = np.sort(rng.uniform(0, 2 * np.pi, 12))
        points = np.stack(
            [
                cx + np.cos(angles) * w * rng.uniform(0.26, 0.4, 12),
                cy + 0.05 * h + np.sin(angles) * h * rng.uniform(0.3, 0.44, 12),
            ],
            1,
        )
        cv2.fillConvexPoly(mask, cv2.convexHull(points.round().astype(np.int32)), 1)
    change: npt.NDArray[Any] = photo.astype(np.float32)
    change = change * rng.uniform(0.93, 1.07, 3) + rng.uniform(-8, 8, 3)
    roll = rng.random()
    if roll < 0.4:  # lower resolution, as a face generator of fixed size leaves
        factor = rng.uniform(0.3, 0.7)
        low = cv2.resize(change, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
        change = cv2.resize(low, (width, height), interpolation=cv2.INTER_CUBIC)
    elif roll < 0.6:
        change = cv2.addWeighted(change, 1.8, cv2.GaussianBlur(change, (0, 0), 1.5), -0.8, 0)
    matrix: npt.NDArray[Any] = cv2.getRotationMatrix2D((cx, cy), rng.uniform(-2, 2), rng.uniform(0.96, 1.04))
    matrix[:, 2] += rng.uniform(-0.03, 0.03, 2) * (w, h)
    change = cv2.warpAffine(change, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    weight = soften(mask.astype(np.float32), rng, widest=max(1.0, min(w, h) * 0.05))
    weight = (weight * rng.choice((0.75, 1.0, 1.0))).astype(np.float32)
    return Forgery(mix(photo, change, weight), weight, "face_blend")


def retouch(photo: Pixels, rng: np.random.Generator) -> Forgery:
    """Change an area in place: blur, denoise, sharpen, warp, colour, or noise that does not match."""
    height, width = photo.shape[:2]
    mask = area_mask(photo, rng)
    x0, y0, x1, y1 = bounds(mask)
    change: npt.NDArray[Any] = photo.astype(np.float32)
    tool = rng.choice(("blur", "denoise", "sharpen", "warp", "colour", "noise"))
    if tool == "blur":
        change = cv2.GaussianBlur(change, (0, 0), rng.uniform(0.8, 3.0))
    elif tool == "denoise":
        change = (
            cv2.medianBlur(photo, int(rng.choice((3, 5))))
            if rng.random() < 0.5
            else cv2.bilateralFilter(photo, 7, rng.uniform(25, 60), 5)
        )
    elif tool == "sharpen":
        amount = rng.uniform(0.8, 2.0)
        change = change + amount * (change - cv2.GaussianBlur(change, (0, 0), rng.uniform(0.8, 2)))
    elif tool == "warp":  # liquify: pull or bulge around the centre of the area
        cx, cy = (x0 + x1) / 2, (y0 + y1) / 2
        radius = max(x1 - x0, y1 - y0) / 2 + 1
        yy, xx = np.mgrid[:height, :width].astype(np.float32)
        dx, dy = (xx - cx) / radius, (yy - cy) / radius
        falloff = np.exp(-2 * (dx * dx + dy * dy))
        push = rng.uniform(0.12, 0.3) * rng.choice((-1, 1))
        along = rng.uniform(-1, 1, 2) * 0.25 if rng.random() < 0.5 else np.zeros(2)
        change = cv2.remap(
            photo,
            (xx + radius * falloff * (push * dx + along[0])).astype(np.float32),
            (yy + radius * falloff * (push * dy + along[1])).astype(np.float32),
            cv2.INTER_CUBIC,
            borderMode=cv2.BORDER_REFLECT_101,
        )
    elif tool == "colour":
        gains = rng.uniform(0.8, 1.25, 3) if rng.random() < 0.5 else np.full(3, rng.uniform(0.65, 1.45))
        change = 255 * (np.clip(change, 0, 255) / 255) ** (1 / gains)
    else:
        level = max(2.5, _grain(photo) * rng.uniform(1.6, 3.0))
        change = change + rng.normal(0, level, (height, width, 3) if rng.random() < 0.5 else (height, width, 1))
    weight = soften(mask, rng, widest=6.0)
    return Forgery(mix(photo, change, weight), weight, "retouch")


def regenerate(photo: Pixels, rng: np.random.Generator) -> Forgery:
    """Regenerate the texture of an area: decoded again by up-sampling, or drawn anew from its own spectrum."""
    height, width = photo.shape[:2]
    mask = area_mask(photo, rng)
    change: npt.NDArray[Any] = photo.astype(np.float32)
    if rng.random() < 0.6:  # encoder, bottleneck, up-sampling decoder: grid artefacts and invented detail
        factor = int(rng.choice((2, 2, 3, 4)))
        small = cv2.resize(change, (max(2, width // factor), max(2, height // factor)), interpolation=cv2.INTER_AREA)
        small = small + rng.normal(0, rng.uniform(0, 2), small.shape)
        if rng.random() < 0.5:
            change = cv2.resize(small, (width, height), interpolation=cv2.INTER_NEAREST)
            kernel = rng.uniform(0.2, 1, (factor + 1, factor + 1)).astype(np.float32)
            change = cv2.filter2D(change, -1, kernel / kernel.sum(), borderType=cv2.BORDER_REFLECT_101)
        else:
            change = cv2.resize(
                small,
                (width, height),
                interpolation=int(rng.choice((cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_LANCZOS4))),
            )
        change = change + rng.uniform(0.3, 1) * _like_texture(photo, rng)
    else:
        low = cv2.GaussianBlur(change, (0, 0), rng.uniform(2, 5))
        change = low + _like_texture(photo, rng, base=low)
    weight = soften(mask, rng)
    return Forgery(mix(photo, change, weight), weight, "regenerate")


def _like_texture(
    photo: Pixels, rng: np.random.Generator, base: npt.NDArray[Any] | None = None
) -> npt.NDArray[np.float32]:
    """A random field with the power spectrum of the photo's fine detail, one field for all channels."""
    grey = cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY).astype(np.float32)
    coarse = cv2.GaussianBlur(grey, (0, 0), 2.0) if base is None else np.asarray(base, np.float32).mean(-1)
    detail = grey - coarse
    phase = np.fft.rfft2(rng.standard_normal(grey.shape))
    field = np.fft.irfft2(np.abs(np.fft.rfft2(detail)) * phase / (np.abs(phase) + 1e-9), s=grey.shape)
    local = np.sqrt(cv2.GaussianBlur(detail * detail, (0, 0), 8.0)) / (detail.std() + 1e-6)
    return np.asarray((field * local)[..., None], np.float32)


def bounds(mask: Weight) -> Box:
    """The half-open box (x0, y0, x1, y1) around all pixels above 0."""
    ys, xs = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return int(xs[0]), int(ys[0]), int(xs[-1]) + 1, int(ys[-1]) + 1


def _resampler(scale: float, rng: np.random.Generator, *, warp: bool = False) -> int:
    if scale < 0.75 and not warp:
        return cv2.INTER_AREA
    return int(rng.choice((cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_LANCZOS4)))


@cache
def _face_finder() -> Any:
    return cv2.CascadeClassifier(str(Path(cv2.__file__).parent / "data" / "haarcascade_frontalface_default.xml"))


def find_face(photo: Pixels) -> Box | None:
    """The largest frontal face that OpenCV's Haar cascade finds, or ``None``."""
    grey = cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY)
    scale = min(1.0, 400 / max(grey.shape))
    small = cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else grey
    faces = _face_finder().detectMultiScale(small, 1.1, 6, minSize=(48, 48))
    if not len(faces):
        return None
    x, y, w, h = max(faces, key=lambda box: box[2] * box[3]) / scale
    return round(x), round(y), round(x + w), round(y + h)


FORGERS: dict[str, Callable[..., Forgery]] = {
    "splice": splice,
    "copy_move": copy_move,
    "removal": remove,
    "face_blend": face_blend,
    "retouch": retouch,
    "regenerate": regenerate,
}


def forge_photo(
    kind: str, photo: Pixels, rng: np.random.Generator, *, donor: Pixels | None = None, face: Box | None = None
) -> Forgery:
    """One forgery of the given kind, drawn again until it changes what it covers.

    Args:
        kind: a key of :data:`FORGERS`.
        photo: (H, W, 3) uint8 RGB, at least 64 pixels a side.
        rng: source of every choice; the same state gives the same forgery.
        donor: another photo, for ``splice``.
        face: box of a face, for ``face_blend``.

    Raises:
        DataError: the kind is unknown, lacks its donor or face, or no draw changed the photo.
    """
    if kind not in FORGERS:
        raise DataError(f"unknown kind of forgery {kind!r}; known: {', '.join(FORGERS)}")
    if kind == "splice" and donor is None:
        raise DataError("a splice needs a donor photo")
    if kind == "face_blend" and face is None:
        raise DataError("a face blend needs a face")
    extra: tuple[Any, ...] = {"splice": (donor,), "face_blend": (face,)}.get(kind, ())
    for _ in range(8):
        forgery = FORGERS[kind](photo, *extra, rng)
        inside = forgery.weight > 0
        if inside.sum() >= 64:
            change = np.abs(forgery.pixels.astype(np.int16) - photo)[inside].mean()
            if change >= MIN_CHANGE:
                return forgery
    raise DataError(f"no {kind} drawn in 8 tries changed this photo (is it flat?)")


# ---------------------------------------------------------------------------------------------------------------
# What happens to a photo afterwards, forged or not
# ---------------------------------------------------------------------------------------------------------------

SUBSAMPLING = {"4:4:4": 0, "4:2:2": 1, "4:2:0": 2}


def jpeg_bytes(
    photo: Pixels, quality: int, subsampling: str = "4:2:0", tables: Sequence[Sequence[int]] | None = None
) -> bytes:
    """Encode with libjpeg's tables for ``quality``, or with the given quantisation tables."""
    out = io.BytesIO()
    picture = PILImage.fromarray(photo)
    if tables is None:
        picture.save(out, "JPEG", quality=quality, subsampling=SUBSAMPLING[subsampling])
    else:
        picture.save(out, "JPEG", qtables=[list(table) for table in tables], subsampling=SUBSAMPLING[subsampling])
    return out.getvalue()


def jpeg(photo: Pixels, quality: int, subsampling: str = "4:2:0") -> Pixels:
    """Through JPEG and back."""
    return np.asarray(PILImage.open(io.BytesIO(jpeg_bytes(photo, quality, subsampling))), np.uint8)


@dataclass(frozen=True)
class Post:
    """A chain applied in this order: resize, blur, noise, JPEG, crop, then the final file."""

    resize: float = 1.0
    blur: float = 0.0  # sigma, pixels
    noise: float = 0.0  # standard deviation, grey levels
    first_jpeg: int = 0  # quality of an earlier save; 0 = none
    crop: tuple[int, int] = (0, 0)  # pixels cut from the left and the top: off the 8 x 8 grid unless multiples of 8
    format: str = "png"  # "png" or "jpeg"
    quality: int = 0  # 0 = the photo's own quantisation tables
    subsampling: str = "4:2:0"

    def apply(self, photo: Pixels, weight: Weight, rng: np.random.Generator) -> tuple[Pixels, Weight]:
        """Pixels and truth through everything but the final file; geometry moves both alike."""
        if self.resize != 1.0:
            size = (max(8, round(photo.shape[1] * self.resize)), max(8, round(photo.shape[0] * self.resize)))
            shrink = self.resize < 1
            photo = cv2.resize(photo, size, interpolation=cv2.INTER_AREA if shrink else cv2.INTER_CUBIC).astype(
                np.uint8
            )
            how = cv2.INTER_AREA if shrink else cv2.INTER_LINEAR
            weight = cv2.resize(weight, size, interpolation=how).astype(np.float32)
        if self.blur:
            photo = cv2.GaussianBlur(photo, (0, 0), self.blur).astype(np.uint8)
        if self.noise:
            photo = np.clip(np.rint(photo + rng.normal(0, self.noise, photo.shape)), 0, 255).astype(np.uint8)
        if self.first_jpeg:
            photo = jpeg(photo, self.first_jpeg, self.subsampling)
        left, top = self.crop
        return np.ascontiguousarray(photo[top:, left:]), np.ascontiguousarray(weight[top:, left:], np.float32)

    def encode(self, photo: Pixels, tables: Sequence[Sequence[int]] | None = None) -> tuple[bytes, str]:
        """The final file: its bytes and its extension."""
        if self.format == "jpeg":
            own = tables if self.quality == 0 and tables else None
            return jpeg_bytes(photo, self.quality or 92, self.subsampling, own), ".jpg"
        out = io.BytesIO()
        PILImage.fromarray(photo).save(out, "PNG", compress_level=1)
        return out.getvalue(), ".png"

    def facts(self) -> dict[str, Any]:
        """The steps that did something, as plain values."""
        plain = asdict(Post())
        return {key: value for key, value in asdict(self).items() if value != plain[key] or key == "format"}
