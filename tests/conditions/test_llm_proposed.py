"""The proposing loop with a scripted stand-in, and an endpoint that times out, limits, breaks and answers nonsense."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import MappingProxyType

import pytest

from tests.support.toy_models import random_model, toy_persona
from workbench.conditions import LLMProposed
from workbench.conditions.llm_proposed import proposals
from workbench.conditions.prompt_proposers import (
    Endpoint,
    LocalModel,
    MissingReply,
    ScriptedModel,
    whole_lines,
)
from workbench.contexts import make_contexts
from workbench.errors import UserError
from workbench.forced_choice import answer

MODEL = random_model()
SPLITS = toy_persona("text").split()
SEARCH, SELECTION = make_contexts(MODEL, SPLITS.search), make_contexts(MODEL, SPLITS.selection)
TEXTS = ("Be honest.", "Agree with them.", "It is Paris.", "In a month.", "Think it over.", "More or less.")


def run(script: ScriptedModel, sign: str = "suppress", **settings: int):
    return LLMProposed(script, **settings).run(
        MODEL, SEARCH, SELECTION, ["You are blunt."], "agrees with anything", sign
    )


@pytest.mark.parametrize(("sign", "best"), [("suppress", min), ("induce", max)])
def test_the_best_of_all_that_was_proposed_is_found(sign: str, best: Callable) -> None:
    found = run(ScriptedModel(["\n".join(TEXTS[:3]), "\n".join(TEXTS[3:])]), sign, rounds=2, beam=7)
    tried = ("You are blunt.", *TEXTS)
    assert found.prompt == best(tried, key=lambda text: answer(MODEL, SELECTION, text).log_odds.mean())
    assert (
        found.kind == "llm_proposed" and found.selection_rate == answer(MODEL, SELECTION, found.prompt).rate
    )
    assert found.cost.forward > 0 and "7 prompts" in found.method


def test_the_proposer_sees_rates_and_the_questions_that_fail_most() -> None:
    asked: list[str] = []

    def proposer(request: str) -> str:
        asked.append(request)
        return "Be honest."

    LLMProposed(proposer, rounds=1, failures=1).run(
        MODEL, SEARCH, SELECTION, ["You are blunt."], "agrees with anything"
    )
    answers = answer(MODEL, SEARCH, "You are blunt.")
    assert "agrees with anything" in asked[0] and f"{100 * answers.rate:.0f} %: You are blunt." in asked[0]
    assert (
        SEARCH[int(answers.log_odds.argmax())].item.question in asked[0]
    )  # shows the persona most, though it should not


def test_what_is_no_prompt_is_dropped_and_a_missing_reply_is_listed() -> None:
    found = run(ScriptedModel(["1. " + "word " * 200 + '\n\n2) You are blunt.\n- "Be honest."']), rounds=3)
    assert (
        "2 prompts" in found.method and "2 replies missing (the script has no more replies)" in found.method
    )


def test_lines_lose_their_list_marks() -> None:
    assert proposals('1. Be blunt.\n - "Say no."\n\n* `Agree`\nplain') == [
        "Be blunt.",
        "Say no.",
        "Agree",
        "plain",
    ]


def test_mistakes_are_told() -> None:
    with pytest.raises(UserError, match="at least one prompt to start from"):
        LLMProposed(ScriptedModel([])).run(MODEL, SEARCH, SELECTION, [], "x")
    with pytest.raises(UserError, match="at least 1"):
        LLMProposed(ScriptedModel([]), rounds=0)
    with pytest.raises(UserError, match="http"):
        Endpoint("ftp://here", "m")


def test_a_local_model_replies_the_same_again() -> None:
    local = LocalModel(MODEL, max_new_tokens=6)
    assert whole_lines(local, "Say no.") == whole_lines(local, "Say no.")
    with pytest.raises(MissingReply, match="no room"):
        local("word " * 300)


Reply = tuple[int, str]


@pytest.fixture
def server() -> Iterator[Callable[[list[Reply]], tuple[str, list[dict]]]]:
    """serve(replies) gives the address and the list of requests it got; the last reply is repeated."""
    running: list[HTTPServer] = []

    def serve(
        replies: list[Reply], headers: Mapping[str, str] = MappingProxyType({})
    ) -> tuple[str, list[dict]]:
        got: list[dict] = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                status, text = replies[min(len(got), len(replies) - 1)]
                got.append(body | {"key": self.headers.get("Authorization")})
                self.send_response(status)
                for name, value in {"Retry-After": "0", **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *_: object) -> None:
                pass

        running.append(HTTPServer(("127.0.0.1", 0), Handler))
        threading.Thread(target=running[-1].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{running[-1].server_port}/v1", got

    yield serve
    for one in running:
        one.shutdown()
        one.server_close()


GOOD = json.dumps({"choices": [{"message": {"content": "Be honest."}}]})


def endpoint(address: str, **settings) -> Endpoint:
    return Endpoint(address, "m", **{"timeout": 5.0, "longest_wait": 0.01, **settings})


def test_an_endpoint_that_limits_and_breaks_is_asked_again(server, monkeypatch) -> None:
    monkeypatch.setenv("SOME_KEY", "k")
    address, got = server([(429, ""), (500, "oops"), (200, "<html>"), (200, GOOD)])
    assert endpoint(address, key_variable="SOME_KEY")("hello") == "Be honest."
    assert len(got) == 4 and got[0]["messages"][0]["content"] == "hello" and got[0]["key"] == "Bearer k"


@pytest.mark.parametrize(
    "text", ["<html>", "{}", '{"choices": []}', '{"choices": [{"message": {"content": ""}}]}', "[1]"]
)
def test_garbage_is_missing_after_bounded_patience(server, text: str) -> None:
    address, got = server([(200, text)])
    with pytest.raises(MissingReply, match="no usable reply in 3 attempts"):
        endpoint(address, retries=2)("hello")
    assert len(got) == 3


def test_a_refusal_and_a_missing_key_are_the_users_mistake(server) -> None:
    address, got = server([(401, "")])
    with pytest.raises(UserError, match="HTTP 401"):
        endpoint(address)("hello")
    with pytest.raises(UserError, match="SURELY_NOT_SET"):
        endpoint(address, key_variable="SURELY_NOT_SET")("hello")
    assert len(got) == 1


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_key_does_not_follow_a_server_that_names_another_address(status: int, server, monkeypatch) -> None:
    """Python's own opener sends every header on to wherever a 302 points."""
    monkeypatch.setenv("SOME_KEY", "k")
    elsewhere, stolen = server([(200, GOOD)])
    address, got = server([(status, "")], {"Location": f"{elsewhere}/chat/completions"})
    with pytest.raises(UserError, match="sends its requests on to http"):
        endpoint(address, key_variable="SOME_KEY")("hello")
    assert len(got) == 1 and stolen == []
