"""Training: one plain loop, on one device or many, that a kill at any moment does not disturb.

A recipe (``recipes/*.toml``) says everything; :func:`train` reads top to bottom. Two rules make resuming exact: every
random draw is a function of (seed, step, place in the step), so there is no generator or sampler whose state could be
lost; and all the rest of the state (weights, moving average, optimiser, scaler, best score) goes to one file that
appears whole or not at all. Many devices: ``accelerate launch -m seamline train ...`` runs the same loop.
"""

from __future__ import annotations

import contextlib
import copy
import csv
import dataclasses
import json
import math
import os
import platform
import random
import signal
import time
import tomllib
import typing
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from . import zoo
from .data import Sample, digest, open_data, split_by_group
from .detectors.base import ClipDetector, Detector
from .errors import DataError, SeamlineError
from .evaluate import commit
from .feeds import Feed, feed

# ---------------------------------------------------------------------------------------------------- the recipe


@dataclass(frozen=True)
class Stage:
    """One stretch of training with its own optimiser and schedule. A step is one update of the weights."""

    name: str
    steps: int
    batch: int  # examples per device and micro-step
    lr: float
    train: tuple[str, ...] = ()  # the parts that learn: backbone, classifier, segmentor; empty: all
    still: tuple[str, ...] = ()  # modules inside these that do not learn all the same, such as video.encoder
    backbone_lr: float | None = None  # of the part called "backbone"; None: lr
    weight_decay: float = 0.01
    accumulation: int = 1  # micro-steps per step
    warmup: float = 0.1  # share of the steps
    decay: float = 0.1  # share of the steps
    monitor: str = "mean"  # auc | f1 | iou (photos), auc | ap | ar (clips), or their mean: the best of it is kept
    crop: int | None = None  # of a training window; None: the recipe's
    given: tuple[str, ...] = ()  # modalities of a clip that the network is given; empty: all that are there
    kinds: tuple[str, ...] = ()  # of forgery, that are shown beside authentic samples; empty: all
    loss_weights: dict[str, float] = field(default_factory=dict)  # replace the detector's own


@dataclass(frozen=True)
class Recipe:
    """A training run, complete: with the data it gives the same weights again."""

    model: str  # a preset that the zoo knows
    stage: tuple[Stage, ...]
    sizes: dict[str, Any] = field(default_factory=dict)  # replace fields of the preset's sizes
    init: str | None = None  # weights to start from (a name or file that the zoo loads), of the same or fewer inputs
    fresh: tuple[str, ...] = ()  # parts that init does not give: they begin with random weights
    seed: int = 42
    crop: int = 256  # of a training window: its side in pixels (multiple of 8; unless photos are seen whole), or ticks
    near: float = 0.75  # probability that the window of a forged photo is put on its forgery
    forged: float | None = 0.5  # share of forged photos drawn; None: as the data has them
    holdout: float = 0.1  # share of the data, in whole groups, kept for validation
    validate_every: int = 500  # steps
    validate_samples: int = 400  # at most
    save_every: int = 500  # steps
    log_every: int = 10  # steps
    ema: float = 0.999  # decay of the moving average of the weights; 0: none
    clip: float = 1.0  # largest gradient norm
    betas: tuple[float, ...] = (0.9, 0.999)
    mixed_precision: str = "no"  # no | bf16 | fp16 | auto (what the device has)
    channels_last: bool = False
    compile: bool = False
    workers: int = 1  # processes that make batches; 0: the training process itself
    tensorboard: bool = True  # where it is installed


HOUSEKEEPING = ("save_every", "log_every", "workers", "tensorboard")  # may differ when a run is resumed


def read_recipe(path: str | Path) -> Recipe:
    """Read a recipe.

    Raises:
        DataError: the file is not TOML, a key is unknown, missing or of the wrong type, or a value makes no sense.
    """
    try:
        table = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as cause:
        raise DataError(f"{path}: not a readable recipe: {cause}") from cause
    try:
        return _checked(_build(Recipe, table, ""))
    except DataError as cause:
        raise DataError(f"{path}: {cause}") from cause


