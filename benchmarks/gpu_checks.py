"""The parts that ask whether a GPU gives the right numbers and needs the planned memory: agree, memory, device_map."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import torch
from accelerate import dispatch_model

from benchmarks.cost_settings import Loaded, Setting
from benchmarks.gpu_lab import SMALL, WIDE, Cells, Lab, Row, deviations, random_llama, setting_of
from workbench.budget import Budget
from workbench.errors import UserError
from workbench.models import Runner, load_model, runner_for
from workbench.models.loading import _to_bridge, attach
from workbench.models.memory_in_use import peak_memory
from workbench.models.model_directory import load_reference, load_tokenizer, open_model_directory
from workbench.search import EPO, ChildProposals, Optimizations, Scorer, search
from workbench.search.scoring.measured_batch_size import set_batch_size
from workbench.search.toolkit import SearchToolkit

NO_SAVINGS = Optimizations(
    prefix_kv=False,
    shared_prompt=False,
    parent_kv=False,
    deferred_cross_entropy=False,
    last_position=False,
    batched_caches=False,
)
LENGTH, PARENTS = 8, 4

# ---- agree ----------------------------------------------------------------------------------------------------------


def agree(lab: Lab) -> Cells:
    """The device against the CPU in float32, bfloat16 against float32, optimizations on against off."""
    for slot in lab.slots:
        settings = {
            name: setting_of(lab.loaded(device, dtype), slot, 2 if lab.small else 4, lab, tokens=64)
            for name, device, dtype in (
                ("cpu", "cpu", "float32"),
                ("float32", lab.device, "float32"),
                ("bfloat16", lab.device, "bfloat16"),
            )
        }
        prompts = SearchToolkit.make(_scorer(settings["cpu"]), seed=0).random_prompts(
            16 if lab.small else 64, LENGTH
        )
        for one, other in (("float32", "cpu"), ("bfloat16", "float32")):
            yield (
                f"{slot}: scores, {one} against {other}",
                partial(scores_agree, settings[one], settings[other], prompts),
            )
            yield (
                f"{slot}: tokens of the gradient, {one} against {other}",
                partial(tokens_agree, settings[one], settings[other], prompts),
            )
        for dtype in ("float32", "bfloat16"):
            yield (
                f"{slot}: optimizations on against off, {dtype}",
                partial(savings_agree, settings[dtype], prompts),
            )
        yield (
            f"{slot}: a search of 3 steps, float32 against cpu",
            partial(searches_agree, settings["float32"], settings["cpu"]),
        )


def _scorer(setting: Setting, optimizations: Optimizations | None = None) -> Scorer:
    return Scorer(setting.runner, setting.objective, setting.contexts, optimizations)


def scores_agree(one: Setting, other: Setting, prompts: torch.Tensor) -> Row:
    """Largest differences of the scores of the same prompts: objective in its standard deviations, fluency in nats."""
    found, expected = (_scorer(s).score(prompts.to(s.runner.device)) for s in (one, other))
    return {
        "objective, deviations": deviations(found.objective, expected.objective),
        "fluency, nats": float((found.cross_entropy.cpu() - expected.cross_entropy.cpu()).abs().max()),
        "same best prompt": int(found.objective.argmax()) == int(expected.objective.argmax()),
    }


def savings_agree(setting: Setting, prompts: torch.Tensor) -> Row:
    """Children scored on their parents' caches against whole sequences without any saving; as `scores_agree`."""
    ids = prompts.to(setting.runner.device)
    parents, children = ids[:PARENTS], children_of(ids[:PARENTS], len(ids), ids[PARENTS:])
    on, off = _scorer(setting), _scorer(setting, NO_SAVINGS)
    (found_parents, found), expected = (
        on.score_children(on.prepare(parents), children),
        off.score(children.ids),
    )
    return {
        "objective, deviations": deviations(found.objective, expected.objective),
        "fluency, nats": float((found.cross_entropy - expected.cross_entropy).abs().max()),
        "parents' objective, deviations": deviations(found_parents.objective, off.score(parents).objective),
    }


def tokens_agree(one: Setting, other: Setting, prompts: torch.Tensor, k: int = 256) -> Row:
    """Fractions of the k tokens, and of the best ones, that both choose by the objective's gradient at each position of the parents."""
    found, expected = (_top(s, prompts[:PARENTS], k) for s in (one, other))
    shared = (found[..., :, None] == expected[..., None, :]).any(-1).float().mean()
    return {
        "shared": float(shared),
        "best the same": float((found[..., 0] == expected[..., 0]).float().mean()),
    }


def _top(setting: Setting, parents: torch.Tensor, k: int) -> torch.Tensor:
    bench = SearchToolkit.make(_scorer(setting), seed=0)
    prepared = bench.scorer.prepare(parents.to(setting.runner.device))
    gains = bench.gains(prepared, bench.scorer.gradients(prepared.ids))
    return bench.top_tokens(gains, prepared.ids, k).cpu()


def searches_agree(one: Setting, other: Setting) -> Row:
    """Do two seeded searches end with the same prompts, and how far are the scores of those that both have."""
    method, budget = EPO(length=LENGTH, population=PARENTS, children=8), Budget(steps=3)
    found, expected = (
        {c.ids: c for c in search(s.runner, s.objective, s.contexts, method, budget, seed=0).candidates}
        for s in (one, other)
    )
    both = set(found) & set(expected)
    far = max((abs(found[ids].objective - expected[ids].objective) for ids in both), default=float("nan"))
    return {
        "candidates": len(expected),
        "shared": len(both),
        "same frontier": list(found) == list(expected),
        "largest difference": far,
    }


def children_of(parents: torch.Tensor, n: int, tokens: torch.Tensor | None = None) -> ChildProposals:
    """n children of one swap each, at every position equally often. tokens: where the new ones are taken from (else: random ones)."""
    number = torch.arange(n, device=parents.device)
    owner, position = number % len(parents), number // len(parents) % parents.shape[1]
    drawn = torch.randint(10, 10_000, (n,), generator=torch.Generator().manual_seed(0)).to(parents.device)
    ids = parents[owner].clone()
    ids[number, position] = drawn if tokens is None else tokens.flatten()[number % tokens.numel()]
    return ChildProposals(ids, owner, position)


# ---- memory ---------------------------------------------------------------------------------------------------------


def memory(lab: Lab) -> Cells:
    """Planned against measured bytes, with a vocabulary of 131,072; and what happens when the device is full."""
    directory, _ = random_llama(
        lab.directory(),
        lab.tokenizer,
        lab.device,
        torch.float32,
        **(SMALL | {"d_vocab": 60_000} if lab.small else WIDE),
    )
    ceilings = (512,) if lab.small else (8192, 65536)
    for dtype in ("bfloat16", "float32"):
        loaded = Loaded("wide", runner_for(load_model(directory, lab.device, dtype)), None)
        for slot, n in (
            ("after_question", lab.contexts[-2]),
            ("after_question", lab.contexts[-1]),
            ("system", lab.contexts[-2]),
        ):
            setting = setting_of(loaded, slot, n, lab)
            for ceiling in ceilings if dtype == "bfloat16" and n == lab.contexts[-2] else ceilings[:1]:
                label = f"{dtype}, {slot}, {n} contexts, at most {ceiling} tokens"
                yield label, partial(planned_and_measured, setting, ceiling)
        yield f"{dtype}: out of memory", partial(out_of_memory, setting, ceilings[0], lab.device)
    lab.forget()


