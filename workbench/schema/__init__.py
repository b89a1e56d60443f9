"""Pydantic models of the files of a run directory, for writing and for reading.

| file | model |
|---|---|
| manifest.json | `RunManifest` |
| direction.json | `DirectionFile` |
| latents.json | `LatentsFile` |
| search/NAME.json | `SearchFile` |
| search/frontier.json | `FrontierFile` |
| search/NAME.parquet, search/history.parquet | `SearchStepRow`, `HistoryRow` |
| comparison.json, evaluation.parquet | `ComparisonFile`, `EvaluationRow` |
| off_target.parquet, questions.parquet | `OffTargetRow`, `QuestionRow` |
| attribution.json, attribution.parquet | `AttributionFile`, `AttributionRow` |
| progress.json | `ProgressFile` |
| timings.json | `TimingsFile` |
| cards.json, cards.parquet | `CardsFile`, `CardRow` |
| labels.json | `LabelsFile` |

study.yaml is `workbench.study.Study`; direction.safetensors is checked by `workbench.directions`. The version
number and the changes between versions are in `schema_version`; reading and writing in
`workbench.runs.run_files`.
"""

from workbench.schema.attribution_file import (
    AttributionFile,
    AttributionRow,
    CircuitEdgeEntry,
    CircuitEndEntry,
    CircuitEntry,
    CircuitNodeEntry,
    DoseEntry,
    FaithfulnessEntry,
    MeanEntry,
    MediationEntry,
    MovedLatentEntry,
    PatchedNodeEntry,
    SideEffectsEntry,
    TargetEntry,
    TokenPairEntry,
    TotalEntry,
)
from workbench.schema.cards_file import CardEntry, CardRow, CardsFile, FiringEntry
from workbench.schema.comparison_file import (
    AnswerBiasEntry,
    ComparisonFile,
    ConditionEntry,
    CostEntry,
    DifferenceEntry,
    EvaluationRow,
    OffTargetRow,
    QuestionRow,
    SplitEntry,
)
from workbench.schema.direction_file import DirectionFile, LayerEntry, PromptEffectEntry
from workbench.schema.labels_file import LabelEntry, LabelsFile
from workbench.schema.latents_file import LatentEntry, LatentsFile, SaeCheckEntry
from workbench.schema.manifest_file import RunManifest, StageRecord
from workbench.schema.progress_file import ProgressEntry, ProgressFile
from workbench.schema.run_file import Ends, Entry, Number, RunFile, TableRow
from workbench.schema.schema_version import SCHEMA, migrated
from workbench.schema.search_files import CandidateEntry, FrontierFile, HistoryRow, SearchFile, SearchStepRow
from workbench.schema.timings_file import SearchTimes, TimingsFile

__all__ = [
    "SCHEMA",
    "AnswerBiasEntry",
    "AttributionFile",
    "AttributionRow",
    "CandidateEntry",
    "CardEntry",
    "CardRow",
    "CardsFile",
    "CircuitEdgeEntry",
    "CircuitEndEntry",
    "CircuitEntry",
    "CircuitNodeEntry",
    "ComparisonFile",
    "ConditionEntry",
    "CostEntry",
    "DifferenceEntry",
    "DirectionFile",
    "DoseEntry",
    "Ends",
    "Entry",
    "EvaluationRow",
    "FaithfulnessEntry",
    "FiringEntry",
    "FrontierFile",
    "HistoryRow",
    "LabelEntry",
    "LabelsFile",
    "LatentEntry",
    "LatentsFile",
    "LayerEntry",
    "MeanEntry",
    "MediationEntry",
    "MovedLatentEntry",
    "Number",
    "OffTargetRow",
    "PatchedNodeEntry",
    "ProgressEntry",
    "ProgressFile",
    "PromptEffectEntry",
    "QuestionRow",
    "RunFile",
    "RunManifest",
    "SaeCheckEntry",
    "SearchFile",
    "SearchStepRow",
    "SearchTimes",
    "SideEffectsEntry",
    "SplitEntry",
    "StageRecord",
    "TableRow",
    "TargetEntry",
    "TimingsFile",
    "TokenPairEntry",
    "TotalEntry",
    "migrated",
]
