"""How much memory a model needs, stage by stage, as arithmetic from its sizes.

Everything is counted in bytes. b = bytes of one number of the model's dtype; attention scores are counted in the model's
dtype, log-probabilities and projections in float32 (4 bytes). One block is alive at a time without gradients; with
gradients every block of the stretch keeps its inputs.

1. weights: parameters x b; HookedTransformer holds Gemma's tied embedding twice, scaled and not (`second_embedding`).
2. keys and values of one token: 2 x layers x kv heads x head size x b.
3. a pass without gradients over `sequences` of `length` tokens, in numbers: a token of one block has 4 d_model, 2 d_mlp and
   queries, keys, values twice; a sequence 3 heads x length^2 for scores, mask and pattern.
4. logits of one position: d_vocab x (b + 4), in the model's dtype and in float32; at most `vocabulary_chunks.CHUNK` logits at a time.
5. a gradient to the residual at the bottom, in numbers, for every block: as the third, but 4 d_mlp a token and 7 heads x
   length^2 a sequence.

6. the process on a CPU: 0.5 GB for the program and its libraries, and 1.6 kB a token for the tokenizer (`process_memory`); a GPU's
   memory holds none of it.
7. loading on a CPU: where the weights file has another dtype than the model, it is mapped while the model is filled (`mapped_file`); its
   pages count in the process's peak, and the system can take them back.

Fitted to and checked against the growth of the process on SmolLM2-135M, float32, one thread: a pass over 8 x 128 tokens
took 0.047 GB (0.042 here), 4 x 64 took 0.008 (0.009); the gradient 2.16 GB (2.19 here) and 0.42 (0.43).
"""

from __future__ import annotations

from dataclasses import dataclass

from workbench.models.runner import ModelShape
from workbench.models.vocabulary_chunks import CHUNK


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes by stage.

    weights: resident; process: of the program, where weights and program share one memory; kv_per_token: a token of a cached prefix, all
    blocks; logits_per_position: one unembedded position; forward, gradient: working memory of a pass over `sequences` x `length` tokens;
    file: of weights files that are mapped while a model is loaded.
    """

    weights: int
    kv_per_token: int
    logits_per_position: int
    forward: int
    gradient: int
    sequences: int
    length: int
    process: int = 0
    file: int = 0

    def rows(self) -> dict[str, int]:
        """Stage -> bytes at its peak, weights included."""
        tokens, held = self.sequences * self.length, self.weights + self.process
        logits = min(self.sequences * self.logits_per_position, 8 * CHUNK)
        return {
            "load": held + self.file,
            "collect activations": held + self.forward,
            "forced-choice answers": held + self.forward + logits,
            "score candidates after a cached prefix": held + self.forward + tokens * self.kv_per_token,
            "gradient of an objective": held + self.gradient + logits,
        }


def second_embedding(shape: ModelShape, architecture: str, backend: str) -> int:
    """Numbers of the embedding that HookedTransformer holds in addition to a tied unembedding: Gemma's, which it scales by sqrt(d_model)."""
    return shape.d_vocab * shape.d_model if shape.tied and backend != "bridge" and architecture.startswith("Gemma") else 0


def process_memory(d_vocab: int, device: str = "cpu") -> int:
    """Bytes of the program itself, with a tokenizer of this size; 0 where weights are in another memory than the program.

    Measured: 0.51 GB after the imports; Gemma's tokenizer (262k tokens) 0.41 GB more.
    """
    return int(0.5e9 + 1600 * d_vocab) if device == "cpu" else 0


def mapped_file(size: int, parameters: int, bytes_per_number: int) -> int:
    """Bytes of the weights files that are mapped in addition to the model while it is loaded: all, or 0 where they have the model's dtype.

    Args:
        size: Bytes of the files.
        parameters: Numbers in them.
        bytes_per_number: Of the model's dtype.
    """
    return 0 if round(size / parameters) == bytes_per_number else size


def memory_needed(
    shape: ModelShape, parameters: int, bytes_per_number: int, sequences: int = 16, length: int = 128, process: int = 0, file: int = 0
) -> MemoryEstimate:
    """The arithmetic of the module's docstring for a model of these sizes.

    parameters: all weights that are held, tied ones once. process: bytes of the program where it shares the memory; file: bytes of the
    weights files there.
    """
    attention = shape.d_model * shape.d_head * 2 * (shape.n_heads + shape.n_kv_heads)
    d_mlp = max(0, shape.block_parameters - attention) // (3 * shape.d_model)
    tokens, scores = sequences * length, sequences * shape.n_heads * length**2
    residuals = 4 * shape.d_model + 2 * shape.d_head * (shape.n_heads + shape.n_kv_heads)
    forward = tokens * (residuals + 2 * d_mlp) + 3 * scores
    gradient = shape.n_layers * (tokens * (residuals + 4 * d_mlp) + 7 * scores)
    return MemoryEstimate(
        weights=parameters * bytes_per_number,
        kv_per_token=2 * shape.n_layers * shape.n_kv_heads * shape.d_head * bytes_per_number,
        logits_per_position=shape.d_vocab * (bytes_per_number + 4),
        forward=forward * bytes_per_number,
        gradient=gradient * bytes_per_number,
        sequences=sequences,
        length=length,
        process=process,
        file=file,
    )
