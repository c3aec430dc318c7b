"""A leaderboard made of rows: one page that needs no network, and the same tables in Markdown.

Rows are compared only where they can be: of the same files of one data set, with the same done to them before.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

from ..chart import Sheet
from ..errors import DataError
from ..metrics.protocols import PROTOCOLS
from .card import cell, line, spoken
from .plots import ap_iou, precision_recall, robustness, roc

Row = dict[str, Any]

HASH = 12  # hexadecimal digits of a hash that are shown
WAYS = {True: "more is better", False: "less is better", None: "&nbsp;"}
DRAWN = 6  # rows that share a plot, the best ones


class Column(NamedTuple):
    """One figure of a table."""

    name: str
    heading: str
    rising: bool | None  # whether more is better; None: neither


OWN = {
    "image": (
        Column("auc", "AUC", True),
        Column("f1", "pixel F1", True),
        Column("iou", "IoU", True),
        Column("detected", "detected", True),
        Column("false_alarms", "false alarms", False),
        Column("inconclusive", "inconclusive", None),
        Column("ece", "ECE", False),
        Column("cllr", "Cllr", False),
    ),
    "audio_visual": (
        Column("auc", "AUC", True),
        Column("auc_video", "of video", True),
        Column("auc_audio", "of audio", True),
        Column("ap50", "AP@.5", True),
        Column("ap75", "AP@.75", True),
        Column("ap95", "AP@.95", True),
        Column("ar10", "AR@10", True),
        Column("detected", "detected", True),
        Column("false_alarms", "false alarms", False),
        Column("inconclusive", "inconclusive", None),
        Column("ece", "ECE", False),
    ),
}
LESS = (
    "eer",
    "cllr",
    "dcf",
    "ece",
    "brier",
    "false",
    "fpr",
    "boundary",
)  # in the names of figures where less is better


class Table(NamedTuple):
    """Rows that may be compared, the best first, and where their figures are."""

    title: str
    words: str
    columns: Sequence[Column]
    rows: Sequence[Row]
    values: Callable[[Row], dict[str, Any]]  # of a row: its figures
    ends: Callable[[Row], dict[str, Any]]  # and their intervals


def leaderboard(rows: Sequence[Row], out: str | Path) -> list[Path]:
    """Write ``index.html`` and ``leaderboard.md``, each whole or not at all.

    Args:
        rows: of :func:`~seamline.evaluate.rows.evaluate`, in any order.
        out: folder to write to; made if it is missing.

    Raises:
        DataError: there are no rows.
    """
    if not rows:
        raise DataError("a leaderboard needs rows; seamline evaluate --out writes them")
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        data = row["data"]
        key = data["name"], data["sha256"], str(data["split"] or ""), data["files"], row["perturb"], row["modality"]
        groups.setdefault(key, []).append(row)
    sections = [(members, _tables(members)) for _, members in sorted(groups.items())]
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    texts = {"index.html": _page(sections), "leaderboard.md": _markdown(sections)}
    for name, text in texts.items():
        part = folder / f".{name}.{os.getpid()}.part"
        part.write_text(text, encoding="utf-8")
        os.replace(part, folder / name)
    return [folder / name for name in texts]


def _tables(rows: Sequence[Row]) -> list[Table]:
    """Our own figures of all rows, then those of every protocol."""
    columns = OWN[rows[0]["modality"]]
    words = "In brackets: 95 % interval, from resampling whole groups of files. Thresholds are those of the weights."
    tables = [
        Table("Seamline's figures", words, columns, _ranked(rows, "auc"), lambda row: row, lambda row: row["ci95"])
    ]
    for name in sorted({row["protocol"]["name"] for row in rows if row["protocol"]}):
        members = [row for row in rows if row["protocol"] and row["protocol"]["name"] == name]
        headline = members[0]["protocol"]["headline"]
        figures = dict.fromkeys(figure for row in members for figure in row["protocol"]["figures"])
        shown = [headline, *(figure for figure in figures if figure != headline)]
        official = [Column(figure, figure, not any(word in figure for word in LESS)) for figure in shown]
        known = PROTOCOLS.get(name)
        about = f"Ranked by {headline}." + (f" {known.scored}; {known.combined}." if known else "")
        ranked = sorted(
            members,
            key=lambda row: -(row["protocol"]["figures"].get(headline) or 0.0) * (1 if official[0].rising else -1),
        )
        tables.append(
            Table(
                *(f"Protocol {name}", about, official, ranked),
                *(lambda row: row["protocol"]["figures"], lambda row: row["protocol"]["ci95"]),
            )
        )
    return tables


def _ranked(rows: Sequence[Row], name: str) -> list[Row]:
    return sorted(rows, key=lambda row: -1.0 if row[name] is None else row[name], reverse=True)


def _title(row: Row) -> str:
    """The data set of a row, and what was done to it."""
    perturb = "" if row["perturb"] == "none" else f", {spoken(row['perturb'])}"
    split = f", {row['data']['split']}" if row["data"]["split"] else ""
    return f"{row['data']['name']}{split}{perturb}"


def _files(row: Row) -> str:
    kind = "photos" if row["modality"] == "image" else "clips"
    return f"{row['n']['authentic']} authentic and {row['n']['forged']} forged {kind}"


def _best(table: Table, column: Column) -> float | None:
    """The best value of a column, if there is something to compare."""
    values = [value for row in table.rows if (value := table.values(row).get(column.name)) is not None]
    if len(set(values)) < 2 or column.rising is None:
        return None
    return float(max(values) if column.rising else min(values))


# ---------------------------------------------------------------------------------------------------------- markdown


def _markdown(sections: Iterable[tuple[Sequence[Row], Sequence[Table]]]) -> str:
    lines = ["# Leaderboard", ""]
    for rows, tables in sections:
        lines += [f"## {_title(rows[0])}", "", f"{_files(rows[0])}; manifest `{rows[0]['data']['sha256']}`.", ""]
        for table in tables:
            lines += [f"### {table.title}", "", table.words, ""]
            lines.append(line("model", *(column.heading for column in table.columns), "weights", "commit"))
            lines.append("|---" * (len(table.columns) + 3) + "|")
            for row in table.rows:
                cells = []
                for column in table.columns:
                    value = table.values(row).get(column.name)
                    text = cell(value, table.ends(row).get(column.name))
                    cells.append(f"**{text}**" if value is not None and value == _best(table, column) else text)
                hashes = (f"`{(row['model']['sha256'] or '-')[:HASH]}`", f"`{(row['commit'] or '-')[:HASH]}`")
                lines.append(line(_name(row), *cells, *hashes))
            lines.append("")
    return "\n".join(lines)


def _name(row: Row) -> str:
    version = row["model"]["version"]
    return f"{row['model']['name'] or 'unnamed'}{f' {version}' if version else ''}".replace("|", "/")


# -------------------------------------------------------------------------------------------------------------- page


def _page(sections: Sequence[tuple[Sequence[Row], Sequence[Table]]]) -> str:
    links = "".join(
        f'<li><a href="#d{i}">{escape(_title(rows[0]))}</a> <span class="n">{escape(_files(rows[0]))}</span></li>'
        for i, (rows, _) in enumerate(sections)
    )
    body = "".join(_section(f"d{i}", rows, tables) for i, (rows, tables) in enumerate(sections))
    count = sum(len(rows) for rows, _ in sections)
    return PAGE.format(style=STYLE, script=SCRIPT, links=links, body=body, count=f"{count} row{'s' * (count > 1)}")


def _section(name: str, rows: Sequence[Row], tables: Sequence[Table]) -> str:
    data = rows[0]["data"]
    parts = [f'<section id="{name}"><h2>{escape(_title(rows[0]))}</h2>']
    parts.append(f'<p class="about">{escape(_files(rows[0]))}. Manifest <code>{escape(data["sha256"])}</code></p>')
    parts += [_table(table) for table in tables]
    best = [row for row in tables[0].rows if row["curves"]["roc"]][:DRAWN]
    drawn = [roc(best), precision_recall(best)] if best else []
    spans = [row for row in tables[0].rows if row["curves"].get("ap_iou")][:DRAWN]
    drawn += [ap_iou(spans)] if spans else []
    if drawn:
        parts.append(f'<div class="plots">{"".join(_figure(sheet) for sheet in drawn)}</div>')
    for row in tables[0].rows:
        if row["robustness"]:
            parts.append(f"<details open><summary>Robustness of {escape(_name(row))}</summary>")
            parts.append(f'<div class="wide">{_figure(robustness(row))}</div></details>')
    return "".join(parts) + "</section>"


def _figure(sheet: Sheet) -> str:
    return f"<figure>{sheet.svg()}</figure>"


def _table(table: Table) -> str:
    head = "".join(
        f'<th scope="col" aria-sort="{"descending" if i == 0 else "none"}"><button type="button">'
        f'<span class="name">{escape(column.heading)}</span>'
        f'<span class="way">{WAYS[column.rising]}</span></button></th>'
        for i, column in enumerate(table.columns)
    )
    body = []
    for row in table.rows:
        weights = escape(row["model"]["sha256"] or "")
        named = f'{escape(_name(row))}<code class="ci" title="{weights}">{weights[:HASH]}</code>'
        cells = [f'<th scope="row" data-value="{escape(_name(row))}">{named}</th>']
        for column in table.columns:
            value, ends = table.values(row).get(column.name), table.ends(row).get(column.name)
            if value is None:
                cells.append('<td data-value="">-</td>')
                continue
            best = ' class="best"' if value == _best(table, column) else ""
            interval = f'<span class="ci">[{ends[0]:.2f}, {ends[1]:.2f}]</span>' if ends else ""
            cells.append(f'<td data-value="{value}"{best}>{value:.3f}{interval}</td>')
        commit = escape(row["commit"] or "")
        cells.append(f'<td data-value="{commit}"><code title="{commit}">{commit[:HASH]}</code></td>')
        body.append(f"<tr>{''.join(cells)}</tr>")
    first, last = (
        f'<th scope="col" aria-sort="none"><button type="button"><span class="name">{name}</span>'
        f'<span class="way">{below}</span></button></th>'
        for name, below in (("model", "SHA-256 of its weights"), ("commit", "of the code"))
    )
    return (
        f'<h3>{escape(table.title)}</h3><p class="about">{escape(table.words)}</p><div class="scroll" tabindex="0"'
        f' role="region" aria-label="{escape(table.title)}"><table><thead><tr>{first}{head}{last}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )


STYLE = """
:root { color-scheme: light; --ink: #1c1c1e; --faint: #5f5f64; --line: #e2e2e5; --blue: #005c96; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1240px; padding: 24px; color: var(--ink); background: #fff;
  font: 15px/1.5 system-ui, "Helvetica Neue", Helvetica, Arial, "Liberation Sans", sans-serif; }
