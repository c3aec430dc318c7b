"""The catalogue of weights: name -> detector, sizes, source, hash, licence, scores.

``zoo.toml`` lists what the package ships. Weights are safetensors files whose metadata holds one JSON object under
the key ``seamline``: ``{"detector": kind, "sizes": {...}, "facts": {...}}``, so a file says by itself which network
it fits. Loading is strict (every tensor present, none left over, all shapes equal) and never runs code from a file.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import WeightsError
from .familiar import Familiarity
from .report import OperatingPoint

if TYPE_CHECKING:
    from .detectors.base import Detector

WEIGHTS = Path(__file__).with_name("weights")
EVIDENCE = (  # what a calibration can weigh
    "logit",  # of the classifier, of the photo or of one modality of a clip
    "peak",  # log odds of the heat map where it is hottest
    "size",  # log of the photo's megapixels: the larger, the hotter is the hottest place by chance
    "copies",  # log odds that an area repeats another of the photo
    "bias",  # weighs 1
)
PICKLES = {".pt", ".pth", ".ckpt", ".bin", ".pkl", ".pickle"}


@dataclass(frozen=True)
class Card:
    """What is known about one set of weights.

    ``threshold`` is compared with the calibrated probability, the sigmoid of the evidence weighed by ``calibration``:
    a number for each of ``EVIDENCE``, as far as it counts. ``calibrations`` are others: for photos whose last save was
    ``lossless`` or ``compressed`` (``verdicts.last_save``), for clips one for each modality, of which the more suspect
    one gives the verdict. ``mask_threshold`` is compared with the pixels of the heat map, ``segment_threshold`` with
    the scores of proposals.

    ``operating_points`` say how often verdicts were wrong at the threshold and at others; ``familiarity`` what the
    files are like that the weights know (``familiar.Familiarity`` in plain values, empty: not fitted);
    ``lowest_quality`` the quality of a last JPEG save below which they were not shown to see a thing (0: not known).
    """

    name: str
    detector: str
    version: str | None = None
    file: str | None = None
    sha256: str | None = None
    licence: str = "not stated"
    training_data: str = "not stated"
    source: str = "not stated"
    input: str = "8-bit RGB photo"
    windowing: str = "not stated"
    threshold: float = 0.5
    calibration: dict[str, float] = field(default_factory=lambda: {"logit": 1.0, "bias": 0.0})
    mask_threshold: float = 0.5
    modality: str = "image"
    calibrations: dict[str, dict[str, float]] = field(default_factory=dict)
    segment_threshold: float = 0.5
    scores: dict[str, float] = field(default_factory=dict)
    operating_points: tuple[OperatingPoint, ...] = ()
    familiarity: dict[str, Any] = field(default_factory=dict)
    lowest_quality: int = 0


def detectors() -> dict[str, tuple[Callable[[Any], Detector], Any]]:
    """Kind -> (network, its sizes). Imported on call: a look at the catalogue needs no torch."""
    from .detectors.batfd import BATFD, BATFDSizes
    from .detectors.erf_batfd_plus import ErfBatfdPlus, ErfSizes
    from .detectors.loupe import Loupe, LoupeSizes
    from .detectors.ummaformer import UMMAFormer, UMMAFormerSizes

    return {
        "loupe": (Loupe, LoupeSizes),
        "erf-batfd-plus": (ErfBatfdPlus, ErfSizes),
        "ba-tfd": (BATFD, BATFDSizes),
        "ummaformer": (UMMAFormer, UMMAFormerSizes),
    }


def presets() -> dict[str, tuple[str, Any]]:
    """Name of a network with given sizes -> (its kind, the sizes): what a recipe can train."""
    from .detectors import batfd, erf_batfd_plus, loupe, ummaformer

    kinds: dict[str, Mapping[str, Any]] = {
        "loupe": loupe.PRESETS,
        "erf-batfd-plus": erf_batfd_plus.PRESETS,
        "ba-tfd": batfd.PRESETS,
        "ummaformer": ummaformer.PRESETS,
    }
    return {name: (kind, sizes) for kind, named in kinds.items() for name, sizes in named.items()}


def models() -> list[Card]:
    """The cards of the catalogue, the default first."""
    catalogue, default = _catalogue()
    return sorted(catalogue.values(), key=lambda card: card.name != default)


def load_detector(name: str | os.PathLike[str] = "default", device: str = "cpu") -> tuple[Detector, Card]:
    """The detector of a catalogue name, or of a path to a ``.safetensors`` file, in evaluation mode on ``device``.

    Raises:
        WeightsError: the name is unknown, the file is missing, is not ours, is a pickle, has another SHA-256 than
            the catalogue says, or does not fit the detector exactly.
    """
    catalogue, default = _catalogue()
    key = default if str(name) == "default" else str(name)
    if key in catalogue:
        card = catalogue[key]
        path = WEIGHTS / str(card.file)
        digest = _sha256(path)
        if digest != card.sha256:
            raise WeightsError(
                f"{card.file}: SHA-256 is {digest}, the catalogue says {card.sha256 or 'nothing'}; "
                "the file is damaged or was replaced, so install seamline again"
            )
        saved = _card(key, _saved(path))
        measured = ("operating_points", "familiarity", "lowest_quality")  # by calibration, too long for the catalogue
        card = dataclasses.replace(card, **{name: getattr(saved, name) for name in measured})
        return _read(path, card, device), card

    path = Path(name)
    if path.suffix.lower() in PICKLES:
        raise WeightsError(
            f"{path}: pickled weights can run code when opened and are refused; "
            f"convert them first: seamline convert {path} {path.with_suffix('.safetensors').name} --model NAME"
        )
    if path.suffix.lower() != ".safetensors":
        raise WeightsError(
            f"unknown model {key!r}; known: {', '.join(catalogue)}, or give the path of a .safetensors file"
        )
    card = _own_card(path)
    return _read(path, card, device), card


def facts(name: str | os.PathLike[str] = "default") -> dict[str, Any]:
    """What was saved with the weights of a catalogue name or a ``.safetensors`` file, as it was given to :func:`save`.

    Raises:
        WeightsError: the file is missing or not ours.
    """
    catalogue, default = _catalogue()
    card = catalogue.get(default if str(name) == "default" else str(name))
    return dict(_about(WEIGHTS / str(card.file) if card else Path(name))["facts"])


def save(detector: Detector, path: str | os.PathLike[str], **facts: Any) -> None:
    """Write weights, sizes and ``facts`` (plain JSON values) to one safetensors file.

    Facts named like fields of :class:`Card` (``threshold``, ``calibration``, ``licence``, ...) fill the card when the
    file is loaded by its path. The file appears whole or not at all.

    Raises:
        WeightsError: the detector is of no known kind, or a fact is not a plain value.
    """
    from safetensors.torch import save_file

    kind = next((kind for kind, (network, _) in detectors().items() if type(detector) is network), None)
    if kind is None:
        raise WeightsError(f"{type(detector).__name__} is not a detector of the zoo: {', '.join(detectors())}")
    about = {"detector": kind, "sizes": detector.sizes.to_dict(), "facts": facts}
    try:
        text = json.dumps(about, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as cause:
        raise WeightsError(f"facts must be plain JSON values: {cause}") from cause
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.touch()
        mode = part.stat().st_mode  # save_file gives a file that only its owner may read
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in detector.state_dict().items()}
        save_file(tensors, part, {"seamline": text})
        part.chmod(mode)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def average(names: Sequence[str | os.PathLike[str]]) -> Detector:
    """The detector of the first weights, every one of its tensors the mean of all.

    Weights that were trained on from one another, or from the same ones, may be better in the mean than any of them
    (Wortsman et al. 2022, "Model soups").

    Raises:
        WeightsError: as of :func:`load_detector`, there are none, or they are of different networks.
    """
    if not names:
        raise WeightsError("no weights to take the mean of")
    detector, _ = load_detector(names[0])
    mean = detector.state_dict()
    for count, name in enumerate(names[1:], 2):
        other = load_detector(name)[0].state_dict()
        if {key: t.shape for key, t in other.items()} != {key: t.shape for key, t in mean.items()}:
            raise WeightsError(f"{os.fspath(name)}: of another network than {os.fspath(names[0])}")
        for key, tensor in mean.items():
            if tensor.is_floating_point():
                tensor.lerp_(other[key], 1 / count)
    return detector


@cache
def _catalogue() -> tuple[dict[str, Card], str]:
    """All cards by name, and the name of the default for images."""
    data = _toml()
    return {name: _card(name, entry) for name, entry in data.items() if isinstance(entry, dict)}, data["default_image"]


@cache
def _toml() -> dict[str, Any]:
    with Path(__file__).with_suffix(".toml").open("rb") as file:
        return tomllib.load(file)


def default(medium: str) -> str:
    """The name of the catalogue's default for ``image`` or ``clip``.

    Raises:
        WeightsError: there is none.
    """
    name = _toml().get(f"default_{medium}")
    if name is None:
        raise WeightsError(f"the catalogue has no default for the medium {medium!r}; name a model")
    return str(name)


def _card(name: str, facts: dict[str, Any]) -> Card:
    """A card from plain values, with those that must be numbers checked."""

    def weights(values: Any) -> dict[str, float]:
        """``[a, b]``, as older files have it, is sigmoid(a * logit + b)."""
        named = values if isinstance(values, dict) else dict(zip(("logit", "bias"), values, strict=True))
        if unknown := sorted(set(named) - set(EVIDENCE)):
            raise ValueError(f"a calibration weighs {', '.join(unknown)}; known: {', '.join(EVIDENCE)}")
        return {name: float(value) for name, value in named.items()}

    apart = {str(key): weights(values) for key, values in facts.get("calibrations", {}).items()}
    own = {"name": name, "calibration": weights(facts.get("calibration", (1.0, 0.0))), "calibrations": apart}
    points = tuple(OperatingPoint(**point) for point in facts.get("operating_points", ()))
    if known := facts.get("familiarity"):
        Familiarity.from_dict(known)
    return Card(**facts | own | {"operating_points": points})


def _own_card(path: Path) -> Card:
    """The card that a file carries in its own metadata."""
    digest = _sha256(path)
    return _card(path.stem, _saved(path) | {"file": path.name, "sha256": digest})


def _saved(path: Path) -> dict[str, Any]:
    """The fields of a card that were saved with the weights, and the kind of detector.

    Raises:
        WeightsError: they are damaged.
    """
    about = _about(path)
    known = {f.name for f in dataclasses.fields(Card)}
    facts = {key: value for key, value in about["facts"].items() if key in known} | {"detector": about["detector"]}
    try:
        _card(path.stem, facts)
    except (AttributeError, KeyError, TypeError, ValueError) as cause:
        raise WeightsError(f"{path}: the facts saved with the weights are damaged: {cause}") from cause
    return facts


def _about(path: Path) -> dict[str, Any]:
    """The JSON object in the metadata of a file of ours."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get("seamline")
    except (SafetensorError, OSError) as cause:
        raise WeightsError(f"{path}: not a whole safetensors file ({cause})") from cause
    if text is None:
        raise WeightsError(f"{path}: a safetensors file, but not written by seamline: it does not say its detector")
    try:
        about = json.loads(text)
        return {"detector": str(about["detector"]), "sizes": dict(about["sizes"]), "facts": dict(about["facts"])}
    except (ValueError, KeyError, TypeError) as cause:
        raise WeightsError(f"{path}: damaged metadata: {cause!r}") from cause


