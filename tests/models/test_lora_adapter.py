"""LoRA adapters in every start that PEFT knows: merged to PEFT's own logits, or refused by name. PEFT is the oracle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

from workbench.errors import UserError
from workbench.models.lora_adapter import merge_adapter, open_adapter

IDS = torch.arange(2, 26).reshape(2, 12)


def base() -> LlamaForCausalLM:
    torch.manual_seed(0)
    sizes = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    }
    return LlamaForCausalLM(LlamaConfig(vocab_size=40, initializer_range=0.3, **sizes)).eval()


def trained(directory: Path, **settings: Any) -> Path:
    """An adapter whose matrices moved away from their start, as training moves them."""
    plain = {"r": 4, "lora_alpha": 6, "target_modules": ["q_proj", "down_proj"], "task_type": "CAUSAL_LM"}
    model = get_peft_model(base(), LoraConfig(**{**plain, **settings}))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_" in name:
                weight += 0.1 * torch.randn(weight.shape, generator=generator)
    model.save_pretrained(directory)
    return directory


@torch.no_grad()
@pytest.mark.parametrize(
    "settings",
    [
        *(
            {"init_lora_weights": start}
            for start in (True, False, "gaussian", "orthogonal", "pissa", "olora")
        ),
        {"use_rslora": True},
        {"use_rslora": True, "init_lora_weights": "pissa"},
        {"layers_to_transform": [1]},
        {"target_modules": r".*\.(q|o)_proj"},
        {"target_modules": "all-linear"},
        {"lora_dropout": 0.3},
    ],
    ids=str,
)
def test_a_merged_adapter_is_peft_s(tmp_path: Path, settings: dict[str, Any]) -> None:
    directory = trained(tmp_path, **settings)
    merged = base()
    merge_adapter(merged, open_adapter(directory))
    wanted = PeftModel.from_pretrained(base(), str(directory)).eval()(IDS).logits
    assert (base()(IDS).logits - wanted).abs().max() > 0.05, "the adapter does something"
    torch.testing.assert_close(merged(IDS).logits, wanted, rtol=1e-4, atol=2e-4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"init_lora_weights": "pissa_niter_16"}, "init_lora_weights True or .*, found 'pissa_niter_16'"),
        ({"init_lora_weights": "corda"}, "found 'corda'"),
        ({"init_lora_weights": "loftq"}, "found 'loftq'"),
        ({"init_lora_weights": "lora_ga"}, "found 'lora_ga'"),
        ({"init_lora_weights": "of_next_year"}, "found 'of_next_year'"),
        ({"init_lora_weights": 1}, "init_lora_weights .* found 1"),
        (
            {"alora_invocation_tokens": [3, 4]},
            "the setting alora_invocation_tokens needs other arithmetic, found",
        ),
        ({"use_dora": True}, "the setting use_dora"),
        ({"lora_bias": True}, "the setting lora_bias"),
        ({"bias": "all"}, "expected bias 'none', found 'all'"),
        ({"fan_in_fan_out": True}, "the setting fan_in_fan_out"),
        ({"rank_pattern": {"q_proj": 2}}, "the setting rank_pattern"),
        ({"alpha_pattern": {"q_proj": 2}}, "the setting alpha_pattern"),
        ({"modules_to_save": ["lm_head"]}, "the setting modules_to_save"),
        ({"layer_replication": [[0, 2], [1, 2]]}, "the setting layer_replication"),
        ({"trainable_token_indices": [1]}, "the setting trainable_token_indices"),
        ({"target_parameters": ["q_proj.weight"]}, "the setting target_parameters"),
        ({"use_qalora": True}, "the setting use_qalora"),
        ({"use_bdlora": {"nblocks": 2}}, "the setting use_bdlora"),
        ({"exclude_modules": ["q_proj"]}, "the setting exclude_modules"),
        ({"task_type": "SEQ_CLS"}, "expected task_type 'CAUSAL_LM', found 'SEQ_CLS'"),
        ({"use_what_comes_next": True}, "the setting use_what_comes_next needs other arithmetic"),
        (
            {"target_modules": ["q_proj"]},
            "down_proj is not among target_modules in adapter_config.json: q_proj",
        ),
        ({"target_modules": ".*q_proj"}, "down_proj does not fit target_modules"),
        ({"target_modules": None}, "expected target_modules as names or a pattern"),
        ({"target_modules": [1]}, "expected target_modules as names or a pattern"),
        ({"target_modules": "(["}, "target_modules is no regular expression"),
        ({"layers_to_transform": "x"}, "expected layers_to_transform as numbers of layers, found 'x'"),
        ({"layers_to_transform": ["0"]}, "expected layers_to_transform as numbers of layers"),
        ({"lora_alpha": float("nan")}, "a number lora_alpha, found 4 and nan"),
        ({"lora_alpha": 10**400}, "a number lora_alpha, found 4 and 1000.*\\.\\.\\.$"),
        ({"r": 10**400}, "a rank r of at least 1"),
        ({"r": True}, "a rank r of at least 1"),
        ({"r": 4.0}, "a rank r of at least 1"),
        ({"use_rslora": "false"}, "expected use_rslora true or false, found 'false'"),
        ({"layers_to_transform": [0]}, "layers.1.*is not in layers_to_transform"),
    ],
)
def test_what_is_not_plain_is_refused_by_name(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    file = trained(tmp_path) / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    with pytest.raises(UserError, match=message) as caught:
        open_adapter(tmp_path)
    assert (
        "\n" not in str(caught.value) and str(tmp_path) in str(caught.value) and len(str(caught.value)) < 500
    )


def test_settings_that_are_off_are_no_reason_to_refuse(tmp_path: Path) -> None:
    file = trained(tmp_path) / "adapter_config.json"
    file.write_text(
        json.dumps(
            json.loads(file.read_text())
            | {"use_what_comes_next": False, "next_config": None, "next_pattern": {}}
        )
    )
    assert open_adapter(tmp_path).scale == 1.5


def test_only_linear_layers_are_merged(tmp_path: Path) -> None:
    """A convolution's weight [in, out] of GPT-2 is square in one place, so that the shape alone would fit."""
    from transformers import GPT2Config, GPT2LMHeadModel

    directory = trained(tmp_path, target_modules=["o_proj"])
    tensors = load_file(directory / "adapter_model.safetensors")
    (a, b) = (next(t for name, t in tensors.items() if which in name) for which in ("lora_A", "lora_B"))
    name = "base_model.model.transformer.h.0.attn.c_proj"
    save_file(
        {f"{name}.lora_A.weight": a.contiguous(), f"{name}.lora_B.weight": b.contiguous()},
        directory / "adapter_model.safetensors",
    )
    file = directory / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"target_modules": ["c_proj"]}))
    model = GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=1, n_head=2, vocab_size=40))
    with pytest.raises(UserError, match=r"only linear layers are merged, .* belongs to a Conv1D"):
        merge_adapter(model, open_adapter(directory))
