"""Sparse autoencoders against sae-lens's own encode and decode, the card against hand arithmetic, resuming bit for bit."""

import json

import numpy as np
import pytest
import torch
from sae_lens import (
    SAE,
    BatchTopKTrainingSAE,
    BatchTopKTrainingSAEConfig,
    GatedSAE,
    GatedSAEConfig,
    JumpReLUSAE,
    JumpReLUSAEConfig,
    SAETrainer,
    StandardSAE,
    StandardSAEConfig,
    TopKSAE,
    TopKSAEConfig,
)
from sae_lens.saes.sae import SAEMetadata
from safetensors.torch import load_file, save_file

from tests.support.toy_models import random_model, toy_persona
from workbench.activations import ActivationStore
from workbench.errors import UserError
from workbench.models import Site, load_model, runner_for
from workbench.objectives import Readout, latent_activation
from workbench.sae import (
    PRESETS,
    Sae,
    SaeCard,
    SaeTrainingOptions,
    SpliceEvaluation,
    TrainingProbe,
    best_latent,
    check_sae,
    context_texts,
    explained_variance,
    find_sae,
    load_sae,
    own_text,
    read_corpus,
    splice,
    train_sae,
)
from workbench.sae.sae_training import split_texts, token_windows

KINDS = {
    "standard": (StandardSAE, StandardSAEConfig, {}),
    "jumprelu": (JumpReLUSAE, JumpReLUSAEConfig, {}),
    "gated": (GatedSAE, GatedSAEConfig, {}),
    "topk": (TopKSAE, TopKSAEConfig, {"k": 5}),
    "topk_rescaled": (TopKSAE, TopKSAEConfig, {"k": 5, "rescale_acts_by_decoder_norm": True}),
    "standard_layer_norm": (StandardSAE, StandardSAEConfig, {"normalize_activations": "layer_norm"}),
}


def module(kind="standard", d_in=32, d_sae=48, layer=1, seed=0, **metadata):
    """A random SAE of one of KINDS; every parameter is shaken, thresholds positive."""
    make, config, own = KINDS[kind]
    about = SAEMetadata(hook_name=f"blocks.{layer}.hook_resid_post", **metadata)
    sae = make(config(d_in=d_in, d_sae=d_sae, metadata=about, **own))
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in sae.named_parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=g) * 0.5)
            if name == "threshold":
                parameter.abs_()
    return sae


def wrapped(kind="standard", **more):
    own = module(kind, **more)
    return Sae(kind, Site.parse(own.cfg.metadata.hook_name), own)


def texts(n=60, longest=40, seed=0):
    rng = np.random.default_rng(seed)
    return [tuple(rng.integers(5, 300, size=rng.integers(8, longest)).tolist()) for _ in range(n)]


# ---- reading


@pytest.mark.parametrize("kind", KINDS)
def test_encode_and_reconstruct_are_sae_lenss(kind):
    sae, x = wrapped(kind), torch.randn(7, 3, 32)
    theirs = module(kind)
    torch.testing.assert_close(sae.encode(x), theirs.encode(x).detach())
    torch.testing.assert_close(sae.reconstruct(x), theirs(x).detach())


