"""Does a prompt act on sycophancy, or on any opinion that the question mentions?

For every form of sycophancy (feedback, suggested, doubt), the same questions are asked with the user's and with a
third party's opinion (`feedback_third_party` etc.), without a prompt and under each prompt of a file. An effect is the
change of the log-odds of the answer that follows the opinion. Answers cancel within a group, as in
`benchmarks.real_models`. `difference` is the user's effect minus the third party's, paired by group: a prompt that
acts on agreement with the user alone has its whole effect there. Questions are of the test split of the studies of
Qwen, so those of feedback are the ones that the studies report. All intervals are 95 % t intervals over groups.

    python -m benchmarks.question_forms --forms feedback doubt --model MODELS/qwen2.5-coder-0.5b.gguf --prompts benchmarks/qwen_prompts.yaml
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from benchmarks.feedback_free_text import FRACTIONS
from benchmarks.real_models import interval, sides
from workbench.contexts import make_contexts
from workbench.forced_choice import answer
from workbench.models import load_model
from workbench.personas import Split, load_persona
from workbench.runs import read_json, read_yaml, write_json

FORMS = ("feedback", "doubt", "suggested")
GROUPS = 24
WHOSE = ("user", "third_party")


def questions(form: str) -> dict[str, Split]:
    """The same test questions with the user's and a third party's opinion, two for each of 24 groups.

    The two questions of a group have different matching answers, so that a preference for one of them cancels."""
    persona = load_persona(f"{form}_sycophancy")
    test = persona.split(0, FRACTIONS).test
    # Two questions a view, as in the studies; of the other forms more, since some draws lack a question's opposite.
    drawn = test.take((2 if form == "feedback" else 4) * GROUPS)
    pairs: dict[str, dict[str, Any]] = {}
    for item in drawn.items:
        pairs.setdefault(item.group, {}).setdefault(item.matching, item)
    ids = [item.id for pair in [p for p in pairs.values() if len(p) > 1][:GROUPS] for item in pair.values()]
    found = {}
    for whose in WHOSE:
        own = persona if whose == "user" else load_persona(f"{form}_third_party")
        items = {item.id: item for item in own.items}
        found[whose] = replace(test, items=tuple(items[i] for i in ids), persona=own)
    return found


def effects(table: pd.DataFrame, baseline: str = "none") -> dict[str, dict[str, Any]]:
    """By condition: log-odds and change for each party, and the difference of the changes.

    table: whose, condition, group, matching, log_odds."""
    means = {whose: sides(part)[1] for whose, part in table.groupby("whose")}
    changes = {whose: values - values.loc[baseline] for whose, values in means.items()}
    found: dict[str, dict[str, Any]] = {}
    for name in table["condition"].unique():
        groups = tuple(means["user"].columns)
        row: dict[str, Any] = {"groups": len(groups)}
        for whose in WHOSE:
            row[whose] = interval(means[whose].loc[name], groups)
            row[f"{whose} change"] = interval(changes[whose].loc[name], groups)
        row["difference"] = interval(changes["user"].loc[name] - changes["third_party"].loc[name], groups)
        found[str(name)] = row
    return found


def measure(model: Any, form: str, prompts: dict[str, str | None]) -> dict[str, dict[str, Any]]:
    """Effects of all prompts on one form."""
    rows: list[dict[str, Any]] = []
    for whose, split in questions(form).items():
        contexts = make_contexts(model, split)
        for name, prompt in prompts.items():
            for context, value in zip(contexts, answer(model, contexts, prompt).log_odds, strict=True):
                item = context.item
                key = {"whose": whose, "condition": name, "group": item.group, "matching": item.matching}
                rows.append(key | {"log_odds": float(value)})
    return {name: {"prompt": prompts[name]} | row for name, row in effects(pd.DataFrame(rows)).items()}


def known_authors(model: Any, prompts: dict[str, str | None]) -> dict[str, dict[str, Any]]:
    """Log-odds of naming the author of well-known novels: a prompt that lowers them makes the model silent."""
    persona = load_persona("invented_authors")
    contexts = make_contexts(model, Split("true items", persona.true_items, persona))
    groups = tuple(context.item.group for context in contexts)
    found: dict[str, dict[str, Any]] = {}
    bare: np.ndarray | None = None
    for name, prompt in prompts.items():
        values = answer(model, contexts, prompt).log_odds
        bare = values if bare is None else bare
        found[name] = {"prompt": prompt, "rate": float((values > 0).mean())}
        found[name] |= {"log_odds": interval(values, groups), "change": interval(values - bare, groups)}
    return found


def main() -> None:
    """Prompts of a YAML file (name: text), after no prompt; the file is written after each form and keeps other forms."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--prompts", type=Path, required=True)
    parser.add_argument("--forms", nargs="+", default=FORMS, choices=FORMS)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/latest/question_forms.json"))
    parser.add_argument(
        "--known-authors", action="store_true", help="this control of invented_authors instead"
    )
    asked = parser.parse_args()
    torch.set_num_threads(1)
    model = load_model(asked.model, dtype=asked.dtype)
    prompts: dict[str, str | None] = {"none": None, **read_yaml(asked.prompts)}
    about = {"model": Path(asked.model).name, "dtype": asked.dtype}
    if asked.known_authors:
        write_json(asked.out, about | {"known_authors": known_authors(model, prompts)})
        return
    forms: dict[str, Any] = read_json(asked.out)["forms"] if asked.out.is_file() else {}
    for form in asked.forms:
        forms[form] = measure(model, form, prompts)
        write_json(asked.out, about | {"forms": forms})
        for name, row in forms[form].items():
            print(form, name, row["user change"], row["third_party change"], row["difference"], flush=True)


if __name__ == "__main__":
    main()
