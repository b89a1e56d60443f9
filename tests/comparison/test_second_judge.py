"""The second judge of fluency against a plain Hugging Face style pass, and what the report says of both."""

from __future__ import annotations

import pytest
import torch

from tests.support.toy_models import random_model, toy_persona
from workbench.comparison import compare, judged
from workbench.conditions import NoPrompt, Prompt
from workbench.contexts import make_contexts
from workbench.models.model_sources import base_of
from workbench.report.verdict import _second_judge
from workbench.schema import ComparisonFile, ConditionEntry

PROMPTS = ("Be blunt.", "Agree.")


@pytest.fixture(scope="module")
def comparison():
    split = toy_persona().split().test
    judge = random_model(seed=5)
    table = compare(random_model(), split, [NoPrompt(), *map(Prompt, PROMPTS)])
    return judged(table, judge, make_contexts(judge, split, n=1), "another model"), judge, split


def test_the_judge_reads_each_prompt_in_its_slot(comparison):
    """Oracle: the judge's own logits over the whole text, left of the slot included."""
    table, judge, split = comparison
    context = make_contexts(judge, split, n=1)[0]
    for text in PROMPTS:
        ids = judge.tokenizer(context.lead + text, add_special_tokens=False)["input_ids"]
        whole = torch.tensor([[*context.prefix_ids, *ids]])
        log_probs = judge(whole)[0].log_softmax(-1)
        start = len(context.prefix_ids)
        expected = -torch.stack(
            [log_probs[i - 1, whole[0, i]] for i in range(max(1, start), whole.shape[1])]
        ).mean()
        entry = table[f"manual: {text}"]
        assert entry.judge_cross_entropy == pytest.approx(float(expected), abs=1e-3)
        assert entry.judge_cross_entropy != pytest.approx(entry.cross_entropy, abs=1e-3)
    assert table["no prompt"].judge_cross_entropy is None


def test_the_second_judge_is_in_the_file_and_the_table(comparison):
    table = comparison[0]
    file = ComparisonFile.model_validate(table.to_json())
    assert file.judge == "another model"
    assert [c.judge_cross_entropy for c in file.conditions] == [e.judge_cross_entropy for e in table.entries]
    assert table.table["judge_cross_entropy"].notna().tolist() == [False, True, True]
    assert (
        "judge_cross_entropy"
        not in compare(random_model(), comparison[2], [NoPrompt(), Prompt("Agree.")]).table
    )


def _file(own: float, second: float) -> tuple[ComparisonFile, ConditionEntry]:
    best = ConditionEntry(name="RESGA", kind="resga", fluency=own, judge_cross_entropy=second)
    manual = [
        ConditionEntry(name=n, kind="manual", fluency=f, judge_cross_entropy=j)
        for n, f, j in (("a", 3.0, 4.0), ("b", 5.0, 4.2))
    ]
    facts = {
        "persona": "p",
        "model": "m",
        "sign": -1.0,
        "metric": "text",
        "seed": 0,
        "splits": {},
        "judge": "base",
    }
    return ComparisonFile(**facts, conditions=[best, *manual]), best


@pytest.mark.parametrize(
    ("own", "second", "words"),
    [
        (3.9, 4.0, "both models find it at least as natural as the mean"),
        (4.1, 4.2, "both models find it less natural than the mean"),
        (3.9, 4.2, "the models disagree: the searched one finds it at least as natural as the mean"),
        (4.1, 4.0, "the models disagree: the searched one finds it less natural than the mean"),
    ],
)
def test_the_report_says_where_the_two_disagree(own, second, words):
    """Written prompts: means of 4.0 nats by the searched model and 4.1 by the second."""
    file, best = _file(own, second)
    (line,) = _second_judge(file, best, [3.0, 5.0])
    assert (
        line.startswith(f"base, which no search used, gives it {second:.1f} nats per token; ")
        and words in line
    )
    assert (
        _second_judge(*_file(own, second)[:1], best.model_copy(update={"judge_cross_entropy": None}), [3.0])
        == []
    )


def test_adapted_models_are_judged_by_their_base():
    assert base_of("smollm2-sycophant") == base_of("smollm2-personas") == "smollm2-135m"
    assert base_of("organism") is None and base_of("gpt2") is None
