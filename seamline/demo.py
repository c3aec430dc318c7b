"""``python -m seamline.demo``: make forgeries of public-domain photographs and scan them, with two talking clips.

The photographs ship inside scikit-image: the astronaut (NASA, public domain), the rocket (SpaceX, public domain), the
cat and the coffee (CC0 by their photographers). Authentic and forged samples go the same way, from a camera's JPEG to
an editor's PNG, so that nothing but the forgery tells them apart. The name of a sample says what it is. One small
blend is among them that the shipped weights miss. The clips ship with the package (``samples/README.md``): the
astronaut made to talk by ``synthesis/talker.py``, synthetic from end to end, once as made and once with words replaced.
"""

from __future__ import annotations

import argparse
import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from .errors import DataError, SeamlineError
from .synthesis.image import find_face, forge_photo, jpeg

Pixels = npt.NDArray[np.uint8]

PHOTOS = {"astronaut": "astronaut.png", "rocket": "rocket.jpg", "cat": "chelsea.png", "coffee": "coffee.png"}
SAMPLES: tuple[tuple[str, str | None, int], ...] = (  # photo, kind of forgery, seed
    ("astronaut", None, 0),
    ("astronaut", "face_blend", 8),
    ("astronaut", "splice", 9),
    ("cat", None, 0),
    ("cat", "retouch", 8),
    ("coffee", None, 0),
    ("coffee", "removal", 8),
    ("coffee", "regenerate", 4),
    ("rocket", None, 0),
    ("rocket", "copy_move", 9),
)
CLIPS = ("talker-synthetic.mp4", "talker-forged.mp4")  # in the package's folder samples/
DONOR = "cat"  # what is spliced into the others
CAMERA = 90  # JPEG quality of the photographs before they are edited


def photos() -> dict[str, Pixels]:
    """The photographs, (H, W, 3) uint8 RGB, by name.

    Raises:
        DataError: scikit-image, which ships them, is not installed.
    """
    found = importlib.util.find_spec("skimage")
    if found is None or found.origin is None:
        raise DataError("the demo needs the photographs of scikit-image: pip install 'seamline[demo]'")
    pixels = {}
    for name, file in PHOTOS.items():
        with Image.open(Path(found.origin).with_name("data") / file) as picture:
            pixels[name] = np.asarray(picture.convert("RGB"))
    return pixels


def make_samples(out: Path) -> Path:
    """Write the samples to ``out/samples``, their true masks and spans to ``out/truth``; returns the former."""
    samples, truth = out / "samples", out / "truth"
    samples.mkdir(parents=True, exist_ok=True)
    truth.mkdir(exist_ok=True)
    originals = {name: jpeg(pixels, CAMERA) for name, pixels in photos().items()}
    for name, kind, seed in SAMPLES:
        photo, stem = originals[name], f"{name}-{kind or 'authentic'}"
        if kind is not None:
            donor = originals[DONOR] if kind == "splice" else None
            face = find_face(photo) if kind == "face_blend" else None
            photo, weight, _ = forge_photo(kind, photo, np.random.default_rng(seed), donor=donor, face=face)
            Image.fromarray(np.rint(weight * 255).astype(np.uint8)).save(truth / f"{stem}.png")
        Image.fromarray(photo).save(samples / f"{stem}.png")
    for name in CLIPS:
        shutil.copyfile(Path(__file__).with_name("samples") / name, samples / name)
    shutil.copyfile(Path(__file__).with_name("samples") / "talker-truth.json", truth / "talker-truth.json")
    return samples


def main() -> int:
    """Make the samples, scan them as a user would, say where to look; the exit code of the scan."""
    words = argparse.ArgumentParser(prog="python -m seamline.demo", description="Forge sample photos and scan them.")
    words.add_argument("--out", type=Path, default=Path("demo"), help="folder for samples and pictures")
    words.add_argument("--model", default="default", help="catalogue name, or path of a .safetensors file")
    asked = words.parse_args()
    try:
        samples = make_samples(asked.out)
    except SeamlineError as cause:
        print(f"error: {cause}", file=sys.stderr)
        return 2
    pictures = asked.out / "pictures"
    scan = ["scan", str(samples), "--out", str(pictures), "--json", str(asked.out / "reports.jsonl")]
    scan += ["--model", asked.model] if asked.model != "default" else []
    print(f"{len(SAMPLES) + len(CLIPS)} samples are in {samples}; their names say what was done to them.")
    print(f"\n$ seamline {' '.join(scan)}\n", flush=True)
    code = subprocess.run([sys.executable, "-m", "seamline", *scan], check=False).returncode
    if code == 0:
        look = f"{pictures / '*.overlay.png'} and {pictures / '*.timeline.png'}"
        print(f"\nLook at {look}; the truth is in {asked.out / 'truth'}.")
    return code


if __name__ == "__main__":
    sys.exit(main())
