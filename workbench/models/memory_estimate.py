"""Estimate how much memory a model needs at each stage of a study, from its sizes.

All results are in bytes. b = bytes of one number of the model's dtype; d, q, k, m = numbers per token in the
residual stream, in the queries, in the keys (equal to the values), and in the MLP. Without gradients one
block is in memory at a time; with gradients every block keeps the tensors for its derivative. The formulas
hold for a HookedTransformer (`hooked_block.py`):

1. Weights: parameters x b; HookedTransformer stores Gemma's tied embedding twice, scaled and unscaled
   (`second_embedding`).
2. Keys and values of one token: 2 x layers x k x b.
3. A pass without gradients, per token: the larger of 5 d + 2 k + 2 m (MLP) and 3 d + 4 q + 4 k (attention).
   After a cache, attention stores its scores instead of using fused kernels, and gathers and joins the row's
   own keys: 3 d + 3 q + 8 k + 3 heads x length.
4. A gradient, per token and block: 3 m + 2 d + 2 q + 2 k, and after a cache heads x length for the pattern;
   plus 2 m + 4 d for the one block that is being computed.
5. Logits of one position: d_vocab x (b + 4), in the model's dtype and in float32; at most 2 x
   `vocabulary_chunks.CHUNK` float32 numbers.
6. The process on a CPU: 0.57 GB for the program and its libraries, and 1.6 kB per token for the tokenizer
   (`process_memory`). A GPU's memory has no such part.
7. Loading on a CPU: a weights file of another dtype than the model is mapped while the model is filled
   (`mapped_file`). Its pages count in the process's peak, but the system can reclaim them.

The estimate is checked against torch's allocations on a model of 16 wide blocks
(`tests/models/test_memory_estimate.py`) and against the peak of the process on real models
(docs/performance.md).
"""

from __future__ import annotations

from dataclasses import dataclass

from workbench.models.runner import ModelShape
from workbench.models.vocabulary_chunks import CHUNK

#: Default number of tokens per batch without gradients; a batch with gradients has a quarter of it.
BATCH_TOKENS = 8192


@dataclass(frozen=True)
class LargestBatch:
    """Size of the largest batch that the workbench runs in a study, for a memory estimate.

    Attributes:
        sequences: Number of sequences of a batch without gradients.
        length: Tokens per sequence.
        gradient_sequences: Number of sequences of a batch with gradients.
        gradient_blocks: Number of blocks through which the gradient passes; None for all.
        cached: Number of tokens whose keys and values are cached during the batch; None for all tokens of the
            batch.
        positions: Number of positions whose logits are computed at a time; None for one per sequence.
    """

    sequences: float = BATCH_TOKENS // 128
    length: float = 128
    gradient_sequences: float = BATCH_TOKENS // 4 // 128
    gradient_blocks: float | None = None
    cached: float | None = None
    positions: float | None = None


@dataclass(frozen=True)
class MemoryEstimate:
    """Memory that a model needs, in bytes, by what it is needed for.

    Attributes:
        weights: The model's weights.
        kv_per_token: Keys and values of one cached token in all blocks.
        logits_per_position: Logits of one position.
        forward: Temporary tensors of a forward pass over the batch.
        after_cache: Temporary tensors of a forward pass that continues cached tokens.
        gradient: Temporary tensors of a forward and backward pass.
        batch: The batch for which the memory is estimated.
        process: The program and its libraries, if they use the same memory as the weights (CPU); else 0.
        file: Weights files that are memory-mapped while the model is loaded.
    """

    weights: int
    kv_per_token: int
    logits_per_position: int
    forward: int
    after_cache: int
    gradient: int
    batch: LargestBatch
    process: int = 0
    file: int = 0

    def rows(self) -> dict[str, int]:
        """Return the peak memory in bytes at each stage of a study, weights included.

        Stages are, for example, "collect activations" and "gradient of an objective".
        """
        batch, held = self.batch, self.weights + self.process
        positions = batch.sequences if batch.positions is None else batch.positions
        logits = int(min(positions * self.logits_per_position, 8 * CHUNK))
        caches = int(
            (batch.sequences * batch.length if batch.cached is None else batch.cached) * self.kv_per_token
        )
        working = {
            "load": self.file,
            "collect activations": self.forward,
            "forced-choice answers": self.forward + logits,
            "score candidates after a cached prefix": self.after_cache + caches + logits,
            "gradient of an objective": max(self.gradient, self.after_cache)
            + (0 if batch.cached is None else caches)
            + logits,
        }
        return {stage: held + size for stage, size in working.items()}


