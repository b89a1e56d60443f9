"""Latent cards against plain passes, numpy's histogram and the organism's own decoder rows; the cache; what never fires."""

from __future__ import annotations

import json
from dataclasses import dataclass
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
import torch

from tests.support.toy_models import random_model
from tests.support.toy_sae import toy_sae
from workbench.errors import UserError
from workbench.latents import LatentCardOptions, describe_latents
from workbench.latents import latent_cards as module
from workbench.models import Site, runner_for
from workbench.plots.svg import histogram_svg

TEXTS = [
    "Say yes and be honest.",
    "I do not know what it is.",
    "The capital of the river is Paris, 42 dollars today.",
    "no",
] * 3


@dataclass(frozen=True)
class Axis:
    vector: torch.Tensor
    site: Site

    @property
    def unit(self) -> torch.Tensor:
        return self.vector / self.vector.norm()


def plain(texts, latents):
    """Activations at all tokens but the first, one text at a time, by TransformerLens alone."""
    model, autoencoder = random_model(), toy_sae()
    found = []
    for text in texts:
        ids = runner_for(model).encode(text)
        _, cache = model.run_with_cache(torch.tensor([ids]))
        found.append(
            (ids, autoencoder.encode(cache["blocks.1.hook_resid_post"][0])[:, latents].detach().numpy())
        )
    return found


@pytest.fixture(scope="module")
def cards():
    directions = {"axis": Axis(toy_sae().W_dec[2], Site(1)), "elsewhere": Axis(torch.ones(32), Site(0))}
    named = LatentCardOptions({2: "plain speech"}, "a colleague")
    return describe_latents(
        random_model(), toy_sae("toy/1"), [0, 2, 3], TEXTS, directions, top=4, options=named
    )


def test_density_histogram_and_examples_are_those_of_plain_passes(cards):
    rows = [(ids, a) for ids, a in plain(TEXTS, [0, 2, 3]) if len(ids) > 1]
    for k, card in enumerate(cards):
        column = np.concatenate([a[1:, k] for _, a in rows])
        assert card.n_tokens == len(column) and card.density == pytest.approx((column > 0).mean())
        if not card.density:
            continue
        counts, edges = np.histogram(column[column > 0], bins=20)
        assert sum(card.counts) == (column > 0).sum() and card.edges == pytest.approx(edges, rel=1e-4)
        assert np.abs(np.array(card.counts) - counts).sum() <= 2, "rounding may move a value over an edge"
        peaks = sorted((float(a[1:, k].max()) for _, a in rows), reverse=True)[:4]
        assert [e.activation for e in card.examples] == pytest.approx(peaks, rel=1e-4)
        first = card.examples[0]
        assert first.activations[first.peak] == first.activation == max(first.activations[1:])
        assert (
            "".join(first.tokens) in {runner_for(random_model()).decode(ids) for ids, _ in rows}
            or len(first.tokens) >= 11
        )


def test_a_latent_that_never_fires_has_a_card_that_says_so(cards):
    card = cards[3]
    assert card.density == 0 and card.examples == () and card.counts == ()
    assert "0.00 % of" in card._repr_html_()


def test_logit_effects_directions_and_neighbours(cards):
    model, autoencoder = random_model(), toy_sae()
    logits = runner_for(model).logits(autoencoder.W_dec[0])
    decode = runner_for(model).decode
    assert [t for t, _ in cards[0].promotes] == [decode([i]) for i in logits.topk(5).indices.tolist()]
    assert cards[0].suppresses[0][0] == decode([int(logits.argmin())])
    assert cards[0].promotes[0][1] == pytest.approx(float(logits.max() - logits.mean()), abs=1e-4)
    assert cards[0].latents[0] == ("latent 4", pytest.approx(1.0, abs=1e-5))
    assert [name for name, _ in cards[2].directions] == ["axis"] and cards[2].directions[0][
        1
    ] == pytest.approx(1.0, abs=1e-5)


def test_labels_name_their_source_and_pages_their_address(cards):
    assert (cards[2].label, cards[2].label_source) == ("plain speech", "a colleague") and (
        cards[0].label,
        cards[0].label_source,
    ) == ("", "")
    assert cards[2].neuronpedia == "https://www.neuronpedia.org/toy/1/2"
    assert "label: a colleague" in cards[2]._repr_html_() and "no label" in cards[0]._repr_html_()
    with pytest.raises(UserError, match="no card of latent 7"):
        cards[7]


def test_the_corpus_is_read_once_and_again_when_something_changes(tmp_path, monkeypatch):
    reads = []
    original = module.read_all
    monkeypatch.setattr(module, "read_all", lambda *a: reads.append(1) or original(*a))

    def make(latents=(0, 2), texts=TEXTS):
        return describe_latents(random_model(), toy_sae(), latents, texts, cache=tmp_path / "cards.parquet")

    first = make()
    n = len(reads)
    assert n >= 1 and make().to_file().to_json() == first.to_file().to_json() and len(reads) == n
    make(latents=(0,))
    make(latents=(0,), texts=TEXTS[:5])
    assert len(reads) > n + 1
    assert list(pd.read_parquet(tmp_path / "cards.parquet")["latent"]) == [0]


def test_a_stream_of_ids_gives_the_same_cards_as_texts():
    runner = runner_for(random_model())
    ids = (runner.encode(text) for text in TEXTS)
    assert (
        describe_latents(runner, toy_sae(), [0], ids).to_file().to_json()
        == describe_latents(runner, toy_sae(), [0], TEXTS).to_file().to_json()
    )


def test_they_are_strict_json_and_show_hostile_tokens_as_text(cards):
    json.dumps(cards.to_file().to_json(), allow_nan=False)
    assert len(cards.table) == 3 and "3 latents of toy" in repr(cards)
    hostile = describe_latents(
        random_model(), toy_sae(), [0], TEXTS, options=LatentCardOptions({0: "</table><script>x</script>"})
    )
    seen: list[str] = []
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, attributes: seen.append(tag)
    parser.feed(hostile._repr_html_())
    assert "script" not in seen and "svg" in seen
    assert histogram_svg((), ()) == "" and 'role="img"' in histogram_svg((0.0, 1.0, 2.0), (3, 1))


def test_mistakes():
    with pytest.raises(UserError, match="latent 8 does not exist"):
        describe_latents(random_model(), toy_sae(), [8], TEXTS)
    with pytest.raises(UserError, match="no text of two tokens"):
        describe_latents(random_model(), toy_sae(), [0], [])
