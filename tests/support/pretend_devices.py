"""A program of its own: runs a tiny model whose blocks are on two devices, and prints where each result is.

Torch's fake tensors know the device of every operand without holding a number, and refuse operations that
meet tensors of two devices, as CUDA does. The devices are a backend made for the length of this process (that
is why it is one).

    python -m tests.support.pretend_devices CHECKPOINT tied|untied
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from accelerate import dispatch_model, hooks
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend
from transformers import AutoConfig, AutoModelForCausalLM

from workbench.models import Site, bridge_runner, runner_for
from workbench.models.bridge_runner import BridgeRunner
from workbench.models.loading import _to_bridge, attach
from workbench.models.model_directory import load_tokenizer, open_model_directory


def main(path: Path, tied: bool) -> None:
    _setup_privateuseone_for_python_backend("pretend")
    hooks.set_module_tensor_to_device = (
        move  # accelerate's own makes a new tensor of the parameter's class, which is a fake's
    )
    torch.tensor = tensor
    BridgeRunner._probe = lambda self: None  # it compares values, and there are none
    bridge_runner.find_output_head = lambda *parts: None  # so does this; the model's own head is run instead
    with FakeTensorMode():
        print(json.dumps(places(runner(path, tied))))


def runner(path: Path, tied: bool) -> BridgeRunner:
    """The first block with the embedding, the others and the final norm on the second device; the head where it is free to be."""
    checkpoint = open_model_directory(path)
    reference = AutoModelForCausalLM.from_config(
        AutoConfig.from_pretrained(path), attn_implementation="eager"
    )
    layers = {f"model.layers.{k}": int(k >= 1) for k in range(checkpoint.config.num_hidden_layers)}
    numbers = {
        "model.embed_tokens": 0,
        "model.rotary_emb": 0,
        **layers,
        "model.norm": 1,
        "lm_head": int(not tied),
    }
    spread = dispatch_model(
        reference.eval().requires_grad_(False), {name: f"pretend:{k}" for name, k in numbers.items()}
    )
    model = _to_bridge(spread, checkpoint)
    attach(model, load_tokenizer(checkpoint), "spread")
    return runner_for(model)


def places(runner: BridgeRunner) -> dict[str, list[str]]:
    """Where the blocks are, what the runner returns, and what stays with its block."""
    top, push = runner.shape.n_layers, torch.ones(runner.shape.d_model, device=runner.device)
    start = runner.embed(torch.zeros(1, 5, dtype=torch.long, device=runner.device))
    _, kv = runner.run(start, 0, top, keep=True)
    rows = runner.embed(torch.zeros(3, 4, dtype=torch.long, device=runner.device), offset=5).requires_grad_()
    with runner.capture([Site(top - 1)]) as caught, runner.edit(Site(1).name, lambda a: a + push):
        resid, longer = runner.run(rows, 0, top, kv.fork(torch.zeros(3, dtype=torch.long)), keep=True)
    seen, logits = caught[Site(top - 1)], runner.logits(resid)
    assert (
        logits.sum() + (seen @ push).sum()
    ).requires_grad  # backward itself needs a backend that can count its devices
    kept = longer.crop(2).keys
    found = {
        "blocks": runner._places,
        "out": [seen.device, resid.device, logits.device],
        "kept": [k.device for k in kept],
    }
    return {name: [str(device) for device in devices] for name, devices in found.items()}


def tensor(
    data: object, dtype: torch.dtype | None = None, device: object = None, **_: object
) -> torch.Tensor:
    """`torch.tensor` without its numbers: its own fills memory, which no device here has."""
    kind = np.asarray(data).dtype.kind
    return torch.zeros(
        np.shape(data),
        dtype=dtype or {"f": torch.float32, "b": torch.bool}.get(kind, torch.long),
        device=device,
    )


def move(module: torch.nn.Module, name: str, device: str, **_: object) -> None:
    path, _, name = name.rpartition(".")
    module = module.get_submodule(path)
    if name in module._parameters:
        module._parameters[name] = torch.nn.Parameter(
            module._parameters[name].to(device), requires_grad=False
        )
    else:
        module._buffers[name] = module._buffers[name].to(device)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2] == "tied")
