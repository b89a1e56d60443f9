"""Vectors go to repeng and steering-vectors and back: the same numbers, and the same logits when they steer with them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from workbench.directions import ControlVector, read_gguf, write_gguf


@pytest.fixture
def repeng(monkeypatch):
    monkeypatch.setattr(np, "float_", np.float64, raising=False)  # repeng 0.4.0 is older than NumPy 2
    return pytest.importorskip(
        "repeng", reason="repeng is not installed: pip install --no-deps repeng==0.4.0"
    )


def test_a_control_vector_of_ours_steers_repeng_s_model_alike(repeng, pair, ids, tmp_path):
    theirs = repeng.ControlVector.import_gguf(write_gguf(pair.directions, tmp_path / "v.gguf", "llama"))
    wrapped = repeng.ControlModel(pair.theirs, [d.site.layer for d in pair.directions])
    try:
        wrapped.set_control(theirs, 1.0)
        with torch.no_grad():  # a row at a time: its mask expects positions for each row of a batch
            found = torch.cat([wrapped(row[None]).logits.log_softmax(-1) for row in ids])
        wrapped.reset()
        with torch.no_grad():
            plain = torch.cat([wrapped(row[None]).logits.log_softmax(-1) for row in ids])
    finally:
        wrapped.unwrap()
    torch.testing.assert_close(pair.steered(ids), found, rtol=1e-3, atol=1e-3)
    assert (found - plain).abs().max() > 0.1


def test_a_control_vector_of_repeng_s_is_read_as_it_is(repeng, pair, ids, tmp_path):
    vectors = {d.site.layer: d.vector.numpy() for d in pair.directions}
    repeng.ControlVector(model_type="llama", directions=vectors).export_gguf(tmp_path / "v.gguf")
    read = read_gguf(tmp_path / "v.gguf")
    assert read.model_hint == "llama" and {k: v.tolist() for k, v in read.vectors.items()} == {
        k: v.tolist() for k, v in vectors.items()
    }
    again = tuple(read.direction(layer, "toy") for layer in vectors)
    torch.testing.assert_close(pair.steered(ids, again), pair.steered(ids))


def test_steering_vectors_go_both_ways(pair, ids):
    package = pytest.importorskip(
        "steering_vectors",
        reason="steering-vectors is not installed: pip install --no-deps steering-vectors==0.12.2",
    )
    theirs = package.SteeringVector({d.site.layer: d.vector for d in pair.directions})
    with torch.no_grad(), theirs.apply(pair.theirs):
        found = pair.theirs(ids).logits.log_softmax(-1)
    torch.testing.assert_close(pair.steered(ids), found, rtol=1e-3, atol=1e-3)
    back = ControlVector(theirs.layer_activations)
    assert all(torch.equal(back.direction(d.site.layer, "toy").vector, d.vector) for d in pair.directions)
