"""Directions: fits against scikit-learn and hand arithmetic, planted directions, formats against their own readers."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from gguf import GGMLQuantizationType, GGUFEndian, GGUFReader, GGUFWriter, quantize
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from scipy.stats import spearmanr
from sklearn.covariance import ledoit_wolf
from sklearn.decomposition import TruncatedSVD
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from tests.support.toy_models import random_model, toy_persona
from workbench.activations import collect
from workbench.contexts import make_contexts
from workbench.directions import (
    Direction,
    DirectionMethod,
    find_directions,
    load_directions,
    random_directions,
    read_gguf,
    read_persona_vectors,
    save_directions,
    write_gguf,
    write_persona_vectors,
)
from workbench.directions import direction_quality as quality
from workbench.directions import methods as fit
from workbench.directions.activation_sampling import ActivationSampler, deal_texts
from workbench.directions.class_split import centred_by, positive
from workbench.directions.labelled_activations import answer_pairs, own_choices, responses
from workbench.errors import UserError
from workbench.forced_choice import answer
from workbench.models import Site, runner_for


def planted(n=400, d=24, noise=0.5, seed=0, stretch=1.0):
    """Rows whose score is their coordinate along `axis`, in noise that is stretched (0: round)."""
    g = torch.Generator().manual_seed(seed)
    axis = torch.nn.functional.normalize(torch.randn(d, generator=g), dim=0)
    spread = torch.logspace(-stretch, stretch, d)
    score = torch.randn(n, generator=g)
    x = score[:, None] * axis + noise * spread * torch.randn(n, d, generator=g) + 5
    return x, score, axis


# ---- fits


def test_mean_difference_by_hand():
    x = torch.tensor([[1.0, 0.0], [3.0, 2.0], [0.0, 1.0], [0.0, -1.0]])
    assert fit.mean_difference(x, torch.tensor([2.0, 0.5, -1.0, -3.0])).tolist() == [2.0, 1.0]


def test_weighted_difference_is_the_covariance_with_the_log_odds():
    x, y, _ = planted()
    covariance = torch.from_numpy(np.cov(x.double().numpy().T, y.double().numpy()))[-1, :-1].float()
    assert quality.cosine(fit.weighted_difference(x, y), covariance) == pytest.approx(1, abs=1e-6)


def test_the_probe_is_scikit_learns_on_standardised_rows():
    x, y, _ = planted()
    z = (x - x.mean(0)) / x.std(0)
    theirs = LogisticRegression(C=0.01, max_iter=1000, class_weight="balanced").fit(
        z.numpy(), (y > 0).numpy()
    )
    assert quality.cosine(
        fit.logistic_probe(x, y), torch.from_numpy(theirs.coef_[0]).float() / x.std(0)
    ) == pytest.approx(1, abs=1e-5)


def test_unshrunk_whitening_is_linear_discriminant_analysis():
    x, y, _ = planted()
    theirs = LinearDiscriminantAnalysis(solver="eigen").fit(x.double().numpy(), (y > 0).numpy()).coef_[0]
    assert quality.cosine(
        fit.whitened_difference(x, y, shrinkage=0.0).double(), torch.from_numpy(theirs)
    ) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("n", [15, 400])
def test_shrunk_whitening_solves_ledoit_and_wolfs_covariance_also_with_fewer_rows_than_dimensions(n):
    x, y, _ = planted(n)
    within = x.double().clone()
    for side in (y > 0, y <= 0):
        within[side] -= within[side].mean(0)
    covariance, _ = ledoit_wolf(within.numpy(), assume_centered=True)
    difference = (x[y > 0].mean(0) - x[y <= 0].mean(0)).double()
    expected = torch.linalg.solve(torch.from_numpy(covariance), difference)
    assert quality.cosine(fit.whitened_difference(x, y).double(), expected) == pytest.approx(1, abs=1e-6)


def test_principal_difference_is_the_first_singular_vector_with_the_personas_sign():
    g = torch.Generator().manual_seed(0)
    axis = torch.nn.functional.normalize(torch.randn(12, generator=g), dim=0)
    base = torch.randn(60, 1, 12, generator=g)
    pairs = torch.cat([base + axis, base - axis + 0.1 * torch.randn(60, 1, 12, generator=g)], dim=1).reshape(
        120, 12
    )
    y = torch.tensor([1.0, -1.0]).repeat(60)
    found = fit.principal_difference(pairs, y)
    theirs = (
        TruncatedSVD(1, algorithm="arpack").fit((pairs[0::2] - pairs[1::2]).double().numpy()).components_[0]
    )
    assert abs(quality.cosine(found.double(), torch.from_numpy(theirs))) == pytest.approx(1, abs=1e-6)
    assert quality.cosine(found, axis) > 0.99
    assert fit.principal_difference(pairs, -y) @ axis < 0
    with pytest.raises(UserError, match="pairs expected: found 59"):
        fit.principal_difference(pairs[1:], y[1:])


ALL_FITS = (fit.mean_difference, fit.weighted_difference, fit.logistic_probe, fit.whitened_difference)


@pytest.mark.parametrize("make", ALL_FITS)
def test_every_fit_finds_the_planted_axis_and_its_length_is_the_distance_of_the_means(make):
    x, y, axis = planted(n=4000, stretch=0)
    v = make(x, y)
    assert quality.cosine(v, axis) > 0.9
    unit = v / v.norm()
    assert float(v.norm()) == pytest.approx(
        float(x[y > 0].mean(0) @ unit - x[y <= 0].mean(0) @ unit), rel=1e-4
    )


@pytest.mark.parametrize("make", ALL_FITS)
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000), shift=st.floats(-50, 50))
def test_fits_turn_round_with_the_scores_and_ignore_a_shift(make, seed, shift):
    x, y, _ = planted(60, 8, seed=seed)
    v = make(x, y)
    assert quality.cosine(make(x, -y), -v) > 0.999
    assert quality.cosine(make(x + shift, y), v) > 0.999


def test_a_one_sided_model_is_split_at_its_median_and_a_constant_one_refused():
    assert positive(torch.tensor([1.0, 2, 3, 4])).tolist() == [False, False, True, True]
    assert positive(torch.tensor([-1.0, 2, 3, 4])).tolist() == [False, True, True, True]
    assert positive(torch.tensor([1.0] * 19 + [-1.0])).sum() == 19
    with pytest.raises(UserError, match="two sides"):
        positive(torch.ones(5))
    with pytest.raises(UserError, match="length 0"):
        fit.weighted_difference(torch.ones(4, 3), torch.tensor([1.0, -1, 2, -2]))


def test_centring_takes_each_items_mean_off():
    x = torch.tensor([[1.0], [3.0], [10.0], [30.0]])
    assert centred_by(x, ["a", "a", "b", "b"]).flatten().tolist() == [-1, 1, -10, 10]


# ---- quality


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(-5, 5), st.booleans()), min_size=4, max_size=60))
def test_auc_is_scikit_learns_ties_included(rows):
    readings, shown = torch.tensor([float(r) for r, _ in rows]), torch.tensor([s for _, s in rows])
    if shown.all() or not shown.any():
        assert np.isnan(quality.auc(readings, shown))
    else:
        assert quality.auc(readings, shown) == pytest.approx(roc_auc_score(shown.numpy(), readings.numpy()))


def test_the_angle_is_firm_with_a_strong_signal_and_near_a_right_angle_without_one():
    x, y, _ = planted(noise=0.05)
    groups = [str(i // 4) for i in range(len(y))]
    low, high = quality.angle_interval(fit.mean_difference, x, y, groups)
    assert 0 <= low <= high < 25
    nothing = torch.randn(400, 200, generator=torch.Generator().manual_seed(5))
    assert quality.angle_interval(fit.mean_difference, nothing, y, groups)[0] > 35
    assert quality.split_cosine(fit.mean_difference, x, y, groups) > 0.9
    assert abs(quality.split_cosine(fit.mean_difference, nothing, y, groups)) < 0.35


def test_groups_widen_the_angle_where_rows_of_a_group_are_copies():
    x, y, _ = planted(40, noise=0.5)
    copies, scores = x.repeat_interleave(10, 0), y.repeat_interleave(10)
    as_groups = quality.angle_interval(
        fit.mean_difference, copies, scores, [str(i // 10) for i in range(400)]
    )
    as_rows = quality.angle_interval(fit.mean_difference, copies, scores, [str(i) for i in range(400)])
    assert as_groups[1] > 1.5 * as_rows[1]


def test_rank_correlation_is_scipys_and_its_interval_holds_it():
    rng = np.random.default_rng(0)
    a = rng.normal(size=30)
    b = a + rng.normal(size=30)
    value, low, high = quality.rank_correlation(a, b)
    assert value == pytest.approx(spearmanr(a, b).statistic) and low < value < high
    theirs = np.percentile(
        [spearmanr(a[i], b[i]).statistic for i in np.random.default_rng(0).integers(30, size=(200, 30))],
        [2.5, 97.5],
    )
    assert [low, high] == pytest.approx(theirs.tolist())
    assert np.isnan(quality.rank_correlation(np.zeros(5), np.arange(5.0))[0])
    with pytest.raises(UserError, match="at least 3 prompts"):
        quality.rank_correlation(a[:2], b[:2])


# ---- data


def test_answer_pairs_are_read_at_the_answers_last_token():
    model, split = random_model(), toy_persona().split().train
    runner, contexts = runner_for(model), make_contexts(model, split, n=3)
    data = answer_pairs(runner, contexts, [0, 2])
    assert data.scores.tolist() == [1.0, -1.0] * len(contexts)
    _, cache = model.run_with_cache(torch.tensor([[*contexts[1].bare_ids, *contexts[1].answers[1]]]))
    torch.testing.assert_close(
        data.states[2][3], cache["blocks.2.hook_resid_post"][0, -1], atol=1e-5, rtol=1e-5
    )
    assert data.first_shown.tolist() == [True, False, False, True] * (len(contexts) // 2)


@pytest.mark.parametrize("metric", ["letters", "text"])
def test_own_choices_have_the_states_and_log_odds_of_answers_py(metric):
    model, split = random_model(), toy_persona(metric).split().train
    runner, contexts = runner_for(model), make_contexts(model, split, n=4)
    prompt = tuple(runner.encode("Be blunt"))
    data = own_choices(runner, list(contexts), [prompt] * len(contexts), [1])
    np.testing.assert_allclose(data.scores.numpy(), answer(model, contexts, prompt).log_odds, atol=1e-5)
    expected = collect(model, [c.ids(prompt) for c in contexts], [Site(1)])[Site(1)]
    torch.testing.assert_close(data.states[1], expected, atol=1e-5, rtol=1e-5)


def test_responses_are_averaged_over_their_own_tokens_only():
    model, split = random_model(), toy_persona("text").split().train.take(2)
    runner = runner_for(model)
    data = responses(runner, split, [1])
    text = runner.render([{"role": "user", "content": split[0].question}])
    _, cache = model.run_with_cache(torch.tensor([runner.encode(text + "no")]))
    start = len(runner.encode(text))
    torch.testing.assert_close(
        data.states[1][1], cache["blocks.1.hook_resid_post"][0, start:].mean(0), atol=1e-5, rtol=1e-5
    )
    assert data.lengths[1] == len(runner.encode(text + "no")) - start


def test_items_stand_under_several_texts_in_both_orders_and_centring_leaves_no_context_mean():
    draw = ActivationSampler(runner_for(random_model()), [1])
    plain, within = (
        draw.labelled(toy_persona().split().train, kind, 36) for kind in ("choice", "choice_within")
    )
    counts = {name: plain.context_ids.count(name) for name in set(plain.context_ids)}
    assert len(plain) == 36 and len(counts) == 12 and set(counts.values()) == {3}
    assert len({text.split(" | ")[0] for text in plain.texts}) > 3
    for name in counts:
        rows = torch.tensor([i == name for i in within.context_ids])
        assert (
            within.states[1][rows].mean(0).abs().max() < 1e-5
            and abs(float(within.scores[rows].mean())) < 1e-5
        )
    centred = plain.states[1] - within.states[1]
    assert all(
        torch.allclose(centred[i], centred[plain.context_ids.index(name)], atol=1e-5)
        for i, name in enumerate(plain.context_ids)
    )


# ---- the sweep


@pytest.fixture(scope="module")
def scan():
    splits = toy_persona("text").split()
    return find_directions(
        random_model(),
        splits.train,
        splits.search,
        methods=("mean_difference", "own_choice_within", "whitened"),
        n=160,
        n_contexts=8,
    )


def test_the_best_direction_predicts_prompts_that_made_nothing(scan):
    assert scan.best.site.position == "decision" and len(scan.table) == 9
    assert scan.table["predicts"].iloc[0] == scan.table["predicts"].max() > 0.5
    assert spearmanr(scan.effects["reading"], scan.effects["effect"]).statistic == pytest.approx(
        scan.table["predicts"].iloc[0]
    )
    fitting, testing = deal_texts(toy_persona().varied_system_texts, 32, 0)
    assert (
        set(scan.effects["text"]) == set(testing) and not set(testing) & set(fitting) and len(testing) == 10
    )


def test_effects_and_readings_are_those_of_answers_and_activations_computed_apart(scan):
    model, split = random_model(), toy_persona("text").split().search
    contexts = make_contexts(model, split, n=4)
    text = scan.effects["text"].iloc[3]
    from workbench.prompt_tokens import encode_prompt

    prompt = encode_prompt(model, contexts, text)
    effect = (answer(model, contexts, prompt).log_odds - answer(model, contexts).log_odds).mean()
    site = scan.best.site
    with_text = collect(model, [c.ids(prompt) for c in contexts], [site])[site]
    bare = collect(model, [c.bare_ids for c in contexts], [site])[site]
    reading = ((with_text - bare) @ (scan.best.vector / scan.best.vector.norm())).mean()
    assert scan.effects["effect"].iloc[3] == pytest.approx(effect, abs=1e-4)
    assert scan.effects["reading"].iloc[3] == pytest.approx(float(reading), abs=1e-4)


def test_the_same_seed_gives_the_same_scan(scan):
    splits = toy_persona("text").split()
    best = scan.best
    again, once_more = (
        find_directions(
            random_model(), splits.train, splits.search, [best.site.layer], [best.method], n=160, n_contexts=8
        )
        for _ in range(2)
    )
    assert torch.equal(again.best.vector, once_more.best.vector)
    assert again.table.equals(once_more.table) and again.effects.equals(once_more.effects)
    # read alone the layer is the highest, whose block is run to its end at the decision token only: the same
    # to rounding
    torch.testing.assert_close(again.best.vector, best.vector, rtol=1e-4, atol=1e-5)
    angles = ["angle_low", "angle_high"]  # degrees: the arc cosine of nearly one is all rounding
    pd.testing.assert_series_equal(
        again.table.iloc[0].drop(angles), scan.table.iloc[0].drop(angles), rtol=1e-3, check_names=False
    )
    assert again.table.iloc[0][angles].to_numpy(float) == pytest.approx(
        scan.table.iloc[0][angles].to_numpy(float), abs=0.1
    )
    pd.testing.assert_frame_equal(again.effects, scan.effects, rtol=1e-3)


def test_a_scan_shows_itself_and_names_what_it_lacks(scan):
    assert "predicts" in repr(scan) and "<table" in scan._repr_html_()
    assert scan.cosines().shape == (3, 3) and np.allclose(np.diag(scan.cosines()), 1)
    with pytest.raises(UserError, match="no direction for layer and method"):
        scan[9, "whitened"]


def test_a_method_of_ones_own_is_a_value(scan):
    splits = toy_persona().split()
    mine = DirectionMethod("first_row", "choice", lambda x, y: x[0], "nonsense", replicates=2)
    found = find_directions(
        random_model(), splits.train, splits.search, layers=[1], methods=[mine], n=40, n_contexts=4
    )
    assert found.best.method == "first_row" and found.best.site == Site(1)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"methods": ["magic"]}, "unknown direction method 'magic'"),
        ({"layers": [3]}, "layers 0-2"),
        ({"methods": []}, "at least one layer and one method"),
    ],
)
def test_a_wrong_sweep_is_told(arguments, says):
    splits = toy_persona().split()
    with pytest.raises(UserError, match=says):
        find_directions(random_model(), splits.train, splits.search, **arguments)
    with pytest.raises(UserError, match="at least 8 are needed"):
        deal_texts(["a", "b", "a "], 32, 0)


# ---- directions and controls


def direction(layer=1, d=16, seed=0, **more):
    vector = torch.randn(d, generator=torch.Generator().manual_seed(seed))
    return Direction(vector, Site(layer), "toy", "own_choice", 0.9, 0.25, "made up", 0.1, 2.0, **more)


def test_a_direction_reads_negates_and_refuses():
    d = direction()
    x = torch.randn(5, 16)
    torch.testing.assert_close(d.reading(x), x @ d.vector / d.vector.norm())
    assert (
        (-d).auc == pytest.approx(0.1)
        and torch.equal((-d).vector, -d.vector)
        and d.unit.norm() == pytest.approx(1)
    )
    for vector, says in [
        (torch.zeros(4), "length 0"),
        (torch.tensor([float("nan")]), "finite"),
        (torch.ones(2, 2), "one finite vector"),
    ]:
        with pytest.raises(UserError, match=says):
            Direction(vector, Site(0), "p", "m")
    with pytest.raises(UserError, match="width 16, the activations have 8"):
        d.reading(torch.ones(8))


def test_random_directions_have_the_activations_covariance_and_the_directions_norm():
    x, _, _ = planted(3000, 16)
    d = direction()
    made = random_directions(d, x, 2000, both_signs=False)
    vectors = torch.stack([m.vector for m in made])
    assert torch.allclose(vectors.norm(dim=1), torch.tensor(d.norm), atol=1e-4)
    wanted = torch.cov(x.T)
    raw = torch.randn(2000, 16, generator=torch.Generator().manual_seed(1)) @ torch.linalg.cholesky(wanted).T
    expected = torch.cov(torch.nn.functional.normalize(raw).T)
    found = torch.cov(torch.nn.functional.normalize(vectors).T)
    assert float((found - expected).norm() / expected.norm()) < 0.1
    assert float((found - torch.eye(16) / 16).norm() / found.norm()) > 0.5
    pairs = random_directions(d, x, 3, seed=4)
    assert len(pairs) == 6 and torch.equal(pairs[0].vector, -pairs[1].vector)
    assert torch.equal(pairs[2].vector, random_directions(d, x, 3, seed=4)[2].vector)


# ---- formats


def test_safetensors_keep_everything(tmp_path):
    both = (direction(1), direction(2, seed=1, fitted_at="answer"))
    again = load_directions(save_directions(both, tmp_path / "d.safetensors"))
    for a, b in zip(both, again, strict=True):
        assert torch.equal(a.vector, b.vector) and a.to_json() == b.to_json() and a.site == b.site


def gguf_of(path, vector, kind):
    """A control vector with one tensor of a GGUF type."""
    writer = GGUFWriter(path, "controlvector")
    raw = vector if kind.name in ("F64",) else quantize(vector, kind)
    writer.add_tensor("direction.1", raw, raw_dtype=None if kind.name in ("F64", "F32") else kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_a_gguf_vector_of_any_type_has_its_own_numbers(tmp_path):
    """Not the bytes. The oracles: NumPy's own halves, the upper 16 bits of a float32, and Q8_0's blocks of 32 by hand."""
    vector = np.random.default_rng(0).normal(size=64).astype(np.float32)
    bits = ((vector.view(np.uint32) + 0x7FFF + ((vector.view(np.uint32) >> 16) & 1)) >> 16).astype(
        np.uint32
    ) << 16
    blocks = vector.reshape(-1, 32)
    scale = np.abs(blocks).max(axis=1, keepdims=True) / 127
    wanted = {
        "F32": vector,
        "F64": vector,
        "F16": vector.astype(np.float16).astype(np.float32),
        "BF16": bits.view(np.float32),
        "Q8_0": (scale.astype(np.float16).astype(np.float32) * np.round(blocks / scale)).reshape(-1),
    }
    for name, numbers in wanted.items():
        source = vector.astype(np.float64) if name == "F64" else vector
        found = (
            read_gguf(gguf_of(tmp_path / f"{name}.gguf", source, GGMLQuantizationType[name]))
            .vectors[1]
            .numpy()
        )
        np.testing.assert_allclose(found, numbers, rtol=0, atol=1e-6, err_msg=name)
    with pytest.raises(UserError, match=r"'direction.1' has the shape \[32, 2\]: expected one vector"):
        read_gguf(gguf_of(tmp_path / "two.gguf", vector.reshape(2, 32), GGMLQuantizationType.F32))
    with pytest.raises(UserError, match="has the type I32, which is not read"):
        integers = GGUFWriter(tmp_path / "i.gguf", "controlvector")
        integers.add_tensor("direction.1", np.arange(4, dtype=np.int32))
        integers.write_header_to_file()
        integers.write_kv_data_to_file()
        integers.write_tensors_to_file()
        integers.close()
        read_gguf(tmp_path / "i.gguf")


@pytest.mark.parametrize(
    ("names", "settings", "message"),
    [
        (("direction.1",), {"endianess": GGUFEndian.BIG}, "is big-endian, which is not read"),
        (("direction.01",), {}, "tensor 'direction.01' names no layer"),
        (("direction.\u00b2",), {}, "names no layer"),
        (("direction.\u0661",), {}, "names no layer"),
        (("direction.1.bias",), {}, "names no layer"),
        (("direction.99999999999999999999",), {}, "names no layer"),
        (("direction.-1",), {}, "names no layer"),
        (("zeros.1",), {}, "expected a GGUF of architecture 'controlvector' with tensors 'direction.L'"),
    ],
)
def test_a_gguf_vector_that_would_be_misread_is_refused(tmp_path, names, settings, message):
    writer = GGUFWriter(tmp_path / "v.gguf", "controlvector", **settings)
    for name in names:
        writer.add_tensor(name, np.arange(1, 33, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(UserError, match=message) as caught:
        read_gguf(tmp_path / "v.gguf")
    assert "found something else" not in str(caught.value)


def test_a_vector_of_zeros_is_refused(tmp_path):
    with pytest.raises(UserError, match="the vector of layer 1 is all zeros"):
        read_gguf(gguf_of(tmp_path / "v.gguf", np.zeros(32, np.float32), GGMLQuantizationType.F32))


def test_gguf_names_block_outputs_as_repeng_and_llama_cpp_do(tmp_path):
    path = write_gguf([direction(2), direction(1, seed=1)], tmp_path / "v.gguf", "llama")
    reader = GGUFReader(path)
    assert reader.get_field("general.architecture").contents() == "controlvector"
    assert reader.get_field("controlvector.layer_count").contents() == 2
    assert [t.name for t in reader.tensors] == ["direction.1", "direction.2"]
    np.testing.assert_array_equal(reader.tensors[1].data, direction(2).vector.numpy())
    read = read_gguf(path)
    assert read.model_hint == "llama" and torch.equal(read.direction(2, "toy").vector, direction(2).vector)
    assert read.direction(2, "toy").site == Site(2)
    with pytest.raises(UserError, match="no vector for layer 0"):
        read.direction(0, "toy")


def test_persona_vectors_count_the_embedding_as_row_zero(tmp_path):
    path = write_persona_vectors([direction(0), direction(3, seed=1)], tmp_path / "v.pt", n_layers=4)
    table = torch.load(path, weights_only=True)
    assert (
        table.shape == (5, 16)
        and torch.equal(table[1], direction(0).vector)
        and torch.equal(table[4], direction(3, seed=1).vector)
    )
    assert not table[0].any() and not table[2].any()
    read = read_persona_vectors(path)
    assert sorted(read.vectors) == [0, 3] and torch.equal(
        read.direction(3, "toy").vector, direction(3, seed=1).vector
    )


def test_the_layer_convention_holds_on_a_model(tmp_path):
    """hidden_states of Hugging Face (embedding first) are what persona_vectors index; block L's output is row L + 1."""
    model, ids = random_model(), [5, 6, 7, 8]
    _, cache = model.run_with_cache(torch.tensor([ids]))
    hidden = torch.stack(
        [cache["hook_embed"][0, -1], *(cache[f"blocks.{k}.hook_resid_post"][0, -1] for k in range(3))]
    )
    torch.save(hidden, tmp_path / "h.pt")
    states = collect(model, [ids], [Site(k) for k in range(3)])
    for layer, vector in read_persona_vectors(tmp_path / "h.pt").vectors.items():
        torch.testing.assert_close(vector, states[Site(layer)][0])


