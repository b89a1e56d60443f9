"""What `load_model` decides: backend, tokenizer, BOS, memory; and that the hub's layouts come out right."""

from __future__ import annotations

import gc
import shutil
import weakref
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors.torch import load_file
from torch import Tensor
from transformer_lens import HookedTransformer
from transformer_lens.model_bridge import TransformerBridge
from transformers import AutoModelForCausalLM

from tests.support.tiny_checkpoints import FAMILIES, tiny_checkpoint
from tests.support.tiny_families import TinyFamilies
from workbench.errors import UserError
from workbench.models import runner_for
from workbench.models.loading import load_model, provenance
from workbench.models.model_sources import find_source, model_names

YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}


def _difference(model: HookedTransformer | TransformerBridge, directory: Path, ids: Tensor) -> float:
    reference = AutoModelForCausalLM.from_pretrained(directory, attn_implementation="eager").eval()
    runner = runner_for(model)
    with torch.no_grad():
        got = runner.logits(runner.run(runner.embed(ids), 0, runner.shape.n_layers)[0])
        return float((got - reference(input_ids=ids).logits).abs().max())


@pytest.mark.parametrize("family", FAMILIES)
def test_auto_takes_hooked_transformer_for_every_family(families: TinyFamilies, family: str) -> None:
    model = load_model(families.directory(family))
    assert isinstance(model, HookedTransformer)
    found = provenance(model)
    assert found is not None and (found.backend, found.reason) == ("hooked", None)
    assert found.source.directory == families.directory(family)
    assert not any(parameter.requires_grad for parameter in model.parameters()) and not model.training


@pytest.mark.parametrize(
    ("family", "field", "value"),
    [
        ("llama", "rope_scaling", YARN),
        ("llama", "attention_bias", True),
        ("llama", "mlp_bias", True),
        ("qwen3", "attention_bias", True),
    ],
)
def test_auto_takes_the_bridge_where_a_conversion_would_be_wrong(
    tmp_path: Path, ids: Tensor, family: str, field: str, value: object
) -> None:
    directory = tiny_checkpoint(family, tmp_path / "model", **{field: value})
    model = load_model(directory)
    found = provenance(model)
    assert isinstance(model, TransformerBridge) and found is not None and found.backend == "bridge"
    assert found.reason and (field in found.reason or "yarn" in found.reason)
    assert _difference(model, directory, ids) < 5e-5
    with pytest.raises(UserError, match="cannot hold"):
        load_model(directory, backend="hooked")


@pytest.mark.parametrize(
    ("family", "overrides"),
    [
        ("llama", {"tie_word_embeddings": True}),
        ("llama", {"rope_scaling": None, "num_key_value_heads": 4}),
        ("llama", {"rope_scaling": {"rope_type": "linear", "factor": 3.0}, "head_dim": 12}),
        (
            "qwen2",
            {
                "tie_word_embeddings": True,
                "use_sliding_window": True,
                "sliding_window": 5,
                "max_window_layers": 2,
            },
        ),
        ("qwen2", {"num_key_value_heads": 4}),
        ("qwen3", {"num_key_value_heads": 4, "tie_word_embeddings": False}),
        ("gemma2", {"attn_logit_softcapping": None, "final_logit_softcapping": None}),
        ("gemma3", {"final_logit_softcapping": 2.0, "attn_logit_softcapping": 3.0}),
        ("mistral", {"sliding_window": None}),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True, "n_inner": 40}),
        ("gpt2", {"tie_word_embeddings": False}),
    ],
)
def test_variants_of_the_families(
    tmp_path: Path, ids: Tensor, family: str, overrides: dict[str, object]
) -> None:
    directory = tiny_checkpoint(family, tmp_path / "model", **overrides)
    model = load_model(directory)
    assert isinstance(model, HookedTransformer)
    assert _difference(model, directory, ids) < 5e-5


def test_other_architectures_run_on_the_bridge(tmp_path: Path, ids: Tensor) -> None:
    """OLMo 2 is not among the families converted here: the bridge takes it, with caches."""
    from transformers import Olmo2Config, Olmo2ForCausalLM

    from tests.support.tiny_checkpoints import tiny_tokenizer

    torch.manual_seed(0)
    config = Olmo2Config(
        vocab_size=336,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.2,
        max_position_embeddings=128,
    )
    Olmo2ForCausalLM(config).save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    model = load_model(tmp_path)
    assert isinstance(model, TransformerBridge)
    assert _difference(model, tmp_path, ids) < 5e-5
    assert runner_for(model).caches