@pytest.mark.parametrize("kind", KINDS)
def test_some_latents_are_a_part_of_all(kind):
    sae, x, some = wrapped(kind), torch.randn(200, 32), [40, 3, 3, 17]
    torch.testing.assert_close(sae.encode_some(x, some), sae.encode(x)[..., some], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(
        sae.pre_activations(x, some), sae.pre_activations(x)[..., some], atol=1e-5, rtol=1e-5
    )
    assert (sae.encode_some(x, some) > 0).any() and (sae.encode_some(x, some) == 0).any()


@pytest.mark.parametrize("kind", ["standard", "jumprelu", "gated", "topk", "topk_rescaled"])
def test_pre_activations_are_what_the_hook_of_sae_lens_sees(kind):
    sae, seen = wrapped(kind), []
    sae.module.hook_sae_acts_pre.add_hook(lambda a, hook: seen.append(a.detach().clone()))
    x = torch.randn(6, 32)
    sae.encode(x)
    expected = seen[0] * sae.W_dec.norm(dim=-1) if kind == "topk_rescaled" else seen[0]
    torch.testing.assert_close(sae.pre_activations(x), expected, atol=1e-5, rtol=1e-5)


def test_rows_alone_read_the_same_and_topk_refuses():
    x, some = torch.randn(20, 32), [40, 3, 17]
    for kind in ("standard", "jumprelu", "gated"):
        sae = wrapped(kind)
        rows = sae.rows(some)
        assert rows.small.d_sae == 3 and rows.site == sae.site
        torch.testing.assert_close(rows.encode_some(x, [17, 40]), sae.encode_some(x, [17, 40]))
        torch.testing.assert_close(rows.pre_activations(x, [3]), sae.pre_activations(x, [3]))
        with pytest.raises(UserError, match="latent 5 was not kept"):
            rows.encode_some(x, [5])
    with pytest.raises(UserError, match="compete"):
        wrapped("topk").rows(some)


def test_heads_are_read_as_sae_lens_reads_them_and_spliced_in_their_own_shape():
    about = SAEMetadata(hook_name="blocks.1.attn.hook_z")

    def make():
        return StandardSAE(StandardSAEConfig(d_in=32, d_sae=48, reshape_activations="hook_z", metadata=about))

    theirs, own = make(), make()
    own.load_state_dict(theirs.state_dict())
    sae, x = Sae("z", Site(1, "z"), own).check(random_model()), torch.randn(3, 5, 4, 8)
    torch.testing.assert_close(sae.encode(x), theirs.encode(x).detach())
    torch.testing.assert_close(sae.encode_some(x, [3, 4]), theirs.encode(x)[..., [3, 4]].detach())
    torch.testing.assert_close(sae.reconstruct(x), theirs(x).detach())
    torch.testing.assert_close(sae.encode(x.flatten(-2)), sae.encode(x))
    assert (
        check_sae(sae, random_model(), texts(3)).tokens > 20
        and splice(sae, random_model(), texts(3)).clean > 0
    )


def test_the_objective_reads_an_sae_as_it_reads_itself():
    sae, x = wrapped("jumprelu"), torch.randn(4, 32)
    goal = latent_activation(sae, [3, 17], [1.0, -2.0])
    readout = Readout({sae.site: x}, None, torch.zeros(4, 2, dtype=torch.long), None)
    torch.testing.assert_close(goal.raw(readout), sae.encode(x)[:, 3] - 2 * sae.encode(x)[:, 17])


def test_what_does_not_exist_is_told():
    sae = wrapped("standard")
    with pytest.raises(UserError, match="latent 48 does not exist: SAE 'standard' has latents 0-47"):
        sae.encode_some(torch.ones(1, 32), [48])
    with pytest.raises(UserError, match="no latents given"):
        sae.encode_some(torch.ones(1, 32), [])
    with pytest.raises(UserError, match="use reconstruct"):
        wrapped("standard_layer_norm").decode(torch.zeros(1, 48))
    with pytest.raises(UserError, match="width 16: this model has width 32"):
        wrapped(d_in=16).check(random_model())
    with pytest.raises(UserError, match="layers 0-2"):
        wrapped(layer=5).check(random_model())
    assert sae.neuronpedia(3) is None
    assert wrapped(neuronpedia_id="m/1-res").neuronpedia(3) == "https://www.neuronpedia.org/m/1-res/3"


# ---- loading


@pytest.mark.parametrize("kind", KINDS)
def test_a_directory_of_sae_lens_loads(kind, tmp_path):
    module(kind).save_model(tmp_path)
    with pytest.warns(UserWarning, match=r"less than 0\.50: another model, layer or scale"):
        sae, x = load_sae(tmp_path, random_model()), torch.randn(5, 32)
    assert (
        sae.site == Site(1)
        and sae.fit.explained_variance < 0.5
        and "tokens of the model's own text" in repr(sae)
    )
    torch.testing.assert_close(sae.encode(x), SAE.load_from_disk(tmp_path).encode(x).detach())


@pytest.mark.parametrize("kind", ("standard", "jumprelu", "gated", "topk"))
def test_a_scale_of_the_activations_is_taken_in_or_asked_for(kind, tmp_path):
    """The oracle is the definition: the SAE of scaled activations, encoded as encode(scale x), decoded as decode(...) / scale."""
    scale, x = 0.031, 20 * torch.randn(40, 32)
    own = module(kind)
    want = own.encode(scale * x).detach()
    back = own.decode(want).detach() / scale
    own.cfg.normalize_activations = "expected_average_only_in"
    own.save_model(tmp_path)
    with pytest.raises(UserError, match=r"activations were scaled in training .*: pass activation_scale="):
        load_sae(tmp_path)
    for wrong in (0.0, -1.0, float("nan")):
        with pytest.raises(UserError, match="activation_scale is a number above 0"):
            load_sae(tmp_path, activation_scale=wrong)
    given = load_sae(tmp_path, activation_scale=scale)
    (tmp_path / "activation_scaler.json").write_text(json.dumps({"scaling_factor": scale}))
    for sae in (given, load_sae(tmp_path)):
        torch.testing.assert_close(sae.encode(x), want, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(sae.encode_some(x, [3, 1]), want[:, [3, 1]], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(sae.reconstruct(x), back, rtol=1e-4, atol=1e-4)
    (tmp_path / "activation_scaler.json").write_text('{"scaling_factor": "big"}')
    with pytest.raises(
        UserError, match=r"activation_scaler\.json: expected a number scaling_factor, found 'big'"
    ):
        load_sae(tmp_path)


def test_a_scale_where_none_belongs_and_whitening_are_refused(tmp_path):
    own = module()
    own.save_model(tmp_path / "plain")
    with pytest.raises(UserError, match="activation_scale is for files that need one"):
        load_sae(tmp_path / "plain", activation_scale=2.0)
    own.cfg.normalize_activations = "covariance_whitening"
    own.save_model(tmp_path / "white")
    with pytest.raises(UserError, match="'covariance_whitening' is not folded into its weights"):
        load_sae(tmp_path / "white")


def test_the_model_s_own_text_is_drawn_by_seed_and_not_counted():
    runner = runner_for(random_model())
    before = runner.meter.forward
    first, again, other = own_text(runner), own_text(runner), own_text(runner, seed=1)
    assert first == again != other and runner.meter.forward == before
    assert (
        len(first) == 16
        and {len(row) for row in first} == {33}
        and {row[0] for row in first} == {runner.tokenizer.bos_token_id}
    )


def test_batch_topk_is_read_as_the_jumprelu_it_is_saved_as(tmp_path):
    cfg = BatchTopKTrainingSAEConfig(
        d_in=32, d_sae=48, k=4, metadata=SAEMetadata(hook_name="blocks.1.hook_resid_post")
    )
    trained = BatchTopKTrainingSAE(cfg)
    trained.topk_threshold.fill_(0.05)
    trained.save_inference_model(tmp_path)
    sae, x = load_sae(tmp_path), torch.randn(30, 32)
    assert sae.architecture == "jumprelu"
    torch.testing.assert_close(
        sae.encode_some(x, [1, 2]), SAE.load_from_disk(tmp_path).encode(x)[:, [1, 2]].detach()
    )


def test_half_precision_files_are_read_in_float32(tmp_path):
    module().to(torch.float16).save_model(tmp_path)
    assert load_file(tmp_path / "sae_weights.safetensors")["W_enc"].dtype == torch.float16
    assert load_sae(tmp_path).encode(torch.randn(2, 32)).dtype == torch.float32
    assert load_sae(tmp_path).module.dtype == torch.float32


def test_the_site_is_the_files_or_given_but_never_another(tmp_path):
    own = module()
    own.save_model(tmp_path / "named")
    own.cfg.metadata = SAEMetadata()
    own.save_model(tmp_path / "unnamed")
    with pytest.raises(
        UserError, match=r"trained at blocks\.1\.hook_resid_post, not at blocks.2.hook_resid_post"
    ):
        load_sae(tmp_path / "named", site=Site(2))
    with pytest.raises(UserError, match="does not say which hook"):
        load_sae(tmp_path / "unnamed")
    assert load_sae(tmp_path / "unnamed", site=Site(2)).site == Site(2)


def test_damaged_directories_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"cfg.json is missing"):
        load_sae(tmp_path)
    module().save_model(tmp_path)
    weights, cfg = (tmp_path / "sae_weights.safetensors").read_bytes(), (tmp_path / "cfg.json").read_text()
    (tmp_path / "sae_weights.safetensors").write_bytes(weights[:200])
    with pytest.raises(UserError, match="not a whole safetensors file"):
        load_sae(tmp_path)
    (tmp_path / "sae_weights.safetensors").write_bytes(weights)
    for broken, says in [
        (cfg[:30], "expected JSON"),
        (cfg.replace('"standard"', '"magic"'), "cannot read"),
        (cfg.replace('"d_sae": 48', '"d_sae": 47'), "cannot read"),
    ]:
        (tmp_path / "cfg.json").write_text(broken)
        with pytest.raises(UserError, match=says):
            load_sae(tmp_path)
    (tmp_path / "cfg.json").write_text(cfg)
    tensors = load_file(tmp_path / "sae_weights.safetensors")
    tensors["W_dec"][0, 0] = float("nan")
    save_file(tensors, tmp_path / "sae_weights.safetensors")
    with pytest.raises(UserError, match="'W_dec' hold values that are not finite"):
        load_sae(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"finetuning_scaling_factor": True},
            "field finetuning_scaling_factor: found 'True', which sae-lens leaves out",
        ),
        ({"hook_head_index": 2}, "field hook_head_index"),
        (
            {
                "metadata": {
                    "hook_name": "blocks.1.hook_resid_post",
                    "hook_name_out": "blocks.2.hook_resid_post",
                }
            },
            "field hook_name_out",
        ),
        (
            {"metadata": {"hook_name": "blocks.1.hook_resid_post", "hook_layer": 3}},
            "contradicts hook_layer 3",
        ),
        (
            {"activation_fn": "tanh-relu"},
            "expected an activation_fn of relu, topk, jumprelu, found 'tanh-relu'",
        ),
        ({"k": "8"}, "field k: expected a number of at least 1, found '8'"),
        ({"k": 0}, "field k: expected a number of at least 1"),
        ({"d_in": "12"}, "field d_in: expected a number"),
        ({"d_sae": 10**400}, "field d_sae: expected a number"),
        ({"metadata": [1]}, "expected a table of settings, found metadata as list"),
    ],
    ids=str,
)
def test_settings_that_would_be_left_out_are_refused_by_name(tmp_path, changes, message):
    module("topk").save_model(tmp_path)
    file = tmp_path / "cfg.json"
    whole = json.loads(file.read_text())
    file.write_text(json.dumps(whole | changes))
    with pytest.raises(UserError, match=message) as caught:
        load_sae(tmp_path)
    assert str(file) in str(caught.value) and len(str(caught.value)) < 500
    for other in ("[]", "5", "null", '"x"'):
        file.write_text(other)
        with pytest.raises(UserError, match="expected a table of settings"):
            load_sae(tmp_path)