class Evil:
    def __reduce__(self):
        return (print, ("code ran",))


def test_damaged_and_foreign_files_are_refused(tmp_path, capsys):
    torch.save(Evil(), tmp_path / "evil.pt")
    with pytest.raises(UserError, match="not read for safety"):
        read_persona_vectors(tmp_path / "evil.pt")
    assert capsys.readouterr().out == ""
    torch.save(torch.zeros(3), tmp_path / "flat.pt")
    with pytest.raises(UserError, match=r"found a tensor of shape \(3,\)"):
        read_persona_vectors(tmp_path / "flat.pt")
    torch.save(torch.zeros(3, 2), tmp_path / "zero.pt")
    with pytest.raises(UserError, match="holds no direction"):
        read_persona_vectors(tmp_path / "zero.pt")
    whole = write_gguf([direction(1)], tmp_path / "v.gguf").read_bytes()
    for cut in (0, 3, 10, 60, len(whole) - 8):
        (tmp_path / "cut.gguf").write_bytes(whole[:cut])
        with pytest.raises(UserError, match="GGUF"):
            read_gguf(tmp_path / "cut.gguf")
    save_file({"0": torch.ones(3)}, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match="expected the format"):
        load_directions(tmp_path / "other.safetensors")
    entry = json.dumps([{**direction().to_json(), "hook": "nowhere"}])
    save_file(
        {"0": torch.ones(3)},
        tmp_path / "hook.safetensors",
        {"format": "persona-workbench directions 1", "directions": entry},
    )
    with pytest.raises(UserError, match="unknown hook 'nowhere'"):
        load_directions(tmp_path / "hook.safetensors")
    for read in (load_directions, read_gguf, read_persona_vectors):
        with pytest.raises(UserError):
            read(tmp_path / "absent")


def test_formats_of_block_outputs_refuse_other_sites_and_two_of_a_layer(tmp_path):
    other = Direction(torch.ones(4), Site(1, "mlp_out"), "toy", "m")
    with pytest.raises(UserError, match="resid_post"):
        write_gguf([other], tmp_path / "x.gguf")
    with pytest.raises(UserError, match="one direction a layer"):
        write_gguf([direction(1), direction(1)], tmp_path / "x.gguf")
    with pytest.raises(UserError, match="layers 0-1"):
        write_persona_vectors([direction(2)], tmp_path / "x.pt", n_layers=2)
    assert not list(tmp_path.iterdir())
