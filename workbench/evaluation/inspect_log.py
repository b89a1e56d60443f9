"""Write answers as logs of inspect-ai, so that its viewer and other scorers can read them.

The file is inspect's JSON log, version 2, with one sample per answer. The model is named `none/NAME`,
inspect's provider for models that are not to be called, so that `inspect score LOG --scorer includes` needs
no model. In a directory, a log is named so that `inspect view` finds it (time and task); with another name,
give inspect its path.

- `write_inspect_log`: open answers. The target is the not matching option (the answer without the persona);
  item, group, matching option and sample number are metadata.
- `write_inspect_choices`: forced choice. The output of a sample is the chosen letter or text with the
  log-probabilities of both answers (normalised over the two); its score is 1 if the matching answer was
  chosen.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from workbench.contexts import Contexts
from workbench.errors import UserError
from workbench.evaluation.open_answers import OpenAnswer
from workbench.forced_choice import Answers
from workbench.models import runner_for
from workbench.runs import write_json


def write_inspect_log(
    answers: Sequence[OpenAnswer], path: str | Path, model: str, task: str = "persona"
) -> Path:
    """Write open answers (the model's answers in its own words) as a log file of inspect-ai.

    Args:
        answers: Answers from `open_answers`.
        path: A file that ends in .json, or an existing directory, in which the log is named as inspect names
            its logs.
        model: Name of the model in the log.
        task: Name of the task in the log.

    Returns:
        The path of the log.

    Raises:
        UserError: There are no answers, or the file does not end in .json.

    Example:
        >>> write_inspect_log(open_answers(model, items), "open.json", "smollm2-135m")  # doctest: +SKIP
    """
    if not answers:
        raise UserError("no answers to write to an inspect log")
    return _write(
        Path(path), [_open_sample(i, answer, model) for i, answer in enumerate(answers, start=1)], model, task
    )


def write_inspect_choices(
    model: Any,
    contexts: Contexts,
    answers: Answers,
    path: str | Path,
    name: str,
    prompt: str | None = None,
    task: str = "persona",
) -> Path:
    """Write answers to two-option questions with their log-probabilities as a log file of inspect-ai.

    Args:
        model: The model that answered; its tokenizer gives the answers' texts.
        contexts: The questions, rendered in the chat template.
        answers: Log-odds of the two options: the result of `answer(model, contexts, prompt)`, one entry per
            question.
        path: A file that ends in .json, or an existing directory, in which the log is named as inspect names
            its logs.
        name: Name of the model in the log.
        prompt: Text of the prompt, or None if there was no prompt.
        task: Name of the task in the log.

    Returns:
        The path of the log.

    Raises:
        UserError: The numbers of answers and questions differ, or the file does not end in .json.

    Example:
        >>> write_inspect_choices(model, contexts, wb.answer(model, contexts), "choices.json", "organism")  # doctest: +SKIP
    """
    if len(contexts) != len(answers.log_odds):
        raise UserError(
            f"expected one answer for each of {len(contexts)} contexts, found {len(answers.log_odds)}"
        )
    runner = runner_for(model)
    samples = []
    for number, (context, log_odds) in enumerate(
        zip(contexts, answers.log_odds.tolist(), strict=True), start=1
    ):
        texts = tuple(runner.decode(ids).strip() for ids in context.answers)
        asked = (
            runner.decode(context.bare_ids)
            if prompt is None
            else context.prefix_text + prompt + context.suffix_text
        )
        samples.append(_choice_sample(number, context, asked, texts, log_odds, name))
    return _write(Path(path), samples, name, task)


def _open_sample(number: int, answer: OpenAnswer, model: str) -> dict[str, Any]:
    metadata = {
        "item": answer.item_id,
        "group": answer.group,
        "matching": answer.matching,
        "rendered": answer.rendered,
        "sample": answer.sample,
    }
    stop = "stop" if answer.finished else "max_tokens"
    return _sample(number, answer.question, answer.not_matching, answer.text, stop, model, metadata)


def _choice_sample(
    number: int, context: Any, asked: str, texts: tuple[str, ...], log_odds: float, model: str
) -> dict[str, Any]:
    """Return one sample of an inspect log for a question with two answers.

    Args:
        number: Id of the sample.
        context: The question.
        asked: Text of the whole input.
        texts: Text of the matching and of the other answer.
        log_odds: log p(matching) - log p(not matching). Among the two answers alone log p(matching) = -log(1
            + exp(-log_odds)), which is computed without overflow.
        model: Name of the model.
    """
    log_probs = [float(-np.logaddexp(0, -log_odds)), float(-np.logaddexp(0, log_odds))]
    chosen = 0 if log_odds > 0 else 1
    order = [chosen, 1 - chosen]
    top = [{"token": texts[i], "logprob": log_probs[i], "bytes": None} for i in order]
    item = context.item
    metadata = {
        "item": item.id,
        "group": item.group,
        "matching_first": bool(context.matching_first),
        "log_odds": log_odds,
        "matching": texts[0],
    }
    sample = _sample(number, asked, texts[1], texts[chosen], "stop", model, metadata)
    sample["choices"] = list(texts)
    sample["output"]["choices"][0]["logprobs"] = {"content": [{**top[0], "top_logprobs": top}]}
    sample["scores"] = {
        "matching": {"value": 1 - chosen, "answer": texts[chosen], "metadata": {"log_odds": log_odds}}
    }
    return sample


def _sample(
    number: int, asked: str, target: str, text: str, stop: str, model: str, metadata: dict[str, Any]
) -> dict[str, Any]:
    said = {"role": "assistant", "content": text, "source": "generate"}
    return {
        "id": number,
        "epoch": 1,
        "input": asked,
        "target": target,
        "messages": [{"role": "user", "content": asked, "source": "input"}, said],
        "output": {
            "model": f"none/{model}",
            "choices": [{"message": said, "stop_reason": stop}],
            "completion": text,
        },
        "scores": {},
        "metadata": metadata,
        "store": {},
        "events": [],
        "model_usage": {},
        "attachments": {},
    }


def _write(path: Path, samples: list[dict[str, Any]], model: str, task: str) -> Path:
    now = datetime.now(UTC)
    digest = hashlib.sha256(json.dumps([model, task, samples], sort_keys=True).encode()).hexdigest()[:22]
    if path.is_dir():
        path = path / f"{now:%Y-%m-%dT%H-%M-%S+00-00}_{task.replace('_', '-')}_{digest}.json"
    if path.suffix != ".json":
        raise UserError(
            f"{path}: inspect reads logs by their suffix: expected .json, found {path.suffix or 'none'!r}"
        )
    created = now.isoformat(timespec="seconds")
    spec = {
        "eval_id": digest,
        "run_id": digest,
        "created": created,
        "task": task,
        "task_id": digest,
        "task_version": 0,
        "task_attribs": {},
        "task_args": {},
        "dataset": {"name": task, "samples": len(samples), "shuffled": False},
        "model": f"none/{model}",
        "model_args": {},
        "config": {},
        "packages": {},
        "metadata": {},
    }
    started = {"started_at": created, "completed_at": created, "model_usage": {}}
    log = {
        "version": 2,
        "status": "success",
        "eval": spec,
        "plan": {"name": "plan", "steps": [], "config": {}},
        "stats": started,
    }
    write_json(path, {**log, "samples": samples})
    return path