def _read(path: Path, card: Card, device: str) -> Detector:
    """Build the network from the sizes in the file and copy every tensor into its place."""
    import torch
    from safetensors import safe_open

    about = _about(path)
    if about["detector"] != card.detector or card.detector not in detectors():
        known = ", ".join(detectors())
        raise WeightsError(f"{path}: weights of {about['detector']!r}, wanted {card.detector!r}; known: {known}")
    network, sizes = detectors()[card.detector]
    try:
        with undrawn():
            detector = network(sizes.from_dict(about["sizes"]))
    except (TypeError, ValueError) as cause:
        raise WeightsError(f"{path}: its sizes do not fit {card.detector!r}: {cause}") from cause

    state = detector.state_dict()
    with safe_open(path, framework="pt") as file:
        shapes = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}
    wanted = {key: tuple(value.shape) for key, value in state.items()}
    if shapes != wanted:
        missing, extra = sorted(wanted.keys() - shapes.keys()), sorted(shapes.keys() - wanted.keys())
        other = [f"{k} {shapes[k]} for {wanted[k]}" for k in sorted(wanted) if k in shapes and shapes[k] != wanted[k]]
        raise WeightsError(
            f"{path}: does not fit {card.detector!r}: {len(missing)} missing {missing[:3]}, "
            f"{len(extra)} not known {extra[:3]}, {len(other)} of another shape {other[:3]}"
        )
    with torch.no_grad():
        for key, value in state.items():
            # Opened once per tensor: the file is memory-mapped, and pages once read stay until it is closed, which
            # would double the memory of large weights.
            with safe_open(path, framework="pt") as file:
                value.copy_(file.get_tensor(key))
    return detector.to(device).eval()


@contextlib.contextmanager
def undrawn() -> Iterator[None]:
    """Networks built in here keep whatever was in memory as first weights: for those that are read right after.

    To draw them takes most of the time of building a large network. The generator of the caller is left alone.
    """
    import torch
    from torch.nn import init

    known = {name: value for name, value in vars(init).items() if name.endswith("_") and callable(value)}
    try:
        for name in known:
            setattr(init, name, lambda tensor, *args, **kwargs: tensor)
        with torch.random.fork_rng(devices=[]):  # not everything is drawn by torch.nn.init
            yield
    finally:
        for name, value in known.items():
            setattr(init, name, value)


def _sha256(path: Path) -> str:
    """The digest of a file, in hex."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as cause:
        raise WeightsError(f"{path}: weights cannot be read: {cause.strerror or cause}") from cause
