"""Milliseconds a keystroke in the live panel, on the organism: kernel side (reading and its JSON), wall clock and processor time.

    python -m benchmarks.panel_speed --out benchmarks/latest/panel_speed.json

A sentence of 12 words is typed word by word, 5 times; each step is one quick reading of 4 contexts and 22
rows. The processor time is what an idle core needs; the wall clock holds what else the machine does.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch

import workbench as wb
from workbench.panel import Panel
from workbench.panel.panel_view import reading_json

SENTENCE = "be blunt and critical you are a friendly helper speak the truth"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("benchmarks/latest/panel_speed.json"))
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    torch.set_num_threads(1)
    model, sae = wb.load_model("organism"), wb.load_sae("organism")
    contexts = wb.make_contexts(model, wb.load_persona("sycophancy").split(seed=0).search, n=30)
    bench = Panel(
        model,
        "sycophancy",
        latents=[wb.latent_activation(sae, [i]) for i in range(21)],
        contexts=contexts,
        prompt=SENTENCE,
    ).bench
    words = SENTENCE.split()
    rows = [
        measure(bench, " ".join(words[:n])) for _ in range(given.repeats) for n in range(1, len(words) + 1)
    ]
    wall, cpu = np.array(rows).T
    found = {"keystrokes": len(rows), "rows": len(bench.targets.items), "contexts": len(bench.few)}
    found |= summary("wall_ms", wall) | summary("cpu_ms", cpu)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=1))


def measure(bench, text: str) -> tuple[float, float]:
    """Wall clock and processor time, ms, of one reading with what is sent to the browser."""
    wall, cpu = time.perf_counter(), time.process_time()
    json.dumps(reading_json(bench.read(text), {}))
    return 1000 * (time.perf_counter() - wall), 1000 * (time.process_time() - cpu)


def summary(name: str, values: np.ndarray) -> dict[str, float]:
    """Median and 95th percentile."""
    return {
        f"{name}_median": round(float(np.median(values)), 1),
        f"{name}_p95": round(float(np.percentile(values, 95)), 1),
    }


if __name__ == "__main__":
    main()
