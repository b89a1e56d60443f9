"""Directions from labelled activations: pure functions of arrays, one for each published way.

Every function takes activations x [n, d_model] and persona scores y [n] (plus = shows the persona; log-odds, or +1 and -1)
and gives one vector. Its sign is plus = more of the persona; its length is the distance between the two class means along
it, in units of the residual stream, whatever the method, so that norms can be compared.

- mean difference: CAA (Rimsky et al. 2024), and the paper (arXiv 2601.02896) with its sign turned round.
- weighted mean difference: the same with weights that grow with |log-odds|; undecided items hardly count.
- logistic probe: scikit-learn's L2-regularised logistic regression on standardised activations.
- whitened mean difference: Fisher's linear discriminant, within-class covariance shrunk as Ledoit and Wolf (2004) say.
- principal direction of differences: representation engineering (Zou et al. 2023): first right singular vector of the pair
  differences. They are not centred: their mean is the very thing that is looked for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float
from sklearn.covariance import ledoit_wolf_shrinkage
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from workbench.errors import UserError

Fit = Callable[[Float[Tensor, "n d_model"], Float[Tensor, " n"]], Float[Tensor, " d_model"]]


def mean_difference(x: Float[Tensor, "n d_model"], y: Float[Tensor, " n"]) -> Float[Tensor, " d_model"]:
    """Mean over rows with y above the split minus mean over the others (`positive` says where the split lies)."""
    shown = positive(y)
    return x[shown].mean(dim=0) - x[~shown].mean(dim=0)


def weighted_difference(x: Float[Tensor, "n d_model"], y: Float[Tensor, " n"]) -> Float[Tensor, " d_model"]:
    """Mean difference with weights |y - mean(y)|: the covariance of activations and log-odds, up to its length."""
    weight = (y - y.mean()).to(x.dtype)
    _needs_spread(weight)
    up, down = weight.clamp(min=0), (-weight).clamp(min=0)
    return scaled(up @ x / up.sum() - down @ x / down.sum(), x, y)


def logistic_probe(
    x: Float[Tensor, "n d_model"], y: Float[Tensor, " n"], strength: float = 0.01
) -> Float[Tensor, " d_model"]:
    """Weights of a logistic regression of "y above the split" on standardised activations, in the activations' own units.

    strength: scikit-learn's C (inverse regularisation); small, since there are often fewer rows than dimensions.
    """
    shown = positive(y)
    spread = x.std(dim=0).clamp(min=1e-6)
    probe = LogisticRegression(C=strength, max_iter=1000, class_weight="balanced")
    probe.fit(((x - x.mean(dim=0)) / spread).numpy(), shown.numpy())
    return scaled(torch.from_numpy(probe.coef_[0]).to(x.dtype) / spread, x, y)


def whitened_difference(
    x: Float[Tensor, "n d_model"], y: Float[Tensor, " n"], shrinkage: float | None = None
) -> Float[Tensor, " d_model"]:
    """((1 - s) S + s m I)^-1 (mean difference): S the within-class covariance, m its mean variance, s the shrinkage.

    shrinkage: between 0 and 1; None takes Ledoit and Wolf's. Solved in the span of the data, so d_model may exceed n.
    """
    shown = positive(y)
    within = x.double().clone()
    within[shown] -= within[shown].mean(dim=0)
    within[~shown] -= within[~shown].mean(dim=0)
    s = float(ledoit_wolf_shrinkage(within.numpy(), assume_centered=True)) if shrinkage is None else shrinkage
    difference = mean_difference(x.double(), y)
    _, singular, basis = torch.linalg.svd(within, full_matrices=False)
    variance = singular.square() / len(x)
    floor = s * variance.sum() / x.shape[1]
    inside = basis @ difference
    solved = basis.T @ (inside / ((1 - s) * variance + floor))
    outside = difference - basis.T @ inside
    if floor > 0:
        solved = solved + outside / floor
    return scaled(solved.to(x.dtype), x, y)


def principal_difference(x: Float[Tensor, "n d_model"], y: Float[Tensor, " n"]) -> Float[Tensor, " d_model"]:
    """First right singular vector of the differences of pairs, turned so that the matching side reads higher.

    Rows come in pairs: the i-th row with y > 0 and the i-th row with y <= 0 belong together.
    """
    matching, other = x[y > 0], x[y <= 0]
    if len(matching) != len(other) or len(matching) == 0:
        raise UserError(f"pairs expected: found {len(matching)} matching and {len(other)} not matching rows")
    _, _, basis = torch.linalg.svd(matching - other, full_matrices=False)
    return scaled(basis[0], x, y)


def scaled(
    vector: Float[Tensor, " d_model"], x: Float[Tensor, "n d_model"], y: Float[Tensor, " n"]
) -> Float[Tensor, " d_model"]:
    """The vector turned and stretched so that its length is the distance of the two class means along it (plus = persona)."""
    length = vector.norm()
    if not torch.isfinite(length) or length == 0:
        raise UserError("the activations hold no difference between the two sides: a direction of length 0 came out")
    unit = vector / length
    return unit * (unit @ mean_difference(x, y).to(vector.dtype))


def positive(y: Float[Tensor, " n"], least: float = 0.1) -> Bool[Tensor, " n"]:
    """Which rows count as showing the persona: y > 0, or y above its median where y > 0 leaves one side below `least`.

    A model that shows the persona nearly always still differs in how strongly; then the stronger half is the positive one.
    """
    _needs_spread(y)
    sign, median = y > 0, y > y.median()
    if least <= float(sign.float().mean()) <= 1 - least:
        return sign
    if bool(median.any()):
        return median
    return sign if 0 < int(sign.sum()) < len(y) else y > y.mean()


def centred_by(x: Float[Tensor, "n d_model"], keys: Sequence[object]) -> Float[Tensor, "n d_model"]:
    """x minus the mean of its rows with the same key (item, say): what is left is what varies within an item."""
    _, index = np.unique([str(key) for key in keys], return_inverse=True)
    where = torch.from_numpy(index)
    total = torch.zeros(int(where.max()) + 1, x.shape[1], dtype=x.dtype).index_add_(0, where, x)
    return x - (total / torch.bincount(where)[:, None])[where]


def _needs_spread(y: Tensor) -> None:
    if len(y) < 2 or float(y.max() - y.min()) == 0:
        raise UserError(f"a direction needs two sides: all {len(y)} rows have the same score")