def test_names_resolve_to_releases_that_sae_lens_knows(monkeypatch):
    from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory

    known = get_pretrained_saes_directory()
    for name, (release, sae_id) in PRESETS.items():
        assert sae_id in known[release].saes_map, name
        assert (find_sae(name).release, find_sae(name).sae_id) == (release, sae_id)
    assert find_sae("some-release/a/b").sae_id == "a/b"
    for wrong in ("nothing", "./absent/x", "/absent/dir"):
        with pytest.raises(UserError, match="no SAE at"):
            find_sae(wrong)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError, match="not found"):
        load_sae("no-such-release/x")


# ---- checking


def test_explained_variance_by_hand():
    sae = wrapped("standard")
    x = torch.randn(50, 32)
    residual = x - sae.reconstruct(x)
    by_hand = 1 - sum(float(residual[i, j]) ** 2 for i in range(50) for j in range(32)) / sum(
        float(x[i, j] - x[:, j].mean()) ** 2 for i in range(50) for j in range(32)
    )
    assert explained_variance(sae, x) == pytest.approx(by_hand, rel=1e-4)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    out = tmp_path_factory.mktemp("sae") / "out"
    card = train_sae(
        random_model(),
        texts(),
        Site(1),
        out,
        d_sae=64,
        k=8,
        tokens=60_000,
        options=SaeTrainingOptions(batch_size=128, seed=0),
    )
    return card, out


