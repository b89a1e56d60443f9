"""Language models that answer a request in words, used as judges and to propose prompts.

A model is a local one, an OpenAI-compatible endpoint, or a script. If no usable reply comes (time-out,
refusal, invalid data), `MissingReply` is raised after a limited number of attempts, so it never counts as an
answer. A reply that was cut off by its token limit raises `CutReply`: its text may be used as a list of
prompts, but not as a verdict ("100" may be cut to "1").
"""

from __future__ import annotations

import http.client
import json
import math
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

import torch
from typing_extensions import override

from workbench.errors import UserError
from workbench.models import Runner, runner_for
from workbench.models.token_text import token_texts

#: A function from a request in words to a reply in words; it raises `MissingReply` if no usable reply came.
Ask = Callable[[str], str]


class MissingReply(Exception):
    """A language model gave no usable reply; the message says why."""


class CutReply(MissingReply):
    """A reply was cut off by its token limit.

    Attributes:
        text: The part of the reply that came.
    """

    def __init__(self, text: str) -> None:
        super().__init__(f"the reply was cut off by its limit of tokens: {_one_line(text)!r}")
        self.text = text


def whole_lines(ask: Ask, request: str) -> str:
    """Return a model's reply; of a reply that was cut off, only its complete lines.

    If a cut reply has one line, that line is returned. Use it for proposals, which are measured afterwards,
    and never for a verdict.

    Args:
        ask: The model, a function from a request to a reply.
        request: Text of the request.
    """
    try:
        return ask(request)
    except CutReply as cut:
        return cut.text.rpartition("\n")[0] or cut.text


@dataclass
class ScriptedModel:
    """A substitute for a language model in tests: gives its replies in order, then raises `MissingReply`."""

    replies: Sequence[str]
    asked: int = 0

    def __call__(self, request: str) -> str:
        """Return the next reply, whatever the request; raise `MissingReply` after the last one."""
        self.asked += 1
        if self.asked > len(self.replies):
            raise MissingReply("the script has no more replies")
        return self.replies[self.asked - 1]


@dataclass(frozen=True)
class LocalModel:
    """A loaded model that replies to requests; the seed of its sampling depends on the request's length.

    Attributes:
        model: A loaded model or its runner.
        max_new_tokens: Token limit of a reply; a longer reply raises `CutReply`.
        temperature: Sampling temperature; 0 is greedy.
        seed: Added to the request's number of tokens to seed the sampling.
        opening: Words that every reply begins with; they are not in the returned text.
        one_line: Whether a reply ends with its first line.
    """

    model: Any
    max_new_tokens: int = 120
    temperature: float = 0.8
    seed: int = 0
    opening: str = ""
    one_line: bool = False

    def __call__(self, request: str) -> str:
        """Return the model's reply to one user message.

        Args:
            request: Text of the message.

        Raises:
            CutReply: The reply reached its token limit.
            MissingReply: The request leaves no room for a reply in the model's context.
        """
        runner = runner_for(self.model)
        ids = runner.encode(runner.render([{"role": "user", "content": request}], self.opening))
        if len(ids) + self.max_new_tokens > runner.shape.n_ctx:
            raise MissingReply(
                f"a request of {len(ids)} tokens leaves no room for a reply in {runner.shape.n_ctx}"
            )
        generator = torch.Generator().manual_seed(self.seed + len(ids))
        new = runner.generate(
            torch.tensor([ids]), self.max_new_tokens, self.temperature, generator, ends=self._ends(runner)
        )[0].tolist()
        stop = next((n for n, token in enumerate(new) if token in self._ends(runner)), None)
        if stop is None:
            raise CutReply(runner.decode(new))
        return runner.decode(new[:stop])

    def _ends(self, runner: Runner) -> frozenset[int]:
        """Return the tokens that end a reply; with one_line also tokens that contain a line break."""
        return runner.reply_ends | line_breaks(runner) if self.one_line else runner.reply_ends


def line_breaks(runner: Runner) -> frozenset[int]:
    """Return the ids of the tokens whose text contains a line break; found once per tokenizer."""
    known = runner.tokenizer.__dict__
    if "workbench_line_breaks" not in known:
        texts = token_texts(runner.tokenizer, [[token] for token in range(len(runner.tokenizer))])
        known["workbench_line_breaks"] = frozenset(token for token, text in enumerate(texts) if "\n" in text)
    return known["workbench_line_breaks"]


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Refuse redirects: Python's handler would send the key to whatever address a server names."""

    @override
    def redirect_request(self, *_: Any) -> None:
        return None


_OPENER = urllib.request.build_opener(_NoRedirect)


