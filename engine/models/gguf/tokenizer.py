"""Read the tokenizer of a GGUF file with transformers, and add the rules of llama.cpp that transformers omits.

A byte-level vocabulary (gpt2) splits a text into words before merging; the file gives only the name of the rule, tokenizer.ggml.pre. An
unknown name is refused, because the text would be split differently and yield other tokens.
"""

import math
from typing import Any

from gguf import GGUFValueType

from engine.errors import SourceError, reason_of
from engine.messages import Message
from engine.models.gguf.file import GgufFile

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

_KEY = "tokenizer.ggml."
_LISTS = {
    "tokens": GGUFValueType.STRING,
    "token_type": GGUFValueType.INT32,
    "scores": GGUFValueType.FLOAT32,
    "merges": GGUFValueType.STRING,
}


def gguf_tokenizer(gguf: GgufFile) -> Any:
    """Return the tokenizer of a file's model.

    Raises:
        SourceError: the tokenizer cannot be read.
        UnsupportedModelError: it would yield other tokens here than in llama.cpp.
    """
    from transformers import PreTrainedTokenizerFast
    from transformers.integrations.gguf import convert_gguf_tokenizer

    require_known(gguf)
    lists = lists_of(gguf)
    settings = _settings(gguf, lists["tokens"])
    parts = {**lists, "tokenizer_type": gguf.value("tokenizer.ggml.model"), "pre_tokenizer_type": gguf.value("tokenizer.ggml.pre")}
    spaced = gguf.typed("tokenizer.ggml.add_space_prefix", GGUFValueType.BOOL) is not False
    try:
        backend, _ = convert_gguf_tokenizer(gguf.architecture, parts)
        if parts["tokenizer_type"] == "gpt2":
            _cut(backend, pre_of(gguf))
        else:
            _prefix(backend, spaced)
        return PreTrainedTokenizerFast(tokenizer_object=backend, **settings)
    except Exception as error:  # tokenizers raise many kinds of errors
        raise SourceError("{path}: its tokenizer cannot be read: {reason}", path=gguf.path, reason=reason_of(error)) from error


def pre_of(gguf: GgufFile) -> str:
    """Return the name of a file's rule for splitting texts."""
    return gguf.typed("tokenizer.ggml.pre", GGUFValueType.STRING) or "default"


def require_known(gguf: GgufFile) -> None:
    """Raise UnsupportedModelError for an unknown tokenizer type or split rule."""
    kind, pre = gguf.value("tokenizer.ggml.model"), pre_of(gguf)
    if kind not in ("gpt2", "llama"):
        raise gguf.unread("tokenizer.ggml.model", kind, Message("supported tokenizers: gpt2 and llama"))
    if kind == "gpt2" and pre not in CUTS:
        raise gguf.unread("tokenizer.ggml.pre", pre, Message("its rule for splitting a text into words is unknown"))


def lists_of(gguf: GgufFile) -> dict[str, list[Any]]:
    """Return a tokenizer's lists, those that the file has.

    Raises:
        SourceError: a list is missing, of another type, or not as long as the list of tokens.
    """
    found: dict[str, list[Any]] = {}
    for name, kind in _LISTS.items():
        if (held := gguf.typed(_KEY + name, GGUFValueType.ARRAY, kind)) is not None:
            found[name] = held
    by_merges = gguf.value("tokenizer.ggml.model") == "gpt2" or "merges" in found
    for name in ("tokens", "merges" if by_merges else "scores"):
        if name not in found:
            raise SourceError("{path}: the tokenizer's required key {key} is missing", path=gguf.path, key=_KEY + name)
    tokens = len(found["tokens"])
    for name, held in found.items():
        if name != "merges" and len(held) != tokens:
            raise SourceError(
                "{path}: {key} has {count} items, but there are {tokens} tokens",
                path=gguf.path,
                key=_KEY + name,
                count=len(held),
                tokens=tokens,
            )
    if not all(map(math.isfinite, found.get("scores", []))):
        raise SourceError("{path}: {name} contains numbers that are not finite", path=gguf.path, name=_KEY + "scores")
    return found


def _settings(gguf: GgufFile, tokens: list[str]) -> dict[str, Any]:
    """Return a tokenizer's special tokens, its template, and whether it adds a begin and an end token to every text."""
    settings: dict[str, Any] = {"chat_template": gguf.typed("tokenizer.chat_template", GGUFValueType.STRING), **_added(gguf)}
    for name, ours in {"bos": "bos_token", "eos": "eos_token", "unknown": "unk_token", "padding": "pad_token"}.items():
        token = gguf.token(name)
        if token is not None and not 0 <= token < len(tokens):
            reason = Message("the model has {known} tokens", known=len(tokens))
            raise gguf.unread(f"tokenizer.ggml.{name}_token_id", token, reason)
        settings[ours] = None if token is None else tokens[token]
    return settings


def _added(gguf: GgufFile) -> dict[str, bool]:
    """Return whether a begin and an end token are added to every text, by the file or as llama.cpp does unasked."""
    usual = {"bos": gguf.value("tokenizer.ggml.model") == "llama" or pre_of(gguf) in _WHOLE_WORDS, "eos": False}
    found = {}
    for name, default in usual.items():
        said = gguf.typed(f"{_KEY}add_{name}_token", GGUFValueType.BOOL)
        found[f"add_{name}_token"] = bool(default if said is None else said)
        if found[f"add_{name}_token"] and gguf.token(name) is None:
            raise SourceError(
                "{path}: its tokenizer adds a token to every text, but {key} does not name one",
                path=gguf.path,
                key=f"{_KEY}{name}_token_id",
            )
    return found


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