def _build(cls: type[Any], table: dict[str, Any], where: str) -> Any:
    """A dataclass from a TOML table, refusing unknown keys and wrong types by name."""
    hints, fields = typing.get_type_hints(cls), {f.name: f for f in dataclasses.fields(cls)}
    values: dict[str, Any] = {}
    for key, value in table.items():
        if key not in fields:
            raise DataError(f"unknown key {where + key!r}; known: {', '.join(fields)}")
        values[key] = _typed(hints[key], value, where + key)
    for name, f in fields.items():
        if name not in values and f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING:
            raise DataError(f"missing key {where + name!r}")
    return cls(**values)


def _typed(hint: Any, value: Any, key: str) -> Any:
    """A TOML value as the type that the field declares."""
    options, item = typing.get_args(hint), typing.get_origin(hint)
    if item is tuple and isinstance(value, list):
        return tuple(_typed(options[0], v, f"{key}[{i}]") for i, v in enumerate(value))
    if item is dict and isinstance(value, dict):
        return {k: _typed(options[1], v, f"{key}.{k}") for k, v in value.items()}
    if dataclasses.is_dataclass(hint) and isinstance(hint, type) and isinstance(value, dict):
        return _build(hint, value, f"{key}.")
    kinds = [option for option in (options if item is not dict and options else (hint,)) if option is not type(None)]
    if hint is Any or type(value) in kinds:
        return value
    if float in kinds and type(value) is int:
        return float(value)
    raise DataError(f"{key!r} must be {getattr(hint, '__name__', hint)}, not {value!r}")


def _checked(recipe: Recipe) -> Recipe:
    """The same recipe, its values in range."""
    wrong = [
        ("stage", not recipe.stage, "needs at least one [[stage]]"),
        ("crop", recipe.crop <= 0 or recipe.crop % 8 != 0, "must be a multiple of 8"),
        ("mixed_precision", recipe.mixed_precision not in ("no", "bf16", "fp16", "auto"), "is no, bf16, fp16 or auto"),
        ("holdout", not 0 <= recipe.holdout < 1, "is in [0, 1)"),
        ("forged", recipe.forged is not None and not 0 <= recipe.forged <= 1, "is in [0, 1]"),
        ("ema", not 0 <= recipe.ema < 1, "is in [0, 1)"),
        ("betas", len(recipe.betas) != 2, "are two numbers"),
        ("save_every, log_every", min(recipe.save_every, recipe.log_every) < 1, "are at least 1"),
    ]
    for i, stage in enumerate(recipe.stage):
        least = min(stage.steps, stage.batch, stage.accumulation)
        wrong.append((f"stage[{i}].steps, batch, accumulation", least < 1, "are at least 1"))
        odd = stage.crop is not None and (stage.crop <= 0 or stage.crop % 8 != 0)
        wrong.append((f"stage[{i}].crop", odd, "must be a multiple of 8"))
    for key, bad, rule in wrong:
        if bad:
            raise DataError(f"{key!r} {rule}")
    return recipe


def wsd(step: int, total: int, warmup: float = 0.1, decay: float = 0.1) -> float:
    """Learning-rate multiplier before optimiser step ``step`` (0-based): warm-up, stable, decay.

    Linear from 0 over the first ``warmup`` share of ``total`` steps, then 1, then half a cosine to 0 over the last
    ``decay`` share.
    """
    if step < warmup * total:
        return step / (warmup * total)
    late = step - (1 - decay) * total
    if late <= 0:
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * min(1.0, late / (decay * total)))) if decay > 0 else 0.0


# ----------------------------------------------------------------------------------------------------- the data


class Windows(torch.utils.data.Dataset[Any]):
    """Position in the run -> one training example; the same one whoever asks, and whenever.

    Position p is place p % B of step p // B, with B the examples of a step on all devices. Samples come in a fresh
    seeded order each time through, forged and authentic ones apart, interleaved at the share the recipe asks for.
    """

    def __init__(self, samples: Sequence[Sample], recipe: Recipe, feed: Feed, key: int, first: int, last: int):
        """``feed`` makes the examples; ``key`` tells stages apart; positions [first, last)."""
        self.samples, self.recipe, self.feed, self.key, self.first, self.last = samples, recipe, feed, key, first, last
        forged = [i for i, s in enumerate(samples) if s.truth.forged]
        authentic = [i for i, s in enumerate(samples) if not s.truth.forged]
        share = recipe.forged
        if share is None:
            forged, authentic, share = list(range(len(samples))), [], 1.0
        if (share > 0 and not forged) or (share < 1 and not authentic):
            have = f"{len(forged)} forged and {len(authentic)} authentic training samples"
            raise DataError(f"forged = {share} needs more than the data has: {have}")
        self.decks, self.share = (forged, authentic), share

    def __len__(self) -> int:
        return self.last - self.first

    def __getitem__(self, index: int) -> Any:
        position = self.first + index
        sample = self.samples[self._choose(position)]
        return self.feed.example(sample, np.random.default_rng((self.recipe.seed, self.key, position)))

    def _choose(self, position: int) -> int:
        before, after = math.floor(position * self.share), math.floor((position + 1) * self.share)
        deck, place = (self.decks[0], before) if after > before else (self.decks[1], position - before)
        again, place = divmod(place, len(deck))
        return deck[_order(len(deck), self.recipe.seed, self.key, int(after > before), again)[place]]