@dataclass(frozen=True)
class Endpoint:
    """A chat endpoint with OpenAI's interface.

    Time-outs, rate limits and server errors are tried again; after the last attempt `MissingReply` is raised.
    It is also raised at once if the server refuses one request (by a content filter, or for its length), with
    the server's message. A wrong key, model, address or parameter is a UserError.

    Attributes:
        base_url: Address of the interface, ending in /v1.
        model: Name of the model on the server.
        key_variable: Name of the environment variable with the key. None: no key is sent.
        temperature: Sampling temperature. None: not sent, for servers that do not accept it.
        timeout: Seconds to wait for a reply.
        retries: Number of attempts after the first.
        longest_wait: Most seconds between two attempts; a shorter wait that the server names is used.
    """

    base_url: str
    model: str
    key_variable: str | None = None
    temperature: float | None = 0.8
    timeout: float = 60.0
    retries: int = 3
    longest_wait: float = 30.0

    def __post_init__(self) -> None:
        if not self.base_url.startswith(("http://", "https://")):
            raise UserError(f"an endpoint's address begins with http:// or https://, found {self.base_url!r}")

    def __call__(self, request: str) -> str:
        """Return the endpoint's reply to one user message.

        Args:
            request: Text of the message.

        Raises:
            MissingReply: The server refused the request, or the last attempt failed.
            UserError: The key, the model, the address or a parameter is wrong.
        """
        problem, post = "no attempt was made", self._post(request)
        for attempt in range(self.retries + 1):
            try:
                return self._ask(post)
            except urllib.error.HTTPError as error:
                problem = self._problem(error)
                wait = _seconds(error.headers.get("Retry-After", ""), 2.0**attempt)
            except (
                OSError,
                ValueError,
                KeyError,
                IndexError,
                TypeError,
                AttributeError,
                RecursionError,
                http.client.HTTPException,
            ) as error:
                problem, wait = f"{type(error).__name__}: {error}", 2.0**attempt
            if attempt < self.retries:
                time.sleep(min(wait, self.longest_wait))
        raise MissingReply(f"{self.base_url} gave no usable reply in {self.retries + 1} attempts ({problem})")

    def _post(self, request: str) -> urllib.request.Request:
        body: dict[str, Any] = {"model": self.model, "messages": [{"role": "user", "content": request}]}
        if self.temperature is not None:
            body["temperature"] = self.temperature
        headers = {"Content-Type": "application/json"}
        if self.key_variable:
            key = os.environ.get(self.key_variable)
            if not key:
                raise UserError(
                    f"the environment variable {self.key_variable} is not set: it should hold the endpoint's key"
                )
            headers["Authorization"] = f"Bearer {key}"
        address = self.base_url.rstrip("/") + "/chat/completions"
        return urllib.request.Request(address, json.dumps(body).encode(), headers)

    def _ask(self, post: urllib.request.Request) -> str:
        with _OPENER.open(post, timeout=self.timeout) as reply:
            choice = json.loads(reply.read(1 << 22))["choices"][0]
        message, reason = choice["message"], choice.get("finish_reason")
        text = _text_of(message.get("content"))
        if reason == "content_filter" or (not text.strip() and message.get("refusal")):
            raise MissingReply(
                f"{self.base_url} did not answer: {_one_line(message.get('refusal') or 'its content filter stopped the reply')}"
            )
        if reason in ("length", "max_tokens"):
            raise CutReply(text)
        if not text.strip():
            raise ValueError("an empty reply")
        return text

    def _problem(self, error: urllib.error.HTTPError) -> str:
        """Describe a server's error if a retry may help; raise an error otherwise."""
        said = f"HTTP {error.code}: {_server_words(error)}"
        if error.code in _RETRIED or error.code >= 500:
            return said
        if error.code in _REDIRECTS:
            where = error.headers.get("Location", "no address")
            raise UserError(
                f"{self.base_url} sends its requests on to {_one_line(where)}: name the address that answers itself"
            ) from error
        if self.temperature is not None and error.code in (400, 422) and "temperature" in said.lower():
            raise UserError(
                f"{self.base_url} refuses the parameter temperature ({said}): pass temperature=None"
            ) from error
        if error.code in _MISTAKES:
            raise UserError(f"{self.base_url} refused the request for {self.model!r}: {said}") from error
        raise MissingReply(f"{self.base_url} refused this request: {said}") from error


#: HTTP statuses for which a retry may help, and those of a wrong key, address or model.
_RETRIED = frozenset({408, 409, 425, 429})
_MISTAKES = frozenset({401, 403, 404, 405})
_REDIRECTS = range(300, 400)


def _server_words(error: urllib.error.HTTPError) -> str:
    """Return the message in an error's body as one line, or the reason phrase of its status."""
    try:
        body = error.read(1 << 16).decode("utf-8", "replace")
    except (OSError, http.client.HTTPException):
        body = ""
    try:
        found = json.loads(body)
        found = found.get("error", found.get("detail", found)) if isinstance(found, dict) else found
        found = found.get("message", found) if isinstance(found, dict) else found
        body = found if isinstance(found, str) else json.dumps(found)
    except ValueError:
        pass
    return _one_line(body) or str(error.reason)


def _text_of(content: Any) -> str:
    """Return a message's text: its string, or the joined text of its parts."""
    parts = content if isinstance(content, list) else [{"text": content}]
    return "".join(
        part["text"] for part in parts if isinstance(part, dict) and isinstance(part.get("text"), str)
    )


def _seconds(asked: str, otherwise: float) -> float:
    """Return the seconds that a Retry-After header (seconds or a date) demands, else `otherwise`."""
    try:
        wait = float(asked)
    except ValueError:
        try:
            wait = parsedate_to_datetime(asked).timestamp() - time.time()
        except ValueError:
            return otherwise
    return max(0.0, wait) if math.isfinite(wait) else otherwise


def _one_line(text: str, limit: int = 200) -> str:
    line = " ".join(text.split())
    return line if len(line) <= limit else f"{line[:limit]}..."