def test_a_trained_sae_explains_its_text_and_its_card_says_so(trained):
    card, out = trained
    model, sae = random_model(), load_sae(out)
    assert (
        card.explained_variance > 0.4 and card.l0 == pytest.approx(8, abs=0.5) and card.architecture == "topk"
    )
    assert SaeCard.load(out) == card
    _, held_out = split_texts(token_windows(model, texts(), 128), 0)
    assert check_sae(sae, model, held_out).explained_variance == pytest.approx(
        card.explained_variance, rel=1e-4
    )
    assert sae.metadata["model_fingerprint"] == runner_for(model).fingerprint
    random = wrapped("topk", d_sae=64)
    assert explained_variance(random, torch.randn(100, 32)) < 0.1


def test_an_sae_of_the_neighbouring_layer_is_caught(trained, tmp_path):
    _, out = trained
    model = random_model()
    right = check_sae(load_sae(out), model, texts(20, seed=1))
    assert not right.warnings and right.by_layer[1] == max(right.by_layer.values())
    cfg = json.loads((out / "cfg.json").read_text())
    cfg["metadata"]["hook_name"] = "blocks.2.hook_resid_post"
    (tmp_path / "cfg.json").write_text(json.dumps(cfg))
    (tmp_path / "sae_weights.safetensors").write_bytes((out / "sae_weights.safetensors").read_bytes())
    wrong = check_sae(load_sae(tmp_path), model, texts(20, seed=1))
    assert any("explains layer 1 better" in w and "than layer 2" in w for w in wrong.warnings)
    other = check_sae(load_sae(out), random_model(seed=1), texts(20, seed=1))
    assert any("fingerprint" in w for w in other.warnings) and any(
        "less than 0.50" in w for w in other.warnings
    )


