"""Who proposes prompts: a function from a request to a reply. A local model, an OpenAI-compatible endpoint, or a script."""

from workbench.evaluation.replies import Ask as Proposer
from workbench.evaluation.replies import Endpoint, LocalModel, Missing, Scripted

__all__ = ["Endpoint", "LocalModel", "Missing", "Proposer", "Scripted"]
