"""What is wrong with a data set, found before anybody trains on it or quotes a figure from it.

Files are listed as :func:`~seamline.data.open_data` lists them, but every fault is collected instead of the first being
raised. Of each file the header is read; pictures are decoded small and sounds for some seconds, so that what cannot be
decoded and what is there twice is found; masks are decoded whole.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from ..errors import DataError, MediaError
from ..media.files import EXTENSIONS
from .header import Header, fingerprint, read_header
from .layouts import LAYOUTS, digest, layout_of
from .sample import Fault, Sample

SCHEMA = "seamline.data-check/1"
KINDS = {  # of findings: whether they are errors, and what they say
    "metadata": (True, "metadata that cannot be read or contradicts itself"),
    "missing": (True, "listed, but not there"),
    "unpaired": (True, "forged photos without a mask"),
    "unreadable": (True, "cannot be decoded"),
    "mask_unreadable": (True, "masks that cannot be decoded"),
    "mask_size": (True, "masks of another size or length than what they mask"),
    "mask_empty": (True, "masks of forged photos without a forged pixel"),
    "mask_inverted": (True, "masks that mark what is authentic"),
    "span": (True, "forged spans that lie outside their clip"),
    "contradiction": (True, "the same file is called authentic and forged"),
    "leak_file": (True, "the same file is in two splits"),
    "leak_group": (True, "the same source, camera or person is in two splits"),
    "leak_near": (False, "nearly the same file is in two splits"),
    "duplicate": (False, "the same file is listed twice"),
    "near_duplicate": (False, "nearly the same file, in different groups"),
    "orphan": (False, "masks without a forged photo"),
    "unlisted": (False, "media that nothing refers to"),
    "mask_large": (False, "masks of more than half of a photo"),
    "length": (False, "clips of another length than the metadata says"),
    "balance": (False, "one class is absent or rare"),
    "shortcut": (False, "the label can be told without looking at the content"),
}
NEAR = 7  # bits of a print's 128 in which near duplicates differ at most
RARE = 0.05  # share of the smaller class, below which a split is out of balance
SLACK = 0.1  # seconds that a span may end after its clip, and a header may be wrong
ITEMS, DRAWS = 2000, 999  # of the test for shortcuts: items at most, permutations
FOLDS, VALUES = 5, 64  # of the same: folds, and values of a fact that are told apart
LEAST, SIGNIFICANT = 0.65, 0.05  # balanced accuracy, and probability over all facts, from which on it is a shortcut
CROWD = 1000  # files of one band of a print, above which only neighbours in sorted order are compared


@dataclass(frozen=True)
class Finding:
    """One fault, and the files that it is about, relative to the root."""

    kind: str  # a key of KINDS
    paths: tuple[str, ...]
    words: str

    @property
    def is_error(self) -> bool:
        """Whether figures from this data set would be wrong, or reading it would fail."""
        return KINDS[self.kind][0]


@dataclass(frozen=True)
class Shortcut:
    """How well one fact of the files tells the label, in cross-validation."""

    fact: str
    accuracy: float  # balanced, in [0, 1]; 0.5 is chance
    p: float  # share of permuted labels that do as well
    values: int  # that are told apart


@dataclass(frozen=True)
class Check:
    """What :func:`check` found."""

    root: str
    layout: str
    sha256: str
    counts: dict[str, dict[str, int]]  # by split ("" if there is none) and class
    findings: tuple[Finding, ...]  # errors first
    shortcuts: tuple[Shortcut, ...]  # every fact that was tested, best first

    @property
    def errors(self) -> int:
        """How many findings are errors."""
        return sum(finding.is_error for finding in self.findings)

    def summary(self) -> list[tuple[str, str]]:
        """The kinds that were found, errors first, and what each says."""
        there = {finding.kind for finding in self.findings}
        return [(kind, words) for kind, (_, words) in KINDS.items() if kind in there]

    def line(self) -> str:
        """One line: what it is, how many of each class, how many findings."""
        sums = Counter[str]()
        for classes in self.counts.values():
            sums.update(classes)
        splits = [name for name in self.counts if name]
        where = f" in {', '.join(splits)}" if splits else ""
        warnings = len(self.findings) - self.errors
        said = ", ".join(
            f"{number} {word}{'' if number == 1 else 's'}"
            for number, word in ((self.errors, "error"), (warnings, "warning"))
            if number
        )
        return (
            f"{self.layout}: {sums['authentic']} authentic, {sums['forged']} forged{where}: {said or 'nothing wrong'}"
        )

    def to_json(self) -> str:
        """The same as JSON; the same data gives the same text."""
        body = {
            "schema": SCHEMA,
            "root": self.root,
            "layout": self.layout,
            "sha256": self.sha256,
            "counts": self.counts,
            "errors": self.errors,
            "warnings": len(self.findings) - self.errors,
            "findings": [
                {"kind": f.kind, "error": f.is_error, "paths": list(f.paths), "words": f.words} for f in self.findings
            ],
            "shortcuts": [vars(shortcut) for shortcut in self.shortcuts],
        }
        return json.dumps(body, indent=1, ensure_ascii=False).encode("utf-8", "backslashreplace").decode()


@dataclass(frozen=True)
class _Facts:
    """What was seen of one sample."""

    faults: tuple[Fault, ...] = ()
    header: Header | None = None
    print: bytes | None = None
    share: float | None = None  # of the mask: forged pixels
    rim: float = 0.0  # of the mask: forged pixels along its border


def check(
    root: str | Path,
    layout: str = "auto",
    *,
    quick: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Check:
    """Look for everything in :data:`KINDS`.

    Args:
        root: as :func:`~seamline.data.open_data` takes it.
        layout: the same.
        quick: read headers only: nothing is decoded, so no masks are judged and no near duplicates found.
        progress: is told how many files are done, of how many.

    Raises:
        DataError: the layout is not known.
    """
    root = Path(root)
    layout = layout_of(root, layout)
    faults: list[Fault] = []
    try:
        samples = LAYOUTS[layout].read(root, faults)
    except DataError as cause:
        samples, faults = [], [*faults, Fault("metadata", str(root), str(cause))]
    if not samples and not faults:
        faults.append(Fault("metadata", str(root), "the data set is empty"))
    seen: list[_Facts] = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for done, facts in enumerate(pool.map(partial(_examine, quick=quick), samples), 1):
            seen.append(facts)
            progress(done, len(samples))
    faults += [fault for facts in seen for fault in facts.faults]
    hashes = _hashes(samples, seen)
    shortcuts = find_shortcuts(samples, [facts.header for facts in seen])
    findings = [
        *(Finding(fault.kind, (fault.path,), fault.words) for fault in faults),
        *_same_bytes(samples, hashes),
        *_near(samples, seen, hashes),
        *_groups(samples),
        *_polarity(samples, seen),
        *_unlisted(root, LAYOUTS[layout].unused, samples, faults),
        *_balance(samples),
        *_shortcuts(shortcuts),
    ]
    counts: dict[str, dict[str, int]] = {}
    for split, forged in sorted((s.split, s.truth.forged) for s in samples):
        classes = counts.setdefault(split, {"authentic": 0, "forged": 0})
        classes["forged" if forged else "authentic"] += 1
    order = list(KINDS)
    findings = [Finding(f.kind, tuple(_relative(root, path) for path in f.paths), f.words) for f in findings]
    findings.sort(key=lambda f: (not f.is_error, order.index(f.kind), f.paths, f.words))
    return Check(str(root), layout, digest(root), counts, tuple(findings), tuple(shortcuts))


def _relative(root: Path, path: str) -> str:
    top = root if root.is_dir() else root.parent
    return Path(path).relative_to(top).as_posix() if Path(path).is_relative_to(top) else path


# ----------------------------------------------------------------------------------------------------- file by file


def _examine(sample: Sample, quick: bool) -> _Facts:
    """Header, print and mask of one sample; what goes wrong is a fault, never an exception."""
    path = sample.truth.media.path
    if not Path(path).is_file():
        return _Facts((Fault("missing", path, "the data set lists it, but it is not there"),))
    try:
        header = read_header(path)
        mark = None if quick else fingerprint(path)
    except MediaError as cause:
        return _Facts((Fault("unreadable", path, str(cause)),))
    faults = list(_times(sample, header))
    share, rim = None, 0.0
    if sample.is_clip:
        faults += _film_of_masks(sample, header)
    elif sample.truth.forged:
        try:
            mask = None if quick else _mask(sample)
        except DataError as cause:
            name = sample.truth.artifacts.mask
            gone = name is not None and not Path(name).is_file()
            faults.append(Fault("missing" if gone else "mask_unreadable", name or path, str(cause)))
            mask = None
        if mask is not None:
            wanted = (header.height, header.width)
            if mask.shape != wanted and not sample.fit:
                words = f"the photo is {wanted[1]}x{wanted[0]}, its mask {mask.shape[1]}x{mask.shape[0]}"
                faults.append(Fault("mask_size", path, words))
            hot = mask >= 0.5
            share, rim = float(hot.mean()), float(np.concatenate([*hot[[0, -1]], *hot[:, [0, -1]].T]).mean())
            if share == 0:
                peak = round(255 * float(mask.max(initial=0)))
                words = f"its brightest value is {peak}" + ("; save 0 and 1 as 0 and 255" if 0 < peak < 128 else "")
                faults.append(Fault("mask_empty", sample.truth.artifacts.mask or path, words))
    return _Facts(tuple(faults), header, mark, share, rim)


def _mask(sample: Sample) -> npt.NDArray[np.float32]:
    """The mask as it is, empty or not.

    Raises:
        DataError: it cannot be read.
    """
    name = sample.truth.artifacts.mask
    if sample.draw is not None:
        return sample.draw()
    if sample.truth.mask is not None:
        return sample.truth.mask.astype(np.float32)
    if name is None:
        raise DataError("it is forged, but its truth has no mask")
    try:
        data = np.fromfile(name, np.uint8) if Path(name).is_file() else np.zeros(0, np.uint8)
        grey = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE) if len(data) else None
    except (OSError, cv2.error):
        grey = None
    if grey is None:
        raise DataError("this mask is missing or not a picture")
    mask = grey.astype(np.float32) / np.float32(255)
    return 1 - mask if sample.inverted else mask


def _times(sample: Sample, header: Header) -> Iterator[Fault]:
    """Spans against the length that the header tells."""
    media = sample.truth.media
    if not sample.is_clip or header.duration is None:
        return
    for segment in sample.truth.segments:
        if header.duration + SLACK < segment.end < math.inf:
            words = f"{segment.start:g} to {segment.end:g} s is forged, but it ends after {header.duration:.2f} s"
            yield Fault("span", media.path, words)
            break
    if media.duration is not None and abs(media.duration - header.duration) > SLACK + 0.05 * header.duration:
        words = f"the metadata says {media.duration:.2f} s, the file {header.duration:.2f} s"
        yield Fault("length", media.path, words)


def _film_of_masks(sample: Sample, header: Header) -> Iterator[Fault]:
    """The masks of a film, if it has some, against the film."""
    name = sample.truth.artifacts.mask
    if name is None:
        return
    if not Path(name).is_file():
        yield Fault("missing", name, f"{sample.truth.media.path} needs it")
        return
    try:
        masks = read_header(name)
    except MediaError as cause:
        yield Fault("mask_unreadable", name, str(cause))
        return
    if (masks.width, masks.height) != (header.width, header.height):
        words = f"the film is {header.width}x{header.height}, its masks {masks.width}x{masks.height}"
        yield Fault("mask_size", name, words)
    elif abs((masks.duration or 0) - (header.duration or 0)) > SLACK:
        words = f"the film lasts {header.duration or 0:.2f} s, its masks {masks.duration or 0:.2f} s"
        yield Fault("mask_size", name, words)


# -------------------------------------------------------------------------------------------------- file against file


def _hashes(samples: Sequence[Sample], seen: Sequence[_Facts]) -> dict[int, str]:
    """SHA-256 by number of the files that another one equals in size; the others equal none."""
    sizes = Counter(facts.header.bytes for facts in seen if facts.header)
    suspects = [i for i, facts in enumerate(seen) if facts.header and sizes[facts.header.bytes] > 1]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return dict(zip(suspects, pool.map(_sha256, (samples[i].truth.media.path for i in suspects)), strict=True))


def _same_bytes(samples: Sequence[Sample], hashes: dict[int, str]) -> Iterator[Finding]:
    """Files of one hash."""
    same: dict[str, list[int]] = defaultdict(list)
    for i, sha256 in hashes.items():
        same[sha256].append(i)
    for these in same.values():
        if len(these) < 2:
            continue
        paths = tuple(sorted(samples[i].truth.media.path for i in these))
        splits, labels = {samples[i].split for i in these}, {samples[i].truth.forged for i in these}
        if len(labels) > 1:
            yield Finding("contradiction", paths, "these are the same bytes, once authentic and once forged")
        if len(splits) > 1:
            yield Finding("leak_file", paths, f"these are the same bytes, in the splits {_list(splits)}")
        elif len(labels) == 1:
            yield Finding("duplicate", paths, "these are the same bytes")


def _sha256(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _near(samples: Sequence[Sample], seen: Sequence[_Facts], hashes: dict[int, str]) -> Iterator[Finding]:
    """Files whose prints differ in at most NEAR bits, unless they are of one group and split.

    Of two such prints at least one of eight bands of 16 bits is the same, so only those are compared.
    """
    held = [i for i, facts in enumerate(seen) if facts.print is not None]
    if len(held) < 2:
        return
    prints = np.array([np.frombuffer(seen[i].print or b"", np.uint8) for i in held])  # (n, 16)
    group = np.unique([f"{samples[i].group}\0{samples[i].split}" for i in held], return_inverse=True)[1]
    parent = list(range(len(held)))

    def first(i: int) -> int:
        while parent[i] != i:
            parent[i] = i = parent[parent[i]]
        return i

    for band in range(0, 16, 2):
        keys = prints[:, band].astype(np.int32) << 8 | prints[:, band + 1]
        order = np.lexsort([*prints.T, keys])
        edges = np.flatnonzero(np.diff(keys[order])) + 1
        for crowd in np.split(order, edges):
            reach = len(crowd) if len(crowd) <= CROWD else 64
            for step in range(1, min(reach, len(crowd))):
                a, b = crowd[:-step], crowd[step:]
                apart = np.bitwise_count(prints[a] ^ prints[b]).sum(1)
                for k in np.flatnonzero((apart <= NEAR) & (group[a] != group[b])).tolist():
                    parent[first(int(a[k]))] = first(int(b[k]))
    alike: dict[int, list[int]] = defaultdict(list)
    for place, i in enumerate(held):
        alike[first(place)].append(i)
    for these in alike.values():
        if len(these) < 2 or len({hashes.get(i, str(i)) for i in these}) == 1:  # alone, or the very same bytes
            continue
        paths = tuple(sorted(samples[i].truth.media.path for i in these))
        splits = {samples[i].split for i in these}
        if len(splits) > 1:
            yield Finding("leak_near", paths, f"these look or sound alike, in the splits {_list(splits)}")
        else:
            yield Finding("near_duplicate", paths, "these look or sound alike, but belong to different groups")


def _groups(samples: Sequence[Sample]) -> Iterator[Finding]:
    """Groups that lie in several splits."""
    where: dict[str, dict[str, str]] = defaultdict(dict)
    for sample in samples:
        where[sample.group].setdefault(sample.split, sample.truth.media.path)
    for group, splits in where.items():
        if len(splits) > 1:
            words = f"{group!r} is in the splits {_list(splits)}; one file of each is named"
            yield Finding("leak_group", tuple(sorted(splits.values())), words)


# -------------------------------------------------------------------------------------------------- the set as a whole


def _polarity(samples: Sequence[Sample], seen: Sequence[_Facts]) -> Iterator[Finding]:
    """Masks that cover more than half of their photo and most of its border mark the background."""
    held = [(s, f) for s, f in zip(samples, seen, strict=True) if f.share is not None]
    wrong = [s.truth.artifacts.mask or s.truth.media.path for s, f in held if (f.share or 0) > 0.5 and f.rim > 0.5]
    if wrong and 2 * len(wrong) > len(held):
        words = (
            f"{len(wrong)} of {len(held)} masks mark more than half of the photo and most of its border: forged pixels"
            " must be bright. Invert them, or set inverted in a manifest"
        )
        yield Finding("mask_inverted", tuple(wrong), words)
    elif wrong:
        words = f"{len(wrong)} of {len(held)} masks mark more than half of the photo and most of its border"
        yield Finding("mask_large", tuple(wrong), f"{words}; are these inverted?")


def _unlisted(
    root: Path, unused: Iterable[str], samples: Sequence[Sample], faults: Sequence[Fault]
) -> Iterator[Finding]:
    """Media below the root that no sample, and no other finding, is about."""
    if not root.is_dir():
        return
    known = {s.truth.media.path for s in samples} | {s.truth.artifacts.mask for s in samples} | {f.path for f in faults}
    known |= {str(path) for pattern in unused for path in root.glob(pattern)}
    loose = []
    for here, folders, names in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".")]
        paths = (os.path.join(here, name) for name in names if not name.startswith("."))
        loose += [path for path in paths if os.path.splitext(path)[1].lower() in EXTENSIONS and path not in known]
    if loose:
        yield Finding("unlisted", tuple(sorted(loose)), f"{len(loose)} files are here that are no part of the data set")


def _balance(samples: Sequence[Sample]) -> Iterator[Finding]:
    """Both classes are there in every split, neither of them rare."""
    counts: dict[str, Counter[bool]] = defaultdict(Counter)
    for sample in samples:
        counts[sample.split][sample.truth.forged] += 1
    for split, classes in sorted(counts.items()):
        forged, authentic = classes[True], classes[False]
        if min(forged, authentic) < RARE * (forged + authentic):
            where = f"the split {split!r} has" if split else "there are"
            words = f"{where} {forged} forged and {authentic} authentic"
            none = "false alarms" if not authentic else "detections" if not forged else ""
            absent = f"; {none} cannot be counted" if none else ""
            yield Finding("balance", (), words + absent)


def _shortcuts(shortcuts: Sequence[Shortcut]) -> Iterator[Finding]:
    for found in shortcuts:
        if found.accuracy >= LEAST and found.p * len(shortcuts) <= SIGNIFICANT:
            words = (
                f"the {found.fact} alone tells the label right for {found.accuracy:.0%} of the files (chance is 50 %,"
                f" p = {found.p:.3g}): a detector can learn this instead of the forgery"
            )
            yield Finding("shortcut", (), words)


FACTS: dict[str, Callable[[Header], Hashable | float | None]] = {
    "format": lambda h: h.format,
    "encoder": lambda h: h.encoder or "none",
    "quantisation table": lambda h: h.tables or "none",
    "chroma subsampling": lambda h: h.subsampling or "none",
    "resolution": lambda h: f"{h.width}x{h.height}" if h.width else None,
    "frame rate": lambda h: f"{h.fps:.2f}" if h.fps else "none",
    "sample rate": lambda h: h.rate or 0,
    "channels": lambda h: h.channels or 0,
    "file size": lambda h: float(h.bytes),
    "duration": lambda h: round(h.duration, 2) if h.duration else None,
    "bit rate": lambda h: _bits(h),
}  # floats are put into bins, everything else is a name


def _bits(header: Header) -> float | None:
    """Bits a second of a clip, bits a pixel of a picture."""
    per = header.duration if header.kind != "image" else (header.width or 0) * (header.height or 0)
    return 8 * header.bytes / per if per else None


def find_shortcuts(samples: Sequence[Sample], headers: Sequence[Header | None]) -> list[Shortcut]:
    """How well each of :data:`FACTS` alone tells the label.

    The rule is the simplest there is: a value that is commoner among forged files, of those seen so far, says forged.
    It is tried on whole groups that it has not seen. ``p`` is the share of permutations of the labels with which the
    same rule does as well. At most ITEMS files, of both classes alike as far as they go, are looked at.
    """
    there = [i for i, header in enumerate(headers) if header is not None]
    rng = np.random.default_rng(0)
    by_class = [[i for i in there if samples[i].truth.forged is label] for label in (False, True)]
    if min(map(len, by_class)) < 2:
        return []
    keep = sorted(int(i) for these in by_class for i in rng.permutation(these)[: ITEMS // 2])
    label = np.array([samples[i].truth.forged for i in keep])
    groups = np.unique([samples[i].group for i in keep], return_inverse=True)[1]
    many = int(groups.max()) + 1
    fold = (rng.permutation(many)[groups] if many >= FOLDS else np.arange(len(keep))) % FOLDS
    labels = np.stack([label, *(rng.permutation(label) for _ in range(DRAWS))])  # (1 + DRAWS, n)
    found = []
    for name, fact in FACTS.items():
        codes = _codes([fact(header) for i in keep if (header := headers[i]) is not None])
        if codes.max() == 0:
            continue
        accuracy = _rule(codes, labels, fold)
        p = float((accuracy >= accuracy[0] - 1e-9).mean())
        found.append(Shortcut(name, round(float(accuracy[0]), 4), round(p, 4), int(codes.max()) + 1))
    return sorted(found, key=lambda s: (-s.accuracy, s.fact))


def _codes(values: Sequence[Hashable | float | None]) -> npt.NDArray[np.int64]:
    """Names to numbers, the rarest together; floats to eight bins of as many files each."""
    numbers = [v for v in values if isinstance(v, float)]
    if numbers and len(set(numbers)) > 8:
        cuts = np.unique(np.quantile(numbers, np.arange(1, 8) / 8))
        return np.array([1 + np.searchsorted(cuts, v, "right") if isinstance(v, float) else 0 for v in values])
    rank = {value: place for place, (value, _) in enumerate(Counter(map(str, values)).most_common())}
    return np.array([min(rank[str(v)], VALUES - 1) for v in values])


def _rule(codes: npt.NDArray[np.int64], labels: npt.NDArray[np.bool_], fold: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
    """(m,) balanced accuracy of the rule for each row of labels (m, n), over all folds; a tie is half right."""
    hot = np.eye(int(codes.max()) + 1, dtype=np.float32)[codes]  # (n, values)
    right = np.zeros((len(labels), 2))  # of authentic and forged
    for k in range(FOLDS):
        inside, rest = fold == k, fold != k
        seen = labels[:, rest].astype(np.float32)
        forged, authentic = seen @ hot[rest], (1 - seen) @ hot[rest]  # (m, values)
        lead = np.sign(
            forged / np.maximum(seen.sum(1, keepdims=True), 1)
            - authentic / np.maximum((1 - seen).sum(1, keepdims=True), 1)
        )
        said = 0.5 + 0.5 * lead[:, codes[inside]]  # (m, files of this fold)
        truth = labels[:, inside]
        right[:, 1] += np.where(truth, said, 0).sum(1)
        right[:, 0] += np.where(truth, 0, 1 - said).sum(1)
    many = np.stack([(~labels).sum(1), labels.sum(1)], 1)
    return np.asarray((right / np.maximum(many, 1)).mean(1))


def _list(names: Iterable[str]) -> str:
    return ", ".join(name or "(none)" for name in sorted(names))