@pytest.mark.parametrize("backend", ("hooked", "bridge"))
def test_shards_give_the_same_model(families: TinyFamilies, tmp_path: Path, backend: str) -> None:
    directory = tiny_checkpoint("llama", tmp_path / "model", max_shard_size="60KB")
    assert len(list(directory.glob("model-*.safetensors"))) > 2
    sharded = runner_for(load_model(directory, backend=backend))
    assert sharded.fingerprint == families.runner("llama", backend, "float32").fingerprint


@pytest.mark.parametrize("family", ("qwen3", "gpt2"))
def test_tied_weights_stay_one_tensor(families: TinyFamilies, family: str) -> None:
    model = families.runner(family, "hooked", "float32").model
    assert model.W_E.data_ptr() == model.W_U.data_ptr()
    assert families.runner(family, "hooked", "float32").shape.tied
    assert "lm_head.weight" not in load_file(families.directory(family) / "model.safetensors")


def test_converted_weights_lie_as_hugging_faces_do(families: TinyFamilies) -> None:
    """TransformerLens calls `W.T.contiguous()` in every pass; here that copies nothing."""
    model = families.runner("llama", "hooked", "float32").model
    for weight in (model.blocks[0].mlp.W_in, model.blocks[0].mlp.W_gate, model.blocks[0].mlp.W_out):
        assert weight.T.is_contiguous()
    w_q = model.blocks[0].attn.W_Q
    assert w_q.transpose(1, 2).reshape(-1, w_q.shape[1]).data_ptr() == w_q.data_ptr()


@pytest.mark.parametrize("family", ["llama", "gemma3"])
def test_blocks_of_one_rotary_embedding_share_its_tables(families: TinyFamilies, family: str) -> None:
    """Gemma 3 has one for full and one for sliding layers; what TransformerLens's own block computes is in them."""
    attns = [block.attn for block in load_model(families.directory(family), backend="hooked").blocks]
    tables = {attn.rotary_cos.data_ptr() for attn in attns}
    assert len(tables) == len({attn._rotary_base() for attn in attns}) < len(attns)
    for attn in attns:
        own = attn.calculate_sin_cos_rotary(
            attn.cfg.rotary_dim, len(attn.rotary_sin), base=attn._rotary_base(), dtype=attn.cfg.dtype
        )
        assert own[0].equal(attn.rotary_sin) and own[1].equal(attn.rotary_cos)
        assert own[0].data_ptr() != attn.rotary_sin.data_ptr(), "a table of later is its own"


@pytest.mark.parametrize("word", ("my-llama-gemma-2-2b", "gemma-3-1b"))
def test_the_name_of_the_path_decides_nothing(
    families: TinyFamilies, tmp_path: Path, ids: Tensor, word: str
) -> None:
    """TransformerLens's own loader takes the architecture from the path."""
    directory = tmp_path / word
    shutil.copytree(families.directory("qwen2"), directory)
    for backend in ("hooked", "bridge"):
        assert _difference(load_model(directory, backend=backend), directory, ids) < 5e-5


