"""Hugging Face's architectures in small: configurations of two layers and 32 channels, with random weights.

    pip install transformers==5.24.0 -c constraints.txt

One size of every kind stands in ``TINY``; a configuration takes those that it has a name for.
"""

from __future__ import annotations

import importlib.util
from typing import Any

import torch
from torch import Tensor, nn

ROWS, LENGTH, IMAGE = 2, 12, 64

TEXT = (
    "albert", "bert", "biogpt", "bloom", "camembert", "codegen", "cohere", "ctrl", "deberta", "deberta-v2",
    "distilbert", "electra", "ernie", "esm", "falcon", "fnet", "gemma", "gemma2", "gemma3_text", "glm",
    "gpt2",
    "gpt_neo", "gpt_neox", "gptj", "granite", "granitemoe", "layoutlm", "llama", "mamba", "megatron-bert",
    "mistral", "mixtral", "modernbert", "mpnet", "mpt", "olmo", "olmo2", "olmoe", "openai-gpt", "opt", "phi",
    "phi3", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe", "roberta", "roformer", "smollm3", "squeezebert",
    "stablelm", "starcoder2", "xglm", "xlm-roberta", "xlnet",
)  # fmt: skip
BOTH = ("bart", "blenderbot-small", "m2m_100", "marian", "mbart", "pegasus", "switch_transformers", "t5")
VISION = (
    "beit", "clip_vision_model", "convnext", "convnextv2", "data2vec-vision", "deit", "dinov2",
    "efficientnet", "focalnet", "hiera", "levit", "mobilenet_v1", "mobilenet_v2", "mobilevit", "poolformer",
    "pvt", "pvt_v2", "regnet", "resnet", "segformer", "siglip_vision_model", "swiftformer", "swin", "swinv2",
    "vit", "vit_msn",
)  # fmt: skip
SOUND = ("audio-spectrogram-transformer", "hubert", "wav2vec2", "wavlm", "whisper")

TINY: dict[str, Any] = {
    **dict.fromkeys(("hidden_size", "d_model", "n_embd", "dim", "embedding_size", "word_embed_proj_dim"), 32),
    **dict.fromkeys(("num_hidden_layers", "num_layers", "n_layer", "n_layers", "encoder_layers"), 2),
    **dict.fromkeys(("decoder_layers", "num_decoder_layers"), 2),
    **dict.fromkeys(("num_attention_heads", "num_heads", "n_head", "n_heads", "encoder_attention_heads"), 4),
    **dict.fromkeys(("decoder_attention_heads", "attention_heads"), 4),
    **dict.fromkeys(("num_key_value_heads", "num_kv_heads"), 2),
    **dict.fromkeys(("intermediate_size", "d_ff", "ffn_dim", "n_inner", "dff", "hidden_dim", "d_inner"), 48),
    **dict.fromkeys(("encoder_ffn_dim", "decoder_ffn_dim", "moe_intermediate_size"), 48),
    "shared_expert_intermediate_size": 48, "num_local_experts": 4, "num_experts": 4, "num_experts_per_tok": 2,
    "head_dim": 8, "d_kv": 8, "vocab_size": 64, "state_size": 4, "rotary_dim": 4, "qk_rope_head_dim": 4,
    **dict.fromkeys(("max_position_embeddings", "n_positions", "max_source_positions", "n_ctx"), 40),
    "max_target_positions": 40, "num_mel_bins": 16, "image_size": IMAGE, "sliding_window": 40,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1,
    "attention_types": [[["global", "local"], 1]],
}  # fmt: skip
"""Sizes by the names that configurations have for them."""

