"""Small copies of the data sets that adapters read: right names, folders, metadata and codecs, and media of our own.

A miniature lets a pipeline be tried before the real set, which is large and often behind a form, has arrived. Photos
are textures with shapes, clips the shipped talker before a textured wall, with a synthetic voice; forgeries are made by
the forgers of this package, so that every truth is exact. The same seed gives the same files.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image as PILImage

from ..errors import DataError
from .audio_visual import FPS, STEP, Donors, Footage, Frames, Pixels, forge_frames, forge_sound
from .clip_file import ClipChain, encode, read_footage
from .image import forge_photo
from .speech import RATE, Sound, level
from .talker import PHONES, say

TALKER = Path(__file__).parents[1] / "samples" / "talker-synthetic.mp4"
HEIGHT, WIDTH = 96, 128  # pixels of a photo
SIDE, TICKS = 96, 32  # of a film: pixels, and pictures
SPAN = (8, 24)  # pictures between which a clip is forged, if it is not as a whole
SPANS = [[SPAN[0] / FPS, SPAN[1] / FPS]]  # the same in seconds
VOWELS = tuple(name for name, phone in PHONES.items() if phone.voice == 1.0)
CONSONANTS = ("m", "n", "l", "r", "ng")


def miniature(name: str, out: str | Path, seed: int = 0) -> Path:
    """Write the miniature of a data set; returns ``out``.

    Args:
        name: a key of :data:`MINIATURES`.
        out: the folder; made if missing.
        seed: of every choice.

    Raises:
        DataError: there is no such miniature, or the folder holds something.
    """
    out = Path(out)
    if name not in MINIATURES:
        raise DataError(f"unknown miniature {name!r}; known: {', '.join(MINIATURES)}")
    if out.exists() and any(out.iterdir()):
        raise DataError(f"{out}: is not empty; choose another folder")
    MINIATURES[name](_Maker(out, seed))
    return out


class _Maker:
    """Makes media, and writes them below one folder."""

    def __init__(self, out: Path, seed: int) -> None:
        self.out, self.rng = out, np.random.default_rng([seed, 77])

    # ------------------------------------------------------------------------------------------------- in memory

    def texture(self, height: int = HEIGHT, width: int = WIDTH) -> Pixels:
        """Noise of several scales, shapes, grain."""
        rng = self.rng
        picture = np.zeros((height, width, 3))
        for cells in (3, 6, 13, 29):
            noise = rng.normal(0, 1, (cells, cells, 3))
            noise = 0.35 * noise + 0.65 * noise.mean(-1, keepdims=True)
            picture += cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC) * (34 / cells**0.35)
        canvas = np.clip(picture + rng.uniform(90, 160, 3), 0, 255).astype(np.uint8)
        for _ in range(6):
            centre = (int(rng.integers(width)), int(rng.integers(height)))
            colour = [int(value) for value in rng.integers(20, 235, 3)]
            cv2.circle(canvas, centre, int(rng.integers(4, height // 5)), colour, -1, cv2.LINE_AA)
        grain = rng.normal(0, 3, canvas.shape)
        return np.clip(np.rint(canvas + grain), 0, 255).astype(np.uint8)

    def forge(self, photo: Pixels, kind: str = "splice") -> tuple[Pixels, npt.NDArray[np.uint8]]:
        """A forged copy and its mask, 255 where it is forged; at least a fiftieth and at most a half of it."""
        for _ in range(50):
            forgery = forge_photo(kind, photo, self.rng, donor=self.texture())
            mask = (forgery.weight >= 0.5).astype(np.uint8) * 255
            if 0.02 <= (mask > 0).mean() <= 0.5:
                return forgery.pixels, mask
        raise DataError(f"no {kind} of a fit size was drawn")

    def voice(self, ticks: int = TICKS) -> Sound:
        """Somebody says syllables that mean nothing, for so many pictures."""
        rng, words = self.rng, ["_"]
        pitch, tract = float(rng.uniform(95, 230)), float(rng.uniform(0.92, 1.15))
        while 0.85 * sum(PHONES[word].seconds for word in words) < ticks / FPS:  # a sound may be said a tenth faster
            words += [str(rng.choice(CONSONANTS)), str(rng.choice(VOWELS))]
        sound, _ = say(words, rng, pitch=pitch, tract=tract)
        return sound[: ticks * STEP]

    def person(self, sound: bool = True) -> Footage:
        """The talker, from another side and before another wall; the voice is not theirs."""
        rng, (frames, _) = self.rng, _talker()
        first = int(rng.integers(len(frames) - TICKS))
        side = int(rng.integers(250, 330))
        left, top = int(rng.integers(max(1, 171 - side + 90), min(80, 352 - side) + 1)), int(rng.integers(0, 23))
        corners = np.array([171 - 62, 150 - 70, 171 + 62, 150 + 58])  # of the talker's face, pixels
        box = (corners - [left, top, left, top]) * SIDE / side
        wall = self.texture(SIDE, SIDE)
        yy, xx = np.mgrid[:SIDE, :SIDE].astype(np.float32)
        scale = SIDE / side
        away = np.hypot((xx - (171 - left) * scale) / (88 * scale), (yy - (165 - top) * scale) / (125 * scale))
        front = np.clip((1.15 - away) / 0.15, 0, 1)[..., None]
        light = rng.uniform(0.8, 1.15, 3)
        shown = np.empty((TICKS, SIDE, SIDE, 3), np.uint8)
        for k in range(TICKS):
            part = frames[first + k, top : top + side, left : left + side]
            face = cv2.resize(part, (SIDE, SIDE), interpolation=cv2.INTER_AREA) * light
            shown[k] = np.clip(np.rint(front * face + (1 - front) * wall), 0, 255)
        if rng.random() < 0.5:
            shown, box = np.ascontiguousarray(shown[:, :, ::-1]), box[[2, 1, 0, 3]]
            box[[0, 2]] = SIDE - box[[0, 2]]
        return Footage(shown, self.voice() if sound else None, np.repeat(box[None].astype(np.float32), TICKS, 0))

    def forge_person(self, person: Footage, kind: str, span: tuple[int, int] = SPAN) -> Footage:
        """The same with pictures, sound or both forged in a span of pictures; ``kind``: video, audio, audio_visual."""
        frames, sound = person.frames, person.sound
        if kind in ("video", "audio_visual"):
            frames = self.forge_pictures(person, span)
        if kind in ("audio", "audio_visual") and sound is not None:
            sound = self.forge_voice(sound, span)
        return Footage(frames, sound, person.boxes)

    def forge_pictures(self, person: Footage, span: tuple[int, int]) -> Frames:
        """A face blended with a changed copy of itself in every picture of the span."""
        for _ in range(50):
            frames = forge_frames("reblend", person, [span], self.rng, Donors(), "plain")
            if frames is not None:
                return frames
        raise DataError("no reblend changed these pictures")

    def forge_voice(self, sound: Sound, span: tuple[int, int]) -> Sound:
        """Another voice laid over the span."""
        for _ in range(50):
            donor = self.voice(max(TICKS, span[1] - span[0]) + 20)
            start, stop = span[0] * STEP, span[1] * STEP
            new = forge_sound("voice_splice", sound, [(start, stop)], self.rng, Donors(voice=donor), "plain")
            if new is not None and level(new[start:stop] - sound[start:stop]) > 0:
                return new
        raise DataError("no other voice changed this sound")

    # ---------------------------------------------------------------------------------------------------- on disk

    def path(self, name: str) -> Path:
        path = self.out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def picture(self, name: str, pixels: npt.NDArray[np.uint8]) -> None:
        """A picture in the format of its ending; a JPEG of a drawn quality."""
        buffer = io.BytesIO()
        kind = {".jpg": "JPEG", ".tif": "TIFF"}.get(Path(name).suffix, "PNG")
        options = {"quality": int(self.rng.integers(88, 97))} if kind == "JPEG" else {}
        PILImage.fromarray(pixels).save(buffer, kind, **options)
        self.path(name).write_bytes(buffer.getvalue())

    def clip(self, name: str, footage: Footage, crf: int = 18) -> None:
        """A film (H.264, and AAC at 16 kHz if it has sound) or a sound, in the format of its ending."""
        ending = Path(name).suffix
        codec = {".wav": "pcm_s16le", ".flac": "flac"}.get(ending, "aac")
        chain = ClipChain(crf=crf, ending=ending, audio_codec=codec, rate=RATE, preset="ultrafast")
        self.path(name).write_bytes(encode(footage, chain))

    def text(self, name: str, text: str) -> None:
        self.path(name).write_text(text, "utf-8")

    def json(self, name: str, value: Any) -> None:
        self.text(name, json.dumps(value, indent=1))

    def pairs(self, real: Sequence[str], fake: Sequence[tuple[str, str]], kind: str = "splice") -> None:
        """Authentic pictures, and forged ones with masks, each of a texture of its own."""
        for name in real:
            self.picture(name, self.texture())
        for name, mask_name in fake:
            pixels, mask = self.forge(self.texture(), kind)
            self.picture(name, pixels)
            self.picture(mask_name, mask)


@lru_cache(maxsize=1)
def _talker() -> tuple[Frames, Sound | None]:
    footage = read_footage(str(TALKER), TALKER.name)
    if footage.frames is None:
        raise DataError(f"{TALKER}: holds no pictures; install seamline again")
    return footage.frames, footage.sound


def _numbers(count: int, first: int = 1) -> list[str]:
    return [f"{number:06d}" for number in range(first, first + count)]


# ------------------------------------------------------------------------------------------------------------ photos


def _plain(make: _Maker, part: str = "", first: int = 1) -> None:
    real, fake = _numbers(3, first), _numbers(3, first + 500)
    make.pairs([f"{part}real/{n}.png" for n in real], [(f"{part}fake/{n}.png", f"{part}masks/{n}.png") for n in fake])


def _ddl_i(make: _Maker) -> None:
    _plain(make, "train/")
    _plain(make, "valid/", 100)


def _casia_v1(make: _Maker) -> None:
    animals = ("ani", "cha", "nat")
    names = [f"Sp_D_CRN_A_{kind}{i:04d}_{kind}{i + 5:04d}_{i:04d}" for i, kind in enumerate(animals, 61)]
    make.pairs(
        [f"Au/Au_{kind}_{i:04d}.jpg" for i, kind in enumerate(animals, 1)],
        [(f"Sp/{name}.jpg", f"groundtruth/{name}_gt.png") for name in names],
    )


def _casia_v2(make: _Maker) -> None:
    make.pairs([f"Au/Au_ani_{i:05d}.jpg" for i in (1, 2, 3)], ())
    for kind, letter, number in (("splice", "D", 101), ("copy_move", "S", 102), ("splice", "D", 103)):
        name = f"Tp_{letter}_NRN_S_N_ani{number:05d}_sec{number + 9:05d}_{number:05d}"
        make.pairs((), [(f"Tp/{name}.jpg", f"groundtruth/{name}_gt.png")], kind)


def _columbia(make: _Maker) -> None:
    cameras = ("canong3", "nikond70", "canonxt", "kodakdcs330")
    for i, camera in enumerate(cameras[:3]):
        make.picture(f"4cam_auth/{camera}_0{i}_sub_01.tif", make.texture())
    for i in range(3):
        name = f"{cameras[i]}_{cameras[i + 1]}_sub_0{i + 1}"
        pixels, mask = make.forge(make.texture())
        seam = cv2.morphologyEx(mask, cv2.MORPH_GRADIENT, np.ones((5, 5), np.uint8)) > 0
        strong = np.where(seam, 255, 200).astype(np.uint8)
        colours = np.zeros((*mask.shape, 3), np.uint8)
        colours[..., 1] = np.where(mask > 0, strong, 0)  # green: the other camera's
        colours[..., 0] = np.where(mask > 0, 0, strong)
        make.picture(f"4cam_splc/{name}.tif", pixels)
        make.picture(f"4cam_splc/edgemask/{name}_edgemask.jpg", colours)


def _coverage(make: _Maker) -> None:
    for number in range(1, 5):
        photo = make.texture()
        pixels, mask = make.forge(photo, "copy_move")
        make.picture(f"image/{number}.tif", photo)
        make.picture(f"image/{number}t.tif", pixels)
        for what in ("forged", "copy", "paste"):
            make.picture(f"mask/{number}{what}.tif", mask)


def _nist16(make: _Maker) -> None:
    columns = ["TaskID", "ProbeFileID", "ProbeFileName", "ProbeMaskFileName", "BaseFileName", "IsTarget"]
    for number, (operation, kind) in enumerate(
        [("manipulation", "splice"), ("manipulation", "retouch"), ("removal", "removal"), ("splice", "splice")], 1
    ):
        photo = make.texture()
        pixels, mask = make.forge(photo, kind)
        probe, base = f"NC2016_{number:04d}", f"NC2016_{number + 5000:04d}"
        listed = f"reference/{operation}/mask/{probe}_gt.png"
        make.picture(f"world/{base}.jpg", photo)
        make.picture(f"probe/{probe}.jpg", pixels)
        make.picture(listed, 255 - mask)
        table = make.path(f"reference/{operation}/NC2016-{operation}-ref.csv")
        old = table.read_text("utf-8") if table.is_file() else "|".join(columns) + "\n"
        row = [operation, probe, f"probe/{probe}.jpg", listed, f"world/{base}.jpg", "Y"]
        table.write_text(f"{old}{'|'.join(row)}\n", "utf-8")


def _imd2020(make: _Maker) -> None:
    for case in ("1a2b3c", "4d5e6f", "7g8h9i"):
        photo = make.texture()
        pixels, mask = make.forge(photo)
        make.picture(f"{case}/{case}_orig.jpg", photo)
        make.picture(f"{case}/c8x{case}_0.jpg", pixels)
        make.picture(f"{case}/c8x{case}_0_mask.png", mask)


def _dso1(make: _Maker) -> None:
    make.pairs([f"DSO-1/normal-{i:02d}.png" for i in (1, 2, 3)], ())
    for i in (1, 2, 3):
        pixels, mask = make.forge(make.texture())
        make.picture(f"DSO-1/splicing-{i:02d}.png", pixels)
        make.picture(f"DSO-1-Fake-Images-Masks/splicing-{i:02d}.png", 255 - mask)


def _openforensics(make: _Maker) -> None:
    for split, first in (("Train", 1), ("Val", 50)):
        images, annotations = [], []
        for number in range(first, first + 4):
            photo, name = make.texture(), f"{number:010x}"
            fake = number % 2
            if fake:
                photo, mask = make.forge(photo)
                outlines, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
                shapes = [outline.ravel().tolist() for outline in outlines if len(outline) > 2]
            else:
                shapes = [[40, 30, 80, 30, 80, 70, 40, 70]]
            make.picture(f"Images/{split}/{name}.jpg", photo)
            facts = {"file_name": f"Images/{split}/{name}.jpg", "width": WIDTH, "height": HEIGHT}
            images.append({"id": number} | facts)
            annotations.append({"id": number, "image_id": number, "category_id": fake, "segmentation": shapes})
        categories = [{"id": 0, "name": "Real"}, {"id": 1, "name": "Fake"}]
        make.json(f"{split}_poly.json", {"images": images, "annotations": annotations, "categories": categories})


def _benco_folder(make: _Maker) -> None:
    make.pairs([f"Au/{n}.jpg" for n in _numbers(3)], [(f"Tp/{n}.jpg", f"Gt/{n}.png") for n in _numbers(3, 10)])


def _benco_json(make: _Maker) -> None:
    real, fake = [f"images/{n}.jpg" for n in _numbers(3)], _numbers(3, 10)
    pairs = [(f"images/{n}.jpg", f"masks/{n}.png") for n in fake]
    make.pairs(real, pairs)
    make.json("train.json", [*([name, "Negative"] for name in real), *(list(pair) for pair in pairs)])


def _manifest(make: _Maker) -> None:
    rows = [["path", "label", "mask", "kind", "group", "split"]]
    for i in range(8):
        name, photo = f"photos/{i}.jpg", make.texture()
        row = [name, "authentic", "", "", f"camera {i // 2}", "train" if i < 4 else "test"]
        if i % 2:
            photo, mask = make.forge(photo)
            make.picture(f"masks/{i}.png", mask)
            row[1:4] = ["forged", f"masks/{i}.png", "splice"]
        make.picture(name, photo)
        rows.append(row)
    with make.path("manifest.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)


# ------------------------------------------------------------------------------------------------------------- clips


def _ddl_av(make: _Maker) -> None:
    folders = {"fake_audio_fake_visual": "audio_visual", "fake_audio_real_visual": "audio"}
    folders["real_audio_fake_visual"] = "video"
    for n in _numbers(3):
        make.clip(f"train/real/{n}.mp4", make.person())
    for number, (folder, kind) in enumerate(folders.items(), 501):
        name = f"train/fake/{folder}/{number:06d}"
        make.clip(f"{name}.mp4", make.forge_person(make.person(), kind))
        facts: dict[str, Any] = {"file": f"{number:06d}.mp4"}
        facts |= {"visual_fake_segments": SPANS if kind != "audio" else []}
        facts |= {"audio_fake_segments": SPANS if kind != "video" else []}
        make.json(f"{name}.json", facts)


def _lavdf(make: _Maker) -> None:
    rows = []
    kinds = {
        "train": ("authentic", "audio_visual", "video"),
        "dev": ("authentic", "audio"),
        "test": ("authentic", "video"),
    }
    for number, (split, kind) in enumerate(((s, k) for s, these in kinds.items() for k in these), 1):
        name, person = f"{split}/{number:06d}.mp4", make.person()
        if kind != "authentic":
            person = make.forge_person(person, kind)
        make.clip(name, person)
        periods = SPANS if kind != "authentic" else []
        rows.append(
            {
                "file": name,
                "n_fakes": len(periods),
                "fake_periods": periods,
                "duration": TICKS / FPS,
                "original": None,
                "modify_video": kind in ("video", "audio_visual"),
                "modify_audio": kind in ("audio", "audio_visual"),
                "split": split,
                "video_frames": TICKS,
                "audio_channels": 1,
                "audio_frames": TICKS * STEP,
            }
        )
    make.json("metadata.json", rows)


def _avdeepfake1m(make: _Maker, beside: bool = False) -> None:
    kinds = {"real": "authentic", "visual_modified": "video", "audio_modified": "audio"}
    kinds["both-modified" if beside else "both_modified"] = "audio_visual"
    for split, first in (("train", 12), ("val", 40)):
        rows = []
        for number, (modified, kind) in enumerate(kinds.items(), first):
            folder = f"id{number:05d}/7w0IBEWc9Qw/00001"
            name = f"{folder}/{'real' if kind == 'authentic' else f'fake_{kind}'}.mp4"
            person = make.person()
            make.clip(f"{split}/{name}", person if kind == "authentic" else make.forge_person(person, kind))
            visual, audio = (SPANS if kind in (what, "audio_visual") else [] for what in ("video", "audio"))
            row: dict[str, Any] = {"file": name, "original": None if kind == "authentic" else f"{folder}/real.mp4"}
            row |= {"split": split, "modify_type": modified, "audio_model": "yourtts" if audio else ""}
            row |= {"fake_segments": visual or audio, "audio_fake_segments": audio, "visual_fake_segments": visual}
            row |= {"video_frames": TICKS, "audio_frames": TICKS * STEP}
            if beside:
                row |= {"video_model": "talklip" if visual else ""}
                make.json(f"{split}/{name.removesuffix('.mp4')}.json", row)
            rows.append(row)
        if not beside:
            make.json(f"{split}_metadata.json", rows)


def _avdeepfake1m_plus(make: _Maker) -> None:
    _avdeepfake1m(make, beside=True)


def _faceforensics(make: _Maker) -> None:
    for method, split, pair in (("Deepfakes", "train", ("000", "003")), ("Face2Face", "test", ("953", "974"))):
        make.json(f"splits/{split}.json", [list(pair)])
        for target, source in (pair, pair[::-1]):
            make.clip(f"original_sequences/youtube/c23/videos/{target}.mp4", make.person(sound=False))
            person = make.person(sound=False)
            forged = make.forge_person(person, "video", (0, TICKS))
            make.clip(f"manipulated_sequences/{method}/c23/videos/{target}_{source}.mp4", forged)
            if person.frames is not None and forged.frames is not None:
                change = np.abs(forged.frames.astype(np.int16) - person.frames).max(-1) > 2
                mask = np.repeat((change * 255).astype(np.uint8)[..., None], 3, -1)
                make.clip(f"manipulated_sequences/{method}/masks/videos/{target}_{source}.mp4", Footage(mask, None))


def _celebdf(make: _Maker) -> None:
    lines = []
    for person, test in ((0, False), (1, False), (2, True), (3, True)):
        real, fake = f"Celeb-real/id{person}_0000.mp4", f"Celeb-synthesis/id{person}_id{person + 4}_0000.mp4"
        make.clip(real, make.person(sound=False))
        make.clip(fake, make.forge_person(make.person(sound=False), "video", (0, TICKS)))
        lines += [f"1 {real}", f"0 {fake}"] if test else []
    make.clip("YouTube-real/00170.mp4", make.person(sound=False))
    make.text("List_of_testing_videos.txt", "\n".join([*lines, "1 YouTube-real/00170.mp4"]) + "\n")


def _fakeavceleb(make: _Maker) -> None:
    kinds = {"RealVideo-FakeAudio": "audio", "FakeVideo-RealAudio": "video", "FakeVideo-FakeAudio": "audio_visual"}
    for i in (76, 166, 173):
        make.clip(f"RealVideo-RealAudio/African/men/id{i:05d}/00109.mp4", make.person())
    for i, (folder, kind) in zip((76, 166, 173), kinds.items(), strict=True):
        forged = make.forge_person(make.person(), kind, (0, TICKS))
        make.clip(f"{folder}/African/men/id{i:05d}/00109_fake.mp4", forged)


def _ummaformer(make: _Maker, splits: Sequence[str], film: bool) -> None:
    table: dict[str, Any] = {}
    for number, (split, fake) in enumerate(((s, f) for s in splits for f in (False, True, False, True)), 1):
        person = make.person() if film else Footage(None, make.voice())
        if fake:
            person = make.forge_person(person, "video" if film else "audio")
        name = f"{number:05d}"
        make.clip(f"{split}/{name}{'.mp4' if film else '.wav'}", person)
        row: dict[str, Any] = {"file": f"{split}/{name}{'.mp4' if film else '.wav'}", "split": split}
        row |= {"duration": TICKS / FPS, "fake_periods": SPANS if fake else []}
        row |= {"video_frames": TICKS} if film else {"audio_frames": TICKS * STEP, "feature_frames": TICKS // 2}
        table[name] = row
        for kind in ("tsn/rgb", "tsn/flow") if film else ("byola",):
            features = make.rng.normal(0, 1, (TICKS if film else TICKS // 2, 2048)).astype(np.float16)
            np.save(make.path(f"feats/{kind}/{split}/{name}.npy"), features)
    make.json("tvil.json" if film else "psynd.json", table)


def _tvil(make: _Maker) -> None:
    _ummaformer(make, ("train", "test"), film=True)


def _psynd(make: _Maker) -> None:
    _ummaformer(make, ("train", "test_cellular", "test_landline"), film=False)


def _utterance(make: _Maker, name: str, spans: Sequence[tuple[int, int]]) -> None:
    sound = make.voice()
    for span in spans:
        sound = make.forge_voice(sound, span)
    make.clip(name, Footage(None, sound))


def _asvspoof2019(make: _Maker) -> None:
    for split, letter, first in (("train", "T", 79), ("dev", "D", 69), ("eval", "E", 39)):
        lines = []
        for i in range(4):
            name, fake = f"LA_{letter}_{1000137 + 977 * (first + i)}", i % 2
            _utterance(make, f"ASVspoof2019_LA_{split}/flac/{name}.flac", [(0, TICKS)] * fake)
            lines.append(f"LA_{first + i // 2:04d} {name} - {'A01 spoof' if fake else '- bonafide'}")
        ending = "trn" if split == "train" else "trl"
        make.text(f"ASVspoof2019_LA_cm_protocols/ASVspoof2019.LA.cm.{split}.{ending}.txt", "\n".join(lines) + "\n")


def _asvspoof5(make: _Maker) -> None:
    for split, folder, letter in (("train", "flac_T", "T"), ("dev", "flac_D", "D"), ("eval", "flac_E_eval", "E")):
        lines = []
        for i in range(4):
            name, fake = f"{letter}_{i:010d}", i % 2
            _utterance(make, f"{folder}/{name}.flac", [(0, TICKS)] * fake)
            lines.append(
                f"{letter}_{4850 + i // 2} {name} F - - - {'AC1 A05 spoof' if fake else 'bonafide bonafide bonafide'} -"
            )
        track = "" if split == "train" else ".track_1"
        make.text(f"ASVspoof5_protocols/ASVspoof5.{split}{track}.tsv", "\n".join(lines) + "\n")


def _partialspoof(make: _Maker) -> None:
    for split, letter, first in (("train", "T", 79), ("dev", "D", 69)):
        lines, labels = [], {}
        for i in range(4):
            fake = i % 2
            name = f"CON_{letter}_{i:07d}" if fake else f"LA_{letter}_{1000137 + i}"
            _utterance(make, f"{split}/con_wav/{name}.wav", [SPAN] * fake)
            lines.append(f"LA_{first + i // 2:04d} {name} - {'CON spoof' if fake else '- bonafide'}")
            own = np.array(["1"] * (TICKS // 4))
            own[SPAN[0] // 4 : SPAN[1] // 4] = "0" if fake else "1"
            labels[name] = own
        np.save(make.path(f"segment_labels/{split}_seglab_0.16.npy"), np.array(labels, dtype=object))
        name = f"protocols/PartialSpoof_LA_cm_protocols/PartialSpoof.LA.cm.{split}.trl.txt"
        make.text(name, "\n".join(lines) + "\n")


MINIATURES: dict[str, Callable[[_Maker], None]] = {
    "plain": _plain,
    "manifest": _manifest,
    "ddl-i": _ddl_i,
    "casia-v1": _casia_v1,
    "casia-v2": _casia_v2,
    "columbia": _columbia,
    "coverage": _coverage,
    "nist16": _nist16,
    "imd2020": _imd2020,
    "dso-1": _dso1,
    "openforensics": _openforensics,
    "imdl-benco": _benco_folder,
    "imdl-benco-json": _benco_json,
    "ddl-av": _ddl_av,
    "lav-df": _lavdf,
    "av-deepfake1m": _avdeepfake1m,
    "av-deepfake1m++": _avdeepfake1m_plus,
    "faceforensics": _faceforensics,
    "celeb-df": _celebdf,
    "fakeavceleb": _fakeavceleb,
    "tvil": _tvil,
    "psynd": _psynd,
    "asvspoof2019": _asvspoof2019,
    "asvspoof5": _asvspoof5,
    "partialspoof": _partialspoof,
}  # by the data set that it is a copy of