def test_splicing_is_a_hook_that_replaces_and_cross_entropy_is_torchs(trained):
    sae, model, ids = load_sae(trained[1]), random_model(), texts(4, seed=2)
    found = splice(sae, model, ids)

    def loss(hook=None):
        losses = []
        for row in ids:
            tokens = torch.tensor([row])
            logits = model.run_with_hooks(tokens, fwd_hooks=[(sae.site.name, hook)] if hook else [])
            losses.append(torch.nn.functional.cross_entropy(logits[0, :-1], tokens[0, 1:], reduction="none"))
        return float(torch.cat(losses).mean())

    def replace(x, hook):
        return torch.cat([x[:, :1], sae.module(x[:, 1:])], dim=1)

    assert found.clean == pytest.approx(loss(), abs=1e-4)
    assert found.spliced == pytest.approx(loss(replace), abs=1e-4)
    assert (
        SpliceEvaluation(2.0, 2.5, 4.0).recovered == 0.75
        and SpliceEvaluation(4.0, 4.0, 3.0).recovered is None
    )


# ---- training


def test_a_stopped_run_goes_on_and_ends_with_the_same_weights(tmp_path, monkeypatch):
    arguments = {
        "d_sae": 32,
        "k": 4,
        "tokens": 20_000,
        "options": SaeTrainingOptions(batch_size=100, checkpoints=3, seed=1),
    }
    train_sae(random_model(), texts(), Site(0), tmp_path / "straight", **arguments)
    real, calls = SAETrainer.step, []

    def dies(self, batch):
        calls.append(len(batch))
        if len(calls) == 130:
            raise KeyboardInterrupt
        return real(self, batch)

    monkeypatch.setattr(SAETrainer, "step", dies)
    with pytest.raises(KeyboardInterrupt):
        train_sae(random_model(), texts(), Site(0), tmp_path / "resumed", **arguments)
    assert not (tmp_path / "resumed" / "sae_weights.safetensors").exists()
    with pytest.raises(UserError, match="unfinished SAE with d_sae 32, requested is 40"):
        train_sae(random_model(), texts(), Site(0), tmp_path / "resumed", **{**arguments, "d_sae": 40})
    before = len(calls)
    train_sae(random_model(), texts(), Site(0), tmp_path / "resumed", **arguments)
    assert 0 < len(calls) - before < 120
    a, b = (load_file(tmp_path / name / "sae_weights.safetensors") for name in ("straight", "resumed"))
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert not (tmp_path / "resumed" / "checkpoints").exists()


