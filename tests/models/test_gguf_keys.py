"""Every key that the GGUF library knows is listed here as mapped, harmless or refused. A refusal names its key."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGMLQuantizationType, GGUFValueType, Keys

from engine.errors import SourceError
from engine.models.gguf.keys import HARMLESS, MAPPED, REFUSED, account_of
from engine.models.inspection import inspect_gguf
from engine.models.sources import parse_source
from tests.families import tiny_network
from tests.ggufs import array, refused, whole, write_gguf

ARCHITECTURES = ("llama", "qwen2", "qwen3", "gemma3", "phi3", "gpt2")
SAID = {  # of a llama, without "{arch}." and "general."; `ELSEWHERE` says where others differ
    "mapped": """
        architecture alignment vocab_size context_length embedding_length block_count feed_forward_length
        attention.head_count attention.head_count_kv attention.key_length attention.value_length attention.layer_norm_rms_epsilon
        attention.sliding_window rope.dimension_count rope.freq_base rope.scaling.type rope.scaling.factor rope.scaling.attn_factor
        rope.scaling.original_context_length rope.scaling.yarn_attn_factor rope.scaling.yarn_beta_fast rope.scaling.yarn_beta_slow
        tokenizer.ggml.model tokenizer.ggml.pre tokenizer.ggml.tokens tokenizer.ggml.token_type tokenizer.ggml.scores tokenizer.ggml.merges
        tokenizer.ggml.bos_token_id tokenizer.ggml.eos_token_id tokenizer.ggml.unknown_token_id tokenizer.ggml.padding_token_id
        tokenizer.ggml.add_bos_token tokenizer.ggml.add_eos_token tokenizer.ggml.add_space_prefix tokenizer.chat_template""",
    "harmless": """
        file_type sampling.sequence sampling.top_k sampling.top_p sampling.min_p sampling.xtc_probability sampling.xtc_threshold
        sampling.temp sampling.penalty_last_n sampling.penalty_repeat sampling.mirostat sampling.mirostat_tau sampling.mirostat_eta
        name author version organization finetune basename description quantized_by size_label license license.name license.link url doi
        uuid repo_url source.url source.doi source.uuid source.repo_url
        base_model.count base_model.{id}.name base_model.{id}.author base_model.{id}.version base_model.{id}.organization
        base_model.{id}.description base_model.{id}.url base_model.{id}.doi base_model.{id}.uuid base_model.{id}.repo_url
        dataset.count dataset.{id}.name dataset.{id}.author dataset.{id}.version dataset.{id}.organization dataset.{id}.description
        dataset.{id}.url dataset.{id}.doi dataset.{id}.uuid dataset.{id}.repo_url tags languages
        tensor_data_layout pooling_type rope.scaling.finetuned split.no split.tensors.count
        tokenizer.ggml.token_type_count tokenizer.ggml.eot_token_id tokenizer.ggml.eom_token_id tokenizer.ggml.seperator_token_id
        tokenizer.ggml.mask_token_id tokenizer.ggml.remove_extra_whitespaces tokenizer.ggml.precompiled_charsmap
        tokenizer.ggml.fim_pre_token_id tokenizer.ggml.fim_suf_token_id tokenizer.ggml.fim_mid_token_id tokenizer.ggml.fim_pad_token_id
        tokenizer.ggml.fim_rep_token_id tokenizer.ggml.fim_sep_token_id tokenizer.ggml.prefix_token_id tokenizer.ggml.suffix_token_id
        tokenizer.ggml.middle_token_id tokenizer.huggingface.json tokenizer.chat_template.{name} tokenizer.chat_templates""",
    "refused": """
        type quantization_version split.count tokenizer.ggml.add_sep_token tokenizer.rwkv.world
        embedding_length_out features_length leading_dense_block_count use_parallel_residual nextn_predict_layers n_deepstack_layers
        expert_feed_forward_length expert_shared_feed_forward_length expert_chunk_feed_forward_length expert_count expert_used_count
        expert_shared_count expert_group_count expert_group_used_count expert_weights_scale expert_weights_norm expert_gating_func
        expert_group_scale experts_per_group moe_every_n_layers moe_latent_size interleave_moe_layer_step
        logit_scale residual_scale embedding_scale attn_logit_softcapping router_logit_softcapping final_logit_softcapping
        decoder_start_token_id decoder_block_count swin_norm rescale_every_n_layers time_mix_extra_dim time_decay_extra_dim
        token_shift_count full_attention_interval activation_sparsity_scale altup.active_idx altup.num_inputs
        embedding_length_per_layer_input swiglu_clamp_exp swiglu_clamp_shexp {dense}_feat_in {dense}_feat_out
        attention.max_alibi_bias attention.clamp_kqv attention.layer_norm_epsilon attention.group_norm_epsilon attention.group_norm_groups
        attention.causal attention.q_lora_rank attention.kv_lora_rank attention.decay_lora_rank attention.iclr_lora_rank
        attention.value_residual_mix_lora_rank attention.gate_lora_rank attention.relative_buckets_count attention.scale
        attention.output_scale attention.temperature_length attention.temperature_scale attention.key_length_mla attention.value_length_mla
        attention.key_length_swa attention.value_length_swa attention.shared_kv_layers attention.sliding_window_pattern
        attention.indexer.head_count attention.indexer.key_length attention.indexer.top_k
        rope.dimension_count_swa rope.dimension_sections rope.freq_base_swa rope.scaling.alpha
        rope.scaling.yarn_ext_factor rope.scaling.yarn_log_multiplier
        ssm.conv_kernel ssm.inner_size ssm.state_size ssm.time_step_rank ssm.group_count ssm.dt_b_c_rms kda.head_dim wkv.head_size
        posnet.embedding_length posnet.block_count convnext.embedding_length convnext.block_count classifier.output_labels
        shortconv.l_cache""",
}  # fmt: skip
ELSEWHERE = {
    "qwen2": {"attention.sliding_window": "refused"},
    "qwen3": {"attention.sliding_window": "refused"},
    "gemma3": dict.fromkeys(("final_logit_softcapping", "attention.sliding_window_pattern", "rope.freq_base_swa"), "mapped"),
    "gpt2": {
        "attention.layer_norm_epsilon": "mapped",
        "attention.layer_norm_rms_epsilon": "refused",
        "attention.sliding_window": "refused",
    },
}
OTHER_FILES = ("adapter.", "imatrix.", "clip.", "diffusion.", "xielu.")  # whose keys are refused one and all


def known(holder: Any = Keys) -> Iterator[str]:
    for name, value in vars(holder).items():
        if isinstance(value, type):
            yield from known(value)
        elif isinstance(value, str) and not name.startswith("_"):
            yield value


def expected(key: str, architecture: str) -> str:
    name = key.removeprefix("{arch}.").removeprefix("general.")
    if name in ELSEWHERE.get(architecture, {}):
        return ELSEWHERE[architecture][name]
    if architecture == "gpt2" and name.startswith("rope.") and name != "rope.scaling.finetuned":
        return "refused"
    found = [kind for kind, names in SAID.items() if name in names.split()]
    return found[0] if len(found) == 1 else f"said {len(found)} times"


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_what_becomes_of_each_key_of_the_library_is_said(architecture: str) -> None:
    assert len(set(known())) > 200  # the search itself works
    for key in set(known()):
        filled = key.replace("{arch}", architecture).replace("{id}", "0").replace("{name}", "tools").replace("{dense}", "dense_2")
        found = account_of(filled, architecture)
        wanted = "refused" if key.startswith(OTHER_FILES) else expected(key, architecture)
        assert (key, found.kind) == (key, wanted)
        assert bool(found.reason) == (found.kind != "mapped"), key


def test_a_pattern_stands_in_one_table() -> None:
    shared = {key for key in {*MAPPED} & {*REFUSED} if set(MAPPED[key]) >= set(ARCHITECTURES)}
    assert not shared
    assert not {*HARMLESS} & {*MAPPED, *REFUSED}


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        ("llama.some_new_switch", "refused"),
        ("qwen2.attention.head_count", "refused"),  # of another architecture than the file's
        ("tokenizer.ggml.some_new_switch", "refused"),
        ("general.some_new_note", "harmless"),
        ("quantize.imatrix.file", "harmless"),
        ("layerscope.plan", "harmless"),
    ],
)
def test_a_key_that_nobody_told_us_of(key: str, kind: str) -> None:
    assert account_of(key, "llama").kind == kind


# --- files that are refused ---

F32 = np.float32
REFUSALS: dict[str, tuple[str, dict[str, Any], dict[str, Any], str]] = {  # family, keys, tensors, what is told
    "a scale": ("llama", {"attention.scale": 0.5}, {}, r"llama\.attention\.scale = 0\.5 is not supported: it scales"),
    "logits": ("llama", {"logit_scale": 0.25}, {}, r"llama\.logit_scale = 0\.25"),
    "embeddings": ("llama", {"embedding_scale": 12.0}, {}, r"llama\.embedding_scale = 12"),
    "residuals": ("llama", {"residual_scale": 0.22}, {}, r"llama\.residual_scale = 0\.22"),
    "a cap": ("qwen2", {"final_logit_softcapping": 30.0}, {}, r"qwen2\.final_logit_softcapping = 30\.0 is not supported: it caps"),
    "attention's cap": ("gemma3_text", {"attn_logit_softcapping": 50.0}, {}, r"gemma3\.attn_logit_softcapping = 50"),
    "alibi": ("gpt2", {"attention.max_alibi_bias": 8.0}, {}, r"gpt2\.attention\.max_alibi_bias = 8"),
    "a clamp": ("llama", {"attention.clamp_kqv": 8.0}, {}, r"llama\.attention\.clamp_kqv = 8"),
    "two ways": ("llama", {"attention.causal": False}, {}, r"llama\.attention\.causal = False"),
    "side by side": ("llama", {"use_parallel_residual": True}, {}, r"llama\.use_parallel_residual = True"),
    "experts": ("llama", {"expert_count": 8}, {}, r"llama\.expert_count = 8 is not supported: it belongs to a mixture of experts"),
    "a window": ("qwen2", {"attention.sliding_window": 16}, {}, r"qwen2\.attention\.sliding_window = 16"),
    "a window and biases": (
        "llama", {"attention.sliding_window": 16}, {"blk.0.attn_q.bias": np.ones(32, F32)},
        r"llama\.attention\.sliding_window = 16 is not supported: no stock class has both a window and biases",
    ),
    "a list of windows": (
        "gemma3_text", {"attention.sliding_window_pattern": array([False] * 6, GGUFValueType.BOOL)}, {},
        r"gemma3\.attention\.sliding_window_pattern = \[False",
    ),
    "narrow values": ("llama", {"attention.value_length": 4}, {}, r"llama\.attention\.value_length = 4 is not supported: keys are 8"),
    "part of a head": ("llama", {"rope.dimension_count": 4}, {}, r"llama\.rope\.dimension_count = 4 is not supported: a head has 8"),
    "axes": ("qwen2", {"rope.dimension_sections": array([2, 1, 1, 0], GGUFValueType.INT32)}, {}, r"qwen2\.rope\.dimension_sections = \["),
    "a scaling of no name": ("llama", {"rope.scaling.type": "dynamic"}, {}, r"llama\.rope\.scaling\.type = dynamic is not supported"),
    "another alpha": ("llama", {"rope.scaling.alpha": 1000.0}, {}, r"llama\.rope\.scaling\.alpha = 1000"),
    "no factors": ("llama", {"rope.scaling.type": "longrope"}, {}, r"llama\.rope\.scaling\.type = longrope .*rope_factors_short\.weight"),
    "yarn's factor without yarn": ("llama", {"rope.scaling.yarn_attn_factor": 2.0}, {}, r"llama\.rope\.scaling\.yarn_attn_factor = 2\.0"),
    "half of yarn": ("llama", {"rope.scaling.yarn_ext_factor": 0.5}, {}, r"llama\.rope\.scaling\.yarn_ext_factor = 0\.5"),
    "yarn's logarithm": ("llama", {"rope.scaling.yarn_log_multiplier": 0.7}, {}, r"llama\.rope\.scaling\.yarn_log_multiplier = 0\.7"),
    "bounds the wrong way round": ("llama", {"rope.scaling.yarn_beta_fast": 0.5}, {}, r"beta_fast = 0\.5 .*yarn_beta_slow, which is 1"),
    "layers unlike": (
        "llama", {"attention.head_count_kv": array([2, 2, 4, 2, 2, 2], GGUFValueType.INT32)}, {},
        r"llama\.attention\.head_count_kv = \[2, 2, 4, 2, 2, 2\] is not supported: its layers differ",
    ),
    "neurons unlike": (
        "llama", {"feed_forward_length": array([48, 48, 32, 48, 48, 48], GGUFValueType.INT32)}, {}, r"llama\.feed_forward_length = \[48",
    ),
    "a word": ("llama", {"block_count": "six"}, {}, r"llama\.block_count is 'six'; expected a number"),
    "an adapter": ("llama", {"general.type": "adapter"}, {}, r"general\.type = adapter is not supported: the file does not"),
    "LoRA": ("llama", {"adapter.lora.alpha": 16.0}, {}, r"adapter\.lora\.alpha = 16"),
    "a part": ("llama", {"split.count": (2, GGUFValueType.UINT16)}, {}, r"one part of a split GGUF file"),
    "a stranger": ("llama", {"some_new_switch": 1}, {}, r"llama\.some_new_switch = 1 is not supported: its effect is unknown"),
    "another tokenizer": ("llama", {"tokenizer.ggml.model": "t5"}, {}, r"tokenizer\.ggml\.model = t5 is not supported: supported"),
    "another cut": ("llama", {"tokenizer.ggml.pre": "some-new"}, {}, r"tokenizer\.ggml\.pre = some-new is not supported: its rule"),
    "a token beyond all": ("llama", {"tokenizer.ggml.padding_token_id": 300}, {}, r"padding_token_id = 300 .* the model has 300"),
    "no epsilon": ("llama", {"attention.layer_norm_rms_epsilon": None}, {}, r"llama\.attention\.layer_norm_rms_epsilon is missing"),
    "no depth": ("llama", {"block_count": None}, {}, r"required key llama\.block_count is missing"),
    "too few blocks": ("llama", {"block_count": 5}, {}, r"llama\.block_count says 5 blocks, but the tensors form 6"),
    "too many blocks": ("llama", {"block_count": 7}, {}, r"llama\.block_count says 7 blocks, but the tensors form 6"),
    "channels": ("llama", {"embedding_length": 64}, {}, r"llama\.embedding_length is 64, but token_embd\.weight has 32"),
    "a number beyond all": ("llama", {"attention.key_length": 2**31}, {}, r"llama\.attention\.key_length is 2147483648; .* at most 300"),
    "neurons": ("llama", {"feed_forward_length": 64}, {}, r"llama\.feed_forward_length is 64, but blk\.0\.ffn_down\.weight has 48"),
    "heads": ("llama", {"attention.key_length": 16}, {}, r"head_count \* attention\.key_length is 64, but blk\.0\.attn_q\.weight has 32"),
    "a head size that is not said": ("qwen3", {"attention.key_length": None, "attention.value_length": None,
        "rope.dimension_count": None}, {}, r"key_length is 32, but blk\.0\.attn_q\.weight has 64"),
    "shared keys": ("llama", {"attention.head_count_kv": 4}, {}, r"key_length is 32, but blk\.0\.attn_k\.weight has 16"),
    "words": ("llama", {"vocab_size": 299}, {}, r"llama\.vocab_size says 299 tokens, but token_embd\.weight has 300"),
    "positions": ("gpt2", {"context_length": 64}, {}, r"gpt2\.context_length is 64, but position_embd\.weight has 128"),
    "norms of queries": ("llama", {}, {"blk.0.attn_q_norm.weight": np.ones(8, F32)}, r"the tensor blk\.0\.attn_q_norm\.weight is not"),
    "a bias of the head": ("qwen2", {}, {"output.bias": np.ones(300, F32)}, r"the tensor output\.bias is not .*: 1\)"),
    "a bias without a switch": ("qwen2", {}, {"blk.2.attn_output.bias": np.ones(32, F32)}, r"the tensor blk\.2\.attn_output\.bias"),
    "a bias of a norm": ("llama", {}, {"output_norm.bias": np.ones(32, F32)}, r"the tensor output_norm\.bias is not supported"),
    "biases of phi3": ("phi3", {}, {"blk.0.attn_qkv.bias": np.ones(64, F32)}, r"the tensor blk\.0\.attn_qkv\.bias is not supported"),
    "scales of a tensor": ("llama", {}, {"blk.0.attn_q.scale": np.ones(1, F32)}, r"the tensor blk\.0\.attn_q\.scale is not supported"),
    "a mixture": ("llama", {}, {"blk.0.ffn_gate_exps.weight": np.ones((2, 48, 32), F32)}, r"the tensor blk\.0\.ffn_gate_exps\.weight"),
    "factors elsewhere": ("qwen2", {}, {"rope_freqs.weight": np.ones(4, F32)}, r"the tensor rope_freqs\.weight is not supported"),
    "factors without their scaling": ("llama", {}, {"rope_factors_long.weight": np.ones(4, F32)}, r"the tensor rope_factors_long\.weight"),
    "too few factors": ("llama", {}, {"rope_freqs.weight": np.ones(3, F32)}, r"rope_freqs\.weight has 3 factors"),
    "a tensor of another shape": ("llama", {}, {"blk.3.ffn_up.weight": np.ones((40, 32), F32)}, r"ffn_up\.weight has shape \(40, 32\)"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSALS)
def test_what_is_not_read_is_refused_by_its_name_and_value(case: str, tmp_path: Path) -> None:
    family, keys, tensors, words = REFUSALS[case]
    plain = {"gemma3_text": {"layer_types": None}, "qwen2": {"use_sliding_window": False}, "phi3": {}}.get(family, {})
    file = write_gguf(tmp_path / "tiny.gguf", tiny_network(family, **plain), whole(family, keys), tensors)
    told = refused(file)
    assert re.search(words, told), told
    assert "tiny.gguf" in told
    assert "truncated" not in told
    assert "\n" not in told


@pytest.mark.parametrize("case", ["a scale", "channels", "too few blocks", "layers unlike", "a scaling of no name", "an adapter"])
def test_looking_at_a_file_refuses_what_converting_it_does(case: str, tmp_path: Path) -> None:
    family, keys, tensors, _ = REFUSALS[case]
    file = write_gguf(tmp_path / "tiny.gguf", tiny_network(family), whole(family, keys), tensors)
    with pytest.raises(SourceError) as told:
        inspect_gguf(file, parse_source(str(file)))
    assert str(told.value) == refused(file)


def test_numbers_of_a_type_that_is_not_known_are_refused(tmp_path: Path) -> None:
    def integers(writer: Any, name: str, values: np.ndarray) -> None:
        kind = {"blk.1.ffn_up.weight": GGMLQuantizationType.I32}.get(name)
        writer.add_tensor(name, values.astype(np.int32) if kind else values, raw_dtype=kind)

    file = write_gguf(tmp_path / "tiny.gguf", tiny_network("llama"), add=integers)
    assert "blk.1.ffn_up.weight in" in (told := refused(file))
    assert "has dtype I32, which is not supported" in told