@lru_cache(maxsize=8)
def _order(length: int, *key: int) -> list[int]:
    """A shuffled ``range(length)``, the same for the same key."""
    return [int(i) for i in np.random.default_rng(key).permutation(length)]


def _start_worker(_: int) -> None:
    """One thread per worker; Ctrl-C is for the training process, which then ends its workers."""
    import cv2

    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _seed_all(*key: int) -> int:
    """The one seed function: python, numpy and torch (all devices) start from these; returns their mix."""
    seed = int(np.random.SeedSequence(key).generate_state(1)[0])
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002  libraries that still use the global generator
    torch.manual_seed(seed)
    return seed


# ------------------------------------------------------------------------------------------------- the training


def train(
    recipe: Recipe | str | Path,
    data: str | Path,
    out: str | Path,
    *,
    resume: bool = True,
    max_minutes: float | None = None,
    device: str | None = None,
    detector: Detector | None = None,
    layout: str = "auto",
    split: str | None = None,
    progress: bool = True,
) -> Path:
    """Train as the recipe says; a second call with the same arguments goes on where the first was stopped.

    Args:
        recipe: a recipe or its file.
        data: a data set (see :func:`seamline.data.open_data`).
        out: where everything goes: ``best.safetensors`` and ``last.safetensors`` (the averaged weights), ``run.json``
            (recipe, commit, data digest, versions), ``log.csv`` (raw losses by step), ``validation.csv``,
            ``tensorboard/`` and ``state.safetensors`` (what resuming needs).
        resume: go on from ``state.safetensors`` if there is one; else start over.
        max_minutes: stop and save after this time; the schedule does not know of it, and the run can be resumed.
        device: ``"cpu"`` keeps a machine with an accelerator from using it.
        detector: train this network instead of the recipe's ``model`` and ``sizes``.
        layout: of the data, by its name; ``auto``: by its marks.
        split: train on this part of the data alone, as the data set names it.
        progress: show a progress bar.

    Returns:
        The path of the best weights of the last stage, or of the last ones if nothing was validated.

    Raises:
        DataError: the recipe or the data are not what they should be, or the state is of another run.
        SeamlineError: a loss is not finite.
    """
    from accelerate import Accelerator  # type: ignore[import-untyped]
    from accelerate.state import AcceleratorState  # type: ignore[import-untyped]
    from accelerate.utils import DistributedDataParallelKwargs  # type: ignore[import-untyped]

    source = None if isinstance(recipe, Recipe) else Path(recipe)
    recipe = _checked(recipe) if isinstance(recipe, Recipe) else read_recipe(recipe)
    out = Path(out)
    precision = recipe.mixed_precision
    if precision == "auto":
        gpu = device != "cpu" and torch.cuda.is_available()
        precision = ("bf16" if torch.cuda.is_bf16_supported() else "fp16") if gpu else "no"
    AcceleratorState._reset_state()  # a run before this one in the same process may have had another precision
    accelerator = Accelerator(
        cpu=device == "cpu",
        mixed_precision=precision,
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
    )
    main, rank = accelerator.is_main_process, accelerator.process_index

    samples = open_data(data, layout, split)
    learn, held = split_by_group(samples, recipe.holdout, recipe.seed)
    _seed_all(recipe.seed)
    detector = _detector(recipe) if detector is None else detector
    if recipe.channels_last:
        detector = detector.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    root = Path(data) if Path(data).is_dir() else Path(data).parent
    meal = feed(detector, recipe.crop, recipe.near, root)
    for stage in recipe.stage:
        _fits(detector, stage, meal, {s.kind for s in learn if s.truth.forged})
    exam = Exam(held, recipe, meal) if held and recipe.validate_every > 0 else None

    if main and type(meal).ready is not Feed.ready:
        with _bar(progress, len(samples), 0) as show:
            meal.ready(samples, lambda done, _: show(done, 1, {}))
    accelerator.wait_for_everyone()

    run = _Run(out, recipe, source, digest(data, split), resume)
    starts = [sum(s.steps for s in recipe.stage[:i]) for i in range(len(recipe.stage) + 1)]
    step, best = run.resume_at(), run.best
    average = copy.deepcopy(detector).eval()
    detector.to(accelerator.device), average.to(accelerator.device)
    if step:
        torch.set_num_threads(run.facts["threads"])  # sums over other numbers of threads differ in their last digits
        detector.load_state_dict(run.tensors("model."))
        average.load_state_dict(run.tensors("average."))
    if main:
        counts = {"samples": len(samples), "training": len(learn), "held_out": len(held)}
        run.begin(detector.loss_weights, meal.scores, counts)
    own = detector.loss_weights
    stop = _Stop(max_minutes)
    with stop.listening(), _bar(progress and main, starts[-1], step) as show:
        for number, stage in enumerate(recipe.stage):
            if step >= starts[number + 1]:
                continue
            fresh = step == starts[number]
            _freeze(detector, stage)
            weights = own | _silent(detector, stage) | stage.loss_weights
            detector.loss_weights = weights  # a detector need not compute what weighs nothing
            groups = detector.parameter_groups(stage.lr, stage.weight_decay, backbone_lr=stage.backbone_lr)
            best = None if fresh else best
            optimizer = torch.optim.AdamW(groups, betas=typing.cast("Any", recipe.betas))
            peaks = [group["lr"] for group in optimizer.param_groups]
            per_step = stage.batch * stage.accumulation * accelerator.num_processes
            todo = starts[number + 1] - step
            done = step - starts[number]
            course = feed(detector, stage.crop or recipe.crop, recipe.near, root, stage.given)
            shown = [s for s in learn if not (stage.kinds and s.truth.forged) or s.kind in stage.kinds]
            windows = Windows(shown, recipe, course, number, done * per_step, stage.steps * per_step)
            loader = torch.utils.data.DataLoader(
                windows,
                batch_size=stage.batch,
                num_workers=recipe.workers,
                collate_fn=course.collate,
                worker_init_fn=_start_worker,
                pin_memory=accelerator.device.type == "cuda",
                prefetch_factor=4 if recipe.workers else None,
            )
            if recipe.compile:
                detector.compile()
            model, optimizer, loader = accelerator.prepare(detector, optimizer, loader)
            if not fresh:
                _load_optimizer(optimizer, run.tensors("optimizer."))
                if accelerator.scaler is not None and run.scaler:
                    accelerator.scaler.load_state_dict(run.scaler)
            parameters = [p for p in detector.parameters() if p.requires_grad]
            batches: Iterator[tuple[Any, Any]] = iter(loader)

            for _ in range(todo):
                rate = wsd(step - starts[number], stage.steps, stage.warmup, stage.decay)
                for group, peak in zip(optimizer.param_groups, peaks, strict=True):
                    group["lr"] = peak * rate
                sums: dict[str, Tensor] = {}
                for micro in range(stage.accumulation):
                    inputs, targets = next(batches)
                    if recipe.channels_last and isinstance(inputs, Tensor):
                        inputs = inputs.contiguous(memory_format=torch.channels_last)
                    chance = torch.Generator().manual_seed(_seed_all(recipe.seed, number, step, micro, rank))
                    wait = micro < stage.accumulation - 1
                    with accelerator.no_sync(model) if wait else contextlib.nullcontext():
                        outputs = model(inputs, targets)
                        losses = detector.criterion(outputs, targets, chance)
                        total = sum(weights[name] * value for name, value in losses.items() if weights[name])
                        accelerator.backward(total / stage.accumulation)
                    for name, value in (losses | {"total": typing.cast("Tensor", total)}).items():
                        sums[name] = sums.get(name, 0.0) + value.detach() / stage.accumulation
                norm = accelerator.clip_grad_norm_(parameters, recipe.clip)
                optimizer.step()
                optimizer.zero_grad()
                _follow(average, detector, recipe.ema, step)
                step += 1
                show(step, per_step, sums)

                if step % recipe.log_every == 0 or step in starts:
                    raw = {k: float(v) for k, v in _mean_of_processes(accelerator, sums).items()}
                    if not math.isfinite(raw["total"]):
                        raise SeamlineError(f"step {step}: the loss is {raw}; lower lr, or see what is in the data")
                    if main:
                        run.log(step, stage.name, peaks[0] * rate, raw, float(norm if norm is not None else math.nan))
                ending = step in starts or stop.asked(accelerator)
                if exam and (step % recipe.validate_every == 0 or step in starts) and main:
                    scores = exam(average, stage.batch)
                    better = best is None or scores[stage.monitor] > best[stage.monitor]
                    run.validated(step, stage.name, scores, best=better)
                    if better:
                        best = scores | {"step": step}
                        run.save_weights("best", average, best)
                if step % recipe.save_every == 0 or ending:
                    if main:
                        run.save(step, detector, average, optimizer, accelerator.scaler, best)
                    accelerator.wait_for_everyone()
                if stop.wanted:
                    break
            if stop.wanted:
                break
            del batches, loader
            accelerator.free_memory()
            detector = accelerator.unwrap_model(model, keep_fp32_wrapper=False)
    detector.loss_weights = own
    if main:
        run.finish(step, best, done=step == starts[-1])
    return out / ("best.safetensors" if best else "last.safetensors")


