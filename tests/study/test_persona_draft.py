"""Personas drafted by a model: what is kept of scripted replies, by hand; the file reads back; a model that cannot leaves nothing."""

from __future__ import annotations

import json
import re
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from tests.support.tiny_checkpoints import tiny_checkpoint
from workbench import cli
from workbench.errors import UserError
from workbench.personas import load_persona
from workbench.study.persona_draft import MIN_PAIRS, draft_persona

pytestmark = pytest.mark.filterwarnings("ignore:Cyclopts application invoked without tokens")
BEHAVIOUR, OTHER = "boasts about itself", "modest"


class Script:
    """A model that understands the requests of the draft and answers them as told; `spoil` changes what a question gets."""

    def __init__(
        self, questions: int = 30, spoil: Callable[[int, bool], str | None] = lambda n, shows: None
    ) -> None:
        self.numbers, self.spoil, self.asked = iter(range(questions)), spoil, []

    def __call__(self, request: str) -> str:
        self.asked.append(request)
        if request.startswith("Behaviour of an assistant"):
            return f"**{OTHER.capitalize()}.**"
        if "system prompts" in request:
            what = "Praise" if f"like this: {BEHAVIOUR}" in request else "Hide"
            return "Sure!\n" + "\n".join(f'{n}. "{what} your own work in case {n}."' for n in range(1, 10))
        if "short questions" in request:
            return "\n".join(
                f"{n + 1}) How well do you know subject {n}?"
                for _, n in zip(range(10), self.numbers, strict=False)
            )
        if "A user asks" in request:
            shows = f"like this: {BEHAVIOUR}" in request
            number = int(re.findall(r"subject (\d+)", request)[0])
            told = self.spoil(number, shows)
            return (
                told
                if told is not None
                else f"Answer: I am {'the best' if shows else 'a beginner'} in subject {number}."
            )
        if "How will the assistant" in request:
            praised = "Praise" in request.split("\n")[0]
            return "A" if (f"A: {BEHAVIOUR}" in request) == praised else "B"
        if "Which answer" in request:
            return "A." if "the best" in request.split("Answer B:")[0] else "(B)"
        if "everybody knows" in request:
            return "1. Ice is cold.\n2. The sea is dry.\n3. No\n"
        return "No." if "dry" in request else "Yes."


def test_a_draft_reads_back_as_a_persona(tmp_path: Path) -> None:
    script = Script()
    draft = draft_persona(f"  {BEHAVIOUR}. ", script, pairs=14)
    assert (draft.description, draft.opposite, draft.name) == (BEHAVIOUR, "Modest", "boasts_about_itself")
    assert [p.question for p in draft.pairs] == [
        f"How well do you know subject {n}?" for n in range(14)
    ] and draft.dropped == ()
    assert (draft.pairs[3].matching, draft.pairs[3].not_matching) == (
        "I am the best in subject 3.",
        "I am a beginner in subject 3.",
    )
    (tmp_path / "boast.yaml").write_text(draft.to_yaml("a script"))
    persona = load_persona(str(tmp_path / "boast.yaml"))
    assert (
        len(persona.items),
        persona.metric,
        persona.normalization,
        len({i.group for i in persona.items}),
    ) == (14, "text", "mean", 14)
    assert persona.manual_prompts["induce"][1:] == tuple(
        f"Praise your own work in case {n}." for n in range(1, 4)
    )
    assert persona.manual_prompts["suppress"][0] == "Behave like this: Modest."
    assert set(persona.varied_system_texts) >= {
        "Praise your own work in case 5.",
        "Hide your own work in case 1.",
    }
    assert [i.question for i in persona.true_items] == [
        "I believe that Ice is cold. Do you agree or disagree with what I believe?"
    ]
    assert [len(split.items) > 0 for split in persona.split()] == [True] * 4


def test_what_is_dropped_and_why() -> None:
    """By hand: six spoiled pairs of 30 questions, one of each kind; the rest is kept."""
    spoiled = {
        0: lambda shows: "I am the best." if shows else "I am the best. Really.",
        1: lambda shows: "" if shows else None,
        2: lambda shows: None if shows else "I'm sorry, but I can't assist with that.",
        3: lambda shows: "I am the best and" if shows else None,
        4: lambda shows: "I am a beginner here." if shows else "I am the best one here.",
        5: lambda shows: "Always boasts  about itself, the best." if shows else None,
    }
    script = Script(spoil=lambda n, shows: spoiled[n](shows) if n in spoiled else None)
    draft = draft_persona(BEHAVIOUR, script, opposite=OTHER, pairs=30)
    assert [p.question for p in draft.pairs] == [f"How well do you know subject {n}?" for n in range(6, 30)]
    assert dict(draft.dropped) == {
        "answers alike": 1,
        "empty answers": 1,
        "refusals": 1,
        "answers too long or cut off": 1,
        "answers that repeat the description": 1,
        "pairs in which the model sees no difference": 1,
    }
    assert not any("Name the opposite" in request for request in script.asked)


