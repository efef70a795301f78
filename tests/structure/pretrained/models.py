"""Tiny networks of transformers from configs alone, in float64: nothing is fetched."""

import sys

import torch

try:
    import torchvision  # noqa: F401
except RuntimeError:  # built for another PyTorch: transformers asks whether it is there, and fails with it
    sys.modules["torchvision"] = None  # type: ignore[assignment]
except ImportError:
    pass

import transformers as hf
from transformers.models.llama import modeling_llama
from transformers.models.whisper.modeling_whisper import WhisperEncoder

hf.utils.logging.disable_progress_bar()
SIZES = dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=4, intermediate_size=24)


def seeded(kind, config):
    """A network whose every number was drawn, norms and biases too."""
    torch.manual_seed(0)
    network = kind(config).double().eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return network


def tokens(rows=3):
    """What a tokenizer returns."""
    ids = torch.randint(1, 30, (rows, 6), generator=torch.Generator().manual_seed(rows))
    mask = torch.arange(6) < torch.arange(6 - rows + 1, 7)[:, None].clamp_min(3)
    return hf.BatchEncoding({"input_ids": ids, "attention_mask": mask.long()})


def bert():
    config = hf.BertConfig(vocab_size=30, max_position_embeddings=12, num_labels=3, **SIZES)
    return seeded(hf.BertForSequenceClassification, config), tokens()


class InOwnPrecision(modeling_llama.LlamaRMSNorm):
    """As it is written, it computes in float32 whatever it is given, which rounds at 1e-7."""

    def forward(self, x):
        return self.weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)


def llama(monkeypatch):
    """Two heads share each key and value."""
    monkeypatch.setattr(modeling_llama, "LlamaRMSNorm", InOwnPrecision)
    config = hf.LlamaConfig(vocab_size=30, num_key_value_heads=2, max_position_embeddings=12, **SIZES)
    return seeded(hf.LlamaForCausalLM, config), {"input_ids": tokens()["input_ids"], "use_cache": False}


def vit():
    config = hf.ViTConfig(image_size=8, patch_size=4, num_channels=1, num_labels=3, **SIZES)
    return seeded(hf.ViTForImageClassification, config), {"pixel_values": torch.randn(3, 1, 8, 8).double()}


def t5():
    config = hf.T5Config(
        vocab_size=30, d_model=16, d_kv=4, d_ff=24, num_layers=1, num_heads=4, decoder_start_token_id=0
    )
    ids = tokens()["input_ids"]
    example = {"input_ids": ids, "decoder_input_ids": ids[:, :4].contiguous(), "use_cache": False}
    return seeded(hf.T5ForConditionalGeneration, config), example


def whisper():
    config = hf.WhisperConfig(
        vocab_size=30, num_mel_bins=8, d_model=16, encoder_layers=2, encoder_attention_heads=4,
        encoder_ffn_dim=24, decoder_layers=1, decoder_attention_heads=4, decoder_ffn_dim=24,
        max_source_positions=10, max_target_positions=8, pad_token_id=0, bos_token_id=1, eos_token_id=2,
        decoder_start_token_id=1,
    )  # fmt: skip
    return seeded(WhisperEncoder, config), {"input_features": torch.randn(3, 8, 20).double()}


def first(outputs):
    return outputs[0] if not hasattr(outputs, "logits") else outputs.logits
