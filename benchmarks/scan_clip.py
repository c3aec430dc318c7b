"""Scanning a talking video of 720p: how much faster than real time, and what memory a longer one needs.

    python benchmarks/scan_clip.py [--model NAME] [--repeats 3] [--threads 2] [--csv FILE]

The film is made here: a photograph made to talk, in a 1280 x 720 picture, H.264 and AAC, a minute long; the longer
ones repeat its packets. Baselines of the same run: the length of the film, and decoding every picture and sample with
PyAV and nothing else. Times are medians of whole commands; peak memory is the most that the command and its children
held at once (PSS, looked at ten times a second).
"""

from __future__ import annotations

import argparse
import csv
import os
import statistics
import subprocess
import sys
import tempfile
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from _record import processor

from seamline.demo import photos
from seamline.evaluate import commit
from seamline.synthesis.talker import talk

WIDTH, HEIGHT, FPS, RATE = 1280, 720, 25, 16000
TURN = 61  # seconds from one repetition to the next: packets of a codec reach a little over the end
DECODE = """
import av, sys
with av.open(sys.argv[1]) as film:
    for frame in film.decode():
        frame.to_ndarray(format="rgb24") if hasattr(frame, "width") else frame.to_ndarray()
"""


def minute(path: Path) -> None:
    """Sixty seconds of a talking head."""
    footage = talk(photos()["astronaut"], np.random.default_rng(4))
    side = footage.frames.shape[1]
    top, left = (HEIGHT - side) // 2, (WIDTH - side) // 2
    background = np.random.default_rng(0).integers(60, 120, (HEIGHT // 8, WIDTH // 8, 3), np.uint8)
    scene = np.ascontiguousarray(background.repeat(8, 0).repeat(8, 1))
    with av.open(str(path), "w") as film:
        video: Any = film.add_stream("libx264", FPS, options={"crf": "23", "preset": "veryfast", "g": "50"})
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        audio: Any = film.add_stream("aac", RATE, layout="mono", bit_rate=64000)
        for tick in range(60 * FPS):
            scene[top : top + side, left : left + side] = footage.frames[tick % len(footage.frames)]
            film.mux(video.encode(av.VideoFrame.from_ndarray(scene, format="rgb24")))
        sound = np.resize(footage.sound, 60 * RATE).astype(np.float32)
        for start in range(0, len(sound), 1024):
            frame = av.AudioFrame.from_ndarray(sound[None, start : start + 1024], format="fltp", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = RATE, start, Fraction(1, RATE)
            film.mux(audio.encode(frame))
        film.mux(video.encode())
        film.mux(audio.encode())


def longer(source: Path, path: Path, times: int) -> None:
    """The packets of ``source``, ``times`` times one after the other."""
    with av.open(str(path), "w") as film:
        streams: dict[int, Any] = {}
        for turn in range(times):
            with av.open(str(source)) as part:
                for stream in part.streams:
                    if stream.index not in streams:
                        streams[stream.index] = film.add_stream_from_template(stream)
                for packet in part.demux():
                    if packet.dts is None:
                        continue
                    assert packet.time_base is not None
                    shift = round(TURN * turn / packet.time_base)
                    packet.pts, packet.dts = (packet.pts or 0) + shift, packet.dts + shift
                    packet.stream = streams[packet.stream.index]
                    film.mux(packet)


def run(command: list[str], threads: int) -> tuple[float, float]:
    """Seconds, and the most bytes that the command and its children held at once."""
    env = os.environ | {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE"}
    began, most = time.perf_counter(), 0
    with subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            most = max(most, sum(held(pid) for pid in family(process.pid)))
            time.sleep(0.1)
    if process.returncode:
        sys.exit(f"{' '.join(command)}: exit status {process.returncode}")
    return time.perf_counter() - began, most


def family(pid: int) -> list[int]:
    """A process and all below it."""
    try:
        below = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        below = []
    return [pid, *(found for child in below for found in family(int(child)))]


def held(pid: int) -> int:
    """Memory of a process, what it shares with others divided among them (PSS), bytes."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith("Pss:"))


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--model", default="default")
    words.add_argument("--repeats", type=int, default=3)
    words.add_argument("--threads", type=int, default=2)
    words.add_argument("--minutes", type=int, nargs="*", default=[2, 20], help="lengths whose memory is compared")
    words.add_argument("--csv", type=Path)
    asked = words.parse_args()
    scan = [sys.executable, "-m", "seamline", "scan", "--model", asked.model]
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        short = Path(folder) / "minute.mp4"
        minute(short)
        for what, command in (("decode", [sys.executable, "-c", DECODE]), ("scan", scan)):
            turns = [run([*command, str(short)], asked.threads) for _ in range(asked.repeats)]
            seconds = statistics.median(turn[0] for turn in turns)
            peak = max(turn[1] for turn in turns)
            rows.append({"what": what, "film_s": 60, "seconds": round(seconds, 2), "faster": round(60 / seconds, 2)})
            rows[-1]["peak_mb"] = round(peak / 1e6)
            print(rows[-1], flush=True)
        for minutes in asked.minutes:
            film = Path(folder) / f"{minutes}.mp4"
            longer(short, film, minutes)
            seconds, peak = run([*scan, str(film)], asked.threads)
            rows.append({"what": "scan", "film_s": TURN * minutes, "seconds": round(seconds, 2)})
            rows[-1] |= {"faster": round(TURN * minutes / seconds, 2), "peak_mb": round(peak / 1e6)}
            print(rows[-1], flush=True)
    if asked.csv:
        facts = {"model": asked.model, "threads": asked.threads, "cpu": processor(), "commit": commit() or "none"}
        with asked.csv.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, [*rows[0], *facts])
            writer.writeheader()
            writer.writerows(row | facts for row in rows)


if __name__ == "__main__":
    main()