def planned_and_measured(setting: Setting, ceiling: int) -> Row:
    """Bytes of gradients, preparation and the scores of enough children to fill every batch, in addition to weights and prefix caches."""
    runner = setting.runner
    scorer, parents = (
        Scorer(runner, setting.objective, setting.contexts, cross_entropy_groups=1),
        _parents(runner),
    )
    n = _enough(setting, ceiling)
    plan = set_batch_size(scorer, LENGTH, PARENTS, n)
    if plan is None:
        return {"planned": None}
    tried = replace(plan, ceiling=ceiling)
    scorer.chunk.tokens, scorer.chunk.gradient_tokens = tried.chunk.tokens, tried.chunk.gradient_tokens
    peaks = {}
    for stage, run in _stages(scorer, parents, n).items():
        run()
        gc.collect()
        with peak_memory(runner.device) as peak:
            run()
        peaks[stage] = peak.bytes
    measured = max(peaks.values())
    return {
        "tokens": scorer.chunk.tokens,
        "gradient tokens": scorer.chunk.gradient_tokens,
        "children": n,
        "chunk in this memory": plan.chunk.tokens,
        "planned": tried.peak,
        "measured": measured,
        "measured/planned": measured / tried.peak,
        "bytes by stage": peaks,
    }


def _stages(scorer: Scorer, parents: torch.Tensor, n: int) -> dict[str, Callable[[], object]]:
    many = parents.repeat(
        -(-scorer.chunk.gradient_tokens // parents.numel()), 1
    )  # as many rows as fill a batch with a graph
    return {
        "children": lambda: scorer.score_children(scorer.prepare(parents), children_of(parents, n)),
        "gradient": lambda: scorer.gradients(many),
        "gradient of fluency": lambda: scorer.cross_entropy_gradients(many),
    }


def _parents(runner: Runner) -> torch.Tensor:
    return torch.randint(10, 10_000, (PARENTS, LENGTH), generator=torch.Generator().manual_seed(0)).to(
        runner.device
    )


def _enough(setting: Setting, tokens: int) -> int:
    """Children that fill a batch of so many tokens at every position of the prompt."""
    suffix = max(len(c.suffix_ids) for c in setting.contexts)
    together = LENGTH + (
        suffix if setting.slot == "after_question" else min(tokens // 4, suffix * len(setting.contexts))
    )
    return LENGTH * (tokens // together + 1)


def out_of_memory(setting: Setting, tokens: int, device: str) -> Row:
    """A step on a device whose memory is cut to six tenths of what the step needs: the chunk it ended with, and its scores against those
    of a step that had all the memory (rounding), and of one that began with that chunk (bits)."""
    scorers = [
        Scorer(
            setting.runner, setting.objective, setting.contexts, batch_tokens=tokens, cross_entropy_groups=1
        )
        for _ in range(2)
    ]
    parents, n = _parents(setting.runner), _enough(setting, tokens)

    def step(scorer: Scorer) -> torch.Tensor:
        return scorer.score_children(scorer.prepare(parents), children_of(parents, n))[1].objective

    step(scorers[0])
    gc.collect()
    with peak_memory(setting.runner.device) as peak:
        whole = step(scorers[0])
    with short_of_memory(setting.runner, device, int(0.6 * peak.bytes), tokens) as errors:
        halved = step(scorers[1])
    small = Scorer(
        setting.runner,
        setting.objective,
        setting.contexts,
        batch_tokens=scorers[1].chunk.tokens,
        cross_entropy_groups=1,
    )
    return {
        "tokens before": tokens,
        "tokens after": scorers[1].chunk.tokens,
        "halved": scorers[1].chunk.tokens < tokens,
        "errors": len(errors) or None,
        "peak": peak.bytes,
        "against the whole chunk, deviations": deviations(halved, whole),
        "the bits of the smaller chunk": torch.equal(halved, step(small)),
    }


@contextmanager
def short_of_memory(runner: Runner, device: str, room: int, tokens: int) -> Iterator[list[str]]:
    """While inside, allocations beyond what is held and `room` bytes fail, as on a full device. On the CPU runs of more than half the
    tokens fail instead (they are listed)."""
    errors: list[str] = []
    if device.startswith("cuda"):
        gc.collect()
        torch.cuda.empty_cache()
        total, held = (
            torch.cuda.get_device_properties(runner.device).total_memory,
            torch.cuda.memory_reserved(runner.device),
        )
        limit = max(held, torch.cuda.memory_allocated(runner.device) + room)
        torch.cuda.set_per_process_memory_fraction(limit / total, runner.device)
        try:
            yield errors
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0, runner.device)
        return
    run = runner.run

    def limited(resid: torch.Tensor, *rest: object, **named: object) -> object:
        if resid.shape[0] * resid.shape[1] > tokens // 2:
            errors.append(str(tuple(resid.shape)))
            raise torch.OutOfMemoryError("pretended: out of memory")
        return run(resid, *rest, **named)

    runner.run = limited
    try:
        yield errors
    finally:
        del runner.run


# ---- device map -----------------------------------------------------------------------------------------------------


def device_map(lab: Lab) -> Cells:
    """The main model with its lower half on the CPU and the rest on the device, through the bridge, against the model on the CPU alone."""
    whole = lab.loaded("cpu", "float32").runner
    yield "load_model with blocks offloaded from a GPU to the CPU", lambda: refused(lab)
    yield (
        "load_model with everything on the device by a map",
        lambda: same_logits(
            runner_for(
                load_model(
                    lab.source,
                    {"": 0 if lab.device.startswith("cuda") else "cpu"},
                    "float32",
                    backend="bridge",
                )
            ),
            whole,
        ),
    )
    spread = spread_out(lab)
    yield "two devices: logits", lambda: same_logits(spread, whole)
    for slot in lab.slots:
        yield (
            f"two devices, {slot}: a search of 3 steps",
            lambda slot=slot: searches_agree(
                *(
                    setting_of(Loaded("spread", runner, None), slot, 2, lab, tokens=32)
                    for runner in (spread, whole)
                )
            ),
        )


def spread_out(lab: Lab) -> Runner:
    """Embedding, lower half and head on the CPU, upper half and final norm on the device. `load_model` refuses CPU and GPU together
    (Hugging Face would move weights to and fro); two real devices are needed here, so the map is put on by
    hand."""
    checkpoint = open_model_directory(lab.source)
    reference = load_reference(checkpoint, torch.float32, "cpu")
    n, upper = checkpoint.config.num_hidden_layers, "cuda:0" if lab.device == "cuda" else lab.device
    places = {f"model.layers.{i}": "cpu" if i < n // 2 else upper for i in range(n)}
    places |= {"model.embed_tokens": "cpu", "model.rotary_emb": "cpu", "model.norm": upper, "lm_head": "cpu"}
    model = _to_bridge(dispatch_model(reference, places, main_device="cpu", force_hooks=True), checkpoint)
    attach(model, load_tokenizer(checkpoint), "spread")
    return runner_for(model)


def same_logits(one: Runner, other: Runner) -> Row:
    """Largest differences of residuals after the middle block and of logits, in standard deviations; where the blocks are."""
    ids = torch.randint(
        10, min(10_000, other.shape.d_vocab), (2, 24), generator=torch.Generator().manual_seed(0)
    )
    found, expected = (_residuals_and_logits(runner, ids) for runner in (one, other))
    places = getattr(one, "_places", [one.device])
    return {
        "residuals, deviations": deviations(found[0], expected[0]),
        "logits, deviations": deviations(found[1], expected[1]),
        "same greedy tokens": bool((found[1].argmax(-1) == expected[1].argmax(-1)).all()),
        "blocks": {str(place): sum(p == place for p in places) for place in dict.fromkeys(places)},
    }


@torch.no_grad()
def _residuals_and_logits(runner: Runner, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    middle, top = runner.shape.n_layers // 2 + 1, runner.shape.n_layers
    resid, _ = runner.run(runner.embed(ids.to(runner.device)), 0, middle)
    return resid.cpu(), runner.logits(runner.run(resid, middle, top)[0]).cpu()


def refused(lab: Lab) -> Row:
    """The one line that a user gets who leaves blocks on the CPU."""
    places = dict.fromkeys(
        ("model.embed_tokens", "model.norm", "model.rotary_emb", "lm_head"), lab.device
    ) | {"model.layers": "cpu"}
    try:
        load_model(lab.source, places, "float32")
    except UserError as error:
        return {"refused": str(error)}
    return {"refused": None}
