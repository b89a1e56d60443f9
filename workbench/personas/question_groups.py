"""Rules that give the group of a question; items of one group are never in two splits.

- `by_claim` (sycophancy): the same claim appears in many biographies. If the options only agree or disagree,
  the claim is the text after the last question mark, otherwise the last sentence; if the options are opinions
  themselves (political questions), the pair of options is the claim.
- `by_content` (myopic reward): the words that say what is offered, without amounts, times and the wording of
  the offer.
- `by_question`: the question without case, spacing, punctuation and numbers.
- `join_same_questions` then joins groups that have a question in common, whichever rule made them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace

from workbench.personas.persona import Item
from workbench.text_forms import canonical, words_of

Grouping = Callable[[str, tuple[str, str]], str]

STANCES = frozenset(frozenset(pair) for pair in (("agree", "disagree"), ("yes", "no"), ("true", "false")))

_TIMES = """
now today tonight tomorrow later soon sooner immediately immediate right away instantly currently second minute hour
day week month year decade century morning afternoon evening night time next wait waiting future present delay delayed
until moment half past upfront longer long
"""
_AMOUNTS = """
zero one two three four five six seven eight nine ten eleven twelve fifteen twenty thirty forty fifty sixty seventy
eighty ninety hundred thousand million billion trillion quadrillion dozen once twice double triple half couple few
several many much more less most least another extra additional single pair first small smaller smallest large larger
largest big bigger biggest great greater little lot amount number total worth percent chance
"""
_FRAME = """
a an the of to in on at for from by with and or but if than then that this these those it its is are was be been being
am do does did have has had having will would could can should shall may might must not no any some all both each
either every as so just only also about after before into out up over per during between within where when while which
what who how why there here i you me my your yours we us our they them their he she his her one ones like prefer
preference rather choose choice choosing option offer offered offering receive receiving get getting give given giving
gave take taking want pick select decide decision decided make making go going think say said tell let assume imagine
suppose consider following different two please able available opportunity ask asked guarantee guaranteed were win
winning won earn earning sure instead because however though become start begin
"""
_EMPTY = frozenset(f"{_TIMES} {_AMOUNTS} {_FRAME}".split())


def by_claim(question: str, options: tuple[str, str]) -> str:
    """Return the group of a question in which users introduce themselves and state a claim.

    The group is the claim, without the introduction. If the options only agree or disagree, the claim is the
    text after the last question mark, or the last sentence. Otherwise it is the pair of options, sorted.

    Args:
        question: The question without its options.
        options: Texts of the two answers.

    Returns:
        The name of the group.
    """
    if frozenset(normal(option) for option in options) not in STANCES:
        return " / ".join(sorted(canonical(option) for option in options))
    claim = question.rpartition("?")[2].strip()
    return canonical(claim or re.split(r"(?<=[.!?])\s+", question.strip())[-1]) or by_question(
        question, options
    )


def by_content(question: str, options: tuple[str, str]) -> str:
    """Return the group of a question: its sorted content words, without amounts, times and common words.

    A question without content words is grouped by its whole text (`by_question`).
    """
    found = {
        part for word in words_of(question.replace("$", " dollar ")) for part in re.split(r"[\d_]+", word)
    } - _EMPTY
    words = {_singular(word) for word in found if len(word) > 2 or word in ("ai", "tv")}
    return " ".join(sorted(words - _EMPTY)) or by_question(question, options)


def by_question(question: str, options: tuple[str, str]) -> str:
    """Return the group of a question: its text without case, spacing, punctuation and numbers."""
    return re.sub(r"\d+", "#", normal(question)) or canonical(question) or question


def normal(text: str) -> str:
    """Return a text as case-folded words and numbers in one Unicode form, separated by single spaces.

    Texts are compared in this form.
    """
    return " ".join(words_of(text))


def join_same_questions(items: Sequence[Item]) -> tuple[Item, ...]:
    """Merge groups of related questions that have a question in common.

    Names that differ only in Unicode form are one group. The merged group gets the name that sorts first, so
    that the order of the rows does not matter. The items are returned with the new names of their groups.
    """
    parent: dict[str, str] = {}
    first_of: dict[str, str] = {}
    groups = [canonical(item.group) or item.group for item in items]
    for item, name in zip(items, groups, strict=True):
        group = _root(parent, name)
        known = _root(parent, first_of.setdefault(normal(item.question) or item.question, group))
        if known != group:
            parent[max(known, group)] = min(known, group)
    return tuple(replace(item, group=_root(parent, name)) for item, name in zip(items, groups, strict=True))


def _root(parent: dict[str, str], group: str) -> str:
    while group in parent:
        group = parent[group]
    return group


def _singular(word: str) -> str:
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word
