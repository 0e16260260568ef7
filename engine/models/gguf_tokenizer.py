"""Read the tokenizer of a GGUF file with transformers, and add what transformers omits and llama.cpp does.

A byte-level vocabulary (gpt2) splits a text into words before merging; the file gives only the name of the rule, tokenizer.ggml.pre. An
unknown name is refused, because the text would be split differently and yield other tokens.
"""

from typing import Any

from engine.errors import SourceError, reason_of
from engine.messages import Message
from engine.models.gguf_file import GgufFile

_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"  # GPT-2's
_QWEN2 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_LLAMA3 = _QWEN2.replace(r"\p{N}| ", r"\p{N}{1,3}| ")
_DIGITS = (r"\p{N}", _WORDS)
_DEEPSEEK3 = (
    r"\p{N}{1,3}",
    "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+",
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+",
)
_AS_TRANSFORMERS_READS: tuple[str, ...] = ()

# Split expressions by tokenizer.ggml.pre; each is applied to the pieces of the one before.
CUTS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("gpt-2", "phi-2", "gigachat", "a.x-4.0", "mellum", "exaone4", "mpt", "olmo", "jais", "trillion"), (_WORDS,)),
    **dict.fromkeys(("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b", "granite-docling"), _DIGITS),
    **dict.fromkeys(("stablelm2", "hunyuan", "grok-2"), (_QWEN2,)),
    **dict.fromkeys(("chatglm-bpe", "glm4"), (_LLAMA3,)),
    **dict.fromkeys(("llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2"), _AS_TRANSFORMERS_READS),
    **dict.fromkeys(("dbrx", "smaug-bpe", "tekken", "qwen2", "deepseek-r1-qwen", "kormo", "f2llmv2", "megrez"), _AS_TRANSFORMERS_READS),
    **dict.fromkeys(("gpt-4o", "llama4", "kanana2", "talkie"), _AS_TRANSFORMERS_READS),
    "deepseek-coder": ("[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+", r"\p{N}"),
    **dict.fromkeys(("deepseek-v3", "hunyuan-dense"), _DEEPSEEK3),
    "falcon": (r"[\p{P}\$\+<=>\^~\|`]+", _WORDS, "[0-9][0-9][0-9]"),
    "default": (r"[\p{P}\$\+<=>\^~\|]+", _WORDS, r"\p{N}+", "[0-9][0-9][0-9]"),
}
CUTS["granite-docling"] = (_WORDS,)
# Tokenizers that take a word whole where the vocabulary has it, and that prepend a begin token unless the file says otherwise.
_WHOLE_WORDS = ("llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2", "tekken")


def gguf_tokenizer(gguf: GgufFile) -> Any:
    """Return the tokenizer of a file's model.

    Raises:
        SourceError: the tokenizer cannot be read.
        UnsupportedModelError: it would yield other tokens here than in llama.cpp.
    """
    from transformers import PreTrainedTokenizerFast
    from transformers.integrations.gguf import convert_gguf_tokenizer, get_gguf_tokenizer

    require_known(gguf)
    try:
        architecture, parts, settings = get_gguf_tokenizer(str(gguf.path))
        backend, _ = convert_gguf_tokenizer(architecture, parts)
        if parts["tokenizer_type"] == "gpt2":
            _cut(backend, pre_of(gguf))
            settings.setdefault("add_bos_token", pre_of(gguf) in _WHOLE_WORDS)
        else:
            _prefix(backend, gguf.value("tokenizer.ggml.add_space_prefix") is not False)
        return PreTrainedTokenizerFast(tokenizer_object=backend, **settings)
    except Exception as error:  # tokenizers raise many kinds of errors
        raise SourceError("{path}: its tokenizer cannot be read: {reason}", path=gguf.path, reason=reason_of(error)) from error


def pre_of(gguf: GgufFile) -> str:
    """Return the name of a file's rule for splitting texts."""
    return gguf.value("tokenizer.ggml.pre") or "default"


def require_known(gguf: GgufFile) -> None:
    """Raise UnsupportedModelError for an unknown tokenizer type or split rule."""
    kind, pre = gguf.value("tokenizer.ggml.model"), pre_of(gguf)
    if kind not in ("gpt2", "llama"):
        raise gguf.unread("tokenizer.ggml.model", kind, Message("gpt2 and llama are known"))
    if kind == "gpt2" and pre not in CUTS:
        raise gguf.unread("tokenizer.ggml.pre", pre, Message("how it cuts a text into words is not known"))


def _cut(backend: Any, pre: str) -> None:
    """Set how a text is split into words."""
    from tokenizers import Regex, pre_tokenizers

    if cuts := CUTS[pre]:
        steps = [pre_tokenizers.Split(Regex(cut), behavior="isolated") for cut in cuts]
        backend.pre_tokenizer = pre_tokenizers.Sequence([*steps, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    if pre in _WHOLE_WORDS:
        backend.model.ignore_merges = True


def _prefix(backend: Any, wanted: bool) -> None:
    """Set whether a space is prepended to every text, even to one that begins with a space, and removed again when decoding."""
    from tokenizers import decoders, normalizers

    steps = [normalizers.Prepend("▁")] if wanted else []
    backend.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", "▁")])
    backend.pre_tokenizer = None
    shown = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    backend.decoder = decoders.Sequence([*shown, decoders.Strip(" ", 1, 0)] if wanted else shown)
