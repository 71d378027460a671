"""Language, speech and multi-modal transformers: transformers' own classes with small random configurations."""

from __future__ import annotations

import torch
from torch import nn

from architecture import Architecture

__all__ = ["LANGUAGE"]

VOCABULARY = 101
TEXT_SIZES = ((2, 13), (3, 22))
WIDTH, HEADS = 48, 4

# What most configurations call the sizes of a small model.
USUAL = {
    "vocab_size": VOCABULARY, "hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": HEADS, "intermediate_size": 96,
    "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
GROUPED = USUAL | {"num_key_value_heads": 2, "head_dim": WIDTH // HEADS}
ENCODER_DECODER = {
    "d_model": WIDTH, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": HEADS, "decoder_attention_heads": HEADS,
    "encoder_ffn_dim": 96, "decoder_ffn_dim": 96,
}  # fmt: skip


def tokens(batch, length):
    """Token ids, none of them a special one."""
    return torch.randint(3, VOCABULARY, (batch, length))


def text(batch, length):
    """Token ids alone."""
    return {"input_ids": tokens(batch, length)}


def padded(batch, length):
    """Token ids, of which the last of the first row are padding."""
    mask = torch.ones(batch, length, dtype=torch.int64)
    mask[0, -3:] = 0
    return {"input_ids": tokens(batch, length), "attention_mask": mask}


def text_pair(batch, length):
    """A text to read and the beginning of its translation."""
    return {"input_ids": tokens(batch, length), "decoder_input_ids": tokens(batch, length // 2)}


def pretrained(model, config, **options):
    """What makes the class `model` of transformers with its configuration class `config`."""

    def make():
        import transformers

        return getattr(transformers, model)(getattr(transformers, config)(**options))

    return make


def language(name, model, config, inputs=text, sizes=TEXT_SIZES, **options):
    """An Architecture of transformers."""
    return Architecture(name, pretrained(model, config, **options), inputs, sizes)


def mixtral():
    """A mixture of experts; as batched products, since the grouped ones that transformers prefers have no float64 to compare with."""
    model = pretrained("MixtralForCausalLM", "MixtralConfig", num_local_experts=4, num_experts_per_tok=2, **GROUPED)()
    model.set_experts_implementation("batched_mm")
    return model


class Step(nn.Module):
    """One step of generation behind a prompt whose keys and values are cached: prompt, token -> logits."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, prompt, token):
        cache = self.model(prompt, use_cache=True).past_key_values
        return self.model(token, past_key_values=cache, use_cache=True).logits


def prompt_and_token(batch, length):
    """A prompt and the token behind it."""
    return tokens(batch, length), tokens(batch, 1)


def step(name, model, config, **options):
    """An Architecture that generates one token."""
    return Architecture(name, lambda: Step(pretrained(model, config, **options)()), prompt_and_token, TEXT_SIZES)


GPT2 = {"vocab_size": VOCABULARY, "n_positions": 64, "n_embd": WIDTH, "n_layer": 2, "n_head": HEADS, "bos_token_id": 1, "eos_token_id": 2}
T5 = {"vocab_size": VOCABULARY, "d_model": WIDTH, "d_kv": 12, "d_ff": 96, "num_layers": 2, "num_heads": HEADS, "decoder_start_token_id": 0}
WHISPER = ENCODER_DECODER | {
    "vocab_size": VOCABULARY, "num_mel_bins": 16, "max_source_positions": 40, "max_target_positions": 32, "pad_token_id": 0, "bos_token_id": 1,
    "eos_token_id": 2, "decoder_start_token_id": 1, "suppress_tokens": None, "begin_suppress_tokens": None,
}  # fmt: skip
CLIP_TOWER = {"hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": HEADS, "intermediate_size": 96}
CLIP = {
    "text_config": CLIP_TOWER | {"vocab_size": VOCABULARY, "max_position_embeddings": 64, "eos_token_id": 2},
    "vision_config": CLIP_TOWER | {"image_size": 32, "patch_size": 8},
    "projection_dim": 24,
}
WAV2VEC2 = USUAL | {"conv_dim": (32, 32, 32), "conv_kernel": (10, 3, 3), "conv_stride": (5, 2, 2), "num_feat_extract_layers": 3, "num_conv_pos_embeddings": 16}


def whisper_inputs(batch, _):
    """Mel bands and the beginning of the transcript."""
    return {"input_features": torch.randn(batch, 16, 80), "decoder_input_ids": tokens(batch, 7)}


def clip_inputs(batch, length):
    """Texts and as many images."""
    return {"input_ids": tokens(batch, length), "pixel_values": torch.randn(batch, 3, 32, 32)}


def waveform(batch, length):
    """Sound, 100 samples to a unit of length."""
    return {"input_values": torch.randn(batch, 100 * length)}


LANGUAGE = (
    language("bert", "BertForSequenceClassification", "BertConfig", padded, **USUAL),
    language("roberta", "RobertaForMaskedLM", "RobertaConfig", padded, **USUAL),
    language("albert", "AlbertModel", "AlbertConfig", padded, embedding_size=24, **USUAL),
    language("distilbert", "DistilBertModel", "DistilBertConfig", padded, vocab_size=VOCABULARY, dim=WIDTH, n_layers=2, n_heads=HEADS, hidden_dim=96),
    language("electra", "ElectraForPreTraining", "ElectraConfig", padded, embedding_size=24, **USUAL),
    language("deberta_v2", "DebertaV2Model", "DebertaV2Config", relative_attention=True, pos_att_type=["p2c", "c2p"], **USUAL),
    language("fnet", "FNetModel", "FNetConfig", **USUAL),
    language("modernbert", "ModernBertModel", "ModernBertConfig", padded, cls_token_id=1, sep_token_id=2, **USUAL),
    language("gpt2", "GPT2LMHeadModel", "GPT2Config", **GPT2),
    language("gpt_neo", "GPTNeoForCausalLM", "GPTNeoConfig", vocab_size=VOCABULARY, hidden_size=WIDTH, num_layers=2, num_heads=HEADS,
             attention_types=[[["global", "local"], 1]], window_size=5, max_position_embeddings=64),
    language("gpt_neox", "GPTNeoXForCausalLM", "GPTNeoXConfig", **USUAL),
    language("gptj", "GPTJForCausalLM", "GPTJConfig", rotary_dim=8, **GPT2),
    language("llama", "LlamaForCausalLM", "LlamaConfig", padded, **GROUPED),
    language("mistral", "MistralForCausalLM", "MistralConfig", sliding_window=5, **GROUPED),
    language("qwen2", "Qwen2ForCausalLM", "Qwen2Config", padded, **GROUPED),
    language("qwen3", "Qwen3ForCausalLM", "Qwen3Config", **GROUPED),
    language("phi", "PhiForCausalLM", "PhiConfig", **USUAL),
    language("phi3", "Phi3ForCausalLM", "Phi3Config", **USUAL),
    language("gemma2", "Gemma2ForCausalLM", "Gemma2Config", sliding_window=5, query_pre_attn_scalar=12, **GROUPED),
    language("olmo2", "Olmo2ForCausalLM", "Olmo2Config", **USUAL),
    language("opt", "OPTForCausalLM", "OPTConfig", padded, ffn_dim=96, word_embed_proj_dim=WIDTH, **{k: v for k, v in USUAL.items() if k != "intermediate_size"}),
    language("bloom", "BloomForCausalLM", "BloomConfig", padded, vocab_size=VOCABULARY, hidden_size=WIDTH, n_layer=2, n_head=HEADS),
    language("falcon", "FalconForCausalLM", "FalconConfig", alibi=True, new_decoder_architecture=False, **USUAL),
    language("mpt", "MptForCausalLM", "MptConfig", vocab_size=VOCABULARY, d_model=WIDTH, n_heads=HEADS, n_layers=2, max_seq_len=64),
    Architecture("mixtral", mixtral, text, TEXT_SIZES),
    language("t5", "T5ForConditionalGeneration", "T5Config", text_pair, **T5),
    language("t5_encoder", "T5EncoderModel", "T5Config", **T5),
    language("bart", "BartForConditionalGeneration", "BartConfig", text_pair, vocab_size=VOCABULARY, max_position_embeddings=64, **ENCODER_DECODER),
    language("marian", "MarianMTModel", "MarianConfig", text_pair, vocab_size=VOCABULARY, pad_token_id=0, max_position_embeddings=64, **ENCODER_DECODER),
    language("xlnet", "XLNetModel", "XLNetConfig", vocab_size=VOCABULARY, d_model=WIDTH, n_layer=2, n_head=HEADS, d_inner=96),
    language("mamba", "MambaForCausalLM", "MambaConfig", vocab_size=VOCABULARY, hidden_size=WIDTH, num_hidden_layers=2, state_size=8, use_cache=False),
    language("mamba2", "Mamba2ForCausalLM", "Mamba2Config", vocab_size=VOCABULARY, hidden_size=WIDTH, num_hidden_layers=2, state_size=8, head_dim=12, num_heads=8,
             n_groups=2, chunk_size=8, use_cache=False),
    language("rwkv", "RwkvModel", "RwkvConfig", vocab_size=VOCABULARY, hidden_size=WIDTH, num_hidden_layers=2, context_length=32, use_cache=False),
    language("whisper", "WhisperForConditionalGeneration", "WhisperConfig", whisper_inputs, **WHISPER),
    language("wav2vec2", "Wav2Vec2ForCTC", "Wav2Vec2Config", waveform, **WAV2VEC2),
    language("wav2vec2_stable", "Wav2Vec2Model", "Wav2Vec2Config", waveform, do_stable_layer_norm=True, feat_extract_norm="layer", **WAV2VEC2),
    language("clip", "CLIPModel", "CLIPConfig", clip_inputs, **CLIP),
    step("gpt2_step", "GPT2LMHeadModel", "GPT2Config", **GPT2),
    step("llama_step", "LlamaForCausalLM", "LlamaConfig", **GROUPED),
    step("mistral_step", "MistralForCausalLM", "MistralConfig", sliding_window=5, **GROUPED),
)  # fmt: skip