def second_embedding(shape: ModelShape, architecture: str, backend: str) -> int:
    """Return how many numbers HookedTransformer stores for a second copy of a tied embedding.

    Only Gemma has one, because HookedTransformer scales its embedding by sqrt(d_model); the result is 0 for
    other models.

    Args:
        shape: Sizes of the model.
        architecture: Hugging Face's class, such as `Gemma2ForCausalLM`.
        backend: `hooked`, `bridge` or `auto`.
    """
    return (
        shape.d_vocab * shape.d_model
        if shape.tied and backend != "bridge" and architecture.startswith("Gemma")
        else 0
    )


def process_memory(d_vocab: int, device: str = "cpu") -> int:
    """Return the bytes that the program, its libraries and a tokenizer of `d_vocab` tokens take.

    Measured: 0.57 GB after the imports; Gemma's tokenizer (262k tokens) takes 0.41 GB more.

    Args:
        d_vocab: Tokens of the tokenizer.
        device: Device type of the weights; if it is not `cpu`, the program uses another memory and the result
            is 0.
    """
    return int(0.57e9 + 1600 * d_vocab) if device == "cpu" else 0


def mapped_file(size: int, parameters: int, bytes_per_number: int) -> int:
    """Return the bytes of memory-mapped weights files that loading needs in addition to the model.

    A file whose dtype differs from the model's is mapped while the model is filled from it. If the dtypes are
    equal the result is 0.

    Args:
        size: Bytes of the files.
        parameters: Numbers in the files.
        bytes_per_number: Bytes of one number in the model's dtype.
    """
    return 0 if round(size / parameters) == bytes_per_number else size


def memory_needed(
    shape: ModelShape,
    parameters: int,
    bytes_per_number: int,
    batch: LargestBatch | None = None,
    process: int = 0,
    file: int = 0,
) -> MemoryEstimate:
    """Estimate the memory of a model in bytes: its weights, caches, logits and temporary tensors.

    The formulas are in the docstring of this module.

    Args:
        shape: Sizes of the model.
        parameters: Number of weights, tied ones counted once.
        bytes_per_number: Bytes of one number in the model's dtype.
        batch: The largest batch that runs; None for the default of `LargestBatch`.
        process: Bytes of the program and its libraries, if they use the same memory as the weights.
        file: Bytes of the weights files that are memory-mapped in the same memory while the model is loaded.
    """
    batch = batch or LargestBatch()
    d, q, k = shape.d_model, shape.n_heads * shape.d_head, shape.n_kv_heads * shape.d_head
    m = max(0, shape.block_parameters - 2 * d * (q + k)) // (3 * d)
    mlp, scores = 5 * d + 2 * k + 2 * m, shape.n_heads * batch.length
    forward = max(mlp, 3 * d + 4 * q + 4 * k)
    after_cache = max(mlp + 4 * k, 3 * d + 3 * q + 8 * k + 3 * scores)
    blocks = shape.n_layers if batch.gradient_blocks is None else batch.gradient_blocks
    gradient = (
        blocks * (3 * m + 2 * d + 2 * q + 2 * k + (0 if batch.cached is None else scores)) + 2 * m + 4 * d
    )
    size = lambda sequences, numbers: int(sequences * batch.length * numbers * bytes_per_number)  # noqa: E731
    return MemoryEstimate(
        weights=parameters * bytes_per_number,
        kv_per_token=2 * shape.n_layers * k * bytes_per_number,
        logits_per_position=shape.d_vocab * (bytes_per_number + 4),
        forward=size(batch.sequences, forward),
        after_cache=size(batch.sequences, after_cache),
        gradient=size(batch.gradient_sequences, gradient),
        batch=batch,
        process=process,
        file=file,
    )