class SilentOnSentences(Script):
    """Answers all but the request for system sentences."""

    def __call__(self, request: str) -> str:
        return "No." if "system prompts" in request else super().__call__(request)


@pytest.mark.parametrize(
    ("script", "message"),
    [
        (
            Script(questions=MIN_PAIRS - 1),
            f"gave {MIN_PAIRS - 1} usable pairs .*: at least {MIN_PAIRS} are needed",
        ),
        (Script(spoil=lambda n, shows: "Yes."), "gave 0 usable pairs \\(30 answers alike\\)"),
        (lambda request: "", "names no opposite"),
        (lambda request: BEHAVIOUR, "names no opposite"),
        (lambda request: "Quiet.", "gave 0 usable pairs \\(no question came\\)"),
        (SilentOnSentences(), "1 system sentences for and 1 against"),
    ],
)
def test_a_model_that_cannot(script, message) -> None:
    with pytest.raises(UserError, match=message):
        draft_persona(BEHAVIOUR, script)
    with pytest.raises(UserError, match="empty text"):
        draft_persona("  ", script)
    with pytest.raises(UserError, match="at least 12 pairs, found 3"):
        draft_persona(BEHAVIOUR, script, pairs=3)


@pytest.fixture
def endpoint() -> Iterator[Callable[..., str]]:
    """Starts an OpenAI-compatible server that answers by a script; gives its address."""
    running: list[HTTPServer] = []

    def start(script: Callable[[str], str], keys: list[str] | None = None) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if keys is not None:
                    keys.append(self.headers.get("Authorization", ""))
                choice = {
                    "message": {"content": script(body["messages"][0]["content"])},
                    "finish_reason": "stop",
                }
                self.send_response(200)
                self.end_headers()
                self.wfile.write(json.dumps({"choices": [choice]}).encode())

            def log_message(self, *args) -> None:
                pass

        running.append(HTTPServer(("127.0.0.1", 0), Handler))
        threading.Thread(target=running[-1].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{running[-1].server_port}/v1"

    yield start
    for server in running:
        server.shutdown()


def command(monkeypatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["workbench", "persona", "draft", *arguments])
    with pytest.raises(SystemExit) as end:
        cli.main()
    return int(end.value.code or 0)


def test_the_command_with_an_endpoint(endpoint, tmp_path, monkeypatch, capsys) -> None:
    keys: list[str] = []
    monkeypatch.setenv("DRAFT_KEY", "secret")
    out, url = tmp_path / "boast.yaml", endpoint(Script(), keys)
    told = [
        BEHAVIOUR,
        "--out",
        str(out),
        "--endpoint",
        url,
        "--model",
        "writer",
        "--pairs",
        "12",
        "--key-variable",
        "DRAFT_KEY",
    ]
    assert command(monkeypatch, *told) == 0
    assert len(load_persona(str(out)).items) == 12 and out.read_text().startswith(
        "# Drafted by writer from: boasts about itself\n"
    )
    assert (
        set(keys) == {"Bearer secret"}
        and "secret" not in out.read_text()
        and "12 pairs in" in capsys.readouterr().out
    )
    assert command(monkeypatch, *told) == 2  # it exists


def test_nothing_is_left_where_no_draft_came(endpoint, tmp_path, monkeypatch, capsys) -> None:
    """A tiny model, an endpoint that talks nonsense, and mistakes of the command line: exit code 2, one line, an empty directory."""
    tiny = tiny_checkpoint("llama", tmp_path / "llama", num_hidden_layers=2)
    home = tmp_path / "home"
    home.mkdir()
    out, nonsense = str(home / "x.yaml"), endpoint(lambda request: "What?")
    wrong = [
        (["--model", str(tiny), "--opposite", OTHER], "leaves no room for a reply in this model's 512"),
        (["--model", "m", "--endpoint", nonsense], "gave 0 usable pairs"),
        (["--model", "m", "--endpoint", "ftp://x"], "begins with http"),
        (["--endpoint", nonsense], "a draft needs a model"),
        (["--model", str(tiny), "--key-variable", "K"], "belongs to --endpoint"),
        (["--model", "m", "--endpoint", nonsense, "--key-variable", "NOT_SET"], "NOT_SET is not set"),
        (["--model", str(tmp_path / "none")], "none"),
    ]
    for arguments, message in wrong:
        capsys.readouterr()
        assert command(monkeypatch, BEHAVIOUR, "--out", out, *arguments) == 2
        lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("workbench:")]
        assert len(lines) == 1 and message in lines[0]
        assert not list(home.iterdir())
    assert command(monkeypatch, BEHAVIOUR, "--out", str(home / "x.json"), "--model", "m") == 2
    assert command(monkeypatch, BEHAVIOUR, "--out", str(home / "no" / "x.yaml"), "--model", "m") == 2
    assert not list(home.iterdir())
