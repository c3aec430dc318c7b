"""Faces in a sequence of pictures: found, followed, kept apart, and cut out as detectors of clips see them.

OpenCV's Haar cascades find faces (Viola and Jones 2001; frontal ones, profiles where those fail) on every few pictures;
between them boxes are smoothed and interpolated. The whole picture is searched once a second and after a scene cut,
otherwise only the surroundings of the faces that are known. A face whose cascades all fail is followed by its own
picture for a while. A scene cut ends every face but those that go on in the same place with the same colours, as they
do where a single shot was spliced.

Everything is deterministic, needs no weights but those inside OpenCV, and holds few pictures, however long the clip.
"""

from __future__ import annotations

import itertools
from collections import deque
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import cv2
import cv2.data
import numpy as np
import numpy.typing as npt

Picture = npt.NDArray[np.uint8]
Box = tuple[float, float, float]  # centre x, centre y, side; pixels of the picture

MARGIN = 1.4  # side of a crop by side of a face as the frontal cascade draws it (eyebrows to lower lip, ear to ear)
LOWER = 0.08  # the crop's centre lies lower than the face's by this part of the face's side, so that the chin is in
_AREA = 320 * 240  # pixels of the reduced picture that is searched
_LEAST = 22  # side of the smallest face in it
_FACE = 64  # side to which a known face is brought before it is searched again
_ROUND = 5  # looks from one search of the whole picture to the next
_STRONG = 8  # overlapping detections that make a face sure at once; others must be seen twice
_HOLD = 10  # looks that a face is followed without being found
_LIKE = 0.5  # correlation with its last picture by which a face is followed
_ABSENT = 10  # looks for which a lost face may return as the same
_MANY = 8  # faces followed at once
_SMOOTH = 2  # looks on either side that a box is smoothed over
_WEIGHTS = np.array([1.0, 3.0, 4.0, 3.0, 1.0])


class FaceWindow(NamedTuple):
    """One face over n ticks."""

    identity: int  # the same number in every window of a tracker, 0 for the face found first
    crops: Picture  # (n, S, S, 3) RGB, zeros where absent
    seen: npt.NDArray[np.bool_]  # (n,)
    boxes: npt.NDArray[np.float32]  # (n, 4) x0, y0, x1, y1 of the crop in pixels of the picture, nan where absent


class _Point(NamedTuple):
    """Where a face was at a look."""

    tick: int
    box: Box


@dataclass
class _Stretch:
    """A face without interruption: no cut, no absence."""

    points: list[_Point]
    end: int | None = None  # first tick after it; None: it goes on

    def box(self, tick: int, every: int) -> Box | None:
        """The smoothed box at a tick, between its looks; after the last one it stays for as long as none is due."""
        points = self.points
        last = points[-1].tick + every if self.end is None else self.end
        if not points[0].tick <= tick < last:
            return None
        after = next((i for i, point in enumerate(points) if point.tick >= tick), len(points) - 1)
        before = max(0, after - 1)
        a, b = self._smooth(before), self._smooth(after)
        span = points[after].tick - points[before].tick
        share = min(1.0, (tick - points[before].tick) / span) if span else 1.0
        x, y, side = (1 - share) * a + share * b
        return float(x), float(y), float(side)

    def _smooth(self, i: int) -> npt.NDArray[np.float64]:
        """The box (3,) of a look, averaged with as many looks before it as after, so that nothing lags behind."""
        reach = min(_SMOOTH, i, len(self.points) - 1 - i)
        boxes = np.array([point.box for point in self.points[i - reach : i + reach + 1]])
        weights = _WEIGHTS[_SMOOTH - reach : _SMOOTH + reach + 1]
        mean: npt.NDArray[np.float64] = weights @ boxes / weights.sum()
        return mean