h1 { font-size: 28px; margin: 8px 0 4px; } h2 { font-size: 22px; margin: 48px 0 4px; }
h3 { font-size: 16px; margin: 28px 0 2px; }
.about, .n { color: var(--faint); } .about { margin: 0 0 12px; max-width: 80ch; overflow-wrap: anywhere; }
nav ul { padding: 0; list-style: none; margin: 16px 0 0; } nav li { padding: 3px 0; }
a { color: var(--blue); } code { font-size: 12px; color: var(--faint); }
.scroll, .wide { overflow-x: auto; border: 1px solid var(--line); border-radius: 8px; }
table { border-collapse: separate; border-spacing: 0; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: 8px 10px; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--line); }
tbody tr:last-child > * { border-bottom: 0; } tbody tr:hover > * { background: #f5f8fb; }
thead th { padding: 0; vertical-align: bottom; background: #fafafb; }
thead button { font: inherit; font-weight: 600; width: 100%; padding: 8px 10px; border: 0; background: none;
  color: inherit; text-align: right; cursor: pointer; }
thead th[aria-sort=ascending] .name::after { content: " \\25B2"; font-size: 10px; }
thead th[aria-sort=descending] .name::after { content: " \\25BC"; font-size: 10px; }
.way, .ci { display: block; font-size: 11px; font-weight: 400; color: var(--faint); }
tr > th:first-child { position: sticky; left: 0; text-align: left; background: #fff; font-weight: 600; }
tr > th:first-child button { text-align: left; } thead tr > th:first-child { background: #fafafb; }
.best { font-weight: 700; }
.plots { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 360px), 1fr)); gap: 16px;
  margin-top: 24px; }
figure { margin: 0; } .plots svg { width: 100%; height: auto; border: 1px solid var(--line); border-radius: 8px; }
details { margin-top: 24px; } summary { cursor: pointer; font-weight: 600; margin-bottom: 8px; }
footer { margin-top: 48px; padding-top: 12px; border-top: 1px solid var(--line); color: var(--faint); font-size: 13px; }
@media (max-width: 640px) { body { padding: 16px; } th, td, thead button { padding: 6px 9px; }
  tr > th:first-child { min-width: 128px; max-width: 38vw; white-space: normal; overflow-wrap: anywhere;
    border-right: 1px solid var(--line); } }
"""

SCRIPT = """
for (const button of document.querySelectorAll("thead button")) button.addEventListener("click", () => {
  const head = button.parentElement, table = head.closest("table"), body = table.tBodies[0];
  const column = [...head.parentElement.children].indexOf(head), down = head.getAttribute("aria-sort") !== "descending";
  for (const other of head.parentElement.children) other.setAttribute("aria-sort", "none");
  head.setAttribute("aria-sort", down ? "descending" : "ascending");
  const value = row => row.children[column].dataset.value;
  const compare = (a, b) => a === "" ? 1 : b === "" ? -1 : (down ? -1 : 1) *
    (isNaN(a) || isNaN(b) ? a.localeCompare(b) : a - b);
  body.append(...[...body.rows].sort((a, b) => compare(value(a), value(b))));
});
"""

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<title>Seamline leaderboard</title>
<style>{style}</style>
</head>
<body>
<h1>Seamline leaderboard</h1>
<p class="about">Every figure comes from a row that <code>seamline evaluate</code> wrote, and every row names its
weights, data and code by their hashes. Click a heading to sort.</p>
<nav><ul>{links}</ul></nav>
{body}
<footer>Made by <code>seamline leaderboard</code> from {count}.</footer>
<script>{script}</script>
</body>
</html>
"""