def _detector(recipe: Recipe) -> Detector:
    """The network that the recipe names, with its first weights."""
    presets = zoo.presets()
    if recipe.model not in presets:
        raise DataError(f"unknown model {recipe.model!r}; known: {', '.join(presets)}")
    kind, preset = presets[recipe.model]
    network, kind_of_sizes = zoo.detectors()[kind]
    sizes = preset.to_dict()
    for key, value in recipe.sizes.items():
        sizes[key] = sizes[key] | value if isinstance(value, dict) and isinstance(sizes.get(key), dict) else value
    try:
        detector = network(kind_of_sizes.from_dict(sizes))
    except (TypeError, ValueError) as cause:
        raise DataError(f"sizes do not fit {recipe.model}: {cause}") from cause
    if recipe.init is not None:
        if strange := [part for part in recipe.fresh if part not in detector.parts]:
            raise DataError(f"fresh: {recipe.model} has no part {strange[0]!r}; it has {', '.join(detector.parts)}")
        first, _ = zoo.load_detector(recipe.init)
        begins = tuple(f"{detector.parts[part]}." for part in recipe.fresh)
        kept = {name: tensor for name, tensor in first.state_dict().items() if not name.startswith(begins)}
        try:
            detector.load_state_dict(_grown(kept, detector.state_dict()))
        except ValueError as cause:
            raise DataError(f"init = {recipe.init!r} does not fit the recipe's model: {cause}") from None
    return detector