@dataclass
class _Track:
    """A face with its history; what is cut out is dropped from it."""

    identity: int
    stretches: list[_Stretch]
    near: _Near  # at the last look
    colours: Picture  # (24, 24, 3) Lab, of the face and its surroundings, at the last look
    strong: bool
    looks: int = 1
    finds: int = 1
    followed: int = 0  # looks since it was found
    away: int = 0  # looks since it was there
    crops: dict[int, tuple[Picture, npt.NDArray[np.float32]]] = field(default_factory=dict)

    @property
    def last(self) -> Box:
        return self.stretches[-1].points[-1].box

    @property
    def live(self) -> bool:
        """Whether it is there, or may return."""
        return self.away <= _ABSENT

    @property
    def sure(self) -> bool:
        """Whether it is a face: found twice, or at its only look so far without doubt."""
        return self.finds >= 2 or (self.looks == 1 and self.strong and not self.away)

    def box(self, tick: int, every: int) -> Box | None:
        """The smoothed box at a tick, ``None`` where the face is absent."""
        return next((box for stretch in self.stretches if (box := stretch.box(tick, every))), None)

    def meets(self, box: Box, found: int, rgb: Picture, tick: int) -> bool:
        """Take a box as this face's, if it can be; one that was away must come back near by, in its colours."""
        colours = _colours(rgb, box)
        if self.away:
            x, y, side = self.last
            far = max(abs(box[0] - x), abs(box[1] - y)) > side or not 0.6 < box[2] / side < 1.6
            if far or not _same(colours, self.colours):
                return False
            self.stretches.append(_Stretch([]))
        self.stretches[-1].points.append(_Point(tick, box))
        self.near, self.colours, self.away = _Near(rgb, box), colours, 0
        self.looks += 1
        self.finds += found > 0
        self.followed = 0 if found else self.followed + 1
        return True

    def leave(self, tick: int) -> None:
        """It is not there from this tick on."""
        self.stretches[-1].end = tick
        self.away = 1

    def prune(self, done: int) -> None:
        """Drop what no tick from ``done`` on needs."""
        self.stretches = [s for s in self.stretches[:-1] if s.end is None or s.end > done] + self.stretches[-1:]
        del self.stretches[-1].points[: -2 * _SMOOTH - 4]


