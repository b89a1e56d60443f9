"""Who is asked in words: a local model, an OpenAI-compatible endpoint, or a script; judges and proposers alike.

A reply that does not come (time-out, refusal, garbage) is `MissingReply`: it is counted and asked for again with bounded patience,
never taken for an answer.
"""
from __future__ import annotations

import http.client
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from workbench.errors import UserError
from workbench.models import runner_for

#: Takes a request in words, gives a reply in words; raises `MissingReply` where none came.
Ask = Callable[[str], str]


class MissingReply(Exception):
    """No usable reply came; the message says why."""


@dataclass
class ScriptedModel:
    """Gives its replies in order, then raises `MissingReply`: the stand-in for tests."""

    replies: Sequence[str]
    asked: int = 0

    def __call__(self, request: str) -> str:
        self.asked += 1
        if self.asked > len(self.replies):
            raise MissingReply("the script has no more replies")
        return self.replies[self.asked - 1]


@dataclass(frozen=True)
class LocalModel:
    """A model of the workbench that is asked, sampled with a seed that moves with the request's text."""

    model: Any
    max_new_tokens: int = 120
    temperature: float = 0.8
    seed: int = 0

    def __call__(self, request: str) -> str:
        runner = runner_for(self.model)
        ids = runner.encode(runner.render([{"role": "user", "content": request}]))
        if len(ids) + self.max_new_tokens > runner.shape.n_ctx:
            raise MissingReply(f"a request of {len(ids)} tokens leaves no room for a reply in {runner.shape.n_ctx}")
        generator = torch.Generator().manual_seed(self.seed + len(ids))
        new = runner.generate(torch.tensor([ids]), self.max_new_tokens, self.temperature, generator)[0].tolist()
        end = runner.tokenizer.eos_token_id
        return runner.decode(new[: new.index(end)] if end in new else new)


@dataclass(frozen=True)
class Endpoint:
    """A chat endpoint of OpenAI's form at `base_url` (.../v1). key_variable: name of the environment variable that holds the key.

    Time-outs, rate limits (waiting as long as the server asks, up to `longest_wait`) and server errors are tried again
    `retries` times; then the reply is `MissingReply`. A request that the server refuses (401, 404) is the user's mistake.
    """

    base_url: str
    model: str
    key_variable: str | None = None
    temperature: float = 0.8
    timeout: float = 60.0
    retries: int = 3
    longest_wait: float = 30.0

    def __post_init__(self) -> None:
        if not self.base_url.startswith(("http://", "https://")):
            raise UserError(f"an endpoint's address begins with http:// or https://, found {self.base_url!r}")

    def __call__(self, request: str) -> str:
        problem, post = "no attempt was made", self._post(request)
        for attempt in range(self.retries + 1):
            try:
                return self._ask(post)
            except urllib.error.HTTPError as error:
                if error.code != 429 and error.code < 500:
                    raise UserError(f"{self.base_url} refused the request for {self.model!r}: HTTP {error.code}") from error
                problem, asked = f"HTTP {error.code}", error.headers.get("Retry-After", "")
                wait = float(asked) if asked.isdigit() else 2.0**attempt
            except (OSError, ValueError, KeyError, IndexError, TypeError, http.client.HTTPException) as error:
                problem, wait = f"{type(error).__name__}: {error}", 2.0**attempt
            if attempt < self.retries:
                time.sleep(min(wait, self.longest_wait))
        raise MissingReply(f"{self.base_url} gave no usable reply in {self.retries + 1} attempts ({problem})")

    def _post(self, request: str) -> urllib.request.Request:
        body = {"model": self.model, "temperature": self.temperature, "messages": [{"role": "user", "content": request}]}
        headers = {"Content-Type": "application/json"}
        if self.key_variable:
            key = os.environ.get(self.key_variable)
            if not key:
                raise UserError(f"the environment variable {self.key_variable} is not set: it should hold the endpoint's key")
            headers["Authorization"] = f"Bearer {key}"
        address = self.base_url.rstrip("/") + "/chat/completions"
        return urllib.request.Request(address, json.dumps(body).encode(), headers)

    def _ask(self, post: urllib.request.Request) -> str:
        with urllib.request.urlopen(post, timeout=self.timeout) as reply:
            text = json.loads(reply.read(1 << 22))["choices"][0]["message"]["content"]
        if not isinstance(text, str) or not text.strip():
            raise ValueError("an empty reply")
        return text