TINY_OF: dict[str, dict[str, Any]] = {
    "audio-spectrogram-transformer": {"max_length": 40},
    "convnext": {"hidden_sizes": [8, 12, 16, 20], "depths": [1, 1, 2, 1]},
    "convnextv2": {"hidden_sizes": [8, 12, 16, 20], "depths": [1, 1, 2, 1]},
    "dinov2": {"patch_size": 16}, "data2vec-vision": {"patch_size": 16}, "beit": {"patch_size": 16},
    "efficientnet": {"width_coefficient": 0.3, "depth_coefficient": 0.3, "hidden_dim": 384},
    "xlnet": {"d_head": 8},
    "focalnet": {"embed_dim": 16, "depths": [1, 1, 2, 1], "hidden_sizes": [16, 32, 64, 128]},
    "hiera": {"embed_dim": 16, "image_size": [IMAGE] * 2, "depths": [1, 1, 2, 1], "num_heads": [1, 2, 4, 8]},
    "levit": {"hidden_sizes": [16, 24, 32], "num_attention_heads": [2, 3, 4], "key_dim": [8, 8, 8]},
    "mobilevit": {"hidden_sizes": [16, 24, 32], "neck_hidden_sizes": [8, 8, 16, 16, 24, 24, 32]},
    "poolformer": {"hidden_sizes": [8, 12, 16, 20], "depths": [1, 1, 2, 1]},
    "pvt": {"hidden_sizes": [8, 16, 24, 32], "num_attention_heads": [1, 2, 3, 4], "depths": [1, 1, 1, 1]},
    "pvt_v2": {"hidden_sizes": [8, 16, 24, 32], "num_attention_heads": [1, 2, 3, 4], "depths": [1, 1, 1, 1]},
    "regnet": {"hidden_sizes": [16, 24, 32, 40], "depths": [1, 1, 2, 1], "groups_width": 8},
    "resnet": {"hidden_sizes": [16, 24, 32, 40], "depths": [1, 1, 2, 1], "embedding_size": 16},
    "segformer": {"hidden_sizes": [8, 16, 24, 32], "num_attention_heads": [1, 2, 3, 4], "depths": [1] * 4},
    "swiftformer": {"embed_dims": [8, 12, 16, 24], "depths": [1, 1, 2, 1]},
    "swin": {"embed_dim": 16, "depths": [1, 2], "num_heads": [2, 4], "window_size": 4},
    "swinv2": {"embed_dim": 16, "depths": [1, 2], "num_heads": [2, 4], "window_size": 4},
    "mobilenet_v1": {"depth_multiplier": 0.25}, "mobilenet_v2": {"depth_multiplier": 0.25},
    "whisper": {"max_source_positions": 20},
}  # fmt: skip
PYRAMIDS = [name for name, sizes in TINY_OF.items() if {"depths", "hidden_sizes"} & sizes.keys()]
PYRAMIDS += ["efficientnet", "mobilenet_v1", "mobilenet_v2"]
"""Networks whose sizes are lists, or factors of a list."""

for _name in ("hubert", "wav2vec2", "wavlm"):
    TINY_OF[_name] = {
        "conv_dim": [16, 16], "conv_stride": [4, 4], "conv_kernel": [8, 8], "num_conv_pos_embeddings": 4,
        "num_conv_pos_embedding_groups": 2, "num_feat_extract_layers": 2, "mask_time_prob": 0.0,
    }  # fmt: skip


def names() -> list[str]:
    """All that are swept."""
    return sorted((*TEXT, *BOTH, *VISION, *SOUND))


def build(name: str) -> nn.Module:
    """A network of random weights, in train mode.

    Args:
        name: a ``model_type`` of transformers.

    Raises:
        SystemExit: transformers is not installed.
    """
    if importlib.util.find_spec("transformers") is None:
        raise SystemExit("This needs transformers. Remedy: pip install transformers -c constraints.txt")
    from transformers import AutoConfig, AutoModel

    whole = AutoConfig.for_model(name)
    known = TINY if name not in PYRAMIDS else {"image_size": IMAGE}
    sizes = {key: value for key, value in known.items() if hasattr(whole, key) and not _derived(whole, key)}
    config = AutoConfig.for_model(name, **{**sizes, **TINY_OF.get(name, {})}, use_cache=False)
    torch.manual_seed(0)
    network = AutoModel.from_config(config).train()
    if hasattr(config, "num_local_experts") or hasattr(config, "num_experts"):
        network.set_experts_implementation("eager")  # the default takes no float64
    return network


def _derived(config: Any, key: str) -> bool:
    """Whether a configuration computes a size from others."""
    return isinstance(getattr(type(config), key, None), property)


def batch(name: str, dtype: torch.dtype, rows: int = ROWS, seed: int = 0) -> dict[str, Tensor]:
    """What it is called with: ids and a mask, images, or a spectrogram or wave."""
    generator = torch.Generator().manual_seed(seed)

    def noise(*sizes: int) -> Tensor:
        return torch.randn(rows, *sizes, generator=generator).to(dtype)

    if name in VISION:
        return {"pixel_values": noise(3, IMAGE, IMAGE)}
    ids = torch.randint(3, 64, (rows, LENGTH), generator=generator)
    if name == "whisper":
        return {"input_features": noise(16, 40), "decoder_input_ids": ids}
    if name in SOUND:
        return {"input_values": noise(40, 16) if "spectrogram" in name else noise(800)}
    words = {"input_ids": ids}
    if name == "layoutlm":
        words["bbox"] = torch.randint(0, 40, (rows, LENGTH, 1), generator=generator).expand(-1, -1, 4).clone()
    if name not in ("fnet", "mamba"):
        words["attention_mask"] = torch.ones(rows, LENGTH, dtype=torch.long)
    return words | ({"decoder_input_ids": ids.roll(1, 1)} if name in BOTH else {})
