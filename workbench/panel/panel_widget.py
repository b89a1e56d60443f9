"""The panel as an anywidget widget (JupyterLab, VS Code, Colab): synchronised state and messages.

The front end sends one `read` message at a time, and waits for the answer before it sends what was typed
meanwhile. If a quick reading is expected to take longer than `LIVE_SECONDS` (from the speed of the last one),
the panel shows the expected time and takes the reading when the reader presses the button. A notebook saved
with its widgets' state shows the last reading. Otherwise a static table next to the panel, hidden while the
panel is live, keeps it.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from workbench.attribution.attribution_targets import as_targets
from workbench.contexts import Contexts, make_contexts
from workbench.errors import UserError
from workbench.html_text import shorten, spoken
from workbench.latents import label_latents, latent_firing, latent_labels
from workbench.models import runner_for
from workbench.objectives import LatentActivationObjective
from workbench.optional_packages import needs_extra
from workbench.panel.panel_view import difference_json, kept_html, reading_json, shown_text
from workbench.panel.prompt_reader import Ids, PromptReader, PromptReading
from workbench.personas import Persona, load_persona
from workbench.report.page_assets import SHARED_MODULES, bundle, styles

with needs_extra("notebook", "the panel"):
    import anywidget
    import traitlets
    from IPython.display import DisplayHandle, display

#: Longest expected time, in seconds, of a quick reading that is taken while typing.
LIVE_SECONDS = 1.0
#: Most characters of a prompt in a message.
LONGEST_TEXT = 100_000
Live = Literal["auto"] | bool


@dataclass(frozen=True)
class PanelOptions:
    """Options of `Panel`, the notebook widget that measures a prompt, that are seldom needed.

    Attributes:
        compare: Prompt in the second field. None: no second field until one is added.
        seed: Seed of the drawing of questions.
        run: A run directory. The panel shows the names that users gave to its latents, and saves new ones
            there. None: no run.

    Example:
        >>> wb.PanelOptions(compare="be polite").seed
        0
    """

    compare: str | None = None
    seed: int = 0
    run: str | Path | None = None


class Panel(anywidget.AnyWidget):
    """A notebook widget with a text field; the effects of the prompt in it are measured while it is typed.

    It shows the effect of each token and of the whole prompt on directions, SAE latents and the answer, and
    the probability of the answer that shows the persona. Two prompts can be compared.

    Args:
        model: A loaded model or its runner.
        persona: A `Persona`, or the name of a persona of the package's own model. It gives the questions if
            no contexts are given.
        direction: One or several directions.
        latents: One or several ranked latents or objectives.
        contexts: Questions on which effects are measured: all of them if an exact measurement is requested.
            None: 30 of the persona's questions for searches.
        prompt: Text in the first field.
        quick: Number of questions, from different question groups, that are used while the user types.
        live: Whether to measure while typing: True, False, or "auto", which does if it takes less than a
            second.
        options: A second prompt, the seed, and a run with labels. None: the defaults.

    Raises:
        UserError: There are no contexts, a target is neither a direction, a latent nor an objective, or
            `quick` is below 1.

    Example:
        >>> panel = wb.Panel(model, persona, direction=direction, contexts=contexts)
        >>> round(panel.read("be blunt").whole[0], 2) < 0  # doctest: +SKIP
        True
    """

    _esm = (
        f"const STYLE = {json.dumps(styles('shared.css') + styles('panel.css', package='workbench.panel'))};\n"
        + bundle(*SHARED_MODULES)
        + bundle("panel.mjs", package="workbench.panel")
    )

    about = traitlets.Dict().tag(sync=True)
    comparing = traitlets.Bool(False).tag(sync=True)
    readings = traitlets.List().tag(sync=True)
    difference = traitlets.List().tag(sync=True)
    progress = traitlets.Dict().tag(sync=True)
    firing = traitlets.Dict().tag(sync=True)

    def __init__(
        self,
        model: Any,
        persona: Persona | str | None = None,
        direction: Any = (),
        latents: Any = (),
        contexts: Contexts | None = None,
        prompt: str = "",
        quick: int = 4,
        live: Live = "auto",
        options: PanelOptions | None = None,
    ) -> None:
        runner, options = runner_for(model), options or PanelOptions()
        persona = load_persona(persona) if isinstance(persona, str) else persona
        if contexts is None:
            contexts = _contexts(runner, persona, options.seed)
        if quick < 1 or not len(contexts):
            raise UserError(
                f"expected at least one context and quick of at least 1, found {len(contexts)} and {quick}"
            )
        members = [*_several(direction), *_several(latents)]
        self.bench = PromptReader(
            runner, contexts, contexts.per_group(quick, options.seed), as_targets(members)
        )
        self._labels = {item.name: item.label for item in members if getattr(item, "label", "")}
        self._run = options.run
        if options.run is not None:
            self._labels |= {f"latent {latent}": text for latent, text in latent_labels(options.run).items()}
        self._live = live
        self._seconds_per_token: float | None = None
        self._read: list[PromptReading | None] = [None, None]
        self._kept: list[DisplayHandle] = []
        super().__init__(
            about=self._about(persona),
            readings=[_blank(prompt), _blank(options.compare or "")],
            comparing=options.compare is not None,
        )
        self.on_msg(self._on_message)
        for side, text in enumerate((prompt, options.compare)):
            if text:
                self._answer(side, text, "", "read")

    def __repr__(self) -> str:
        return f"Panel({self.about['title'].rstrip('.')}; it opens in JupyterLab)"

    def read(self, text: str, side: int = 0, exact: bool = False) -> PromptReading:
        """Measure the effects of a prompt and its tokens, show them in the panel, and return them.

        Args:
            text: The prompt.
            side: Field in which the prompt is shown: 0 for the first, 1 for the second.
            exact: Whether all contexts are used, with intervals, instead of a few.

        Raises:
            UserError: The prompt is empty, too long, or not representable in the model's tokens.
        """
        if side not in (0, 1):
            raise UserError(f"expected side 0 or 1, found {side!r}")
        self.comparing = self.comparing or side == 1
        reading = self._take(text, side, exact, "")
        self._keep()
        return reading

    @property
    def last(self) -> tuple[PromptReading | None, PromptReading | None]:
        """Last measured effects of the panel's first and second prompt; None for one that was not measured."""
        return self._read[0], self._read[1]

    def kept(self) -> str:
        """Return the panel's last measured effects as static, escaped HTML."""
        readings = self._read if self.comparing else self._read[:1]
        return f'<div class="{self.about["kept"]}">{kept_html(readings, self.about["title"])}</div>'

    def set_state(self, sync_data: Mapping[str, Any]) -> None:
        """Accept state from a page or a saved notebook: only whether two prompts are compared.

        All other state comes from the kernel, because it is put into the panel's HTML.

        Args:
            sync_data: State by name; all entries but `comparing` are ignored.
        """
        wanted = sync_data.get("comparing")
        super().set_state({"comparing": wanted} if isinstance(wanted, bool) else {})

    @traitlets.validate("readings")
    def _two_readings(self, proposal: Any) -> Any:
        """Return the proposed readings, or the present ones if a page proposes anything but two readings."""
        value = proposal["value"]
        sound = len(value) == 2 and all(
            isinstance(entry, dict) and isinstance(entry.get("text"), str) for entry in value
        )
        return value if sound else self.readings

    def _on_message(self, _: Any, content: Any, __: Any) -> None:
        if not isinstance(content, Mapping):
            return
        kind, side, text = (content.get(name) for name in ("kind", "side", "text"))
        if kind == "settled":
            self._keep()
        latent = content.get("latent")
        if (
            kind in ("fires", "label")
            and isinstance(text, str)
            and len(text) <= LONGEST_TEXT
            and type(latent) is int
            and latent in self._latents()
        ):
            self._about_latent(str(kind), latent, _utf8(text))
        if (
            kind == "read"
            and type(side) is int
            and side in (0, 1)
            and isinstance(text, str)
            and len(text) <= LONGEST_TEXT
        ):
            ask, how = content.get("ask", ""), content.get("how", "typed")
            self._answer(
                side,
                text,
                _utf8(ask)[:200] if isinstance(ask, str) else "",
                how if isinstance(how, str) else "typed",
            )

    def _answer(self, side: int, text: str, ask: str, how: str) -> None:
        """Read a typed prompt, or announce a slow reading, or show an error; errors are always one line."""
        try:
            if how == "typed" and (seconds := self._expected(text)) is not None:
                self._show(
                    side,
                    {**self.readings[side], "text": _utf8(text), "ask": ask, "error": "", "waiting": seconds},
                )
                return
            self._take(text, side, how == "exact", ask)
        except UserError as error:
            line = shorten(str(error), 300)
            self._show(
                side, {**self.readings[side], "text": _utf8(text), "ask": ask, "error": line, "waiting": None}
            )
        finally:
            self.progress = {}

    def _take(self, text: str, side: int, exact: bool, ask: str) -> PromptReading:
        reading = self.bench.read(text, exact, lambda done, total: self._step(side, done, total))
        if not exact:
            self._seconds_per_token = reading.seconds / reading.tokens_run
        self._read[side] = reading
        a, b = self._read
        with self.hold_sync():
            self.difference = difference_json(a, b) if a is not None and b is not None else []
            self._show(
                side, {**_blank(_utf8(text)), "ask": ask, "ledger": reading_json(reading, self._labels)}
            )
        return reading

    def _latents(self) -> dict[int, Any]:
        """Return the SAEs of the panel's single latents, by the latent's number."""
        return {
            t.latent: t.objective.sae
            for t in self.bench.targets.items
            if t.latent is not None and isinstance(t.objective, LatentActivationObjective)
        }

    def _about_latent(self, kind: str, latent: int, text: str) -> None:
        """Show a latent's activations on a text, or set its label; errors are shown as one line."""
        try:
            if kind == "label":
                self._label(latent, text)
                return
            found = latent_firing(self.bench.runner, self._latents()[latent], latent, text)
            shown = [
                [shown_text(token), round(value, 3)]
                for token, value in zip(found.tokens, found.activations, strict=True)
            ]
            self.firing = {"latent": latent, "text": text, "tokens": shown, "error": ""}
        except UserError as error:
            self.firing = {"latent": latent, "text": text, "tokens": [], "error": shorten(str(error), 300)}

    def _label(self, latent: int, text: str) -> None:
        """Write a latent's label into the run and show it in both readings."""
        if self._run is None:
            raise UserError("a label needs a run to be kept in: PanelOptions(run=...)")
        kept = label_latents(self._run, {latent: text})
        name = f"latent {latent}"
        self._labels[name] = kept.get(latent, "")
        self.about = {**self.about, "latents": self._listed()}
        for side, reading in enumerate(self._read):
            if reading is not None:
                self._show(side, {**self.readings[side], "ledger": reading_json(reading, self._labels)})
        saved = f"{name} is called {kept[latent]!r}" if latent in kept else f"{name} has no name now"
        self.firing = {"latent": latent, "text": "", "tokens": [], "error": "", "saved": saved}

    def _listed(self) -> list[dict[str, Any]]:
        return [
            {"latent": latent, "label": shown_text(self._labels.get(f"latent {latent}", ""))}
            for latent in self._latents()
        ]

    def _expected(self, text: str) -> float | None:
        """Return the expected seconds of a quick reading if it must not be taken while typing, else None."""
        if self._live is True:
            return None
        ids: Ids = self.bench.encode(text)
        speed = self._seconds_per_token
        seconds = 0.0 if speed is None else round(speed * self.bench.quick_cost(ids), 1)
        return seconds if self._live is False or seconds > LIVE_SECONDS else None

    def _step(self, side: int, done: int, total: int) -> None:
        if done < total:
            self.progress = {"side": side, "done": done, "total": total}

    def _show(self, side: int, entry: dict[str, Any]) -> None:
        self.readings = [entry if i == side else old for i, old in enumerate(self.readings)]

    def _about(self, persona: Persona | None) -> dict[str, Any]:
        contexts = self.bench.contexts
        name = "the persona" if persona is None else spoken(persona.name)
        return {
            "title": f"Prompts and {name}: {len(contexts)} contexts, {contexts.split_name} questions, slot {contexts.slot.replace('_', ' ')}.",
            "persona": name,
            "n": len(contexts),
            "quick": len(self.bench.few),
            "kept": f"wb-kept-{secrets.token_hex(4)}",
            "latents": self._listed(),
            "run": None if self._run is None else Path(self._run).name,
        }

    def _keep(self) -> None:
        for handle in self._kept:
            handle.update({"text/html": self.kept()}, raw=True)

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        bundle = super()._repr_mimebundle_(**kwargs)
        assert bundle is not None, "a widget with a view has a bundle"
        data, about = bundle
        return {**data, "text/html": self.kept()}, about

    def _ipython_display_(self) -> None:
        data, about = self._repr_mimebundle_()
        display(data, metadata=about, raw=True)
        handle = display({"text/html": self.kept()}, raw=True, display_id=True)
        self._kept += [handle] if handle is not None else []


def _contexts(runner: Any, persona: Persona | None, seed: int) -> Contexts:
    if persona is None:
        raise UserError("a panel needs questions: expected a persona or contexts, found neither")
    return make_contexts(runner, persona.split(seed=seed).search, n=30, seed=seed)


def _several(given: Any) -> list[Any]:
    """Return one direction or latent, or several (any iterable), as a list."""
    return list(given) if isinstance(given, Sequence) or hasattr(given, "__iter__") else [given]


def _blank(text: str) -> dict[str, Any]:
    """Return the state of a field without a reading.

    ask: the request that it answers. waiting: seconds that a reading is expected to take.
    """
    return {"text": text, "ask": "", "error": "", "waiting": None, "ledger": None}


def _utf8(text: str) -> str:
    """Replace lone surrogates in a text, which cannot be sent to the browser."""
    return text.encode("utf-8", "replace").decode()
