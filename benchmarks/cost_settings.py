"""Models and contexts of the cost benchmarks: the same weights in Hugging Face and in the workbench."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from benchmarks.baselines.target import Target, Text
from workbench.contexts import Contexts, make_contexts
from workbench.models import Runner, Site, load_model, runner_for
from workbench.models.gguf_files import smollm_directory
from workbench.models.model_sources import find_source
from workbench.objectives import ProjectionObjective
from workbench.personas import Item, Persona, Split, load_persona

WORDS = [
    "river",
    "stone",
    "garden",
    "window",
    "light",
    "morning",
    "paper",
    "market",
    "doctor",
    "teacher",
    "winter",
    "summer",
    "music",
]


@dataclass(frozen=True)
class Setting:
    """One cell: a model twice, the objective twice, the contexts twice."""

    name: str
    slot: str
    runner: Runner
    reference: PreTrainedModel
    contexts: Contexts
    texts: list[Text]
    objective: ProjectionObjective
    target: Target


@dataclass(frozen=True)
class Loaded:
    name: str
    runner: Runner
    reference: PreTrainedModel

    def setting(self, slot: str, n_contexts: int, tokens: int = 128, depth: float = 0.5) -> Setting:
        """n contexts of `tokens` tokens in addition to the template's own few (organism: its own questions), read out at `depth`."""
        contexts = self._contexts(slot, n_contexts, tokens)
        layer = max(1, round(self.runner.shape.n_layers * depth)) - 1
        vector = torch.nn.functional.normalize(
            torch.randn(self.runner.shape.d_model, generator=torch.Generator().manual_seed(0)), dim=0
        )
        vector = vector.to(self.runner.device)
        texts = [(c.prefix_ids, c.suffix_ids) for c in contexts]
        return Setting(
            self.name,
            slot,
            self.runner,
            self.reference,
            contexts,
            texts,
            ProjectionObjective(vector, Site(layer), "raw"),
            Target(vector, layer),
        )

    def _contexts(self, slot: str, n: int, tokens: int) -> Contexts:
        if self.name == "organism":
            split = load_persona("sycophancy").split().search
            return make_contexts(self.runner, split, slot)[:n]
        items = [Item(str(i), self._question(slot, i, tokens), "yes", "no", str(i)) for i in range(max(2, n))]
        persona = Persona(
            "cost",
            "questions of equal length",
            tuple(items),
            "text",
            None,
            {"suppress": (), "induce": ()},
            (),
        )
        return make_contexts(self.runner, Split("cost", persona.items[:n], persona), slot)

    def _question(self, slot: str, number: int, tokens: int) -> str:
        """A question such that the longer side of the slot has `tokens` tokens."""
        draw = torch.randint(len(WORDS), (tokens,), generator=torch.Generator().manual_seed(number)).tolist()
        words = [WORDS[i] for i in draw]
        for length in range(tokens, 0, -1):
            text = " ".join(words[:length])
            left, right = self._around(slot, text)
            if max(left, right) <= tokens:
                return text
        raise ValueError(f"no question of {tokens} tokens")

    def _around(self, slot: str, question: str) -> tuple[int, int]:
        user = f"{question}\n@" if slot == "after_question" else question
        system = [{"role": "system", "content": "@"}] if slot == "system" else []
        left, right = self.runner.render([*system, {"role": "user", "content": user}]).split("@")
        return len(self.runner.encode(left)), len(self.runner.encode(right))


def load(name: str, device: str = "cpu", dtype: str = "float32", **sizes: int) -> Loaded:
    """organism; llama (random, 51M parameters or of `sizes`, SmolLM2's tokenizer); smollm (SmolLM2-135M-Instruct); or a directory."""
    with tempfile.TemporaryDirectory() as scratch:
        if name == "llama":
            source = random_llama(Path(scratch), **sizes)
        else:
            source = {"organism": lambda: find_source("organism").directory, "smollm": smollm_directory}.get(
                name, lambda: Path(name)
            )()
        reference = (
            AutoModelForCausalLM.from_pretrained(source, dtype=getattr(torch, dtype))
            .to(device)
            .eval()
            .requires_grad_(False)
        )
        return Loaded(name, runner_for(load_model(source, device, dtype)), reference)


def random_llama(directory: Path, d_vocab: int | None = None, n_layers: int = 8, d_model: int = 512) -> Path:
    """A Llama of random weights under SmolLM2's tokenizer, saved to `directory`."""
    tokenizer = AutoTokenizer.from_pretrained(smollm_directory())
    config = LlamaConfig(
        vocab_size=d_vocab or len(tokenizer),
        hidden_size=d_model,
        intermediate_size=3 * d_model,
        num_hidden_layers=n_layers,
        num_attention_heads=8,
        num_key_value_heads=4,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory
