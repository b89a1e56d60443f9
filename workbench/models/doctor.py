"""The checks of `workbench doctor`: is a model loaded and run correctly, and what are its properties?

1. files: the directory passes `open_model_directory`, its weights load, its tokenizer fits; its revision.
2. logits: Hugging Face's own pass (taken first, since the bridge then works on the same weights) is compared
   with ours, on random ids and on a chat text longer than the sliding window, where a short dtype overflows
   first.
3. log-odds resolution: how far a log-odds moves if the outputs of all blocks are rounded differently.
4. parts: a pass that continues a cached prefix is compared with the whole pass.
5. hooks: every canonical hook fires at the lowest and the highest block.
6. template, system role, BOS: the form of a chat text of this model, and whether BOS is doubled in it.
7. tokens: the fraction of the vocabulary that survives decode -> encode one token at a time; other tokens can
   never be part of a prompt.
8. memory: the estimate of `memory_estimate` for the requested dtype.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from workbench.errors import UserError
from workbench.html_text import html_table
from workbench.models.chat_template import PINNED_DATE, opens_thought, writes_date
from workbench.models.finite_check import not_finite
from workbench.models.gguf_files import gguf_record
from workbench.models.hook_sites import HOOKS, Site
from workbench.models.loading import (
    Backend,
    attach,
    choose_device,
    choose_dtype,
    configured_ends,
    load_weights,
    wrap,
)
from workbench.models.memory_estimate import mapped_file, memory_needed, process_memory
from workbench.models.model_directory import Place, load_tokenizer, open_model_directory
from workbench.models.model_sources import find_source
from workbench.models.runner import Runner
from workbench.models.runners import runner_for
from workbench.models.token_text import token_ids, token_texts

#: Largest difference of logits, relative to the largest logit, at which a check passes.
TOLERANCE = {torch.float64: 1e-4, torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 1e-1}
_LENGTH, _CHAT = 24, 96


@dataclass(frozen=True)
class DoctorFinding:
    """Result of one check of a model.

    Attributes:
        check: Name of the check.
        ok: True if it passed, False if it failed, None for a fact that is neither right nor wrong.
        detail: The measured figures, in words.
    """

    check: str
    ok: bool | None
    detail: str


@dataclass(frozen=True, repr=False)
class ModelDiagnosis:
    """All findings about a model, in the order of the checks.

    If a check raises an error, the checks after it are missing.

    Attributes:
        model: The model's name as given by the user.
        rows: The findings, one per check.
    """

    model: str
    rows: tuple[DoctorFinding, ...]

    @property
    def ok(self) -> bool:
        """Whether no check failed."""
        return all(row.ok is not False for row in self.rows)

    def frame(self) -> pd.DataFrame:
        """Return a table of one row per check: check, ok ("yes", "NO" or empty) and detail."""
        words = {True: "yes", False: "NO", None: ""}
        return pd.DataFrame(
            [{**asdict(row), "ok": words[row.ok]} for row in self.rows], columns=["check", "ok", "detail"]
        )

    def to_json(self) -> dict[str, Any]:
        """Return the findings as a dictionary: the model's name, `ok` (overall verdict) and `rows`."""
        return {"model": self.model, "ok": self.ok, "rows": [asdict(row) for row in self.rows]}

    def __repr__(self) -> str:
        return str(self)

    def __str__(self) -> str:
        return "\n".join(
            f"{row['ok'] or '-':>4}  {row['check']}: {row['detail']}" for _, row in self.frame().iterrows()
        )

    def _repr_html_(self) -> str:
        return html_table(
            self.frame(), caption=f"{self.model}: {'sound' if self.ok else 'something is wrong'}"
        )


def diagnose(
    name: str | Path,
    device: Place = "cpu",
    dtype: str = "float32",
    backend: Backend = "auto",
    revision: str | None = None,
) -> ModelDiagnosis:
    """Load a model as `load_model` does and check that it is loaded and computed correctly.

    Checks include: complete and finite weights, logits equal to Hugging Face's, the chat template, and tokens
    that change when their text is encoded again. They take a few passes over 24 tokens, and one decode and
    encode of every token. A fault of the model becomes a failed row of the result, not an error.

    Args:
        name: Model name, directory or GGUF file, as in `load_model`.
        device: Device or device map, as in `load_model`.
        dtype: Dtype of the weights, as in `load_model`.
        backend: `auto`, `hooked` or `bridge`, as in `load_model`.
        revision: Branch, tag or commit of a hub repository, as in `load_model`.

    Returns:
        The findings, one row per check: passed, failed or not applicable, with a sentence.

    Raises:
        UserError: The device, dtype or backend is unknown.

    Example:
        >>> wb.diagnose("organism").ok
        True
    """
    kind, place = choose_dtype(dtype), choose_device(device)
    rows: list[DoctorFinding] = []
    try:
        for finding in _findings(name, kind, place, backend, revision):
            rows.append(finding)
    except UserError as error:
        rows.append(DoctorFinding("files", False, str(error)))
    return ModelDiagnosis(str(name), tuple(rows))