class FaceTracker:
    """Give it the picture of every tick; it gives the faces of any window of ticks that it was not told to forget."""

    def __init__(self, size: int = 96, every: int = 5) -> None:
        """Crops of ``size`` x ``size`` pixels; faces are looked for at every ``every``-th tick."""
        if size < 1 or every < 1:
            raise ValueError(f"size={size} and every={every}: both are at least 1")
        self.size, self.every = size, every
        names = ("frontalface_alt2", "frontalface_default", "profileface")
        self._cascades = [cv2.CascadeClassifier(f"{cv2.data.haarcascades}haarcascade_{name}.xml") for name in names]
        self._tracks: list[_Track] = []
        self._named = 0  # identities given
        self._ticks = 0  # pictures given
        self._done = 0  # ticks before this one are cut out
        self._held: deque[Picture] = deque()  # pictures of the ticks from _done on
        self._looks: deque[int] = deque(maxlen=_SMOOTH + 1)  # ticks of the last looks
        self._count = 0  # looks so far
        self._shape: tuple[int, ...] = ()
        self._thumb = np.zeros(0, np.float32)
        self._changes: deque[float] = deque(maxlen=4)  # grey levels, from picture to picture

    def add(self, rgb: Picture) -> None:
        """Take the picture of the next tick, (H, W, 3) uint8 RGB. It is kept for a few ticks: do not change it."""
        if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint8 or not rgb.size:
            raise ValueError(f"{rgb.dtype} of shape {rgb.shape} is not a picture; give (H, W, 3) uint8 RGB")
        tick, self._ticks = self._ticks, self._ticks + 1
        self._held.append(rgb)
        cut = self._is_cut(rgb)
        if cut or not self._looks or tick - self._looks[-1] >= self.every:
            self._look(rgb, tick, cut)
            self._looks.append(tick)
            if len(self._looks) > _SMOOTH:  # what comes later does not change the boxes before this look
                self._finish(self._looks[0])

    def window(self, start: int, stop: int) -> list[FaceWindow]:
        """Every face seen in ticks [start, stop), the one seen longest first; ticks not added yet are absent.

        It may be asked for at any time, also twice: the last ticks added are cut out with what is known so far.
        """
        found = []
        for track in self._tracks:
            crops = np.zeros((max(0, stop - start), self.size, self.size, 3), np.uint8)
            boxes = np.full((len(crops), 4), np.nan, np.float32)
            for tick in range(max(0, start), min(stop, self._ticks)):
                cut = track.crops.get(tick) if tick < self._done else self._cut_out(track, tick)
                if cut:
                    crops[tick - start], boxes[tick - start] = cut
            seen = ~np.isnan(boxes[:, 0])
            if seen.any():
                found.append(FaceWindow(track.identity, crops, seen, boxes))
        return sorted(found, key=lambda face: (-int(face.seen.sum()), face.identity))

    def forget(self, before: int) -> None:
        """Drop the crops of ticks before this one; they are absent from then on."""
        for track in self._tracks:
            for tick in [tick for tick in track.crops if tick < before]:
                del track.crops[tick]
        self._tidy()

    def _tidy(self) -> None:
        """Drop faces that are gone, if nothing of them can be asked for any more."""
        self._tracks = [
            track
            for track in self._tracks
            if track.live or track.crops or (track.sure and (track.stretches[-1].end or 0) > self._done)
        ]

    def _is_cut(self, rgb: Picture) -> bool:
        """Whether the picture is of another shot than the one before: unlike it, and not just by fast motion."""
        step = max(1, min(rgb.shape[:2]) // 96)
        thumb = cv2.resize(np.ascontiguousarray(rgb[::step, ::step, 1]), (32, 24), interpolation=cv2.INTER_AREA)
        before, self._thumb = self._thumb, thumb.astype(np.float32)
        shape, self._shape = self._shape, rgb.shape
        if shape != self._shape:
            self._changes.clear()
            return bool(shape)
        change = float(np.abs(self._thumb - before).mean())
        a, b = self._thumb - self._thumb.mean(), before - before.mean()
        alike = float((a * b).sum() / (np.sqrt((a * a).sum() * (b * b).sum()) + 1.0))
        cut = alike < 0.9 and change > 5 + 3 * max(self._changes, default=0.0)
        self._changes.append(0.0 if cut else change)
        return cut

    def _look(self, rgb: Picture, tick: int, cut: bool) -> None:
        """Find the known faces again, and new ones if it is time to."""
        for track in self._tracks:
            if not track.live:
                continue
            if cut and not track.away:
                track.leave(tick)
            box, found = self._again(_Near(rgb, track.last), track)
            if box and track.meets(box, found, rgb, tick):
                continue
            if track.away:
                track.away += 1
            else:
                track.leave(track.stretches[-1].points[-1].tick + 1)
        here: list[_Track] = []
        for track in self._tracks:
            if track.live and not track.away:
                if any(_meet(track.last, other.last) for other in here):  # two that came to one face: the older stays
                    track.leave(tick)
                    track.away = _ABSENT + 1
                else:
                    here.append(track)
        thorough = cut or self._count % _ROUND == 0
        self._count = 1 if cut else self._count + 1
        if thorough or not here:
            for box, found in self._search(rgb, thorough):
                if len(here) == _MANY or any(_meet(box, track.last) for track in here):
                    continue
                away = [track for track in self._tracks if track.live and track.away]
                back = next((track for track in away if track.meets(box, found, rgb, tick)), None)
                if back is None:
                    stretch = _Stretch([_Point(tick, box)])
                    back = _Track(self._named, [stretch], _Near(rgb, box), _colours(rgb, box), found >= _STRONG)
                    self._tracks.append(back)
                    self._named += 1
                here.append(back)
        self._tidy()

    def _again(self, near: _Near, track: _Track) -> tuple[Box | None, int]:
        """A known face near where it was, and by how many detections; 0 if it was only recognised by its picture."""
        x, y = near.centre
        for flip, cascade in ((False, 0), (False, 1), (False, 2), (True, 2)):
            boxes = _detect(self._cascades[cascade], near.grey, 1.1, 3, int(0.7 * _FACE), int(1.4 * _FACE), flip)
            boxes = [(box, found) for box, found in boxes if max(abs(box[0] - x), abs(box[1] - y)) < 0.5 * _FACE]
            if boxes:
                (u, v, side), found = min(boxes, key=lambda item: abs(item[0][0] - x) + abs(item[0][1] - y))
                return near.back((u, v, _FACE if cascade == 2 else side)), found  # a profile's box is another box
        return self._follow(track), 0

    def _follow(self, track: _Track) -> Box | None:
        """Where a face went since the last look, picture by picture; ``None`` if it cannot be followed."""
        if track.away or track.followed >= _HOLD:
            return None
        box, near = track.last, track.near
        for rgb in itertools.islice(self._held, track.stretches[-1].points[-1].tick + 1 - self._done, None):
            shift = near.shift(_Near(rgb, box))
            if shift is None:
                return None
            box = near.back((near.centre[0] + shift[0], near.centre[1] + shift[1], _FACE))
            near = _Near(rgb, box)
        return box

    def _search(self, rgb: Picture, thorough: bool) -> list[tuple[Box, int]]:
        """All faces of a picture, largest first; ``thorough`` looks for turned ones too where no other is found."""
        scale = min(1.0, (_AREA / (rgb.shape[0] * rgb.shape[1])) ** 0.5)
        grey, fx, fy = _grey(rgb, scale)
        boxes: list[tuple[Box, int]] = []
        for flip, cascade in ((False, 0), (False, 1), (False, 2), (True, 2))[: 4 if thorough else 1]:
            boxes = _detect(self._cascades[cascade], grey, 1.15, 4, _LEAST, max(grey.shape), flip)
            if boxes:
                break
        return sorted((((x / fx, y / fy, side / fx), found) for (x, y, side), found in boxes), key=lambda b: -b[0][2])

    def _finish(self, tick: int) -> None:
        """Cut faces out of the pictures before a tick, and let go of the pictures."""
        while self._done < tick:
            for track in self._tracks:
                if cut := self._cut_out(track, self._done):
                    track.crops[self._done] = cut
            self._held.popleft()
            self._done += 1
        for track in self._tracks:
            track.prune(self._done)

    def _cut_out(self, track: _Track, tick: int) -> tuple[Picture, npt.NDArray[np.float32]] | None:
        """The crop (S, S, 3) and its corners (4,) at a tick whose picture is held."""
        box = track.box(tick, self.every) if track.sure else None
        if box is None:
            return None
        rgb = self._held[tick - self._done]
        height, width = rgb.shape[:2]
        x, y, face = box
        side = min(MARGIN * face, float(height), float(width))
        x0 = min(max(x - side / 2, 0.0), width - side)  # a crop that would leave the picture is moved back into it
        y0 = min(max(y + LOWER * face - side / 2, 0.0), height - side)
        return _resized(rgb, x0, y0, side, self.size), np.array([x0, y0, x0 + side, y0 + side], np.float32)


class _Near:
    """The grey surroundings of a face, scaled so that the face has a side of ``_FACE``."""

    def __init__(self, rgb: Picture, box: Box) -> None:
        x, y, side = box
        height, width = rgb.shape[:2]
        reach = 1.1 * side
        self.left, self.top = max(0, min(int(x - reach), width - 1)), max(0, min(int(y - reach), height - 1))
        right, bottom = max(self.left + 1, int(x + reach) + 1), max(self.top + 1, int(y + reach) + 1)
        self.grey, self.fx, self.fy = _grey(rgb[self.top : bottom, self.left : right], _FACE / side)
        self.centre = ((x - self.left) * self.fx, (y - self.top) * self.fy)  # of the face, here

    def back(self, box: Box) -> Box:
        """A box in these surroundings as one in the picture."""
        return box[0] / self.fx + self.left, box[1] / self.fy + self.top, box[2] / self.fx

    def patch(self, x: float, y: float) -> Picture:
        """The grey picture (_FACE, _FACE) of a face here."""
        return cv2.getRectSubPix(self.grey, (_FACE, _FACE), (x, y))  # type: ignore[return-value]  # uint8 stays uint8

    def shift(self, later: _Near) -> tuple[float, float] | None:
        """How far the face moved until the same surroundings looked as in ``later``; ``None`` if it is not there.

        The median of the optical flow (Lucas and Kanade) of points in the face that can be followed there and back.
        """
        x, y = self.centre
        inside = np.zeros_like(self.grey)
        cv2.circle(inside, (round(x), round(y)), _FACE // 2, 255, -1)
        points = cv2.goodFeaturesToTrack(self.grey, 40, 0.01, 3, mask=inside)
        if points is None or self.grey.shape != later.grey.shape:
            return None
        start = np.asarray(points)
        there, found = _flow(self.grey, later.grey, start)
        back, again = _flow(later.grey, self.grey, there)
        kept = found & again & (np.abs(back - start).reshape(-1, 2).max(axis=1) < 2)
        if kept.sum() < 8:
            return None
        dx, dy = (float(step) for step in np.median((there - start).reshape(-1, 2)[kept], axis=0))
        before, after = self.patch(x, y), later.patch(x + dx, y + dy)
        likeness = float(cv2.matchTemplate(before, after, cv2.TM_CCOEFF_NORMED)[0, 0])
        return (dx, dy) if likeness > _LIKE else None


def _flow(before: Picture, after: Picture, start: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
    """Where points (n, 1, 2) go from a grey picture to the next, and which of them (n,) were found."""
    end, found, _ = cv2.calcOpticalFlowPyrLK(before, after, start, np.zeros_like(start))
    return np.asarray(end), np.asarray(found).ravel().astype(bool)


def _grey(rgb: Picture, scale: float) -> tuple[Picture, float, float]:
    """A picture reduced or enlarged to grey, and the very scales of its width and height."""
    height, width = rgb.shape[:2]
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    return cv2.cvtColor(small, cv2.COLOR_RGB2GRAY), size[0] / width, size[1] / height  # type: ignore[return-value]


def _detect(
    cascade: cv2.CascadeClassifier, grey: Picture, step: float, least: int, low: int, high: int, flip: bool
) -> list[tuple[Box, int]]:
    """Faces of ``low`` to ``high`` pixels with the number of overlapping detections, ``least`` or more."""
    if min(grey.shape) < low:
        return []
    picture = np.ascontiguousarray(grey[:, ::-1]) if flip else grey
    found, counts = cascade.detectMultiScale2(picture, step, least, minSize=(low, low), maxSize=(high, high))
    boxes = []
    for (left, top, width, height), count in zip(found, counts, strict=True):
        x = left + width / 2
        boxes.append(((float(grey.shape[1] - x if flip else x), float(top + height / 2), float(width)), int(count)))
    return sorted(boxes)  # found by several threads, in no order


def _meet(a: Box, b: Box) -> bool:
    """Whether two boxes are of one face: the centre of one lies in the other."""
    return max(abs(a[0] - b[0]), abs(a[1] - b[1])) < max(a[2], b[2]) / 2


def _colours(rgb: Picture, box: Box) -> Picture:
    """A face and its surroundings as 24 x 24 points in Lab."""
    x, y, side = box
    reach = 0.75 * side
    part = rgb[max(0, int(y - reach)) : int(y + reach) + 1, max(0, int(x - reach)) : int(x + reach) + 1]
    small = cv2.resize(part, (24, 24), interpolation=cv2.INTER_AREA)
    return cv2.cvtColor(small, cv2.COLOR_RGB2LAB)  # type: ignore[return-value]


def _same(a: Picture, b: Picture) -> bool:
    """Whether two sets of colours may be of one person in one place (measured on talkers and performers)."""
    counts = [cv2.calcHist([colours], [0, 1, 2], None, [8, 16, 16], [0, 256] * 3) for colours in (a, b)]
    shared = float(np.minimum(*counts).sum()) / (24 * 24)
    coarse = [cv2.blur(colours, (6, 6)).astype(np.float32) for colours in (a, b)]
    return shared > 0.65 and float(np.abs(coarse[0] - coarse[1]).mean()) < 12


def _resized(rgb: Picture, x0: float, y0: float, side: float, size: int) -> Picture:
    """The square at (x0, y0) to ``size`` x ``size``, to a fraction of a pixel: averaged, then interpolated."""
    height, width = rgb.shape[:2]
    step = max(1, int(side / size))  # each point of the picture in between is the mean of step x step pixels
    left, top = max(0, int(x0) - step), max(0, int(y0) - step)
    across = min(int(np.ceil((x0 + side - left) / step)) + 1, (width - left) // step)
    down = min(int(np.ceil((y0 + side - top) / step)) + 1, (height - top) // step)
    part = rgb[top : top + down * step, left : left + across * step]
    if step > 1:
        part = cv2.resize(part, (across, down), interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
    zoom = side / size / step
    # Point i of the crop is the pixel centre x0 + (i + 1/2) side / size, in the coordinates of the reduced part.
    shift = [(begin - offset) / step + zoom / 2 - 0.5 for begin, offset in ((x0, left), (y0, top))]
    matrix = np.array([[zoom, 0, shift[0]], [0, zoom, shift[1]]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(part, matrix, (size, size), flags=flags, borderMode=cv2.BORDER_REPLICATE)  # type: ignore[return-value]
