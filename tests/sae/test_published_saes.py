"""The SAEs of the hub for the paper's models, from files of the published form (shapes and fields of each release; random weights).

A stand-in for the hub serves them at the paths in sae-lens's registry. For each release: layer, hook, width
and normalisation from configs of the published sizes; and, scaled down, the latents against the publisher's
own formula, so that nothing is off by one, scaled or centred differently on the day that the real files are
there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from sae_lens.loading import pretrained_sae_loaders as loaders
from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory
from safetensors.torch import save_file
from torch import Tensor

from workbench.models.model_sizes import model_sizes_of
from workbench.sae import load_sae
from workbench.sae.sae_loading import PRESETS

LLAMA, QWEN, GEMMA = "llama-3.1-8b-instruct", "qwen2.5-7b-instruct", "gemma-3-4b-it"


@dataclass(frozen=True)
class Release:
    """One published family. width: latents; write: puts an SAE of d_in x d_sae at a path and gives its weights; latents: the
    publisher's formula; model: whose residual stream it reads."""

    name: str
    sae_id: str
    layer: int
    width: int
    model: str
    write: Callable[[Path, str, int, int, int], dict[str, Tensor]]
    latents: Callable[[Tensor, dict[str, Tensor]], Tensor]


def _weights(d_in: int, d_sae: int, tied: bool = True) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(d_in + d_sae)
    made = {"enc": (d_sae, d_in), "dec": (d_in, d_sae), "b_enc": (d_sae,), "b_dec": (d_in,)}
    return {name: torch.randn(shape, generator=generator) for name, shape in made.items()}


def _dictionary_learning(root: Path, path: str, layer: int, d_in: int, d_sae: int) -> dict[str, Tensor]:
    """andyrdt's: BatchTopK of dictionary_learning, threshold one number for all latents."""
    model = "meta-llama/Llama-3.1-8B-Instruct" if "llama" in str(root) else "Qwen/Qwen2.5-7B-Instruct"
    trainer = {
        "trainer_class": "BatchTopKTrainer",
        "dict_class": "BatchTopKSAE",
        "lr": 5e-5,
        "steps": 244140,
        "seed": 0,
        "activation_dim": d_in,
        "dict_size": d_sae,
        "k": 64,
        "device": "cuda:0",
        "layer": layer,
        "lm_name": model,
        "submodule_name": f"resid_post_layer_{layer}",
    }
    _json(
        root / path / "config.json",
        {
            "trainer": trainer,
            "buffer": {"d_submodule": d_in, "io": "out", "ctx_len": 1024, "device": "cuda:0"},
        },
    )
    w = _weights(d_in, d_sae) if d_sae < 1000 else {}
    if w:
        w["threshold"] = torch.tensor(1.5)
        names = {
            "encoder.weight": "enc",
            "encoder.bias": "b_enc",
            "decoder.weight": "dec",
            "b_dec": "b_dec",
            "threshold": "threshold",
        }
        torch.save(
            {key: w[name] for key, name in names.items()} | {"k": torch.tensor(64)}, root / path / "ae.pt"
        )
    return w


def _batch_topk(x: Tensor, w: dict[str, Tensor]) -> Tensor:
    """dictionary_learning's BatchTopKSAE.encode with use_threshold: relu((x - b_dec) W + b), kept where above the threshold."""
    active = torch.relu((x - w["b_dec"]) @ w["enc"].T + w["b_enc"])
    return active * (active > w["threshold"])


def _gemma_scope_2(root: Path, path: str, layer: int, d_in: int, d_sae: int) -> dict[str, Tensor]:
    config = {
        "architecture": "jump_relu",
        "model_name": "gemma-v3-4b-it",
        "hf_hook_point_in": f"model.layers.{layer}.output",
        "hf_hook_point_out": f"model.layers.{layer}.output",
        "width": d_sae,
        "affine_connection": False,
        "type": "sae",
    }
    _json(root / path / "config.json", config)
    w = _weights(d_in, d_sae) if d_sae < 1000 else {}
    if w:
        w["threshold"] = 3 * torch.rand(d_sae, generator=torch.Generator().manual_seed(1))
        tensors = {
            "w_enc": w["enc"].T,
            "w_dec": w["dec"].T,
            "b_enc": w["b_enc"],
            "b_dec": w["b_dec"],
            "threshold": w["threshold"],
        }
        save_file(
            {name: value.contiguous() for name, value in tensors.items()}, root / path / "params.safetensors"
        )
    return w