def _grown(old: dict[str, Tensor], new: dict[str, Tensor]) -> dict[str, Tensor]:
    """The old weights in the shapes of a network with more inputs: what it adds stays, and is not listened to at first.

    Inputs of a layer are dimension 1 of its weight; those that the old layer lacks start at zero, so that the grown
    network says what the old one did.

    Raises:
        ValueError: the old weights have a name or another dimension that the new ones have not; the first one is named.
    """
    grown, strange = dict(new), []
    for name, tensor in old.items():
        into = new.get(name)
        if into is not None and into.ndim == tensor.ndim > 1 and into.shape[1] > tensor.shape[1]:
            silent = tensor.new_zeros(tensor.shape[0], into.shape[1] - tensor.shape[1], *tensor.shape[2:])
            tensor = torch.cat([tensor, silent], 1)
        grown[name] = tensor
        if into is None or into.shape != tensor.shape:
            strange.append(name)
    if strange:
        first = strange[0]
        there = f"{tuple(new[first].shape)} there" if first in new else "not there"
        more = f", and {len(strange) - 1} more" if len(strange) > 1 else ""
        raise ValueError(f"{first} is {tuple(old[first].shape)} in the weights and {there}{more}")
    return grown


def _fits(detector: Detector, stage: Stage, feed: Feed, kinds: Collection[str]) -> None:
    """Refuse a stage that names a part, loss, score or kind that there is not, before anything is trained."""
    for what, named, known in (
        ("part", stage.train, detector.parts),
        ("loss", stage.loss_weights, detector.loss_weights),
        ("score", [stage.monitor], [*feed.scores, "mean"]),
        ("modality", stage.given, [one for one in feed.modalities if one in getattr(detector, "uses", ())]),
        ("kind", stage.kinds, sorted(kinds)),
    ):
        if unknown := sorted(set(named) - set(known)):
            raise DataError(f"stage {stage.name!r}: no {what} {', '.join(unknown)}; known: {', '.join(known)}")
    for name in stage.still:
        try:
            detector.part(name)
        except ValueError as error:
            raise DataError(f"stage {stage.name!r}: {error}") from None


