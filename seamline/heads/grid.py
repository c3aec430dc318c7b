"""Proposals of every duration: what lies before, inside and after each, as exact means over parts of it.

Ours. BA-TFD's boundary matching (Lin et al., BMN, ICCV 2019) takes N points of a proposal; over a long one they lie far
apart and what is between them is never seen. Here a proposal is cut into parts, and the mean over each is the
difference of two running sums: exact for any duration, at fractions of a tick too, and at the same cost for all.
Cells number rows x T, so with rows that grow geometrically the cost grows with the logarithm of the longest proposal.
"""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LEAST = 1e-3  # ticks: a part of a proposal with less than this inside the window is empty


@lru_cache(maxsize=32)
def edges(rows: tuple[int, ...], ticks: int, inside: int, around: int, reach: float) -> Tensor:
    """(P + 1, D, T) where the P = ``inside + 2 * around`` parts of [t, t + rows[d]) begin and end, in ticks.

    What lies around a proposal reaches half of its duration, and at least ``reach`` ticks, to either side.
    """
    start = torch.arange(ticks, dtype=torch.float64)
    length = torch.tensor(rows, dtype=torch.float64)[:, None]
    side = (length / 2).clamp(min=reach)
    steps = [start - side * (around - i) / around for i in range(around)]
    steps += [start + length * i / inside for i in range(inside + 1)]
    steps += [start + length + side * (i + 1) / around for i in range(around)]
    return torch.stack([step.expand(len(rows), ticks) for step in steps]).clamp(0, ticks)


class ProposalGrid(nn.Module):
    """A sequence to features of all proposals [t, t + rows[d]): (B, C, T) to (B, O, D, T).

    Args:
        channels: C.
        outputs: O.
        rows: durations in ticks, rising.
        width: channels that are averaged, to which C is reduced first.
        inside: parts of the proposal itself.
        around: parts on either side of it.
        reach: ticks that these reach at least.
    """

    def __init__(
        self,
        channels: int,
        outputs: int,
        rows: tuple[int, ...],
        width: int = 24,
        inside: int = 6,
        around: int = 2,
        reach: float = 4.0,
    ) -> None:
        super().__init__()
        self.rows, self.inside, self.around, self.reach = rows, inside, around, reach
        self.reduce = nn.Conv1d(channels, width, 1)
        self.join = nn.Linear((inside + 2 * around) * width, outputs)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B, C, T) and (B, 1, T) of what is there; a mean is over what is there, zero where nothing is."""
        b, _, t = x.shape
        y = self.reduce(x) * mask
        at = edges(self.rows, t, self.inside, self.around, self.reach).to(x.device)
        with torch.no_grad():  # what is there does not depend on any weight
            count = _between(mask, at)  # (P, D T, B, 1)
            share = (count > LEAST) / count.clamp(min=LEAST)
        means = _between(y, at) * share
        out: Tensor = self.join(means.permute(1, 2, 0, 3).flatten(2))  # (D T, B, O)
        return out.permute(1, 2, 0).reshape(b, -1, len(self.rows), t)


def _between(x: Tensor, at: Tensor) -> Tensor:
    """Sums of (B, C, T) between each of (P + 1, D, T) places and the next: (P, D T, B, C), in 32 bits.

    A place lies between two ticks, so it is a share of each of two running sums.
    """
    b, c, t = x.shape
    total = F.pad(x.float().cumsum(-1), (1, 1))  # (B, C, T + 2), one to spare at the end
    table = total.permute(2, 0, 1).reshape(t + 2, b * c)  # a row is what one place needs
    low = at.floor()
    share = (at - low).float().flatten()[:, None]
    index = low.long().flatten()
    sums = torch.lerp(F.embedding(index, table), F.embedding(index + 1, table), share).view(len(at), -1, b, c)
    return sums[1:] - sums[:-1]
