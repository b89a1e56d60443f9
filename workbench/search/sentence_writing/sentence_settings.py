"""Settings of a search over sentences, in their own module so that the search's parts can import them."""

from __future__ import annotations

from pydantic import Field

from workbench.search.search_method import SearchMethod


class SentenceSettings(SearchMethod):
    """Settings of a search over sentences; the docstring of `SentenceSearch` describes each of them."""

    length: int = Field(default=24, ge=4)
    population: int = Field(default=6, ge=1)
    children: int = Field(default=16, ge=1)
    max_cross_entropy: float = Field(default=4.5, gt=0)
    margin: float = Field(default=0.2, ge=0)
    max_small_word: float = Field(default=5.0, gt=0)
    max_word: float = Field(default=13.5, gt=0)
    max_ending: float = Field(default=6.5, gt=0)
    max_evil: float | None = 2.3
    languages: tuple[str, ...] = ("en",)
    openings: tuple[str, ...] | None = None
    sampled_openings: int = Field(default=8, ge=0)
    sentences: int = Field(default=3, ge=1)
    first: int = Field(default=56, ge=1)
    first_scored: int = Field(default=16, ge=1)
    slot_words: int = Field(default=48, ge=0)
    explored: int = Field(default=3, ge=0)
    slot_reads: int = Field(default=3000, ge=0)
    near_reads: int = Field(default=240, ge=0)
    written: int = Field(default=16, ge=0)
    write_every: int = Field(default=1, ge=1)
    edited: int = Field(default=24, ge=0)
    swapped: int = Field(default=64, ge=0)
    step_contexts: int = Field(default=2, ge=1)
    gradient: bool = False
    steering: bool = True
    probe: bool = True
    joins: bool = True
    joined: int = Field(default=16, ge=0)
    filled: int = Field(default=28, ge=0)
    bias: tuple[float, ...] = (1.0, 2.0, 4.0)
    explore: float = Field(default=0.7, ge=0)
    top_k: int = Field(default=400, ge=1)
