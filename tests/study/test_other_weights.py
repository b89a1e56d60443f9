"""Memory of an SAE and of a judge in the plan: against the loaded modules' own numbers, and by hand for the paper's."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

import workbench as wb
from workbench.models.model_sizes import model_sizes_of
from workbench.study import Study
from workbench.study.cost_estimate import counted, plan
from workbench.study.other_weights import other_weights
from workbench.study.room_for_study import refuse_plan
from workbench.study.study_presets import preset
from workbench.study.study_settings import ModelSettings, SearchSettings


def test_the_organisms_sae_has_the_numbers_of_its_loaded_weights():
    (found,) = other_weights(Study(), 128)
    sae = wb.load_sae("organism")
    assert found.numbers == sum(value.numel() for value in sae.module.state_dict().values())
    assert found.bytes("bfloat16") == 4 * found.numbers


def test_the_papers_sae_takes_four_gigabytes_in_every_stage():
    """2 x 131,072 x 4,096 weights in float32, by hand."""
    with_sae = preset("sycophancy", "llama-3.1-8b-instruct", "corrected")
    without = with_sae.model_copy(update={"sae": "none"})
    (found,) = counted(with_sae).others
    assert found.name.startswith("SAE ") and found.bytes("bfloat16") == 4 * (
        2 * 131_072 * 4096 + 131_072 + 4096
    )
    directions = counted(with_sae).stages[0]
    more = counted(with_sae).bytes(directions, "bfloat16") - counted(without).bytes(directions, "bfloat16")
    assert more == found.bytes("bfloat16") > 4.2e9


@pytest.mark.parametrize(("name", "latents"), (("16k", 16_384), ("65k", 65_536), ("1m", 1_048_576)))
def test_gemma_scopes_width_is_read_from_its_id(name, latents):
    study = Study(
        model=ModelSettings(name="gemma-3-4b-it"),
        sae=f"gemma-scope-2-4b-it-res/layer_9_width_{name}_l0_medium",
    )
    (found,) = other_weights(study, 2560)
    assert found.numbers == 2 * latents * 2560 + latents + 2560


def test_a_directory_counts_what_its_file_holds(tmp_path):
    save_file({"W_enc": torch.zeros(3, 5), "b_enc": torch.zeros(5)}, tmp_path / "sae_weights.safetensors")
    (tmp_path / "cfg.json").write_text("{}")
    (found,) = other_weights(Study(sae=str(tmp_path)), 3)
    assert found.numbers == 20


def test_what_is_not_here_is_said_to_be_uncounted():
    study = Study(sae="a-release/of-unknown-width")
    assert counted(study).others[0].numbers is None and counted(study).others[0].bytes("float32") == 0
    assert any("SAE a-release/of-unknown-width is not counted" in note for note in plan(study).notes)


def test_a_judge_counts_from_the_comparison_on():
    study = Study(search=SearchSettings(judge="organism"), sae="none")
    found, bare = counted(study), counted(Study(search=SearchSettings(judge="none"), sae="none"))
    need = 4 * model_sizes_of("organism").parameters
    more = {
        stage.name: found.bytes(stage, "float32") - bare.bytes(stage, "float32") for stage in found.stages
    }
    assert {name for name, size in more.items() if size == need} == {"comparison", "attribution"}
    assert all(size == 0 for name, size in more.items() if name not in ("comparison", "attribution"))


def test_a_study_is_refused_for_its_sae():
    study = preset("sycophancy", "llama-3.1-8b-instruct", "corrected").model_copy(
        update={"conditions": ("saega",)}
    )
    without = study.model_copy(update={"sae": "none"})
    need = counted(study).peak("bfloat16", study.search.batch_tokens, shrinking=True)
    less = counted(without).peak("bfloat16", study.search.batch_tokens, shrinking=True)
    between = (need + less) / 2 / 0.95
    refuse_plan(without, between, "a GPU")
    with pytest.raises(wb.UserError, match="the plan needs too much memory"):
        refuse_plan(study, between, "a GPU")
