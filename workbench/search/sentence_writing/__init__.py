"""Parts of a search over sentences: their form, a writer that samples them, and a model of word effects."""

from workbench.search.sentence_writing.sentence_form import SentenceForm, load_form
from workbench.search.sentence_writing.sentence_writer import ScreenedSentences, SentenceDraft, SentenceWriter
from workbench.search.sentence_writing.word_effect_model import WordEffectModel, fit_effects

__all__ = [
    "ScreenedSentences",
    "SentenceDraft",
    "SentenceForm",
    "SentenceWriter",
    "WordEffectModel",
    "fit_effects",
    "load_form",
]
