"""Activations against TransformerLens's own cache, one sequence at a time and without padding; the store's bookkeeping."""

import numpy as np
import pytest
import torch

from tests.support.tiny_checkpoints import tiny_checkpoint
from tests.support.toy_models import random_model
from workbench.activations import ActivationStore, collect, length_batches
from workbench.errors import UserError
from workbench.models import Site, load_model, runner_for


def sequences(n=9, longest=30, seed=0):
    rng = np.random.default_rng(seed)
    return [tuple(rng.integers(5, 300, size=rng.integers(2, longest)).tolist()) for _ in range(n)]


def own_cache(model, ids):
    _, cache = model.run_with_cache(torch.tensor([ids]))
    return cache


@pytest.mark.parametrize("batch_tokens", [1, 40, 10_000])
def test_every_site_and_rule_equals_the_cache_of_a_lone_sequence(batch_tokens):
    model, texts = random_model(), sequences()
    sites = [
        Site(0),
        Site(2),
        Site(1, "mlp_out"),
        Site(1, "resid_pre"),
        Site(2, "resid_post", "response_mean"),
        Site(0, "resid_mid", "answer"),
    ]
    positions = {
        "decision": [-1] * len(texts),
        "answer": [len(t) // 2 for t in texts],
        "response_mean": [(len(t) // 3, len(t)) for t in texts],
    }
    found = collect(model, texts, sites, positions, batch_tokens)
    for i, ids in enumerate(texts):
        cache = own_cache(model, ids)
        for site in sites:
            start, stop = {
                "decision": (len(ids) - 1, len(ids)),
                "answer": (len(ids) // 2, len(ids) // 2 + 1),
                "response_mean": (len(ids) // 3, len(ids)),
            }[site.position]
            expected = cache[site.name][0, start:stop].mean(dim=0)
            torch.testing.assert_close(found[site][i], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("where", [-1, 1])
def test_one_token_of_the_top_block_equals_the_cache_and_runs_less(where):
    model, texts = random_model(), sequences()
    runner = runner_for(model)
    before = runner.meter.forward
    found = collect(model, texts, [Site(0), Site(2)], [where] * len(texts), batch_tokens=60)
    used = runner.meter.forward - before
    for i, ids in enumerate(texts):
        cache = own_cache(model, ids)
        for site in (Site(0), Site(2)):
            torch.testing.assert_close(found[site][i], cache[site.name][0, where], atol=1e-5, rtol=1e-5)
    collect(model, texts, [Site(0), Site(2)], [(0, len(t)) for t in texts], batch_tokens=60)
    assert used < runner.meter.forward - before - used


def test_z_keeps_its_heads_and_half_precision_comes_out_as_float32():
    model, texts = random_model(), sequences(3)
    found = collect(model, texts, [Site(1, "z")])[Site(1, "z")]
    assert found.shape == (3, 4, 8)
    torch.testing.assert_close(
        found[0], own_cache(model, texts[0])["blocks.1.attn.hook_z"][0, -1], atol=1e-5, rtol=1e-5
    )
    half = random_model(seed=1).to(torch.bfloat16)
    assert collect(half, texts, [Site(1)])[Site(1)].dtype == torch.float32
    random_model(seed=1).to(torch.float32)


def test_no_block_above_the_highest_site_is_run():
    model, ran = random_model(), []
    with model.hooks(
        fwd_hooks=[(f"blocks.{k}.hook_resid_pre", lambda a, hook: ran.append(hook.name)) for k in range(3)]
    ):
        collect(model, sequences(2), [Site(1), Site(0, "attn_out")])
    assert set(ran) == {"blocks.0.hook_resid_pre", "blocks.1.hook_resid_pre"}


def test_both_backends_read_the_same(tmp_path):
    path, texts = tiny_checkpoint("llama", tmp_path / "tiny"), sequences(5)
    sites = [Site(0), Site(2), Site(1, "mlp_out"), Site(2, "attn_out"), Site(3, "resid_pre")]
    hooked, bridge = (collect(load_model(path, backend=name), texts, sites) for name in ("hooked", "bridge"))
    for site in sites:
        torch.testing.assert_close(hooked[site], bridge[site], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("texts", "sites", "positions", "says"),
    [
        ([], [Site(0)], None, "no sequences"),
        ([(1, 2), ()], [Site(0)], None, "sequence 1 is empty"),
        ([(1,) * 300], [Site(0)], None, "300 tokens"),
        ([(1, 2)], [Site(7)], None, "layers 0-2"),
        ([(1, 2)], [Site(0)], [2], "position 2 is outside sequence 0"),
        ([(1, 2)], [Site(0)], [(1, 1)], "outside"),
        ([(1, 2)], [Site(0)], [0, 1], "1 sequences, 2 positions"),
        (
            [(1, 2)],
            [Site(0, position="answer")],
            {"decision": [0]},
            "no positions given for the rule 'answer'",
        ),
    ],
)
def test_bad_input_is_told_in_one_line(texts, sites, positions, says):
    with pytest.raises(UserError, match=says):
        collect(random_model(), texts, sites, positions)


def test_length_batches_hold_every_sequence_once_within_the_limit():
    texts = sequences(40)
    batches = list(length_batches(texts, 64))
    assert sorted(i for batch in batches for i in batch) == list(range(40))
    assert all(len(batch) == 1 or len(batch) * max(len(texts[i]) for i in batch) <= 64 for batch in batches)


def test_the_store_gives_each_vector_once_an_epoch_without_position_zero():
    model, texts = random_model(), tuple(sequences(12))
    total = sum(len(t) - 1 for t in texts)
    store = ActivationStore(model, texts, Site(1), batch_size=total, chunk_tokens=1, seed=3)
    first = next(store.batches())
    expected = torch.cat([own_cache(model, t)["blocks.1.hook_resid_post"][0, 1:] for t in texts])
    order = lambda x: x[x[:, 0].argsort()]  # noqa: E731
    torch.testing.assert_close(order(first), order(expected), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(first, expected)


@pytest.mark.parametrize("keep_bytes", [0, 2**30])
def test_a_resumed_stream_goes_on_with_the_same_batches(keep_bytes):
    store = ActivationStore(
        random_model(), tuple(sequences(20)), Site(0), 16, chunk_tokens=64, seed=1, keep_bytes=keep_bytes
    )
    stream = store.batches()
    straight = [next(stream) for _ in range(40)]
    for start in (0, 7, 23):
        resumed = store.batches(start)
        assert all(torch.equal(next(resumed), straight[i]) for i in range(start, 40))
    assert not torch.equal(
        straight[0],
        next(ActivationStore(random_model(), tuple(sequences(20)), Site(0), 16, 64, seed=2).batches()),
    )


def test_text_that_fits_is_run_once_and_gives_the_same_vectors_as_text_that_does_not():
    model, texts, ran = random_model(), tuple(sequences(20)), []
    streams = [
        ActivationStore(model, texts, Site(1), 64, 64, keep_bytes=size).batches() for size in (2**30, 0)
    ]
    with model.hooks(fwd_hooks=[("blocks.0.hook_resid_pre", lambda a, hook: ran.append(len(a)))]):
        kept = [next(streams[0]) for _ in range(20)]
        once = sum(ran)
        again = [next(streams[1]) for _ in range(20)]
    assert once == len(texts) and sum(ran) - once > 3 * len(texts)
    for a, b in zip(kept, again, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


def test_too_little_text_for_one_batch_is_refused():
    with pytest.raises(UserError, match="fewer than one batch of 512"):
        ActivationStore(random_model(), ((1, 2, 3),), Site(0))