@pytest.mark.parametrize("backend", ("hooked", "bridge"))
@pytest.mark.parametrize("family", ("llama", "qwen2"))
def test_rendered_text_is_never_given_a_second_bos(families: TinyFamilies, backend: str, family: str) -> None:
    """Llama-like tokenizers prepend BOS to plain text and their templates hold it too; Qwen's have none at all."""
    runner = families.runner(family, backend, "float32")
    text = runner.render([{"role": "user", "content": "hi"}])
    ids = runner.encode(text)
    assert runner.decode(ids) == text
    assert runner.model.to_tokens(text)[0].tolist() == ids
    assert ids.count(runner.tokenizer.bos_token_id) == (1 if family == "llama" else 0)
    plain = runner.model.to_tokens("hi")[0].tolist()
    assert plain == runner.tokenizer("hi", add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("backend", ("hooked", "bridge"))
def test_the_vocabulary_is_the_models_not_the_tokenizers(families: TinyFamilies, backend: str) -> None:
    runner = families.runner("qwen2", backend, "float32")
    assert runner.shape.d_vocab == runner.model.cfg.d_vocab == 351 > len(runner.tokenizer)


@pytest.mark.parametrize("backend", ("hooked", "bridge"))
def test_a_model_is_freed_with_its_last_name(families: TinyFamilies, backend: str) -> None:
    model = load_model(families.directory("mistral"), backend=backend)
    runner, watch = runner_for(model), weakref.ref(model)
    assert runner_for(model) is runner and runner_for(runner) is runner
    del model, runner
    gc.collect()
    assert watch() is None


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test asks the hub, whatever the environment says."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


@pytest.mark.usefixtures("offline")
def test_a_repository_in_the_hubs_cache_opens_offline(
    families: TinyFamilies, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Snapshots of the cache are links to blobs next to them; the commit is recorded."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "models--acme--tiny"
    for part in ("blobs", "refs", f"snapshots/{commit}"):
        (repository / part).mkdir(parents=True)
    for number, file in enumerate(sorted(families.directory("qwen3").iterdir())):
        shutil.copy(file, repository / "blobs" / str(number))
        (repository / "snapshots" / commit / file.name).symlink_to(f"../../blobs/{number}")
    (repository / "refs" / "main").write_text(commit)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    model = load_model("acme/tiny")
    found = provenance(model)
    assert found is not None and (found.source.name, found.source.revision) == ("acme/tiny", commit)
    assert runner_for(model).fingerprint == families.runner("qwen3", "hooked", "float32").fingerprint
    with pytest.raises(
        UserError,
        match="no directory, not in the local cache, and offline mode forbids a download: unset HF_HUB_OFFLINE",
    ):
        load_model("acme/tiny", revision="another")


def test_a_failed_download_is_told_from_offline_mode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, local_files_only: bool = False, **options: object) -> str:
        if local_files_only:
            raise LocalEntryNotFoundError("not in the cache")
        raise ConnectionError("no route to host")

    monkeypatch.setattr("workbench.models.model_sources.snapshot_download", refuse)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    with pytest.raises(
        UserError,
        match=r"the download failed \(ConnectionError\): check the name, the network and your access",
    ):
        find_source("acme/tiny")


@pytest.mark.usefixtures("offline")
def test_what_cannot_be_found_is_told() -> None:
    assert {"organism", "smollm2-135m", "gemma-3-4b-it"} <= set(model_names())
    for name in ("no/such-model", "../etc/passwd", Path("/nowhere/at/all"), "two words"):
        with pytest.raises(UserError, match=r"no directory|no model directory"):
            load_model(name)


def test_arguments_are_checked(families: TinyFamilies) -> None:
    directory = families.directory("gpt2")
    with pytest.raises(UserError, match="unknown dtype 'float8'"):
        load_model(directory, dtype="float8")
    with pytest.raises(UserError, match="unknown device 'gpu'"):
        load_model(directory, device="gpu")
    with pytest.raises(UserError, match="unknown backend 'nnsight'"):
        load_model(directory, backend="nnsight")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="revision 'main' is for repositories"):
        find_source(directory, revision="main")
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match="device 'cuda' is not available here"):
            load_model(directory, device="cuda")


@pytest.mark.parametrize(
    "free, says",
    [
        (1.5, r"its weights take \d+\.\d GB in float32, and cuda:0 has \d+\.\d GB free; bfloat16 fits"),
        (0.4, "a smaller model, or device balanced"),
    ],
)
def test_a_gpu_without_room_is_refused_before_any_weight_is_read(
    families: TinyFamilies, monkeypatch: pytest.MonkeyPatch, free: float, says: str
) -> None:
    """Free memory of 1.5 and 0.4 times the weights in bfloat16; what does not fit is told with what would."""
    directory = families.directory("llama")
    numbers = sum(p.numel() for p in AutoModelForCausalLM.from_pretrained(directory).parameters())
    monkeypatch.setattr("workbench.models.loading.choose_device", str)
    monkeypatch.setattr("workbench.models.device_room.free_memory", lambda device: int(free * 2 * numbers))
    monkeypatch.setattr(
        "workbench.models.loading.load_reference", lambda *arguments: pytest.fail("the weights were read")
    )
    with pytest.raises(UserError, match=says):
        load_model(directory, device="cuda:0")
    with pytest.raises(BaseException, match="the weights were read"):
        monkeypatch.setattr("workbench.models.device_room.free_memory", lambda device: 5 * numbers)
        load_model(directory, device="cuda:0")
