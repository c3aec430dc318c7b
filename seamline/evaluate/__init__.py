"""What a model is worth: photos or clips with known truth in, rows of figures out, and what is made from rows."""

from __future__ import annotations

from .calibration import calibrate
from .card import card_table, model_card, tables
from .leaderboard import leaderboard
from .plots import write_plots
from .rows import commit, evaluate, read_row

__all__ = [
    "calibrate",
    "card_table",
    "commit",
    "evaluate",
    "leaderboard",
    "model_card",
    "read_row",
    "tables",
    "write_plots",
]