def _silent(detector: Detector, stage: Stage) -> dict[str, float]:
    """No weight for the losses of a clip that say nothing of the modalities that the stage is given."""
    if not stage.given or not isinstance(detector, ClipDetector):
        return {}
    return dict.fromkeys(detector.silent(stage.given), 0.0)


def _freeze(detector: Detector, stage: Stage) -> None:
    """Only the parts that the stage names learn; the others keep every parameter and every running statistic."""
    detector.thaw()
    detector.freeze(*(part for part in detector.parts if stage.train and part not in stage.train), *stage.still)
    detector.train()


@torch.no_grad()
def _follow(average: Detector, detector: Detector, decay: float, step: int) -> None:
    """Exponential moving average of all weights, quick at first: decay is at most (1 + step) / (10 + step)."""
    decay = min(decay, (1 + step) / (10 + step)) if decay else 0.0
    for slow, fast in zip(average.state_dict().values(), detector.state_dict().values(), strict=True):
        if slow.is_floating_point():
            slow.lerp_(fast, 1 - decay)
        else:
            slow.copy_(fast)


def _mean_of_processes(accelerator: Any, sums: dict[str, Tensor]) -> dict[str, Tensor]:
    """Each loss, averaged over the devices."""
    return typing.cast("dict[str, Tensor]", accelerator.reduce(sums, "mean")) if accelerator.num_processes > 1 else sums


def _load_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Put AdamW's moments back, each in the memory layout of its parameter: sums then run in the same order."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        index, key = name.split(".")
        state.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict(optimizer.state_dict() | {"state": state})
    for group in optimizer.param_groups:
        for p in group["params"]:
            for key, value in optimizer.state.get(p, {}).items():
                if value.shape == p.shape:
                    optimizer.state[p][key] = torch.empty_like(p, dtype=value.dtype).copy_(value).detach()


