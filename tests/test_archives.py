"""Archives scanned member by member; whatever a member calls itself, nothing is written for it but its pictures."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from seamline import Session
from seamline.batches import items
from seamline.errors import MediaError
from seamline.media import archives, expand
from seamline.media.archives import ArchiveLimits, members
from seamline.media.files import ARCHIVES, EXTENSIONS
from tests.films import film, picture
from tests.test_isolation import TILED
from tests.test_pipeline import RedIsForged


def png(seed: int = 0) -> bytes:
    rng = np.random.default_rng(seed)
    buffer = io.BytesIO()
    PIL.Image.fromarray(rng.integers(0, 256, (80, 80, 3), np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def zipped(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def tarred(path: Path, files: dict[str, bytes], mode: str) -> None:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


FILES = {"a.png": png(1), "f/b.png": png(2), "notes.txt": b"x", ".hidden/c.png": b"", "__MACOSX/._a.png": b""}


@pytest.mark.parametrize("isolate", [True, False])
@pytest.mark.parametrize("name", ["x.zip", "x.tar", "x.tar.gz", "x.tgz", "x.tar.bz2", "x.tar.xz"])
def test_members_are_scanned_as_files(tmp_path: Path, name: str, isolate: bool) -> None:
    path = tmp_path / name
    if name.endswith("zip"):
        path.write_bytes(zipped(FILES))
    else:
        tarred(path, FILES, {"x.tar": "w", "x.tar.bz2": "w:bz2", "x.tar.xz": "w:xz"}.get(name, "w:gz"))
    out = tmp_path / "out"
    reports = list(Session(RedIsForged(TILED), isolate=isolate).scan([path], out))
    assert [report.media.path for report in reports] == [f"{path}!/a.png", f"{path}!/f/b.png"]
    assert [report.error for report in reports] == [None, None]
    alone = tmp_path / "a.png"
    alone.write_bytes(FILES["a.png"])
    same = next(Session(RedIsForged(TILED)).scan([alone]))
    assert (reports[0].media.sha256, reports[0].probability) == (same.media.sha256, same.probability)
    assert sorted(p.name for p in out.iterdir()) == sorted(
        f"{stem}.{kind}.png" for stem in "ab" for kind in ("mask", "heatmap", "overlay")
    )


def test_archives_in_archives_films_and_wrong_names(tmp_path: Path) -> None:
    film(tmp_path / "film.mp4", [picture(i) for i in range(10)])
    inner = zipped({"deep.png": png(), "film.mp4": (tmp_path / "film.mp4").read_bytes(), "wrong.jpg": png()})
    path = tmp_path / "no-ending"
    path.write_bytes(zipped({"inner.zip": inner, "broken.zip": b"PK\3\4" + bytes(50), "bad.png": b"", "z.png": png()}))
    reports = list(Session(RedIsForged(TILED)).scan([path]))
    said = {report.media.path.split("!/", 1)[1]: (report.error or "; ".join(report.warnings)) for report in reports}
    assert list(said) == [
        "inner.zip!/deep.png",
        "inner.zip!/film.mp4",
        "inner.zip!/wrong.jpg",
        "broken.zip",
        "bad.png",
        "z.png",
    ]
    assert "judges photos" in said["inner.zip!/film.mp4"]
    assert said["inner.zip!/wrong.jpg"] == "the name ends in .jpg, but the content is PNG"
    assert "a damaged archive" in said["broken.zip"]
    assert said["bad.png"].startswith(f"{path}!/bad.png: is empty")


NAMES = [
    "../../up.png",
    "/abs.png",
    "C:\\x.png",
    "..\\..\\w.png",
    "a\nb\x1b[31m.png",
    "\u202egpj.png",
    "e\u0301.png",
    "\xe9.png",
    "A.png",
    "a.png",
    "CON.png",
    "x" * 3000 + ".png",
    "y/" * 1500 + "z.png",
]


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_no_name_leads_out_of_the_folder(tmp_path: Path, kind: str) -> None:
    work = tmp_path / "work"
    work.mkdir()
    path = work / f"x.{kind}"
    files = {name: png(i) for i, name in enumerate(NAMES)}
    if kind == "zip":
        path.write_bytes(zipped(files))
    else:
        tarred(path, files, "w")
    out = work / "out"
    reports = list(Session(RedIsForged(TILED)).scan([path], out))
    assert len(reports) == len(NAMES)
    assert {report.error for report in reports} == {None}
    written = list(out.rglob("*"))
    assert len(written) == 3 * len(NAMES)
    assert len({name.name.casefold() for name in written}) == len(written)
    assert all(name.parent == out and name.name.isprintable() and len(name.name.encode()) < 256 for name in written)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["work"]
    assert sorted(p.name for p in work.iterdir()) == ["out", path.name]


def test_what_cannot_be_unpacked_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    data = bytearray(zipped({"locked.png": png(), "odd.png": png(), "fine.png": png()}))
    entries = [i for i in range(len(data)) if data[i : i + 4] == b"PK\1\2"]
    data[entries[0] + 8] |= 1  # encrypted
    data[entries[1] + 10] = 97  # WavPack
    path.write_bytes(bytes(data))
    found = list(members(path))
    assert [member.error and member.error.split(": ", 1)[1].split(";")[0] for member in found] == [
        "is encrypted",
        "is packed by method 97, which is not known",
        None,
    ]
    links = tmp_path / "x.tar"
    with tarfile.open(links, "w") as archive:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE):
            info = tarfile.TarInfo("link.png")
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
    assert [member.path.rsplit("/", 1)[1] for member in members(links)] == [
        "link.png",
        "link.png#2",
        "link.png#3",
        "link.png#4",
    ]
    assert all("never followed" in str(member.error) for member in members(links))


def test_a_damaged_member_takes_no_other_along(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    data = zipped({"a.png": png(1), "b.png": png(2)})
    at = data.index(b"b.png") + 20
    path.write_bytes(data[:at] + bytes(30) + data[at + 30 :])
    first, second = Session(RedIsForged(TILED)).scan([path])
    assert first.error is None
    assert "b.png: damaged in its archive" in str(second.error)


def test_limits(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    path.write_bytes(zipped({f"{i}.png": png(i) for i in range(5)}))
    assert len(list(members(path, ArchiveLimits(members=5)))) == 5
    with pytest.raises(MediaError, match="more than 4 files"):
        list(members(path, ArchiveLimits(members=4)))
    with pytest.raises(MediaError, match="as a bomb does"):
        list(members(path, ArchiveLimits(free=0, ratio=0)))
    with pytest.raises(MediaError, match="as a bomb does"):
        list(members(path, ArchiveLimits(total=1000)))
    assert all("limit of 10 for" in str(member.error) for member in members(path, ArchiveLimits(member=10)))


def test_what_is_no_archive_and_what_holds_nothing(tmp_path: Path) -> None:
    path = tmp_path / "empty.zip"
    path.write_bytes(zipped({"notes.txt": b"x"}))
    assert items([path])[0].error == f"{path}: this archive holds no pictures, videos or sounds"
    path.write_bytes(b"PK\5\6" + bytes(18))
    assert "holds no pictures" in str(items([path])[0].error)
    path.write_bytes(b"PK\3\4" + bytes(100))
    assert "a damaged archive" in str(items([path])[0].error)
    assert items([tmp_path / "gone.zip"])[0].error is None  # opening it says so
    assert not archives.is_archive(tmp_path)
    (tmp_path / "b.tar.gz").touch()
    (tmp_path / "c.gz").touch()
    assert [p.name for p in expand([tmp_path], endings=EXTENSIONS | ARCHIVES)] == ["b.tar.gz", "empty.zip"]
