"""From a calibrated probability, and what limits its worth, to a verdict and its reasons. The only place that decides.

Forged is what reaches the threshold, the operating point that calibration documented. Authentic is what is likelier
authentic than forged. Between the two, and wherever a limit is met, the verdict is inconclusive: the probability is
told, and is not to be relied on. Where there is nothing that the model could judge, it is not asked, and the verdict is
not applicable. What limits a verdict never changes the probability.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from . import familiar
from .familiar import Familiarity
from .media import Image
from .report import Reason, Verdict

SMALLEST_SIDE = 64  # pixels; a smaller picture holds too few traces to judge
EVEN = 0.5  # probability from which forged is likelier than not
WHOLE = 0.8  # share of a photo that stands out, from which it is no edit of a part
LOSSLESS = ("PNG", "BMP", "TIFF")  # formats that keep all that a picture held ...
NEARLY = 99  # ... as nearly does JPEG of this quality

# Every reason, by its code: the code stays, the words may be made clearer.
NOT_APPLICABLE = {
    "too_small": "too small to judge: {width} x {height}, at least {smallest} pixels a side are needed",
    "flat": "nearly all of it is one colour: there is no picture to judge",
    "graphics": "text, a drawing, a diagram or a screenshot, as it seems; the model knows photos",
    "noise": "noise without a picture, as it seems",
    "too_short": "too short to judge: {seconds:.2f} s, {needed:g} s are needed",
    "no_face": "no face was found in the pictures",
    "silent": "it is silent",
    "no_speech": "no speech that is like what the model knows was heard",
    "not_judged": "{model} does not judge what this file holds",
}
INCONCLUSIVE = {
    "uncertain": "likelier forged than not, but below the threshold of {threshold}",
    "too_compressed": "too strongly compressed: saved as JPEG of a quality of about {quality}; below {lowest} the model"
    " was not shown to tell forged from authentic",
    "unfamiliar": "unlike the photos that the model knows",
    "whole": "{share} of the picture stand out: it may be synthetic or reworked as a whole, and the model finds"
    " edits of a part",
    "synthetic": "the file itself says that a model generated the whole picture, and the model finds edits of a part",
    "screenshot": "the file itself says that it is a screenshot, which keeps few traces of what it shows",
}
CODES = (*NOT_APPLICABLE, *INCONCLUSIVE)


def reason(code: str, **values: object) -> Reason:
    """The reason of a code, with the values that its words need."""
    return Reason(code, (NOT_APPLICABLE | INCONCLUSIVE)[code].format(**values))


def limits_of_photo(image: Image, known: Familiarity | None, lowest_quality: int) -> tuple[Reason, ...]:
    """What limits a verdict on a photo before the detector looks at it.

    Args:
        image: the photo.
        known: what is familiar to the weights; ``None`` if that was never fitted, and all content is taken.
        lowest_quality: of a JPEG save, below which the weights were found to be blind; 0 if that was not measured.
    """
    if min(image.width, image.height) < SMALLEST_SIDE:
        return (reason("too_small", width=image.width, height=image.height, smallest=SMALLEST_SIDE),)
    found = [reason(claim) for claim in image.says]
    if known is not None:
        features = familiar.photo(image.pixels)
        if known.distance(features) > known.limit:
            found.insert(0, reason(familiar.name_photo(features)))
    if _too_compressed(image, lowest_quality):
        found.append(reason("too_compressed", quality=image.quality, lowest=lowest_quality))
    return tuple(found)


def last_save(image: Image, lowest_quality: int, traced: bool) -> str:
    """``"lossless"``, ``"compressed"`` (JPEG below ``lowest_quality``), or ``""``: any other, and what is not known.

    The same logit means more where the last save left all traces than where it left few, so weights may have a
    calibration for each (``Card.calibrations``). The format of the file alone does not say so: a picture that was made
    smaller and then saved as PNG has lost them. So ``traced`` tells whether they are there (``ImageDetector.lead``).
    Of a JPEG that was turned into a PNG it is the wrong one; its probability is then too low about one half, and hardly
    changed at the threshold.
    """
    if _too_compressed(image, lowest_quality):
        return "compressed"
    kept = image.format in LOSSLESS and traced if image.quality is None else image.quality >= NEARLY
    return "lossless" if kept else ""


def _too_compressed(image: Image, lowest_quality: int) -> bool:
    return image.quality is not None and image.quality < lowest_quality


def is_speech(wave: npt.NDArray[np.float32], rate: int, known: Familiarity) -> bool:
    """Whether a sound (n,) in [-1, 1] is like the speech that is familiar to the weights."""
    features = familiar.sound(wave, rate)
    return features is not None and known.distance(features) <= known.limit


def judged(limits: Sequence[Reason]) -> bool:
    """Whether the detector is asked at all."""
    return not any(limit.code in NOT_APPLICABLE for limit in limits)


def decide(
    probability: float, threshold: float, limits: Sequence[Reason] = (), *, copied: bool = False
) -> tuple[Verdict, tuple[Reason, ...]]:
    """The verdict on what was judged, and its reasons, which are none if it is forged or authentic.

    ``copied`` says that a copy was found, which survives the compression that ends other traces.
    """
    if copied and probability >= threshold:
        limits = [limit for limit in limits if limit.code != "too_compressed"]
    if limits:
        return "inconclusive", tuple(limits)
    if probability >= threshold:
        return "forged", ()
    if probability >= EVEN:
        return "inconclusive", (reason("uncertain", threshold=f"{100 * threshold:.0f} %"),)
    return "authentic", ()
