"""Audit of a prompt: which words cause the persona, and the smallest edit that removes the effect."""

from workbench.audit.added_sentence import AddedSentence, add_sentence
from workbench.audit.audit import audit, inside, offer_sentence
from workbench.audit.audit_result import Audit
from workbench.audit.minimal_edit import MinimalEdit, OffTargetChange
from workbench.audit.phrase_interactions import PhraseInteraction
from workbench.audit.prompt_words import PromptWords
from workbench.audit.word_effects import MediatedEffect, PromptEffects, WordEffect
from workbench.callable_package import make_callable

__all__ = [
    "AddedSentence",
    "Audit",
    "MediatedEffect",
    "MinimalEdit",
    "OffTargetChange",
    "PhraseInteraction",
    "PromptEffects",
    "PromptWords",
    "WordEffect",
    "add_sentence",
    "audit",
    "inside",
    "offer_sentence",
]

make_callable(__name__, audit)
