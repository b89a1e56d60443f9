"""A program of its own: runs a part of the workbench with model and SAE on a device that no tensor of the CPU may meet.

A tensor of the device holds its numbers on the CPU, so that all is computed as ever; an operation between one
of them and a tensor of the CPU raises, as it does on CUDA (but for single numbers, and for indices into the
device's tensors). So do `.numpy()` and drawing by a generator of the CPU. The device is a backend made for
the length of this process (that is why it is one).

    python -m tests.support.strict_device study|attribution|mixed|audit|sentences|waits hooked|bridge
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils._device import _device_constructors
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

from workbench.attribution import AttributionOptions

aten = torch.ops.aten
#: Where tensors of two devices may meet: copies, and indexing (indices on the CPU).
COPIES = (aten._to_copy.default, aten.copy_.default)
INDEXING = (aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default)


class There(torch.Tensor):
    """A tensor of the device; `held` are its numbers, on the CPU."""

    @staticmethod
    def __new__(cls, held: torch.Tensor) -> There:
        layout = {"strides": held.stride(), "storage_offset": held.storage_offset(), "dtype": held.dtype}
        return torch.Tensor._make_wrapper_subclass(cls, held.shape, device="strict:0", **layout)

    def __init__(self, held: torch.Tensor) -> None:
        self.held = held

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return on_device(func, args, kwargs or {})

    def __getitem__(self, key: Any) -> Any:
        return super().__getitem__(indices(key))

    def __setitem__(self, key: Any, value: Any) -> None:
        super().__setitem__(indices(key), value)

    def tolist(self) -> Any:
        return self.held.tolist()

    def numpy(self, **_: Any) -> Any:
        raise TypeError("can't convert a tensor of strict:0 to numpy: use Tensor.cpu() first")

    __array__ = numpy

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        return f"There({self.held!r})"


class Strict(TorchDispatchMode):
    """While it is on, what is made for the device is made there."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return on_device(func, args, kwargs or {})


def on_device(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """The operation on the numbers, its result where it belongs; RuntimeError where operands are on two devices."""
    there = any(isinstance(x, There) for x in tree_leaves((args, kwargs)))
    if there and func not in COPIES:
        refuse(func, args, kwargs)
    wanted = kwargs.get("device")
    up = there if wanted is None else torch.device(wanted).type == "strict"
    if up and kwargs.get("generator") is not None:
        raise RuntimeError(f"expected a generator of strict:0, found one of cpu: {func}")
    if up and wanted is not None:
        kwargs = {**kwargs, "device": "cpu"}
    if func is aten.copy_.default:
        up = isinstance(args[0], There)
    out = func(*tree_map(held, args), **tree_map(held, kwargs))
    if args and out is held(args[0]):  # in place
        return args[0]
    return tree_map(lambda x: There(x) if isinstance(x, torch.Tensor) else x, out) if up else out


def refuse(func: Any, args: Any, kwargs: dict[str, Any]) -> None:
    """RuntimeError where a tensor of the CPU meets the device's; indices may be on the CPU, but not on the device for a tensor of the CPU."""
    met = (args[0], *args[2:3]) if func in INDEXING and isinstance(args[0], There) else (args, kwargs)
    alone = [
        x for x in tree_leaves(met) if isinstance(x, torch.Tensor) and not isinstance(x, There) and x.dim()
    ]
    if alone:
        raise RuntimeError(f"Expected all tensors to be on the same device, found strict:0 and cpu: {func}")


def held(x: Any) -> Any:
    return x.held if isinstance(x, There) else x


def indices(key: Any) -> Any:
    """Lists as tensors of the CPU: torch's own way from a list fills the device's memory, of which there is none."""
    if isinstance(key, tuple):
        return tuple(map(indices, key))
    return torch.tensor(list(key)) if isinstance(key, (list, range, np.ndarray)) else key


def made_here(make: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """`torch.tensor` and its like: for the device made on the CPU, then taken there; for any other as ever (a default device may be set)."""

    def made(data: Any, dtype: torch.dtype | None = None, device: Any = None) -> torch.Tensor:
        if device is not None and torch.device(device).type == "strict":
            return make(data, dtype=dtype, device="cpu").to(device)
        return make(data, dtype=dtype, device=device)

    return made


def move(module: torch.nn.Module, device: Any = "strict:0") -> Any:
    """The module with its weights on the device."""
    for part in module.modules():
        for name, weight in part._parameters.items():
            part._parameters[name] = (
                None
                if weight is None
                else torch.nn.Parameter(weight.detach().to(device), requires_grad=False)
            )
        for name, buffer in part._buffers.items():
            part._buffers[name] = None if buffer is None else buffer.to(device)
        if "device" in vars(part):  # sae-lens keeps it with the weights
            part.device = torch.device(device)
    return module


def loader(own: Callable[..., Any]) -> Callable[..., Any]:
    """sae-lens's loader: reads to the CPU, then moves."""
    return lambda directory, device, dtype: move(own(directory, device="cpu", dtype=dtype), device)


def model(backend: str) -> Any:
    """The organism, moved."""
    from workbench.models import load_model

    loaded = move(load_model("organism", backend=backend))
    loaded.cfg.device = "strict:0"
    return loaded


def study(backend: str) -> None:
    """Directions, ranked latents, a search, every condition that the model itself makes, the explanation and the report."""
    from tests.support.tiny_study import TINY
    from workbench.budget import Budget
    from workbench.study import run

    names = (
        "random_tokens",
        "random_text",
        "saega",
        "latent_clamp",
        "steering",
        "steering_decision",
        "conditional_steering",
        "soft_prompt",
    )
    search = TINY.search.model_copy(update={"budget": Budget(steps=1)})
    asked = TINY.model_copy(update={"conditions": (*names, "few_shot", "llm_proposed"), "search": search})
    run(asked, Path(tempfile.mkdtemp()) / "study", model=model(backend))


def attribution(backend: str) -> None:
    """What SAEs read, every estimator, mediation, circuit, side effects, cards of latents."""
    import workbench as wb
    from workbench.attribution import ESTIMATORS, attribute, side_effects
    from workbench.directions import find_directions
    from workbench.latents import describe_latents

    loaded, splits = model(backend), wb.load_persona("sycophancy").split()
    sae, contexts = wb.load_sae("organism", loaded), wb.make_contexts(loaded, splits.test, n=4)
    assert str(sae.device) == "strict:0", "an SAE is where its model is"
    for one, x in (
        (one, torch.randn(3, sae.d_in).to(where))
        for one in (sae, wb.load_sae("organism"))
        for where in ("strict:0", "cpu")
    ):
        read = (
            one.encode(x),
            one.encode_some(x, [3, 1]),
            one.pre_activations(x, [3]),
            one.reconstruct(x),
            one.decode(one.encode(x)),
        )
        assert {part.device for part in read} == {x.device}, "what it reads comes back to where it was"
    direction = find_directions(
        loaded, splits.train, splits.search, (2,), ("own_choice",), n=32, n_texts=4, n_contexts=3
    ).best
    ranked = wb.rank_latents(loaded, sae, splits.train, k=2, n=48)
    attribute(
        loaded,
        PROMPT,
        [direction, *ranked],
        contexts,
        tuple(ESTIMATORS),
        circuit=4,
        options=AttributionOptions(controls=(-direction,)),
    )
    side_effects(loaded, sae, PROMPT, contexts, ranked.ids)
    describe_latents(loaded, sae, ranked.ids, ["I think so ."] * 2, {"it": direction})


def waits(backend: str) -> None:
    """Prints how often a step of EPO waits for the device, by operation, as JSON."""
    import json
    from collections import Counter
    from types import SimpleNamespace

    import workbench as wb
    from workbench.search import search_loop

    loaded, counted = model(backend), Counter[str]()
    contexts = wb.make_contexts(loaded, wb.load_persona("sycophancy").split().search, "after_question", n=4)
    own, to_list, step = on_device, There.tolist, search_loop._step

    def noting(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        out = own(func, args, kwargs)
        if args and isinstance(args[0], There):
            masks = func in INDEXING and any(x is not None and x.dtype == torch.bool for x in args[1])
            copied = func is aten._to_copy.default and not isinstance(out, There)
            if (
                masks
                or copied
                or func in (aten._local_scalar_dense.default, aten.nonzero.default, aten.is_nonzero.default)
            ):
                counted[f"{func.name()} {tuple(args[0].shape)}"] += 1
        return out

    def listed(tensor: There) -> Any:
        counted["tolist"] += 1
        return to_list(tensor)

    def counting(bench: Any, method: Any, state: Any) -> None:
        before = counted.copy()
        step(bench, method, state)
        steps.append(dict(counted - before))

    steps: list[dict[str, int]] = []
    globals()["on_device"], There.tolist, search_loop._step = noting, listed, counting  # type: ignore[method-assign]
    method = wb.EPO(length=4, population=3, children=8, gradient_contexts=4)
    wb.search(
        loaded,
        wb.projection(SimpleNamespace(vector=torch.randn(loaded.cfg.d_model), site=wb.Site(1)), "raw"),
        contexts,
        method,
        wb.Budget(steps=3),
        batch_tokens=4096,
    )
    print(json.dumps(steps))


def mixed(backend: str) -> None:
    """Model on the device, SAE, direction and judge on the CPU; and the other way round."""
    import workbench as wb
    from workbench.attribution import attribute, side_effects
    from workbench.comparison.second_judge import _read
    from workbench.models import load_model

    split = wb.load_persona("sycophancy").split()
    ours, here = model(backend), load_model("organism", backend=backend)
    sizes = {"strict": ("cpu", ours, here), "cpu": ("strict:0", here, ours)}
    for own, (other, loaded, second) in sizes.items():
        sae, contexts = wb.load_sae("organism", second), wb.make_contexts(loaded, split.search, n=3)
        assert {str(sae.device), str(second.cfg.device)} == {other} and own not in other
        vector = torch.randn(loaded.cfg.d_model, generator=torch.Generator().manual_seed(0)).to(other)
        direction = wb.Direction.from_tensor(vector, "blocks.1.hook_resid_post")
        method = wb.EPO(length=4, population=2, children=4)
        for goal in (wb.projection(direction), wb.latent_activation(sae, range(48))):
            scaled = goal.calibrate(loaded, contexts, n=4)
            found = wb.search(loaded, scaled, contexts, method, wb.Budget(steps=2), batch_tokens=4096)
            assert found.candidates
        prompt = found.candidates[0].text
        for change in (wb.steer(loaded, direction, 1.0), wb.clamp(loaded, sae, (3,), (2.0,))):
            with change:
                wb.evaluate(loaded, split.test.take(4, 0))
        attribute(loaded, prompt, [direction], contexts)
        side_effects(loaded, sae, prompt, contexts, (3, 5))
        theirs = wb.make_contexts(second, split.search, n=3)
        assert _read(second, theirs, prompt) == _read(loaded, contexts, prompt), "the same model"


def audit(backend: str) -> None:
    """Words, what they do inside, the minimal edit; and answers in the model's own words."""
    import workbench as wb
    from workbench.audit import audit, inside
    from workbench.evaluation import open_answers

    loaded, persona = model(backend), wb.load_persona("sycophancy")
    splits = persona.split()
    audit(
        loaded,
        PROMPT,
        persona,
        1,
        targets=inside(loaded, splits, wb.load_sae("organism", loaded), k=2),
        questions=4,
    )
    direction = inside(loaded, splits).popitem()[1]
    with wb.steer(loaded, direction, 1.0, "answer"):
        open_answers(loaded, splits.test.items[:2], max_new_tokens=3, temperature=1.0)
    wb.evaluate(loaded, splits.test.take(8, 0))


def sentences(backend: str) -> None:
    """A search over sentences along a direction and on the answer (the organism's vocabulary has none: a random model of BPE tokens)."""
    from contextlib import nullcontext
    from types import SimpleNamespace

    import workbench as wb
    from tests.support.tiny_checkpoints import tiny_checkpoint
    from tests.support.toy_models import toy_persona
    from workbench.models import load_model

    torch.random.fork_rng = lambda *_, **__: (
        nullcontext()
    )  # it would ask the device for a state that it has not
    loaded = move(load_model(tiny_checkpoint("llama", Path(tempfile.mkdtemp()) / "llama"), backend=backend))
    loaded.cfg.device = "strict:0"
    contexts = wb.make_contexts(loaded, toy_persona().split().search, n=3)
    direction = wb.projection(SimpleNamespace(vector=torch.randn(loaded.cfg.d_model), site=wb.Site(1)), "raw")
    method = wb.SentenceSearch(
        length=14, first=60, slot_words=4, children=4, edited=12, written=6, population=3, write_every=1
    )
    for goal in (direction, -wb.answer_log_odds()):
        wb.search(loaded, goal, contexts, method, wb.Budget(steps=3), batch_tokens=4096)


PROMPT = "be honest"
if __name__ == "__main__":
    _setup_privateuseone_for_python_backend("strict")
    from sae_lens import SAE

    SAE.load_from_disk = loader(SAE.load_from_disk)  # type: ignore[method-assign]
    _device_constructors()  # torch keeps the list: transformers asks the true torch.tensor for the default device while it loads
    torch.tensor, torch.as_tensor = made_here(torch.tensor), made_here(torch.as_tensor)
    with Strict():
        {part.__name__: part for part in (study, attribution, mixed, audit, sentences, waits)}[sys.argv[1]](
            sys.argv[2]
        )
