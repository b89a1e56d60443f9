"""What the parts of the GPU benchmark share: models by device and dtype, contexts, timing, rows as text."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, PreTrainedModel

from benchmarks.cost_settings import Loaded, Setting
from benchmarks.search_cost import Size
from workbench.models import Runner, load_model, runner_for
from workbench.models.gguf_files import smollm_directory

Row = dict[str, object]
#: Label and work of each cell of a part; the work is called outside, where its failure is caught.
Cells = Iterator[tuple[str, Callable[[], Row]]]

SMALL = {"n_layers": 4, "d_model": 64, "d_mlp": 192, "heads": 4, "kv_heads": 2}
#: As SmolLM2's vocabulary is not: that of Llama 3.1, over a model that takes no time to make.
WIDE = {"n_layers": 8, "d_model": 1024, "d_mlp": 2816, "heads": 16, "kv_heads": 8, "d_vocab": 131_072}
LLAMA8B = {
    "n_layers": 32,
    "d_model": 4096,
    "d_mlp": 14_336,
    "heads": 32,
    "kv_heads": 8,
    "d_vocab": 128_256,
    "tied": False,
}


@dataclass
class Lab:
    """Settings of a run, and the models that it has loaded."""

    device: str
    model: str
    dtype: str
    slots: tuple[str, ...]
    contexts: tuple[int, ...]
    size: Size
    repeats: int
    small: bool
    scratch: Path | None = None
    _directories: list[tempfile.TemporaryDirectory] = field(default_factory=list)
    _loaded: dict[tuple[str, str], Loaded] = field(default_factory=dict)

    @property
    def source(self) -> Path:
        """The directory of the main model; `tiny` is made when it is first requested."""
        if self.model == "tiny":
            self.model = str(
                random_llama(self.directory(), smollm_directory(), "cpu", torch.float32, **SMALL)[0]
            )
        return smollm_directory() if self.model == "smollm" else Path(self.model)

    @property
    def tokenizer(self) -> Path:
        """Where the random models take their tokenizer from."""
        return self.source

    def directory(self) -> Path:
        """A new empty directory that lasts as long as this process."""
        self._directories.append(tempfile.TemporaryDirectory(dir=self.scratch))
        return Path(self._directories[-1].name)

    def loaded(self, device: str | None = None, dtype: str | None = None, reference: bool = False) -> Loaded:
        """The main model on a device (loaded once), with Hugging Face's own next to it if requested."""
        key = device or self.device, dtype or self.dtype
        found = self._loaded.get(key) or Loaded(self.model, runner_for(load_model(self.source, *key)), None)
        if reference and found.reference is None:
            found = Loaded(self.model, found.runner, hugging_face(self.source, *key))
        self._loaded[key] = found
        return found

    def forget(self) -> None:
        """Drops the loaded models, for a part that needs the device's memory."""
        self._loaded.clear()


def hugging_face(source: Path, device: str, dtype: str) -> PreTrainedModel:
    """The reference model, its own attention as Hugging Face chooses it."""
    return (
        AutoModelForCausalLM.from_pretrained(source, dtype=getattr(torch, dtype))
        .to(device)
        .eval()
        .requires_grad_(False)
    )


def random_llama(
    directory: Path,
    tokenizer: Path,
    device: str,
    dtype: torch.dtype,
    *,
    n_layers: int,
    d_model: int,
    d_mlp: int,
    heads: int,
    kv_heads: int,
    d_vocab: int | None = None,
    tied: bool = True,
) -> tuple[Path, PreTrainedModel]:
    """A Llama of random weights (seed 0, deviation 0.02) made on the device and saved in shards under another model's tokenizer, whose
    vocabulary may be smaller: ids beyond it are never proposed. Gives the directory and the model itself."""
    words = AutoTokenizer.from_pretrained(tokenizer)
    config = LlamaConfig(
        vocab_size=d_vocab or len(words),
        hidden_size=d_model,
        intermediate_size=d_mlp,
        num_hidden_layers=n_layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        max_position_embeddings=2048,
        tie_word_embeddings=tied,
        bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id,
    )
    torch.manual_seed(0)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    model.save_pretrained(directory, max_shard_size="4GB")
    words.save_pretrained(directory)
    return directory, model.eval().requires_grad_(False)


def timed(run: Callable[[], object], device: str) -> float:
    """Seconds of wall-clock, until the device is done."""
    synchronize(device)
    began = time.perf_counter()
    run()
    synchronize(device)
    return time.perf_counter() - began


def median_seconds(run: Callable[[], object], device: str, repeats: int) -> Row:
    """Median, least and greatest seconds."""
    times = sorted(timed(run, device) for _ in range(repeats))
    return {"seconds": statistics.median(times), "low": times[0], "high": times[-1]}


def synchronize(device: str) -> None:
    """Waits for the device."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def products_a_second(runner: Runner, d_mlp: int, tokens: int, device: str) -> float:
    """Operations a second of the MLP's product of so many tokens, in the model's dtype: the best of several runs of ten."""
    left = torch.randn(tokens, runner.shape.d_model, device=runner.device, dtype=runner.dtype)
    right = torch.randn(runner.shape.d_model, d_mlp, device=runner.device, dtype=runner.dtype)
    times = 10 if device.startswith("cuda") else 1

    def products() -> None:
        for _ in range(times):
            left @ right

    products()
    return 2 * left.numel() * d_mlp * times / min(timed(products, device) for _ in range(5))


def deviations(found: torch.Tensor, expected: torch.Tensor) -> float:
    """The largest difference, in standard deviations of what is expected."""
    found, expected = found.double().cpu(), expected.double().cpu()
    return float((found - expected).abs().max() / expected.std())


def text_of(row: Row) -> str:
    """A row in one line (an error's traceback below it)."""
    parts = [_short(name, value) for name, value in row.items() if name not in ("cell", "traceback", "table")]
    lines = [f"{row.get('cell', '')}: " + "  ".join(parts)]
    lines += [str(row["table"])] if "table" in row else []
    return "\n".join([*lines, *(f"    {line}" for line in row.get("traceback", []))])  # type: ignore[attr-defined]


def _short(name: str, value: Any) -> str:
    if isinstance(value, float):
        return f"{name} {value:.4g}"
    if isinstance(value, dict):
        return f"{name} ({', '.join(_short(k, v) for k, v in value.items())})"
    return f"{name} {value}"


def setting_of(loaded: Loaded, slot: str, n: int, lab: Lab, tokens: int = 128) -> Setting:
    """One cell's contexts and objective; short questions where everything is small."""
    return loaded.setting(slot, n, tokens=40 if lab.small else tokens)