def _jump_relu(x: Tensor, w: dict[str, Tensor]) -> Tensor:
    """Gemma Scope's: z = x W + b, kept where z is above the latent's own threshold; nothing is taken off x."""
    pre = x @ w["enc"].T + w["b_enc"]
    return torch.relu(pre) * (pre > w["threshold"])


def _goodfire(root: Path, path: str, layer: int, d_in: int, d_sae: int) -> dict[str, Tensor]:
    root.mkdir(parents=True, exist_ok=True)
    w = _weights(d_in, d_sae) if d_sae < 1000 else {}
    if w:
        names = {
            "encoder_linear.weight": "enc",
            "encoder_linear.bias": "b_enc",
            "decoder_linear.weight": "dec",
            "decoder_linear.bias": "b_dec",
        }
        torch.save({key: w[name] for key, name in names.items()}, root / path)
    return w


def _relu(x: Tensor, w: dict[str, Tensor]) -> Tensor:
    return torch.relu(x @ w["enc"].T + w["b_enc"])


def _llama_scope(root: Path, path: str, layer: int, d_in: int, d_sae: int) -> dict[str, Tensor]:
    """The published factor of layer 15 is sqrt(d_in) / mean norm: the registry has it, the file has the norm."""
    factor = get_pretrained_saes_directory()["llama_scope_lxr_8x"].norm_scaling_factor[f"l{layer}r_8x"]
    config = {
        "d_model": d_in,
        "d_sae": d_sae,
        "jump_relu_threshold": 0.5,
        "hook_point_in": f"blocks.{layer}.hook_resid_post",
        "hook_point_out": f"blocks.{layer}.hook_resid_post",
        "dataset_average_activation_norm": {"in": d_in**0.5 / factor, "out": d_in**0.5 / factor},
    }
    _json(root / path / "hyperparams.json", config)
    w = _weights(d_in, d_sae) if d_sae < 1000 else {}
    if w:
        w["factor"] = torch.tensor(factor)
        tensors = {
            "encoder.weight": w["enc"],
            "encoder.bias": w["b_enc"],
            "decoder.weight": w["dec"],
            "decoder.bias": w["b_dec"],
        }
        (root / path / "checkpoints").mkdir()
        save_file(tensors, root / path / "checkpoints" / "final.safetensors")
    return w


def _llama_scope_latents(x: Tensor, w: dict[str, Tensor]) -> Tensor:
    """Llama Scope's: x is scaled to norm sqrt(d), z = x W + b kept where above the threshold; latents in units of the unscaled stream."""
    pre = (x * w["factor"]) @ w["enc"].T + w["b_enc"]
    return torch.relu(pre) * (pre > 0.5)


def _json(file: Path, value: dict[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(value))


RELEASES = (
    *(
        Release(
            f"{LLAMA}-andyrdt",
            f"resid_post_layer_{k}_trainer_1",
            k,
            131_072,
            LLAMA,
            _dictionary_learning,
            _batch_topk,
        )
        for k in (3, 15, 27)
    ),
    *(
        Release(
            f"{QWEN}-andyrdt",
            f"resid_post_layer_{k}_trainer_1",
            k,
            131_072,
            QWEN,
            _dictionary_learning,
            _batch_topk,
        )
        for k in (3, 15, 27)
    ),
    *(
        Release(
            "gemma-scope-2-4b-it-res",
            f"layer_{k}_width_16k_l0_medium",
            k,
            16_384,
            GEMMA,
            _gemma_scope_2,
            _jump_relu,
        )
        for k in (9, 17, 22, 29)
    ),
    Release(
        "gemma-scope-2-4b-it-res-all",
        "layer_0_width_16k_l0_small",
        0,
        16_384,
        GEMMA,
        _gemma_scope_2,
        _jump_relu,
    ),
    Release("goodfire-llama-3.1-8b-instruct", "layer_19", 19, 65_536, LLAMA, _goodfire, _relu),
    Release("llama_scope_lxr_8x", "l15r_8x", 15, 32_768, LLAMA, _llama_scope, _llama_scope_latents),
)
every_release = pytest.mark.parametrize("release", RELEASES, ids=lambda r: f"{r.name}/{r.sae_id}")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Serves files from tmp_path/owner/name in place of the hub; headers of weights that are not written come from `shapes.json`."""

    def download(repo_id: str, filename: str, subfolder: str | None = None, **_: Any) -> str:
        found = tmp_path / repo_id / (subfolder or "") / filename
        assert found.is_file(), f"sae-lens asked for {found.relative_to(tmp_path)}"
        return str(found)

    def shapes(repo_id: str, path: str, **_: Any) -> dict[str, list[int]]:
        config = json.loads((tmp_path / repo_id / Path(path).parent / "config.json").read_text())
        return {"w_enc": [config.get("d_in", 2560), config["width"]], "w_dec": [config["width"], 2560]}

    monkeypatch.setattr(loaders, "hf_hub_download", download)
    monkeypatch.setattr(loaders, "get_safetensors_tensor_shapes", shapes)
    return tmp_path


def _published(release: Release) -> tuple[str, str]:
    entry = get_pretrained_saes_directory()[release.name]
    return entry.repo_id, entry.saes_map[release.sae_id]


@every_release
def test_layer_hook_width_and_scale_of_the_published_sizes(release: Release, hub: Path) -> None:
    repository, path = _published(release)
    shape = model_sizes_of(release.model).shape
    release.write(hub / repository, path, release.layer, shape.d_model, release.width)
    config = loaders.load_sae_config_from_huggingface(release.name, release.sae_id)
    config = {**config, **config.get("metadata", {})}
    assert config["hook_name"] == f"blocks.{release.layer}.hook_resid_post" and release.layer < shape.n_layers
    assert (config["d_in"], config["d_sae"]) == (shape.d_model, release.width)
    assert config["normalize_activations"] == (
        "expected_average_only_in" if release.name.startswith("llama_scope") else "none"
    )
    assert config["apply_b_dec_to_input"] == release.name.endswith("-andyrdt")
    assert str(release.layer) in re.findall(r"\d+", release.sae_id)


@every_release
def test_latents_are_the_publishers(release: Release, hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repository, path = _published(release)
    weights = release.write(hub / repository, path, release.layer, 24, 96)
    if release.name.startswith("goodfire"):  # its sizes are in sae-lens's code, not in a file
        getter = loaders.get_goodfire_config_from_hf
        monkeypatch.setattr(
            loaders,
            "get_goodfire_config_from_hf",
            lambda *a, **k: {**getter(*a, **k), "d_in": 24, "d_sae": 96},
        )
    if release.name.startswith("gemma"):
        monkeypatch.setattr(
            loaders, "get_safetensors_tensor_shapes", lambda *a, **k: {"w_enc": [24, 96], "w_dec": [96, 24]}
        )
    sae = load_sae(f"{release.name}/{release.sae_id}")
    assert sae.site.name == f"blocks.{release.layer}.hook_resid_post"
    assert sae.W_dec.shape == (96, 24)
    x = 3 * torch.randn(50, 24, generator=torch.Generator().manual_seed(2))
    want = release.latents(x, weights)
    active = (want > 0).float().mean()
    assert 0.02 < active < 0.9
    # Llama Scope is published in bfloat16 and read so by sae-lens: three digits.
    rough = release.name.startswith("llama_scope")
    torch.testing.assert_close(sae.encode(x), want, atol=0.05 * float(want.max()) if rough else 1e-4, rtol=0)


def test_the_named_saes_are_those_releases() -> None:
    listed = {(release.name, release.sae_id) for release in RELEASES}
    layers = {
        key.split("/")[0]: sorted(int(k.split("/")[1]) for k in PRESETS if k.startswith(key.split("/")[0]))
        for key in PRESETS
    }
    assert layers == {
        LLAMA: [3, 7, 11, 15, 19, 23, 27],
        QWEN: [3, 7, 11, 15, 19, 23, 27],
        GEMMA: [9, 17, 22, 29],
    }
    for name, (release, sae_id) in PRESETS.items():
        assert str(name.split("/")[1]) in re.findall(r"\d+", sae_id) and any(release == r for r, _ in listed)