class _Stop:
    """Stops the loop between two steps: on SIGTERM, on SIGINT, or when the time is over."""

    def __init__(self, minutes: float | None):
        self.wanted = False
        self.end = math.inf if minutes is None else time.monotonic() + 60 * minutes

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Catch the two signals; only the main thread of a program may."""
        old: dict[signal.Signals, Any] = {}
        with contextlib.suppress(ValueError):
            for number in (signal.SIGTERM, signal.SIGINT):
                old[number] = signal.signal(number, self._catch)
        try:
            yield
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)

    def _catch(self, number: int, frame: FrameType | None) -> None:
        self.wanted = True

    def asked(self, accelerator: Any) -> bool:
        """Whether to stop after this step: all processes of a run agree on it."""
        self.wanted = self.wanted or time.monotonic() > self.end
        if accelerator.num_processes > 1:
            flag = torch.tensor(float(self.wanted), device=accelerator.device)
            self.wanted = bool(accelerator.reduce(flag, "sum") > 0)
        return self.wanted


@contextlib.contextmanager
def _bar(on: bool, total: int, step: int) -> Iterator[Callable[[int, int, dict[str, Tensor]], None]]:
    """A progress bar with the speed, the time left and, every now and then, the losses."""
    if not on:
        yield lambda step, examples, losses: None
        return
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    speed = TextColumn("{task.fields[speed]:.1f} examples/s")
    columns = (BarColumn(), MofNCompleteColumn(), speed, TimeElapsedColumn())
    with Progress(*columns, TimeRemainingColumn(), TextColumn("{task.fields[losses]}")) as bar:
        task = bar.add_task("", total=total, completed=step, speed=0.0, losses="")
        began, first, shown = time.monotonic(), step, 0.0

        def show(step: int, examples: int, losses: dict[str, Tensor]) -> None:
            nonlocal shown
            if (now := time.monotonic()) - shown < 1:
                return
            shown = now
            text = " ".join(f"{name} {float(value):.3g}" for name, value in losses.items())
            bar.update(task, completed=step, speed=(step - first) * examples / (now - began), losses=text)

        yield show
        bar.update(task, completed=total)


# ----------------------------------------------------------------------------------------------- the examination


class Exam:
    """Examines a network on held-out samples, always the same ones."""

    def __init__(self, samples: Sequence[Sample], recipe: Recipe, feed: Feed):
        order = np.random.default_rng((recipe.seed, 1)).permutation(len(samples))[: recipe.validate_samples]
        self.samples, self.seed, self.feed = [samples[i] for i in order], recipe.seed, feed

    def __call__(self, detector: Detector, batch: int) -> dict[str, float]:
        """The scores of the feed and their ``mean``; 0 where a class is absent."""
        scores = self.feed.examine(detector, self.samples, batch, self.seed)
        scores = {name: 0.0 if math.isnan(value) else value for name, value in scores.items()}
        return scores | {"mean": sum(scores.values()) / len(scores)}


# --------------------------------------------------------------------------------------------------- the folder


class _Run:
    """The output folder: every file in it appears whole or not at all, or (the logs) is mended on resuming."""

    def __init__(self, out: Path, recipe: Recipe, source: Path | None, data: str, resume: bool):
        out.mkdir(parents=True, exist_ok=True)
        self.out, self.recipe, self.source, self.data = out, recipe, source, data
        self.state = out / "state.safetensors"
        self.facts: dict[str, Any] = {}
        if resume and self.state.is_file():
            with safe_open(self.state, "pt") as file:
                self.facts = json.loads(file.metadata()["seamline"])
            mine = self._identity()
            other = [key for key in mine if mine[key] != self.facts["identity"].get(key)]
            if other:
                raise DataError(
                    f"{self.state}: this run was begun with another {', '.join(other)}; go on with what it was begun"
                    " with, choose another folder, or start over without resuming"
                )
        self.best: dict[str, float] | None = self.facts.get("best")
        self.scaler: dict[str, Any] = self.facts.get("scaler", {})
        self.seconds = float(self.facts.get("seconds", 0.0))
        self.began = time.monotonic()
        self.board: Any = None

    def _identity(self) -> dict[str, Any]:
        """What must be the same when a run is resumed."""
        facts = dataclasses.asdict(self.recipe)
        return json.loads(json.dumps({k: v for k, v in facts.items() if k not in HOUSEKEEPING} | {"data": self.data}))  # type: ignore[no-any-return]

    def resume_at(self) -> int:
        """Steps that are done."""
        return int(self.facts.get("step", 0))

    def tensors(self, prefix: str) -> dict[str, Tensor]:
        """The part of the state under ``prefix``, which is cut off the names."""
        with safe_open(self.state, "pt") as file:
            return {k.removeprefix(prefix): file.get_tensor(k) for k in file.keys() if k.startswith(prefix)}

    def begin(self, losses: dict[str, float], scores: Sequence[str], counts: dict[str, int]) -> None:
        """Mend the logs, write ``run.json``, open TensorBoard; starting over, put away what another run left."""
        if not self.resume_at():
            for name in ("state", "best", "last"):
                (self.out / f"{name}.safetensors").unlink(missing_ok=True)
        columns = ["step", "stage", "lr", "total", *losses, "grad_norm", "seconds"]
        _mend(self.out / "log.csv", columns, self.resume_at())
        _mend(self.out / "validation.csv", ["step", "stage", *scores, "mean", "best"], self.resume_at())
        self.columns = columns
        self._write_json(self._about() | {"data": {"sha256": self.data, **counts}, "finished": False})
        if self.recipe.tensorboard:
            with contextlib.suppress(ImportError):
                from torch.utils.tensorboard import SummaryWriter

                self.board = SummaryWriter(str(self.out / "tensorboard"), purge_step=self.resume_at() + 1)

    def _about(self) -> dict[str, Any]:
        text = self.source.read_text(encoding="utf-8") if self.source else None
        packages = ("torch", "timm", "accelerate", "numpy", "opencv-python-headless", "pillow", "safetensors")
        return {
            "recipe_file": self.source.name if self.source else None,
            "recipe_text": text,
            "recipe": dataclasses.asdict(self.recipe),
            "seed": self.recipe.seed,
            "threads": torch.get_num_threads(),
            "commit": commit(),
            "versions": {"python": platform.python_version()} | {name: _version(name) for name in packages},
        }

    def log(self, step: int, stage: str, rate: float, losses: dict[str, float], norm: float) -> None:
        """One row of ``log.csv``; numbers are written to the last digit."""
        row = {"step": step, "stage": stage, "lr": rate, "grad_norm": norm, "seconds": round(self.elapsed(), 2)}
        with (self.out / "log.csv").open("a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, self.columns, restval="").writerow(row | losses)
        if self.board is not None:
            for name, value in (losses | {"lr": rate, "grad_norm": norm}).items():
                self.board.add_scalar(f"train/{name}", value, step)

    def validated(self, step: int, stage: str, scores: dict[str, float], *, best: bool) -> None:
        """One row of ``validation.csv``."""
        with (self.out / "validation.csv").open("a", newline="", encoding="utf-8") as file:
            csv.writer(file).writerow([step, stage, *scores.values(), int(best)])
        if self.board is not None:
            for name, value in scores.items():
                self.board.add_scalar(f"validation/{name}", value, step)

    def save_weights(self, name: str, detector: Detector, facts: dict[str, Any]) -> None:
        """``NAME.safetensors`` with sizes and facts, as the zoo loads it."""
        path = self.out / f"{name}.safetensors"
        about = {"validation": facts, "recipe": self.source.name if self.source else None, "data_sha256": self.data}
        if type(detector) in [network for network, _ in zoo.detectors().values()]:
            zoo.save(detector, path, **about)
        else:  # a detector that the zoo does not know
            text = json.dumps({"sizes": dataclasses.asdict(detector.sizes), "facts": about})
            _save_atomically(_plain(detector.state_dict()), path, {"seamline": text})

    def save(
        self, step: int, detector: Detector, average: Detector, optimizer: Any, scaler: Any,
        best: dict[str, float] | None,
    ) -> None:  # fmt: skip
        """The last weights and the whole state."""
        self.save_weights("last", average, {"step": step})
        tensors = {f"model.{k}": v for k, v in detector.state_dict().items()}
        tensors |= {f"average.{k}": v for k, v in average.state_dict().items()}
        for index, values in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{k}": v for k, v in values.items()}
        facts = {
            "identity": self._identity(), "step": step, "best": best, "seconds": self.elapsed(),
            "scaler": scaler.state_dict() if scaler is not None else {}, "threads": torch.get_num_threads(),
        }  # fmt: skip
        for log in ("log.csv", "validation.csv"):  # what the state counts as logged must be on the disk before it
            with (self.out / log).open("rb") as file:
                os.fsync(file.fileno())
        _save_atomically(_plain(tensors), self.state, {"seamline": json.dumps(facts)})

    def finish(self, step: int, best: dict[str, float] | None, *, done: bool) -> None:
        """Say in ``run.json`` how it went."""
        about = json.loads((self.out / "run.json").read_text(encoding="utf-8"))
        about |= {"finished": done, "steps": step, "best": best, "seconds": round(self.elapsed(), 1)}
        self._write_json(about)
        if self.board is not None:
            self.board.close()

    def elapsed(self) -> float:
        """Seconds of training, those before the last resumption too."""
        return self.seconds + time.monotonic() - self.began

    def _write_json(self, about: dict[str, Any]) -> None:
        part = self.out / ".run.json.part"
        part.write_text(json.dumps(about, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        os.replace(part, self.out / "run.json")


def _plain(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Copies in plain memory order, as safetensors wants them."""
    return {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}


def _save_atomically(tensors: dict[str, Tensor], path: Path, about: dict[str, str]) -> None:
    """Write beside, flush to the disk, then put in place."""
    part = path.with_name(f".{path.name}.part")
    save_file(tensors, part, about)
    with part.open("rb") as file:
        os.fsync(file.fileno())
    os.replace(part, path)


def _mend(path: Path, columns: list[str], step: int) -> None:
    """Keep of a log the whole rows up to ``step``: what came later happens again."""
    kept: list[list[str]] = []
    if step and path.is_file():
        with path.open(newline="", encoding="utf-8") as file:
            rows = [row for row in csv.reader(file) if len(row) == len(columns) and row[0].isdigit()]
        kept = [row for row in rows if int(row[0]) <= step]
    part = path.with_name(f".{path.name}.part")
    with part.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([columns, *kept])
    os.replace(part, path)


def _version(package: str) -> str | None:
    with contextlib.suppress(metadata.PackageNotFoundError):
        return metadata.version(package)
    return None