def test_the_seed_decides(tmp_path):
    arguments = {"d_sae": 32, "k": 4, "tokens": 3_000}
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        train_sae(
            random_model(),
            texts(),
            Site(0),
            tmp_path / name,
            **arguments,
            options=SaeTrainingOptions(batch_size=100, seed=seed),
        )
    a, b, c = (load_file(tmp_path / name / "sae_weights.safetensors")["W_enc"] for name in "abc")
    assert torch.equal(a, b) and not torch.allclose(a, c)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"k": 0}, "k must be between"),
        ({"k": 50, "d_sae": 40}, "k must be between"),
        ({"site": Site(8)}, "layers 0-2"),
        ({"tokens": 3}, "fewer than one batch"),
        ({"texts": texts(3)}, "too little text"),
    ],
)
def test_training_refuses(arguments, says, tmp_path):
    given = {
        "texts": texts(),
        "site": Site(0),
        "d_sae": 32,
        "k": 4,
        "tokens": 1000,
        "options": SaeTrainingOptions(batch_size=100),
        **arguments,
    }
    with pytest.raises(UserError, match=says):
        train_sae(random_model(), given.pop("texts"), given.pop("site"), tmp_path / "x", **given)
    assert not (tmp_path / "x").exists()


def test_a_finished_sae_is_not_overwritten(trained):
    with pytest.raises(UserError, match="already holds"):
        train_sae(random_model(), texts(), Site(1), trained[1])


def test_the_best_latent_is_chosen_on_one_half_and_judged_on_the_other():
    sae = wrapped("standard")
    g = torch.Generator().manual_seed(0)
    shown = np.arange(200) % 2 == 0
    column = sae.W_enc[:, 7] / sae.W_enc[:, 7].norm()
    x = torch.randn(400, 32, generator=g) + torch.from_numpy(np.tile(shown, 2)).float()[:, None] * 4 * column
    found = best_latent(sae, TrainingProbe(x[:200], shown, x[200:], shown))
    assert found["latent"] == 7 and found["auc"] > 0.9
    turned = best_latent(sae, TrainingProbe(x[:200], shown, x[200:], ~shown))
    assert turned["auc"] == pytest.approx(1 - found["auc"])


def test_text_is_cut_into_windows_and_held_out_text_is_not_trained_on():
    model = random_model()
    windows = token_windows(model, ["Be honest, be blunt." * 9, "no"], 16)
    assert (
        all(2 <= len(w) <= 16 for w in windows)
        and sum(map(len, windows)) >= len(runner_for(model).encode("Be honest, be blunt." * 9)) - 1
    )
    training, held_out = split_texts(texts(40) * 2, 0)
    assert len(training) + len(held_out) == 40 and not set(training) & set(held_out)
    assert toy_persona().items and ActivationStore(model, training, Site(0), 16).tokens_per_epoch > 100


def test_a_corpus_is_read_from_lines_json_csv_and_contrast_files(tmp_path):
    files = {
        "a.txt": ("one\n\n two \n", ["one", "two"]),
        "a.jsonl": ('{"text": "one"}\n{"question": "q", "answer": "a", "n": 3}\n', ["one", "q\na"]),
        "a.json": ('["one", {"text": "two"}, 5]', ["one", "two"]),
        "a.csv": ('text,other\n"one, two",x\n', ["one, two"]),
    }
    for name, (content, expected) in files.items():
        (tmp_path / name).write_text(content)
        assert read_corpus(tmp_path / name) == expected
    assert read_corpus(tmp_path / "a.txt", limit=1) == ["one"]
    for name, content, says in [
        ("b.jsonl", '{"text": "x"}\n{', "line 2, column 2: expected JSON"),
        ("b.json", "{}", "found dict"),
        ("b.txt", "\n", "no text"),
    ]:
        (tmp_path / name).write_text(content)
        with pytest.raises(UserError, match=says):
            read_corpus(tmp_path / name)


def test_context_texts_are_contexts_with_an_answer_under_varied_system_texts():
    model, split = random_model(), toy_persona().split().train
    made = context_texts(model, split, n=50)
    texts = [model.tokenizer.decode(ids) for ids in made]
    assert len(made) == 50 and all(text.endswith(("(A", "(B")) for text in texts)
    with_system = sum("system" in text for text in texts)
    assert 25 < with_system <= 50 and len(set(made)) > 40
    assert made == context_texts(model, split, n=50) != context_texts(model, split, n=50, seed=1)


def test_the_stored_fingerprint_is_still_the_embedded_models() -> None:
    """A literal of the stored card: renaming a class or a field must not make every stored run and SAE another model's."""
    assert runner_for(load_model("organism")).fingerprint == "7b5030811f27f666"
