"""The door for released checkpoints, which are pickles: opened in a child that can do nothing, saved as safetensors.

``torch.load(weights_only=True)`` already refuses to run code; should it ever fail to, the code runs in the sandbox of
:mod:`seamline.isolation`. What comes back is names, plain values and raw numbers.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import isolation, zoo
from .errors import MediaError, WeightsError

if TYPE_CHECKING:
    from .detectors.base import Detector


def convert(sources: Sequence[str | os.PathLike[str]], out: str | os.PathLike[str], model: str, **facts: Any) -> Path:
    """Write released checkpoints of a detector as one safetensors file of ours.

    Args:
        sources: checkpoint files that together hold all tensors: one, or for Loupe those of its two stages.
        out: a ``.safetensors`` file to write.
        model: a name of :func:`seamline.zoo.presets`, whose network the checkpoints belong to, as it was released.
        facts: what :func:`seamline.zoo.save` is to note besides.

    Raises:
        WeightsError: a file cannot be read as weights, does not fit, or the model is unknown or has no released form.
    """
    presets = zoo.presets()
    if model not in presets:
        raise WeightsError(f"unknown model {model!r}; known: {', '.join(presets)}")
    if Path(out).suffix.lower() != ".safetensors":
        raise WeightsError(f"{os.fspath(out)}: weights are written as .safetensors; name such a file")
    kind, sizes = presets[model]
    detector = _built(kind, model, sizes, [read(source) for source in sources])
    names = [Path(source).name for source in sources]
    zoo.save(detector, out, **{"source": f"converted from {', '.join(names)}", **facts})
    return Path(out)


def _built(kind: str, model: str, sizes: Any, held: Sequence[Mapping[str, Any]]) -> Detector:
    from .detectors import batfd, loupe, ummaformer

    if kind == "loupe":
        detector = loupe.Loupe(sizes.reference())
        detector.load_reference(*map(_state, held))
        return detector.eval()
    if len(held) != 1:
        raise WeightsError(f"a checkpoint of {model} is one file; {len(held)} were given")
    if kind == "ba-tfd":
        found = batfd.from_released(held[0])
        if found.sizes.relations != sizes.relations:
            raise WeightsError(f"the checkpoint is not one of {model}; try ba-tfd or ba-tfd-plus")
        return found
    if kind == "ummaformer":
        return ummaformer.from_released(held[0], sizes.reference())
    raise WeightsError(f"{model}: no checkpoints of this network were released, so there is nothing to convert")


def _state(held: Mapping[str, Any]) -> dict[str, Any]:
    """The named tensors of a checkpoint, out of what they are wrapped in."""
    for wrapper in ("state_dict", "module", "model"):
        if isinstance(held.get(wrapper), Mapping):
            held = held[wrapper]
    return {name: value for name, value in held.items() if hasattr(value, "shape")}


def read(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What a checkpoint holds: dicts, lists, plain values and tensors, read in a sandboxed child.

    Raises:
        WeightsError: missing, damaged, or it holds anything else, such as code to run.
    """
    import torch

    size = _size(path)
    try:
        with isolation.Job("tensors", path, memory=16 * 2**30 + 4 * size) as job:
            answers = job.answers(size + 2**20)
            tree = next(answers)[0]["tree"]
            tensors = []
            for header, payload in answers:
                kind = getattr(torch, str(header["dtype"]))
                flat = torch.frombuffer(payload, dtype=torch.uint8) if payload else torch.empty(0, dtype=torch.uint8)
                tensors.append(flat.view(kind).reshape([int(length) for length in header["shape"]]))
            return dict(_filled(tree, tensors))
    except (MediaError, KeyError, TypeError, ValueError, RuntimeError, AttributeError, IndexError) as cause:
        raise WeightsError(f"{os.fspath(path)}: cannot be read as weights: {cause}") from cause


def _filled(tree: Any, tensors: Sequence[Any]) -> Any:
    """The tree with each ``{"": number}`` replaced by that tensor."""
    if isinstance(tree, dict):
        return tensors[tree[""]] if "" in tree else {key: _filled(value, tensors) for key, value in tree.items()}
    return [_filled(value, tensors) for value in tree] if isinstance(tree, list) else tree


def _size(path: str | os.PathLike[str]) -> int:
    try:
        return os.stat(path).st_size
    except (OSError, ValueError) as cause:
        raise WeightsError(f"{os.fspath(path)}: weights cannot be read: {cause}") from cause
