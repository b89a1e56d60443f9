"""Describe SAE latents by cards: which texts activate them, how often, and what they write to the logits.

1. The model is run on a corpus up to the SAE's site, some hundred texts at a time, and the latents are
   computed at every token but the first (whose residual stream is unlike all others in many models).
2. For each latent the card has the texts with its highest activations (one window per text), a histogram of
   its nonzero activations, and its density (fraction of tokens on which it is active). They are saved as
   Parquet with one row per latent, so that the corpus is read once.
3. Logit effects are the tokens that the latent's decoder row raises and lowers most, computed with the final
   norm and the unembedding. The nearest directions and latents have the largest cosines with the decoder row.
4. Labels come from the user and name their source; none is generated. Without a label, the promoted tokens
   are the only hint to a latent's meaning.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from workbench.activations import length_batches, read_all
from workbench.errors import UserError
from workbench.html_text import escape, html_table, plain_table, visible
from workbench.models import Runner, runner_for
from workbench.plots.svg import histogram_svg
from workbench.runs import read_table, write_table
from workbench.sae import Sae
from workbench.sae.sae_check import DENSITY_HEADER
from workbench.schema import CardEntry, CardRow, CardsFile

#: Texts that are in memory at a time; bars of the histogram; tokens on each side of an example's peak.
CHUNK, BINS, WINDOW = 256, 20, 10
Weighted = tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class LatentExample:
    """A window of a text in which an SAE latent is active, around the token with its highest activation.

    Attributes:
        activation: Activation of the latent at that token.
        peak: Index of that token in the window.
        tokens: Texts of the tokens of the window.
        activations: Activation of the latent at each of these tokens.
    """

    activation: float
    peak: int
    tokens: tuple[str, ...]
    activations: tuple[float, ...]


@dataclass(frozen=True, repr=False)
class LatentCard:
    """Description of one SAE latent.

    Attributes:
        latent: Number of the latent.
        density: Fraction of the `n_tokens` tokens on which it is active.
        n_tokens: Number of tokens read.
        edges: Edges of the histogram of its nonzero activations.
        counts: Number of tokens in each bar of the histogram.
        examples: Texts in which it is most active, the highest activation first.
        promotes: Tokens whose logits its decoder row raises most, with the change of the logit.
        suppresses: Tokens whose logits its decoder row lowers most, with the change of the logit.
        directions: Nearest directions, with the cosine to its decoder row.
        latents: Nearest latents of the SAE, with the cosine to its decoder row.
        label: Name that a user gave; "" without one.
        label_source: Who gave the label; "" without one.
        neuronpedia: Address of its page on Neuronpedia, if the SAE's file names one.
    """

    latent: int
    density: float
    n_tokens: int
    edges: tuple[float, ...]
    counts: tuple[int, ...]
    examples: tuple[LatentExample, ...]
    promotes: Weighted
    suppresses: Weighted
    directions: Weighted
    latents: Weighted
    label: str = ""
    label_source: str = ""
    neuronpedia: str | None = None

    def __repr__(self) -> str:
        facts = f"active on {100 * self.density:.2f} % of {self.n_tokens:,} tokens, raises {_listed(self.promotes)}"
        return f"Latent {self.latent} ({self.label or 'no label'}): {facts}"

    def _repr_html_(self) -> str:
        label = f"{self.label} (label: {self.label_source})" if self.label else "no label"
        facts = {
            "density": f"active on {100 * self.density:.2f} % of {self.n_tokens:,} tokens",
            "raises the logits of": _listed(self.promotes),
            "lowers the logits of": _listed(self.suppresses),
            "nearest directions": _listed(self.directions),
            "nearest latents": _listed(self.latents),
            "Neuronpedia": self.neuronpedia or "no page is named",
        }
        table = html_table(
            pd.DataFrame({"": list(facts), " ": list(facts.values())}),
            caption=f"Latent {self.latent}: {label}",
        )
        rows = pd.DataFrame(
            {"activation": [e.activation for e in self.examples], "text": [_marked(e) for e in self.examples]}
        )
        return (
            table
            + histogram_svg(self.edges, self.counts)
            + (html_table(rows, caption="fires most in") if self.examples else "")
        )


@dataclass(frozen=True, repr=False)
class LatentCards:
    """Descriptions (cards) of several latents of an SAE.

    Attributes:
        sae: Name of the SAE.
        site: Site in the model that the SAE reads.
        corpus: Description of the text that was read.
        cards: One card per latent.
    """

    sae: str
    site: str
    corpus: str
    cards: tuple[LatentCard, ...]

    def __len__(self) -> int:
        return len(self.cards)

    def __iter__(self) -> Iterator[LatentCard]:
        return iter(self.cards)

    def __getitem__(self, latent: int) -> LatentCard:
        """Return the card of a latent by its number; UserError if there is none."""
        found = next((card for card in self.cards if card.latent == latent), None)
        if found is None:
            raise UserError(
                f"no card of latent {latent}: there are cards of {', '.join(str(card.latent) for card in self.cards)}"
            )
        return found

    @property
    def table(self) -> pd.DataFrame:
        """Table with one row per latent.

        It has the latent's label, its density (fraction of tokens on which it is active), the tokens whose
        logits it raises, the direction nearest to its decoder row, and the text in which it is most active.
        """
        return pd.DataFrame(
            [
                {
                    "latent": c.latent,
                    "label": c.label,
                    DENSITY_HEADER: c.density,
                    "promotes": _listed(c.promotes),
                    "nearest_direction": _listed(c.directions[:1]),
                    "fires_most_in": _marked(c.examples[0]) if c.examples else "",
                }
                for c in self.cards
            ]
        )

    def to_file(self) -> CardsFile:
        """Return the cards as the content of cards.json."""
        return CardsFile(
            sae=self.sae,
            site=self.site,
            corpus=self.corpus,
            cards=[CardEntry(**asdict(card)) for card in self.cards],
        )

    @property
    def _caption(self) -> str:
        return f"{len(self)} latents of {self.sae}, read on {self.corpus}"

    def __repr__(self) -> str:
        return plain_table(self.table, self._caption)

    def _repr_html_(self) -> str:
        return f"<p>{escape(self._caption)}</p>" + "".join(card._repr_html_() for card in self.cards)


@dataclass(frozen=True)
class LatentCardOptions:
    """Options of latent cards: labels and a description of the corpus.

    Attributes:
        labels: Names of latents, by number.
        label_source: Who gave the names.
        about: Description of the corpus; if empty, its number of tokens is shown.

    Example:
        >>> wb.LatentCardOptions(labels={17: "polite openings"}, label_source="A. Reader").about
        ''
    """

    labels: Mapping[int, str] = field(default_factory=dict)
    label_source: str = "the user"
    about: str = ""


def describe_latents(
    model: Any,
    sae: Sae,
    latents: Sequence[int],
    corpus: Iterable[str | Sequence[int]],
    directions: Mapping[str, Any] | None = None,
    cache: str | Path | None = None,
    top: int = 6,
    options: LatentCardOptions | None = None,
) -> LatentCards:
    """Make cards of latents: which texts activate them, how often, and which tokens they promote.

    Args:
        model: A loaded model or its runner.
        sae: The SAE of the latents.
        latents: Numbers of the latents.
        corpus: Texts or token ids on which the latents are computed.
        directions: Directions by name; cards show the cosines of those at the SAE's site with the decoder
            rows. None: no directions.
        cache: A Parquet file. If it was written for the same model, SAE, latents and corpus, it is read
            instead of running the model; otherwise it is written. None: no cache.
        top: Number of example texts per latent.
        options: Labels, and a description of the corpus.

    Returns:
        One card per latent, in the order of `latents`.

    Raises:
        UserError: A latent does not exist, or the corpus has no text of two tokens or more.

    Example:
        >>> cards = wb.describe_latents(model, sae, latents.ids[:1], texts)
        >>> 0 <= cards.cards[0].density <= 1
        True
    """
    runner, options = runner_for(model), options or LatentCardOptions()
    sae.check(runner)
    sae.pre_activations(
        torch.zeros(1, sae.d_in), list(latents)
    )  # raises an error for a latent that does not exist, before the corpus is read
    frame = _cached(runner, sae, latents, corpus, top, cache)
    near = _nearest(sae, list(latents), directions or {})
    rows: list[Any] = list(frame.itertuples())
    cards = [
        _card(runner, sae, row, near[row.latent], options.labels.get(row.latent, ""), options.label_source)
        for row in rows
    ]
    return LatentCards(
        sae.name, sae.site.name, options.about or f"{int(frame['n_tokens'].iloc[0]):,} tokens", tuple(cards)
    )


def _cached(
    runner: Runner,
    sae: Sae,
    latents: Sequence[int],
    corpus: Iterable[Any],
    top: int,
    cache: str | Path | None,
) -> pd.DataFrame:
    if cache is None:
        return _read(runner, sae, latents, corpus, top)
    corpus = list(corpus)
    digest = hashlib.sha256(f"{runner.fingerprint} {sae.name} {sae.site.name} {list(latents)} {top}".encode())
    digest.update(sae.W_enc[:, list(latents)].float().cpu().numpy().tobytes())
    for text in corpus:
        digest.update(repr(text if isinstance(text, str) else tuple(text)).encode("utf-8", "surrogatepass"))
    key = digest.hexdigest()
    if Path(cache).is_file():
        frame = read_table(cache, CardRow)
        if set(frame["key"]) == {key}:
            return frame
    frame = _read(runner, sae, latents, corpus, top)
    write_table(cache, frame.assign(key=key), CardRow)
    return frame


def _read(runner: Runner, sae: Sae, latents: Sequence[int], corpus: Iterable[Any], top: int) -> pd.DataFrame:
    """Compute the data of the cards from the corpus, one row per latent.

    Columns: n_tokens, fired (number of tokens), edges, counts, examples (activation, peak, ids, activations).
    """
    values: list[list[np.ndarray]] = [[] for _ in latents]
    best: list[list[dict[str, Any]]] = [[] for _ in latents]
    n_tokens, stream = 0, iter(corpus)
    while chunk := [_ids(runner, text) for text in itertools.islice(stream, CHUNK)]:
        chunk = [ids for ids in chunk if len(ids) > 1]
        for batch in length_batches(chunk, 8192):
            rows = [chunk[i] for i in batch]
            states = read_all(runner, rows, [sae.site])[sae.site]
            with torch.no_grad():
                read = [
                    sae.encode_some(state[: len(ids)].float(), latents).cpu().numpy()
                    for state, ids in zip(states, rows, strict=True)
                ]
            n_tokens += sum(len(ids) - 1 for ids in rows)
            for ids, activations in zip(rows, read, strict=True):
                _note(ids, activations, values, best, top)
    if n_tokens == 0:
        raise UserError("the corpus holds no text of two tokens or more: nothing to read the latents on")
    return pd.DataFrame(
        [
            {
                "latent": int(latent),
                "n_tokens": n_tokens,
                "fired": sum(map(len, values[k])),
                **_histogram(values[k]),
                "examples": best[k],
            }
            for k, latent in enumerate(latents)
        ]
    )


def _note(
    ids: Sequence[int],
    activations: np.ndarray,
    values: list[list[np.ndarray]],
    best: list[list[dict[str, Any]]],
    top: int,
) -> None:
    """Add a text's nonzero activations to each latent's values, and a strong text to its examples."""
    for k in range(activations.shape[1]):
        column = activations[1:, k]
        if not (on := column[column != 0]).size:
            continue
        values[k].append(on)
        at = 1 + int(column.argmax())
        if len(best[k]) == top and activations[at, k] <= best[k][-1]["activation"]:
            continue
        start, stop = max(0, at - WINDOW), min(len(ids), at + WINDOW + 1)
        window = [float(a) for a in activations[start:stop, k]]
        example = {
            "activation": float(activations[at, k]),
            "peak": at - start,
            "ids": list(map(int, ids[start:stop])),
            "activations": window,
        }
        best[k] = sorted([*best[k], example], key=lambda e: -e["activation"])[:top]


def _histogram(parts: list[np.ndarray]) -> dict[str, list[float]]:
    if not parts:
        return {"edges": [], "counts": []}
    counts, edges = np.histogram(np.concatenate(parts), bins=BINS)
    return {"edges": [float(edge) for edge in edges], "counts": [int(count) for count in counts]}


def _card(
    runner: Runner, sae: Sae, row: Any, near: tuple[Weighted, Weighted], label: str, source: str
) -> LatentCard:
    examples = tuple(
        LatentExample(
            float(e["activation"]),
            int(e["peak"]),
            tuple(runner.decode([int(i)]) for i in e["ids"]),
            tuple(map(float, e["activations"])),
        )
        for e in row.examples
    )
    promotes, suppresses = _logits(runner, sae, row.latent)
    return LatentCard(
        int(row.latent),
        row.fired / row.n_tokens,
        int(row.n_tokens),
        tuple(map(float, row.edges)),
        tuple(map(int, row.counts)),
        examples,
        promotes,
        suppresses,
        *near,
        label,
        source if label else "",
        sae.neuronpedia(int(row.latent)),
    )


@torch.no_grad()
def _logits(runner: Runner, sae: Sae, latent: int, n: int = 5) -> tuple[Weighted, Weighted]:
    """Return the tokens whose logits a decoder row raises and lowers most, relative to all tokens' mean.

    Both are empty if the SAE does not read the residual stream.
    """
    if sae.W_dec.shape[1] != runner.shape.d_model or not sae.site.hook.startswith("resid"):
        return (), ()
    logits = runner.logits(sae.W_dec[latent].to(runner.device, runner.dtype))
    logits = logits - logits.mean()
    return tuple(
        tuple(
            (runner.decode([int(i)]), float(v))
            for v, i in zip(*(part.tolist() for part in logits.topk(n, largest=largest)), strict=True)
        )
        for largest in (True, False)
    )  # type: ignore[return-value]


def _nearest(
    sae: Sae, latents: list[int], directions: Mapping[str, Any], n: int = 3
) -> dict[int, tuple[Weighted, Weighted]]:
    """Return for each latent its nearest directions and latents, by |cosine| with its decoder row."""
    rows = torch.nn.functional.normalize(sae.W_dec.float().cpu(), dim=-1)
    here = {
        name: d.unit.float().cpu()
        for name, d in directions.items()
        if d.site == sae.site and len(d.unit) == rows.shape[1]
    }
    found: dict[int, tuple[Weighted, Weighted]] = {}
    for latent in latents:
        cosines = sorted(
            ((name, float(rows[latent] @ unit)) for name, unit in here.items()),
            key=lambda pair: -abs(pair[1]),
        )
        others = rows @ rows[latent]
        others[latent] = 0
        nearest = others.abs().topk(min(n, len(others) - 1)).indices.tolist()
        found[latent] = tuple(cosines[:n]), tuple((f"latent {i}", float(others[i])) for i in nearest)
    return found


def _ids(runner: Runner, text: str | Sequence[int]) -> list[int]:
    ids = runner.encode(text) if isinstance(text, str) else [int(i) for i in text]
    return ids[: runner.shape.n_ctx]


def _listed(pairs: Weighted) -> str:
    return (
        ", ".join(f"{visible(name.strip() or name, spaces=False)} ({value:+.2f})" for name, value in pairs)
        or "none"
    )


def _marked(example: LatentExample) -> str:
    """Return the text of the window, with the token of the highest activation in brackets."""
    return "".join(
        f"[{token}]" if i == example.peak else token for i, token in enumerate(example.tokens)
    ).strip()