def _findings(
    name: str | Path, dtype: torch.dtype, device: Place, backend: Backend, revision: str | None
) -> Iterator[DoctorFinding]:
    source = find_source(name, revision)
    checkpoint = open_model_directory(source.directory)
    tokenizer = load_tokenizer(checkpoint)
    reference = load_weights(source, checkpoint, dtype, device)
    parameters = reference.num_parameters()
    weights = f"{len(checkpoint.shards)} weight file{'s' * (len(checkpoint.shards) > 1)}, {parameters / 1e6:,.1f}M parameters"
    part = "text part of a multimodal checkpoint, " if checkpoint.multimodal else ""
    yield DoctorFinding(
        "files", True, f"{checkpoint.architecture}, {part}{weights}, every weight found and finite"
    )
    ids = torch.randint(
        0, checkpoint.config.vocab_size, (2, _LENGTH), generator=torch.Generator().manual_seed(0)
    ).to(reference.device)
    chat = _long_chat(tokenizer, checkpoint.config).to(reference.device)
    with torch.no_grad():
        wanted = reference(input_ids=ids, use_cache=False).logits.float()
        wanted_at_end = reference(input_ids=chat, use_cache=False, logits_to_keep=1).logits[:, -1].float()
    ends = configured_ends(reference)
    model, used, reason = wrap(reference, checkpoint, backend, dtype, device)
    attach(model, tokenizer, source.name, ends)
    runner = runner_for(model)
    yield DoctorFinding(
        "revision",
        None,
        f"commit {source.revision}"
        if source.revision
        else f"a directory, no commit; weights {runner.fingerprint}",
    )
    if record := gguf_record(checkpoint.directory):
        yield DoctorFinding("GGUF", None, _gguf_words(record))
    yield DoctorFinding("backend", None, _backend_words(runner, used, reason))
    yield _logits(runner, ids, wanted)
    yield _at_end_of_chat(runner, chat, wanted_at_end)
    yield _resolution(runner, chat)
    yield _parts(runner, ids)
    yield _hooks(runner, ids)
    yield from _template(runner)
    yield _bos(runner)
    ends = [repr(runner.tokenizer.convert_ids_to_tokens(i)) for i in sorted(runner.reply_ends)]
    yield DoctorFinding("end of a reply", None, ", ".join(ends) or "none")
    yield from _tokens(runner)
    held = {
        weight.untyped_storage().data_ptr(): weight.untyped_storage().nbytes()
        for weight in model.parameters()
    }
    process = process_memory(runner.shape.d_vocab, runner.device.type)
    size = dtype.itemsize
    file = (
        mapped_file(sum(shard.stat().st_size for shard in checkpoint.shards), parameters, size)
        if process
        else 0
    )
    for stage, needed in (
        memory_needed(runner.shape, sum(held.values()) // size, size, None, process, file).rows().items()
    ):
        yield DoctorFinding(f"memory: {stage}", None, f"about {needed / 1e9:,.2f} GB")


def _gguf_words(record: dict[str, Any]) -> str:
    kinds = ", ".join(f"{count} {kind}" for kind, count in record.get("quantisation", {}).items())
    return f"converted from {record.get('file')} (sha256 {record.get('sha256')}); tensors: {kinds}; close to the published weights, not equal"


def _backend_words(runner: Runner, used: str, reason: str | None) -> str:
    if used == "hooked":
        return "HookedTransformer, weights neither folded nor centred"
    caches = (
        "with key-value caches"
        if getattr(runner, "caches", True)
        else "without caches: prefixes are run again"
    )
    return f"TransformerBridge, {caches}" + (f" (no HookedTransformer: {reason})" if reason else "")


@torch.no_grad()
def _whole(runner: Runner, ids: Tensor) -> Tensor:
    return runner.logits(runner.run(runner.embed(ids), 0, runner.shape.n_layers)[0])


def _logits(runner: Runner, ids: Tensor, wanted: Tensor) -> DoctorFinding:
    return _compared("logits against Hugging Face", _whole(runner, ids), wanted, runner.dtype)


def _long_chat(tokenizer: PreTrainedTokenizerBase, config: Any) -> Tensor:
    """Ids of a chat text slightly longer than the model's sliding window, if its context allows it."""
    text_config = getattr(config, "text_config", config)
    window = getattr(text_config, "sliding_window", None) or 0
    room = getattr(text_config, "max_position_embeddings", None) or getattr(text_config, "n_positions", _CHAT)
    length = min(room, max(_CHAT, window + 32))
    question, text = "Please judge the following argument: the river is deep, so the bridge must be old. ", ""
    if getattr(tokenizer, "chat_template", None):
        long = [{"role": "user", "content": question * (length // 8)}]
        text = str(tokenizer.apply_chat_template(long, tokenize=False, add_generation_prompt=True))
    ids = tokenizer(text or question * (length // 8), add_special_tokens=False)["input_ids"]
    return torch.tensor([[*ids[: length // 2], *ids[len(ids) - (length - length // 2) :]]])


@torch.no_grad()
def _at_end_of_chat(runner: Runner, chat: Tensor, wanted: Tensor) -> DoctorFinding:
    """Compare the logits after a long chat text with Hugging Face's.

    If they are not finite, name the first block at which values are not finite, and the dtype.
    """
    name, length = "logits after a chat text", f"{chat.shape[1]} tokens; "
    resid, _ = runner.run(runner.embed(chat.to(runner.device)), 0, runner.shape.n_layers)
    found = runner.logits(resid[:, -1])
    if not found.isfinite().all():
        return DoctorFinding(
            name, False, f"{length}no finite numbers: {not_finite(runner, chat[0].tolist())}"
        )
    if not wanted.isfinite().all():
        return DoctorFinding(
            name, None, f"{length}Hugging Face's own are no finite numbers in {runner.dtype}; ours are"
        )
    row = _compared(name, found, wanted.to(found.device), runner.dtype)
    return replace(row, detail=length + row.detail)


@torch.no_grad()
def _resolution(runner: Runner, chat: Tensor, repeats: int = 4) -> DoctorFinding:
    """Measure how much rounding of the residual stream moves the log-odds of the two likeliest tokens.

    The figure is the root mean square change in nats over positions and repeats.
    """
    ids = chat[:, -_CHAT:].to(runner.device)
    generator = torch.Generator().manual_seed(0)

    def states(rounded: bool) -> Tensor:
        resid = runner.embed(ids)
        for block in range(runner.shape.n_layers):
            resid, _ = runner.run(resid, block, block + 1)
            resid = _rounded_otherwise(resid, generator) if rounded else resid
        return resid[0, ids.shape[1] // 2 :]

    plain = states(rounded=False)
    pair = runner.logits(plain).topk(2).indices
    sign = torch.tensor([1.0, -1.0], device=pair.device)
    log_odds = torch.stack(
        [runner.logits_of(state, pair) @ sign for state in (states(rounded=True) for _ in range(repeats))]
    )
    spread = float((log_odds - runner.logits_of(plain, pair) @ sign).square().mean().sqrt())
    detail = f"about {spread:.1g} nats: what {runner.dtype} leaves open of one log-odds (rounding of every block's output)"
    return DoctorFinding("log-odds resolution", None, detail)


def _rounded_otherwise(x: Tensor, generator: torch.Generator) -> Tensor:
    """Move one number in six of `x` to a neighbouring number of its dtype.

    The variance of the change, 1/6 of a squared step, is that of two roundings.
    """
    integer = {2: torch.int16, 4: torch.int32, 8: torch.int64}[x.element_size()]
    draw = torch.rand(x.shape, generator=generator).to(x.device)
    step = ((draw < 1 / 12).to(integer) - (draw > 11 / 12).to(integer)) * (x != 0)
    return (x.contiguous().view(integer) + step).view(x.dtype)


@torch.no_grad()
def _parts(runner: Runner, ids: Tensor) -> DoctorFinding:
    top, cut = runner.shape.n_layers, _LENGTH // 2
    _, kv = runner.run(runner.embed(ids[:, :cut]), 0, top, keep=True)
    resid, _ = runner.run(runner.embed(ids[:, cut:], offset=cut), 0, top, kv)
    return _compared(
        "logits after a cached prefix", runner.logits(resid), _whole(runner, ids)[:, cut:], runner.dtype
    )


def _compared(check: str, found: Tensor, wanted: Tensor, dtype: torch.dtype) -> DoctorFinding:
    difference, scale = float((found - wanted).abs().max()), float(wanted.abs().max())
    bound = TOLERANCE.get(dtype, 1e-4) * scale
    return DoctorFinding(
        check,
        difference <= bound,
        f"largest difference {difference:.1e} (largest logit {scale:.1f}, allowed {bound:.1e})",
    )


def _hooks(runner: Runner, ids: Tensor) -> DoctorFinding:
    layers = sorted({0, runner.shape.n_layers - 1})
    silent = [
        site.name for hook in HOOKS for layer in layers if not _fires(runner, ids, site := Site(layer, hook))
    ]
    if silent:
        return DoctorFinding("hooks", False, f"do not fire: {', '.join(silent)}")
    return DoctorFinding("hooks", True, f"{', '.join(HOOKS)} fire at layers {' and '.join(map(str, layers))}")


def _fires(runner: Runner, ids: Tensor, site: Site) -> bool:
    try:
        return bool(runner.read(ids, [site], torch.full((len(ids),), _LENGTH - 1)))
    except UserError:
        return False


def _template(runner: Runner) -> Iterator[DoctorFinding]:
    if not getattr(runner.tokenizer, "chat_template", None):
        yield DoctorFinding(
            "chat template", None, "none: questions are asked as 'Question: ... Answer:' after BOS"
        )
        return
    user = {"role": "user", "content": "Hello"}
    try:
        text = runner.render([user])
    except UserError as error:
        yield DoctorFinding("chat template", False, str(error))
        return
    yield DoctorFinding("chat template", True, f"a question begins {text[:60]!r} and ends {text[-40:]!r}")
    if writes_date(runner.tokenizer):
        yield DoctorFinding(
            "date",
            None,
            f"the template writes today's date: pinned to {PINNED_DATE:%d %B %Y}, so that runs can be repeated",
        )
    if opens_thought(runner.tokenizer):
        yield DoctorFinding(
            "thought",
            None,
            "the template opens a thought: the workbench closes it, so that answers are read after it",
        )
    yield _system_role(runner, user, text)


def _system_role(runner: Runner, user: dict[str, str], plain: str) -> DoctorFinding:
    mark = "Be brief."
    try:
        text = runner.render([{"role": "system", "content": mark}, user])
    except UserError:
        return DoctorFinding(
            "system role", None, "none: use the slots before_question, after_question or answer_opening"
        )
    if text == runner.render([{**user, "content": f"{mark}\n\n{user['content']}"}]):
        return DoctorFinding("system role", True, "yes, written into the user's turn")
    own = len(plain) > len(text) - len(mark) + 4
    return DoctorFinding(
        "system role", True, "yes; without one the template puts in a text of its own" if own else "yes"
    )


def _bos(runner: Runner) -> DoctorFinding:
    bos = runner.tokenizer.bos_token_id
    if bos is None:
        return DoctorFinding("BOS", None, "this tokenizer has none")
    text = runner.render([{"role": "user", "content": "Hello"}])
    here, added = runner.encode(text), runner.tokenizer(text)["input_ids"]
    doubled = added[:2] == [bos, bos]
    words = (
        f"{runner.tokenizer.bos_token!r} is {'first' if here[:1] == [bos] else 'not first'} in a chat text"
    )
    if doubled:
        words += "; the tokenizer would put a second one before it, which the workbench does not let it do"
    return DoctorFinding("BOS", here[:2] != [bos, bos], words)


def _tokens(runner: Runner) -> Iterator[DoctorFinding]:
    yield _text(runner)
    lost = lost_tokens(runner.tokenizer)
    held, total = len(runner.tokenizer) - len(lost), len(runner.tokenizer)
    spare = runner.shape.d_vocab - total
    detail = (
        f"{100 * held / total:.1f} % of {total:,} tokens survive decode -> encode alone, {len(lost):,} do not"
    )
    if lost:
        detail += f" (such as {', '.join(repr(runner.tokenizer.convert_ids_to_tokens(i)) for i in lost[:: max(1, len(lost) // 3)][:3])})"
    yield DoctorFinding(
        "token round trip",
        held > total / 2,
        detail + (f"; {spare:,} rows of the model belong to no token" if spare > 0 else ""),
    )


def _text(runner: Runner) -> DoctorFinding:
    text = runner.render([{"role": "user", "content": "Zażółć 日本語 🙂 <b>x</b>\n\ttab"}])
    ids, unknown = runner.encode(text), runner.tokenizer.unk_token_id
    if unknown is not None and unknown in ids:
        return DoctorFinding(
            "text round trip",
            None,
            f"closed vocabulary: what is not in it becomes {runner.tokenizer.unk_token!r}",
        )
    same = runner.decode(ids) == text
    return DoctorFinding(
        "text round trip",
        same,
        "decode(encode(text)) is the text" if same else "decode(encode(text)) changes a text",
    )


def lost_tokens(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return the ids of all tokens whose text, encoded alone, gives other token ids.

    Examples are single bytes of a character, and words that the tokenizer splits differently or normalises.
    Such tokens can never be part of a prompt that is given as text.
    """
    ids = sorted(tokenizer.get_vocab().values())
    again = token_ids(tokenizer, token_texts(tokenizer, [[i] for i in ids]))
    return [i for i, back in zip(ids, again, strict=True) if back != [i]]
