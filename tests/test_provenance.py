"""Facts beside the report: credentials signed here and tampered with, metadata, tables, text, boxes; damage."""

from __future__ import annotations

import builtins
import contextlib
import datetime
import io
import json
import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, PngImagePlugin
from PIL import Image as PILImage
from typer.testing import CliRunner

import seamline
from seamline import provenance
from seamline.cli import app
from seamline.errors import MediaError
from seamline.provenance import clip as clip_module

from .films import film, tone

SAMPLES = Path(seamline.__file__).with_name("samples")


def picture(side: int = 128, seed: int = 0) -> PILImage.Image:
    """A smooth picture with some texture, not a multiple of 8 in width."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, : side + 5] / side
    rgb = np.stack([120 + 90 * np.sin(5 * x + 3 * y), 255 * y, 255 * (1 - x * y)], 2) + rng.normal(0, 6, (*x.shape, 3))
    return PILImage.fromarray(np.clip(rgb, 0, 255).astype(np.uint8))


def saved(image: PILImage.Image, form: str = "JPEG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def facts(source: bytes | Path, **options: Any) -> dict[str, Any]:
    """Name -> value of all facts."""
    return {fact.name: fact.value for fact in provenance.read(source, **options).facts}


# ------------------------------------------------------------------------------------------------- Content Credentials


@pytest.fixture(scope="module")
def signed() -> tuple[bytes, str]:
    """A photo signed with keys that are thrown away, and the certificate of their authority."""
    c2pa = pytest.importorskip("c2pa")
    x509 = pytest.importorskip("cryptography.x509")
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    authority, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    begin = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)

    def certificate(name: str, public: Any, of_authority: bool) -> Any:
        def called(common: str) -> Any:
            oids = x509.oid.NameOID
            parts = ((oids.COUNTRY_NAME, "CH"), (oids.ORGANIZATION_NAME, "Nobody"), (oids.COMMON_NAME, common))
            return x509.Name([x509.NameAttribute(oid, value) for oid, value in parts])

        usage = dict.fromkeys(("content_commitment", "key_encipherment", "data_encipherment", "key_agreement"), False)
        usage |= {"encipher_only": False, "decipher_only": False, "digital_signature": not of_authority}
        builder = (
            x509.CertificateBuilder(called("Authority"), called(name), public, x509.random_serial_number())
            .not_valid_before(begin)
            .not_valid_after(begin + datetime.timedelta(days=30))
            .add_extension(x509.BasicConstraints(of_authority, None), True)
            .add_extension(x509.KeyUsage(key_cert_sign=of_authority, crl_sign=of_authority, **usage), True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key()), False)
        )
        if not of_authority:
            purpose = x509.oid.ExtendedKeyUsageOID.EMAIL_PROTECTION
            builder = builder.add_extension(x509.ExtendedKeyUsage([purpose]), False)
        return builder.sign(authority, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    root = certificate("Authority", authority.public_key(), True)
    chain = certificate("Throw-away", key.public_key(), False) + root
    forms = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    info = c2pa.C2paSignerInfo(alg=b"es256", sign_cert=chain, private_key=key.private_bytes(*forms), ta_url=None)
    generated = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
    actions = {"actions": [{"action": "c2pa.created", "digitalSourceType": generated}]}
    manifest = {
        "claim_generator_info": [{"name": "a test", "version": "1"}],
        "assertions": [{"label": "c2pa.actions.v2", "data": actions}],
    }
    out = io.BytesIO()
    c2pa.Builder(manifest).sign(c2pa.Signer.from_info(info), "image/jpeg", io.BytesIO(saved(picture())), out)
    return out.getvalue(), root.decode()


def test_credentials_of_an_unknown_signer_are_valid_but_untrusted(signed: tuple[bytes, str]) -> None:
    found = facts(signed[0])
    assert found["state"] == "untrusted"
    assert found["signer"] == "Throw-away, Nobody"
    assert found["made_with"].startswith("a test 1")
    assert (found["actions"], found["source_type"], found["says"]) == (
        "created",
        "trainedAlgorithmicMedia",
        "synthetic",
    )
    assert "failures" not in found


def test_credentials_of_a_trusted_signer(signed: tuple[bytes, str]) -> None:
    assert facts(signed[0], trust=signed[1])["state"] == "trusted"


def test_a_file_changed_after_signing_is_invalid(signed: tuple[bytes, str]) -> None:
    data = bytearray(signed[0])
    data[-40] ^= 0x10
    found = provenance.read(bytes(data), trust=signed[1]).facts
    assert (found[0].value, found[0].odd) == ("invalid", True)
    assert any(fact.name == "failures" and "dataHash.mismatch" in str(fact.value) for fact in found)


def test_without_the_extra_credentials_are_unchecked(
    signed: tuple[bytes, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    really = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name == "c2pa":
            raise ImportError(name)
        return really(name, *rest, **more)

    monkeypatch.delitem(sys.modules, "c2pa", raising=False)
    monkeypatch.setattr(builtins, "__import__", without)
    assert facts(signed[0])["state"] == "unchecked"
    assert facts(saved(picture()))["state"] == "absent"


def test_most_files_have_none() -> None:
    pytest.importorskip("c2pa")
    assert facts(saved(picture()))["state"] == facts(saved(picture(), "PNG"))["state"] == "absent"
    assert facts(SAMPLES / "talker-forged.mp4")["state"] == "absent"


# -------------------------------------------------------------------------------------------------------------- photos


def test_exif_is_told_and_the_place_only_when_asked() -> None:
    exif = PILImage.Exif()
    exif[ExifTags.Base.Make], exif[ExifTags.Base.Model] = "ACME", "Pinhole 1"
    exif[ExifTags.Base.Software], exif[ExifTags.Base.DateTime] = "Adobe Photoshop 25.1", "2025:02:03 12:00:00"
    detail = exif.get_ifd(ExifTags.IFD.Exif)
    detail[ExifTags.Base.DateTimeOriginal] = "2025:02:01 10:00:00"
    detail[ExifTags.Base.ExifImageWidth], detail[ExifTags.Base.ExifImageHeight] = 4000, 3000
    exif.get_ifd(ExifTags.IFD.GPSInfo).update({1: "S", 2: (33.0, 30.0, 0.0), 3: "E", 4: (18.0, 15.0, 0.0)})
    data = saved(picture(), exif=exif)
    found = facts(data)
    assert found["camera"] == "ACME Pinhole 1"
    assert (found["taken_at"], found["changed_at"]) == ("2025:02:01 10:00:00", "2025:02:03 12:00:00")
    assert (found["size_in_exif"], found["maker_notes"], found["place"]) == ("4000x3000", False, True)
    assert "coordinates" not in found
    assert "33.5" not in provenance.read(data).to_json()
    assert facts(data, coordinates=True)["coordinates"] == "-33.500000, 18.250000"
    odd = {fact.name for fact in provenance.read(data).facts if fact.odd}
    assert odd >= {"software", "changed_at", "size_in_exif"}


def test_xmp_is_searched() -> None:
    xmp = (
        b"<x:xmpmeta xmlns:x='adobe:ns:meta/'>"
        b"<rdf:Description xmp:CreatorTool=\"GIMP 2.10\" xmp:CreateDate='2024-01-01'>"
        b'<stEvt:action>saved</stEvt:action> stEvt:action="converted"</rdf:Description></x:xmpmeta>'
    )
    found = facts(saved(picture(), xmp=xmp))
    assert (found["creator_tool"], found["created_at"], found["history"]) == (
        "GIMP 2.10",
        "2024-01-01",
        "saved, converted",
    )


@pytest.mark.parametrize(
    ("options", "quality", "tables", "coding", "sampling"),
    [
        ({"quality": 83}, 83, "standard", "baseline", "4:2:0"),
        ({"quality": 95, "subsampling": 0, "progressive": True}, 95, "standard", "progressive", "4:4:4"),
        ({"qtables": [[9 + i for i in range(64)], [12 + i for i in range(64)]]}, None, "own", "baseline", "4:2:0"),
    ],
)
def test_jpeg_tables(options: dict[str, Any], quality: int | None, tables: str, coding: str, sampling: str) -> None:
    found = facts(saved(picture(), **options))
    assert (found["tables"], found["coding"], found["sampling"]) == (tables, coding, sampling)
    assert found["segments"] == "JFIF"
    assert quality is None or found["quality"] == quality


def test_bytes_after_the_picture_and_comments_are_told() -> None:
    found = facts(saved(picture(), comment=b"CREATOR: gd-jpeg v1.0, ffmpeg") + b"PK\3\4 more")
    assert found["bytes_after_the_end"] == 9
    assert "ffmpeg" in found["software"]


@pytest.mark.parametrize(("first", "second"), [(60, 85), (75, 90), (80, 95)])
def test_a_second_save_at_a_higher_quality_shows(first: int, second: int) -> None:
    image = picture(512)
    once = saved(image, quality=second)
    twice = saved(PILImage.open(io.BytesIO(saved(image, quality=first))), quality=second)
    assert (facts(once)["saved_twice"], facts(twice)["saved_twice"]) == ("no sign", "likely")


def test_too_fine_a_table_cannot_tell_of_a_second_save() -> None:
    assert facts(saved(picture(), quality=100))["saved_twice"] == "unknown"


def test_text_of_a_png_is_told() -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("parameters", "a cat, Steps: 20, Sampler: Euler", zip=True)
    info.add_itxt("Title", "Müller")
    info.add_text("Comment", "x" * 100_000, zip=True)
    found = {fact.name: fact for fact in provenance.read(saved(picture(), "PNG", pnginfo=info)).facts}
    assert found["parameters"].odd
    assert found["parameters"].value == "a cat, Steps: 20, Sampler: Euler"
    assert found["title"].value == "Müller"
    assert len(str(found["comment"].value)) < 400


# ---------------------------------------------------------------------------------------------------------------- clips


def test_a_film_written_by_ffmpeg_says_so(tmp_path: Path) -> None:
    pictures = [np.full((96, 128, 3), 5 * i, np.uint8) for i in range(30)]
    film(tmp_path / "a.mp4", pictures, tone(1.2), delay=0.4, muxer={"movflags": "faststart"})
    found = facts(tmp_path / "a.mp4")
    assert found["encoder"].startswith("Lavf")
    assert found["encoder_library"].startswith("x264 - core")
    assert (found["brand"], found["index"], found["movie_created_at"]) == ("isom", "at the beginning", "not set")
    assert (found["video_start"], found["audio_start"]) == (0.0, pytest.approx(0.4, abs=0.1))
    assert found["place"] is False
    assert {fact.name for fact in provenance.read(tmp_path / "a.mp4").facts if fact.odd} >= {"encoder", "audio_start"}


def box(kind: bytes, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return struct.pack(">I4s", 8 + len(body), kind) + body


def test_edit_lists_and_times_of_mp4_boxes() -> None:
    day = 3_800_000_000  # seconds since 1904
    movie = box(b"mvhd", bytes(4), struct.pack(">IIII", day, day + 500, 1000, 9000))
    edits = box(
        b"edts",
        box(b"elst", bytes(4), struct.pack(">I", 2), struct.pack(">IiIIiI", 500, -1, 1 << 16, 900, 90000, 1 << 16)),
    )
    medium = box(
        b"mdia",
        box(b"mdhd", bytes(4), struct.pack(">IIII", day - 99, 0, 30000, 1)),
        box(b"hdlr", bytes(8), b"vide", bytes(13)),
    )
    file = box(b"ftyp", b"qt  ", bytes(4), b"qt  ") + box(b"mdat") + box(b"moov", movie, box(b"trak", edits, medium))
    found = {fact.name: fact for fact in clip_module._mp4_facts(io.BytesIO(file), len(file))}
    assert str(found["brand"].value).strip() == "qt"
    assert found["index"].value == "at the end"
    assert str(found["movie_created_at"].value).startswith("2024-05-31")
    assert found["movie_changed_at"].odd
    assert (found["track_0_edits"].value, found["track_0_edits"].odd) == ("2 (vide)", True)
    assert found["track_0_created_at"].odd


@pytest.mark.parametrize("seed", range(4))
def test_damaged_boxes_end_the_reading(seed: int) -> None:
    rng = np.random.default_rng(seed)
    good = (SAMPLES / "talker-forged.mp4").read_bytes()
    start = good.find(b"moov") - 4
    for _ in range(100):
        data = bytearray(good[:64] + good[start:])
        for at in rng.integers(0, len(data), 6):
            data[at] = rng.integers(256)
        clip_module._mp4_facts(io.BytesIO(data), len(data))
    nested = b""
    for _ in range(2000):
        nested = box(b"trak", nested)
    assert clip_module._mp4_facts(io.BytesIO(box(b"moov", nested)), len(nested) + 8) == []
    many = box(b"free") * 100_000
    assert clip_module._mp4_facts(io.BytesIO(many), len(many)) == []


# ------------------------------------------------------------------------------------------------------- whole, hostile


@pytest.mark.parametrize("seed", range(3))
def test_damaged_photos_end_in_facts_or_a_named_error(seed: int, signed: tuple[bytes, str]) -> None:
    rng = np.random.default_rng(seed)
    exif = PILImage.Exif()
    exif[ExifTags.Base.Make] = "ACME"
    exif.get_ifd(ExifTags.IFD.GPSInfo).update({1: "N", 2: (1.0, 2.0, 3.0), 3: "E", 4: (1.0, 2.0, 3.0)})
    info = PngImagePlugin.PngInfo()
    info.add_text("parameters", "a cat", zip=True)
    for good in (signed[0], saved(picture(), exif=exif), saved(picture(64), "PNG", pnginfo=info)):
        for _ in range(15):
            data = bytearray(good[: rng.integers(len(good) // 2, len(good) + 1)])
            for at in rng.integers(0, min(len(data), 4000), 8):
                data[at] = rng.integers(256)
            with contextlib.suppress(MediaError):
                json.loads(provenance.read(bytes(data)).to_json())


def test_what_is_no_media_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_text("hello")
    with pytest.raises(MediaError, match=r"a\.jpg"):
        provenance.read(tmp_path / "a.jpg")
    with pytest.raises(MediaError, match="no such file"):
        provenance.read(tmp_path / "none.jpg")


def test_the_json_form(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(saved(picture(), "PNG"))
    data = json.loads(provenance.read(tmp_path / "a.png").to_json())
    assert list(data) == ["schema", "path", "sha256", "bytes", "facts"]
    assert data["schema"] == "seamline.facts/1"
    assert list(data["facts"][0]) == ["topic", "name", "value", "note", "odd"]


def test_the_command(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(saved(picture(), "PNG"))
    run = CliRunner().invoke(app, ["facts", str(tmp_path / "a.png")])
    assert (run.exit_code, "content credentials" in run.stdout) == (0, True)
    run = CliRunner().invoke(app, ["facts", str(tmp_path / "a.png"), str(tmp_path / "b.png"), "--json"])
    assert run.exit_code == 2
    assert json.loads(run.stdout)["path"].endswith("a.png")
    assert "no such file" in run.stderr
