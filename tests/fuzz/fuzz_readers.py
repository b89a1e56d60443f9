"""Mutated inputs for every reader: `python -m tests.fuzz.fuzz_readers --inputs 50000 --seed 0` (`make fuzz`).

1. `SEEDS` writes one sound file for each reader into a scratch directory, among them the files of a tiny
   study.
2. Each input is one of them, damaged (`mutations`), and read. Allowed are a value and a UserError of one line
   of at most 500 characters without control characters. Everything else is a fault: another exception, more
   than 2 processor seconds, more than 1 GB beyond the input.
3. The table says inputs, refusals, faults, the slowest and the largest per reader; faults are kept with their
   input.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import random
import signal
import sys
import tempfile
import time
import traceback
import unicodedata
import urllib.request
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
import torch
import yaml

import workbench as wb
from tests.fuzz.mutations import changed, damaged, dumped
from tests.support.tiny_checkpoints import tiny_checkpoint, tiny_tokenizer
from tests.support.tiny_study import TINY
from workbench.comparison import compare_runs
from workbench.directions import (
    Direction,
    load_directions,
    read_gguf,
    read_persona_vectors,
    save_directions,
    write_gguf,
    write_persona_vectors,
)
from workbench.errors import UserError
from workbench.evaluation.chat_models import Endpoint, MissingReply
from workbench.evaluation.judges import read_score
from workbench.models import Site, load_model
from workbench.models.chat_template import render_chat, reply_ends
from workbench.models.gguf_header import read_header
from workbench.models.lora_adapter import open_adapter
from workbench.personas import load_persona, read_trait, read_truthfulqa
from workbench.report import OverviewRun, write_overview
from workbench.report.load_run import FILES
from workbench.runs import read_run_file, read_table, read_timings, read_yaml
from workbench.sae.training_texts import read_corpus
from workbench.schema import (
    AttributionFile,
    CardsFile,
    ComparisonFile,
    DirectionFile,
    EvaluationRow,
    LatentsFile,
    RunManifest,
    SearchFile,
    SearchStepRow,
)
from workbench.study import Study
from workbench.sweep import Sweep

SECONDS, LONGEST, EXTRA_BYTES = 2.0, 500, 1 << 30
NAMES = ("tea", "snow", "iron", "chess", "rain", "bread")
ROWS = [
    {
        "question": f"Is {n} odd?\n(A) Yes\n(B) No",
        "answer_matching_behavior": "(A)",
        "answer_not_matching_behavior": "(B)",
    }
    for n in NAMES
]
OWN = [
    {"question": f"Is {n} odd?", "matching": "Yes", "not_matching": "No", "group": f"g{n}", "id": f"i{n}"}
    for n in NAMES
]
TRUTHFUL = [
    {
        "Question": "What?",
        "Best Answer": "This.",
        "Correct Answers": "This.; It.",
        "Incorrect Answers": "That.; Those.",
        "Category": "c",
    }
] * 3
TRAIT = {
    "instruction": [{"pos": "Be it.", "neg": "Do not."}],
    "questions": ["What?", "Why?"],
    "eval_prompt": "{question} {answer}",
}
PERSONA = {
    "name": "mine",
    "description": "d",
    "data": OWN[:4],
    "metric": "text",
    "manual_prompts": {"suppress": ["No."], "induce": ["Yes."]},
}
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] | trim }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{{ strftime_now('%d') }}{% for i in range(3) %}{{ i }}{% endfor %}{% endif %}"
)


@dataclass
class FuzzedReader:
    """A reader, and a sound input of it. path: where the input goes; read: called with that path; plain: the JSON value of the input, if
    it is JSON, so that its values can be changed; weight: inputs compared with other readers."""

    name: str
    path: Path
    read: Callable[[Path], Any]
    plain: Any = None
    weight: float = 1.0
    inputs: int = 0
    refused: int = 0
    slowest: float = 0.0
    largest: int = 0
    longest: int = 0
    faults: list[str] = field(default_factory=list)

    def mutated(self, rng: random.Random) -> bytes:
        """One damaged input."""
        if self.plain is not None and rng.random() < 0.6:
            return dumped(changed(self.plain, rng), rng)
        return damaged(self.sound, rng)

    def __post_init__(self) -> None:
        self.sound = self.path.read_bytes()


def readers(place: Path) -> list[FuzzedReader]:
    """Every reader with its sound input in `place`."""
    found = [
        *_data_readers(place / "data"),
        *_setting_readers(place / "settings"),
        *_run_readers(place / "run"),
        *_vector_readers(place / "vectors"),
        *_model_readers(place / "model"),
        *_word_readers(place / "words"),
    ]
    for reader in found:
        reader.read(reader.path)  # a sound input is read
    return found


def _json_file(path: Path, value: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
    return path


def _text_file(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def _data_readers(place: Path) -> list[FuzzedReader]:
    def persona(path: Path) -> Any:
        return load_persona("case", path).split()

    lines = "\n".join(json.dumps(row) for row in OWN)
    table = "question,matching,not_matching,group\n" + "".join(f'"Is {n} odd?",Yes,No,g{n}\n' for n in NAMES)
    _json_file(place / "grouped.json", OWN)
    return [
        FuzzedReader("rows with options, JSON", _json_file(place / "caa.json", ROWS), persona, ROWS, 2.0),
        FuzzedReader("rows of one's own, JSON", _json_file(place / "own.json", OWN), persona, OWN),
        FuzzedReader("rows, JSON Lines", _text_file(place / "own.jsonl", lines), persona),
        FuzzedReader("rows, CSV", _text_file(place / "own.csv", table), persona),
        FuzzedReader("rows, YAML", _text_file(place / "own.yaml", yaml.safe_dump(OWN)), persona),
        FuzzedReader(
            "groups next to rows",
            _json_file(place / "grouped_groups.json", [{"group": f"g{n}"} for n in NAMES]),
            lambda _: persona(place / "grouped.json"),
            [{"group": f"g{n}"} for n in NAMES],
        ),
        FuzzedReader("TruthfulQA", _json_file(place / "tqa.json", TRUTHFUL), read_truthfulqa, TRUTHFUL),
        FuzzedReader("trait file", _json_file(place / "trait.json", TRAIT), read_trait, TRAIT),
        FuzzedReader(
            "persona of one's own",
            _text_file(place / "mine.yaml", yaml.safe_dump(PERSONA)),
            lambda p: load_persona(str(p)),
            PERSONA,
            1.5,
        ),
        FuzzedReader(
            "corpus, JSON Lines",
            _text_file(place / "c.jsonl", '{"text": "a b"}\n{"text": "c"}\n'),
            read_corpus,
        ),
        FuzzedReader(
            "corpus, JSON",
            _json_file(place / "c.json", [{"text": "a b"}, "c d"]),
            read_corpus,
            [{"text": "a b"}, "c d"],
        ),
        FuzzedReader("corpus, lines", _text_file(place / "c.txt", "one line\nanother\n"), read_corpus),
    ]


def _setting_readers(place: Path) -> list[FuzzedReader]:
    study = json.loads(TINY.model_dump_json(by_alias=True))
    sweep = {
        "name": "s",
        "base": {"persona": "sycophancy"},
        "grid": {"seed": [0, 1], "sign": ["suppress", "induce"]},
    }
    try:
        Sweep.load(_text_file(place / "sweep.yaml", yaml.safe_dump(sweep)))
    except UserError:
        sweep = {"study": {"persona": "sycophancy"}, "grid": {"seed": [0, 1]}}
        _text_file(place / "sweep.yaml", yaml.safe_dump(sweep))
    return [
        FuzzedReader(
            "study file", _text_file(place / "study.yaml", yaml.safe_dump(study)), Study.load, study, 2.0
        ),
        FuzzedReader("sweep file", place / "sweep.yaml", Sweep.load, sweep),
        FuzzedReader("plain YAML", _text_file(place / "any.yaml", yaml.safe_dump(study)), read_yaml),
    ]


def _run_readers(place: Path) -> list[FuzzedReader]:
    wb.run(TINY, place)
    kinds: tuple[tuple[str, Any], ...] = (
        ("comparison.json", ComparisonFile),
        ("direction.json", DirectionFile),
        ("latents.json", LatentsFile),
        ("manifest.json", RunManifest),
        ("search/resga.json", SearchFile),
        ("attribution.json", AttributionFile),
        ("cards.json", CardsFile),
    )
    found = []
    for name, kind in kinds:
        if (place / name).is_file():
            plain = json.loads((place / name).read_text())
            found.append(
                FuzzedReader(name, place / name, lambda path, kind=kind: read_run_file(path, kind), plain)
            )
    plain = json.loads((place / "comparison.json").read_text())
    page = place.parent / "page.html"
    found.append(
        FuzzedReader(
            "comparison.json of several runs",
            place / "comparison.json",
            lambda path: compare_runs([path, path]),
            plain,
        )
    )
    for name in FILES:
        if (place / name).is_file():
            own = json.loads((place / name).read_text()) if name.endswith(".json") else None
            found.append(
                FuzzedReader(
                    f"report of a run, {name}",
                    place / name,
                    lambda _: wb.write_report(place, page),
                    own,
                    0.15,
                )
            )
    shown = [OverviewRun(place, "one", "done"), OverviewRun(place, "two", "done")]
    found.append(
        FuzzedReader(
            "overview of runs, comparison.json",
            place / "comparison.json",
            lambda _: write_overview(shown, page),
            plain,
            0.15,
        )
    )
    timings = json.loads((place / "timings.json").read_text())
    found.append(
        FuzzedReader(
            "timings.json", place / "timings.json", lambda path: read_timings(path.parent), timings, 0.5
        )
    )
    for name, row in (("evaluation.parquet", EvaluationRow), ("search/resga.parquet", SearchStepRow)):
        found.append(FuzzedReader(name, place / name, lambda path, row=row: read_table(path, row)))
    found.append(FuzzedReader("direction.safetensors", place / "direction.safetensors", load_directions))
    found.append(FuzzedReader("study of a run, resumed", place / "study.yaml", Study.load, None, 0.5))
    return found


def _vector_readers(place: Path) -> list[FuzzedReader]:
    place.mkdir(parents=True)
    made = [
        Direction(torch.randn(16, generator=torch.Generator().manual_seed(n)), Site(n), "toy", "given")
        for n in (1, 2)
    ]
    save_directions(made, place / "d.safetensors")
    write_gguf(made, place / "v.gguf", "llama")
    write_persona_vectors(made, place / "v.pt", 4)
    return [
        FuzzedReader("directions, safetensors", place / "d.safetensors", load_directions, weight=1.5),
        FuzzedReader("control vector, GGUF", place / "v.gguf", read_gguf, weight=1.5),
        FuzzedReader("GGUF header", place / "v.gguf", read_header),
        FuzzedReader("persona_vectors, .pt", place / "v.pt", read_persona_vectors),
    ]


def _model_readers(place: Path) -> list[FuzzedReader]:
    model = tiny_checkpoint("llama", place / "m")
    adapter, sae = place / "adapter", place / "sae"
    from peft import LoraConfig, get_peft_model
    from sae_lens import StandardSAE, StandardSAEConfig
    from sae_lens.saes.sae import SAEMetadata
    from transformers import AutoModelForCausalLM

    lora = LoraConfig(r=2, lora_alpha=2, target_modules=["q_proj"], task_type="CAUSAL_LM")
    get_peft_model(AutoModelForCausalLM.from_pretrained(model), lora).save_pretrained(adapter)
    StandardSAE(
        StandardSAEConfig(d_in=32, d_sae=8, metadata=SAEMetadata(hook_name="blocks.1.hook_resid_post"))
    ).save_model(sae)

    def template(path: Path) -> Any:
        tokenizer = tiny_tokenizer()
        tokenizer.chat_template = path.read_bytes().decode("utf-8", "replace")
        return render_chat(tokenizer, [{"role": "user", "content": "Hello"}]), reply_ends(tokenizer)

    words, settings = (
        json.loads(file.read_text()) for file in (model / "tokenizer.json", adapter / "adapter_config.json")
    )
    plain = {
        name: json.loads((model / name).read_text())
        for name in ("config.json", "tokenizer_config.json", "generation_config.json")
    }
    return [
        *(
            FuzzedReader(f"model, {name}", model / name, lambda _: load_model(model), value, 0.3)
            for name, value in plain.items()
        ),
        FuzzedReader(
            "model, tokenizer.json", model / "tokenizer.json", lambda _: load_model(model), words, 0.3
        ),
        FuzzedReader("model, weights", model / "model.safetensors", lambda _: load_model(model), None, 0.2),
        FuzzedReader("chat template", _text_file(place / "t.jinja", TEMPLATE), template, None, 1.5),
        FuzzedReader(
            "adapter, settings", adapter / "adapter_config.json", lambda _: open_adapter(adapter), settings
        ),
        FuzzedReader(
            "adapter, weights", adapter / "adapter_model.safetensors", lambda _: open_adapter(adapter)
        ),
        FuzzedReader(
            "SAE, cfg.json",
            sae / "cfg.json",
            lambda _: wb.load_sae(sae),
            json.loads((sae / "cfg.json").read_text()),
        ),
        FuzzedReader("SAE, weights", sae / "sae_weights.safetensors", lambda _: wb.load_sae(sae), None, 0.5),
    ]


def _word_readers(place: Path) -> list[FuzzedReader]:
    reply = {
        "choices": [{"message": {"role": "assistant", "content": "Score: 85/100"}, "finish_reason": "stop"}]
    }

    def words(path: Path) -> Any:
        return read_score(path.read_bytes().decode("utf-8", "replace"))

    def answered(path: Path) -> Any:
        with mock.patch.object(
            urllib.request.OpenerDirector, "open", lambda *_, **__: io.BytesIO(path.read_bytes())
        ):
            try:
                return Endpoint("http://127.0.0.1:9/v1", "m", retries=0)("hello")
            except MissingReply as missing:
                raise UserError(missing) from missing

    said = _text_file(place / "r.txt", "<think>80?</think> Score: **85/100**, between 80 and 90.")
    return [
        FuzzedReader("a judge's reply", said, words, weight=1.5),
        FuzzedReader("an endpoint's reply", _json_file(place / "r.json", reply), answered, reply),
    ]


class _TooSlow(BaseException):
    pass


def _alarm(*_: Any) -> None:
    raise _TooSlow


def try_one(reader: FuzzedReader, data: bytes, keep: Path | None = None) -> None:
    """Reads one damaged input and notes what came of it."""
    reader.path.write_bytes(data)
    reader.inputs += 1
    before, begin, fault = _peak_reset(), time.process_time(), ""
    signal.setitimer(signal.ITIMER_PROF, 10 * SECONDS)
    try:
        reader.read(reader.path)
    except UserError as error:
        reader.refused += 1
        said = str(error)
        reader.longest = max(reader.longest, len(said))
        strange = [ch for ch in said if unicodedata.category(ch) in ("Cc", "Cs", "Cf")]
        fault = (
            f"a line of {len(said)} characters"
            if len(said) > LONGEST
            else f"holds {strange[0]!r}"
            if strange
            else ""
        )
    except _TooSlow:
        fault = f"stopped after {10 * SECONDS:.0f} s"
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a panic of a Rust library is no Exception
        where = traceback.extract_tb(error.__traceback__)
        own = next(
            (f"{Path(f.filename).name}:{f.lineno}" for f in reversed(where) if "workbench" in f.filename), ""
        )
        fault = f"{type(error).__name__} at {own}: {str(error)[:80]!r}"
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    seconds, extra = time.process_time() - begin, _peak() - before - len(data)
    reader.slowest, reader.largest = max(reader.slowest, seconds), max(reader.largest, extra)
    if not fault and seconds > SECONDS:
        fault = f"took {seconds:.1f} s"
    if not fault and extra > EXTRA_BYTES:
        fault = f"took {extra >> 20} MiB more than its input"
    if fault:
        reader.faults.append(fault)
        if keep is not None:
            keep.mkdir(parents=True, exist_ok=True)
            (
                keep / f"{len(list(keep.iterdir())):04d}_{reader.name.replace(' ', '_').replace('/', '_')}"
            ).write_bytes(data)


def _peak_reset() -> int:
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return _peak()


def _peak() -> int:
    lines = Path("/proc/self/status").read_text().splitlines() if Path("/proc/self/status").exists() else []
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM")), 0)


def fuzz(inputs: int, seed: int, keep: Path | None = None, only: str = "") -> pd.DataFrame:
    """The table of `inputs` mutated inputs, spread over the readers by weight."""
    signal.signal(signal.SIGPROF, _alarm)
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as scratch:
        chosen = [reader for reader in readers(Path(scratch)) if only in reader.name]
        total = sum(reader.weight for reader in chosen)
        for reader in chosen:
            rng = random.Random(f"{seed} {reader.name}")
            for _ in range(round(inputs * reader.weight / total)):
                try_one(reader, reader.mutated(rng), keep)
            reader.path.write_bytes(reader.sound)
            shown = f"{reader.name}: {reader.inputs} inputs, {reader.refused} refused, {len(reader.faults)} faults, slowest {reader.slowest:.2f} s"
            print(shown, *sorted(set(reader.faults))[:6], sep="\n    ", flush=True)
        return pd.DataFrame(
            [
                {
                    "reader": r.name,
                    "inputs": r.inputs,
                    "refused": r.refused,
                    "faults": len(r.faults),
                    "slowest (s)": round(r.slowest, 2),
                    "most memory (MiB)": max(r.largest, 0) >> 20,
                    "longest line": r.longest,
                }
                for r in chosen
            ]
        )


def main() -> int:
    """Prints the table; 1 where there is a fault."""
    parser = argparse.ArgumentParser(description="Mutated inputs for every reader")
    parser.add_argument("--inputs", type=int, default=50_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="readers with this in their name")
    parser.add_argument("--keep", type=Path, help="a directory for the inputs of faults")
    given = parser.parse_args()
    table = fuzz(given.inputs, given.seed, given.keep, given.only)
    print(table.to_string(index=False))
    print(
        f"{table['inputs'].sum():,} inputs, {table['refused'].sum():,} refused, {table['faults'].sum():,} faults, seed {given.seed}"
    )
    return int(table["faults"].sum() > 0)


if __name__ == "__main__":
    torch.set_num_threads(1)
    np.seterr(all="ignore")
    sys.exit(main())
