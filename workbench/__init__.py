"""A workbench for persona directions, SAE latents, fluent prompt search, comparison and attribution.

Tensor axes have the same names in jaxtyping annotations and einops strings: `batch pos d_model d_vocab d_sae
layer head context candidate prompt_pos`.

The public names are loaded on first use, so that `import workbench` is fast.
"""

from importlib import import_module
from typing import Any

_PUBLIC = {
    "workbench.errors": ("UserError",),
    "workbench.budget": ("Budget", "Cost"),
    "workbench.world": ("World",),
    "workbench.statistics": ("Interval", "cluster_interval", "rank_correlation"),
    "workbench.personas": ("Item", "LetterForm", "Persona", "Split", "check_persona", "load_persona"),
    "workbench.models": ("Runner", "Site", "load_model", "runner_for"),
    "workbench.models.doctor": ("diagnose",),
    "workbench.lexicons": ("Lexicon", "make_lexicon"),
    "workbench.contexts": ("Context", "Contexts", "make_contexts"),
    "workbench.prompt_tokens": ("allowed_ids", "lexicon", "survives"),
    "workbench.activations": ("collect",),
    "workbench.forced_choice": ("Answers", "answer"),
    "workbench.evaluation": (
        "AskedJudge",
        "ScorecardExtras",
        "PatternJudge",
        "evaluate",
        "judge_all",
        "open_answers",
        "truthfulqa",
    ),
    "workbench.directions": (
        "Direction",
        "LabelledCache",
        "LayerScanOptions",
        "direction_permutation_test",
        "find_directions",
        "random_directions",
    ),
    "workbench.sae": ("SaeTrainingOptions", "load_sae", "train_sae"),
    "workbench.latents": (
        "LatentCardOptions",
        "LatentRankingOptions",
        "describe_latents",
        "label_latents",
        "latent_firing",
        "latent_labels",
        "rank_latents",
    ),
    "workbench.objectives": (
        "AnswerLogProbObjective",
        "Objective",
        "RepetitionPenalty",
        "TextSimilarity",
        "HoldObjective",
        "answer_log_odds",
        "hold_direction",
        "latent_activation",
        "neutral_prompts",
        "projection",
    ),
    "workbench.search": (
        "EPO",
        "GCG",
        "Beam",
        "Candidate",
        "Checkpoint",
        "Frontier",
        "Guided",
        "LiveFrontier",
        "SearchMethod",
        "SentenceSearch",
        "RandomSearch",
        "Optimizations",
        "search",
    ),
    "workbench.interventions": ("ablate", "clamp", "patch", "steer"),
    "workbench.conditions": (
        "ConstantAnswer",
        "Found",
        "CapabilityGuard",
        "LatentClamp",
        "ManualPrompts",
        "NoPrompt",
        "Prompt",
        "RandomText",
        "RandomTokens",
        "PromptTuning",
        "SoftPrompt",
        "Steering",
        "few_shot",
    ),
    "workbench.audit": ("Audit", "audit"),
    "workbench.comparison": ("Comparison", "ComparisonOptions", "compare", "compare_runs", "judged"),
    "workbench.attribution": ("AttributionOptions", "Ledger", "attribute", "side_effects"),
    "workbench.panel": ("Panel", "PanelOptions"),
    "workbench.report.circuitsvis_views": ("attention_view", "circuit_view", "ledger_view"),
    "workbench.report": ("OverviewRun", "write_overview", "write_report"),
    "workbench.study": ("Study", "run"),
    "workbench.sweep": ("Sweep", "SweepResult", "TransferResult", "ablation_sweep", "sweep", "transfer"),
    "workbench.study.study_presets": ("preset",),
}
_HOME = {name: module for module, names in _PUBLIC.items() for name in names}
_MODULES = {"figures": "workbench.report.figures"}

__version__ = "0.1.0"
__all__ = sorted({*_HOME, *_MODULES})


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(_MODULES[name])
    if name not in _HOME:
        raise AttributeError(f"module 'workbench' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
