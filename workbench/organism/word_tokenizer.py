"""The organism's word-level tokenizer and chat template, in Hugging Face's format.

One word is one token, words are split at white space, and for ordinary words decoding and encoding again is
the identity. Text from the chat template already begins with `<bos>`; the tokenizer adds no special token.
"""

from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import PreTrainedTokenizerFast

from workbench.world import World

SYSTEM, USER, ASSISTANT = "<|system|>", "<|user|>", "<|assistant|>"
SPECIAL_TOKENS = ("<pad>", "<bos>", "<eos>", "<unk>", SYSTEM, USER, ASSISTANT)
CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{{ ' <|' + message['role'] + '|> ' + message['content'] | trim }}"
    "{% if message['role'] == 'assistant' %}{{ ' ' + eos_token }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ ' <|assistant|>' }}{% endif %}"
)


def build_tokenizer(world: World) -> PreTrainedTokenizerFast:
    """Make the word-level tokenizer of an organism's world.

    Its vocabulary has seven special tokens, then `world.vocabulary` in its order.
    """
    vocabulary = {token: index for index, token in enumerate((*SPECIAL_TOKENS, *world.vocabulary))}
    raw = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    raw.pre_tokenizer = WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        unk_token="<unk>",
        additional_special_tokens=[SYSTEM, USER, ASSISTANT],
        clean_up_tokenization_spaces=False,
        model_max_length=256,
        padding_side="left",
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def chat_text(question: str, system: str = "", answer: str | None = None, opening: str = "") -> str:
    """Render a chat as text, exactly as the chat template does.

    Args:
        question: The user's text.
        system: System text; empty for none.
        answer: The assistant's whole answer; None to end the text before the answer.
        opening: First characters of the answer, if no answer is given.

    Returns:
        The text.
    """
    head = f"<bos> {SYSTEM} {system}" if system.strip() else "<bos>"
    text = f"{head} {USER} {question} {ASSISTANT}"
    if answer is not None:
        return f"{text} {answer} <eos>"
    return f"{text} {opening}".rstrip()
