"""Proposals from JSON text: the very numbers of :func:`json.loads`, or its error."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seamline.errors import DataError
from seamline.metrics import rows as module
from seamline.metrics.rows import Rows, parse_rows, read_rows
from seamline.metrics.temporal import Matching

COMPACT = (",", ":")


def same(text: bytes, rows: Rows) -> None:
    """``rows`` is what json makes of the text."""
    data = json.loads(text)
    flat = np.array([row for clip in data.values() for row in clip], np.float64).reshape(-1, 3)
    assert rows.names == tuple(data)
    assert rows.counts.tolist() == [len(clip) for clip in data.values()]
    assert (rows.rows == flat).all()


def some(rng: np.random.Generator) -> dict[str, list[list[float]]]:
    """Clips with numbers of any size and length, of every sign, some without proposals."""
    data: dict[str, Any] = {}
    for i in range(int(rng.integers(1, 8))):
        values = 10.0 ** rng.uniform(-9, 12, (int(rng.integers(0, 40)), 3)) * rng.choice([1, -1], (1, 3))
        kind = int(rng.integers(0, 6))
        if kind == 0:
            values = values.round(int(rng.integers(0, 12)))
        elif kind == 1:
            values = rng.random(values.shape)
        elif kind == 2:
            values = rng.random(values.shape).astype(np.float32).astype(float)
        elif kind == 3:
            values = np.rint(values).astype(np.int64)
        elif kind == 4:
            values = rng.random(values.shape) * 10.0 ** -rng.integers(0, 6, (len(values), 1))
        data[f"dir-{i}/clip.e+{i}.mp4"] = values.tolist()
    return data


@pytest.mark.parametrize("separators", [None, COMPACT])
def test_numbers_are_those_of_json(rng: np.random.Generator, separators: tuple[str, str] | None) -> None:
    for _ in range(150):
        text = json.dumps(some(rng), separators=separators).encode()
        same(text, module._plain(text))  # and not by falling back


def test_a_hundred_thousand_random_numbers_to_the_last_bit(rng: np.random.Generator) -> None:
    values = rng.random((33_333, 3)) * [1, 20, 200]
    text = json.dumps({"a": values.tolist()}).encode()
    assert module._plain(text).rows.tobytes() == values.tobytes()


@pytest.mark.parametrize(
    "number",
    (
        "0 -0 -0.0 7 12345678 123456789 1234567890123456789012 0.1 1e-05 1E+5 -2.5e-3 1e400 0.000012345678901234567"
        " 9.999999999999999999 8.999999999999999999 99999999.9999999999 0.30000000000000004 123456.7890123456789"
        " 9007199254740993.0 0.1234567890123456789012345678"
    ).split(),
)
def test_odd_numbers(number: str) -> None:
    text = f'{{"a": [[{number}, 1.5, {number}], [0.5, {number}, 2]]}}'.encode()
    same(text, parse_rows(text))


@pytest.mark.parametrize(
    "text",
    [
        '{"a": []}',
        '{"a": [], "b": [[1,2,3]], "c": []}',
        '{"a":[[1,2,3]],"b":[]}',
        ' {"a": [[1, 2, 3]]} \n',
        '{"a": [[1, 2, 3]],\n "b": [[1, 2, 3], [4, 5, 6]]\n}',
        '{"\\u00e9": [[1, 2, 3]], "\\\\": []}',
        '{"é": [[1, 2, 3]], "日本": []}',
        '{"a b, [1]": [[1, 2, 3]]}',
        '{"a": [[1, 2, 3]], "a": [[4, 5, 6]]}',
        json.dumps({"a": [[1, 2.5, 3], [4, 5, 6]]}, indent=2),
        "{}",
    ],
)
def test_every_way_of_writing(text: str) -> None:
    same(text.encode(), parse_rows(text.encode()))


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "not JSON"),
        ("[[1,2,3]]", "a JSON list"),
        ('{"a": [[1,2,3]]', "not JSON"),
        ('{"a": [[1,2,3]],}', "not JSON"),
        ('{"a": [[1,2,3]] "b": []}', "not JSON"),
        ('{"a": [[1,2,3],]}', "not JSON"),
        ('{"a": [[1,,2,3]]}', "not JSON"),
        ('{"a": [[1 2,3,4]]}', "not JSON"),
        ('{"a": [[1.2.3,4,5]]}', "not JSON"),
        ('{"a": [[1-2,4,5]]}', "not JSON"),
        ('{"a": [[.5,4,5]]}', "not JSON"),
        ('{"a": [[5.,4,5]]}', "not JSON"),
        ('{"a": [[-,4,5]]}', "not JSON"),
        ('{"a": [[1/2,4,5]]}', "not JSON"),
        ('{"a": [[1e,4,5]]}', "not JSON"),
        ('{"a": [[007,4,5]]}', "not JSON"),
        ('{"a": [[-00.5,4,5]]}', "not JSON"),
        ('{"a": [[1,2,3]], "b": [[1,2],[3,4,5,6]]}', "'b' is not a list of"),
        ('{"a": [[1,2]]}', "'a' is not a list of"),
        ('{"a": [[1,2,3,4],[5,6]]}', "'a' is not a list of"),
        ('{"a": [1,2,3]}', "'a' is not a list of"),
        ('{"a": [[]]}', "'a' is not a list of"),
        ('{"a": null}', "'a' is not a list of"),
        ('{"a": [["1",2,3]]}', "'a' is not a list of"),
        ('{"a": [[true,2,3]]}', "'a' is not a list of"),
        ('{"a": {"b": [[1,2,3]]}}', "'a' is not a list of"),
        ('{"a": [[1,2,3]], "b"', "not JSON"),
        ('{"a": [[1,2,' + 400 * "9" + "]]}", "308 digits"),
    ],
)
def test_what_is_not_of_the_form_is_refused(text: str, match: str) -> None:
    with pytest.raises(DataError, match=f"found.json: .*{match}"):
        parse_rows(text.encode(), "found.json")


def test_damaged_texts_never_give_other_numbers(rng: np.random.Generator) -> None:
    """Whatever byte is changed: the numbers of json, or an error where json has one."""
    good = json.dumps({"a1": [[0.25, 1.5, 2.0], [0.5, 3, 4.75]], "b": [], "c": [[1e-05, 0, 10.5]]}).encode()
    for _ in range(3000):
        text = bytearray(good)
        for _ in range(int(rng.integers(1, 3))):
            text[int(rng.integers(len(text)))] = int(rng.choice(bytearray(b'0123456789.,-+eE[]{}:" /x\n')))
        try:
            rows = parse_rows(bytes(text))
        except DataError:
            continue
        same(bytes(text), rows)


def test_files(tmp_path: Path) -> None:
    (tmp_path / "found.json").write_text('{"a": [[0.5, 1, 2]], "b": [], "c": [[0.25, 3, 4], [0.5, 3, 4]]}')
    rows = read_rows(tmp_path / "found.json")
    other = rows.of(["c", "a"])
    assert other.counts.tolist() == [2, 1]
    assert other.rows[:, 0].tolist() == [0.25, 0.5, 0.5]
    assert rows.of(rows.names) is rows
    with pytest.raises(DataError, match="d: has no entry"):
        rows.of(["a", "d"])
    with pytest.raises(DataError, match=r"nothing\.json: cannot be read"):
        read_rows(tmp_path / "nothing.json")
    truths = [[[3.0, 4.0]], [[1.0, 2.0]]]
    parts = [rows.rows[1:], rows.rows[:1]]
    assert Matching(other, truths).ap() == Matching(parts, truths).ap() == dict.fromkeys((0.5, 0.75, 0.95), 1.0)
    with pytest.raises(DataError, match="proposals of 2 clips and truths of 1"):
        Matching(other, truths[:1])


@pytest.mark.slow  # half a minute of a busy machine
def test_a_million_proposals_take_little_memory(tmp_path: Path, rng: np.random.Generator) -> None:
    values = rng.random((1_000_000, 3)).round(6)
    with (tmp_path / "found.json").open("w") as file:
        lines = (f'"{i}": {json.dumps(values[100 * i : 100 * i + 100].tolist())}' for i in range(10_000))
        file.write("{" + ", ".join(lines) + "}")
    size = (tmp_path / "found.json").stat().st_size
    tracemalloc.start()
    rows = read_rows(tmp_path / "found.json")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert rows.rows.tobytes() == values.tobytes()
    assert peak < 6 * size + 200e6
