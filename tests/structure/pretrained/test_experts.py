"""Mixtures of experts of transformers, each expert given the tokens that chose it."""

import copy

import pytest
import torch
from torch.nn import functional

import bayesprune as bp
from tests.nightly import one_in

models = pytest.importorskip("tests.structure.pretrained.models", reason="transformers is not installed")

from transformers.models.mixtral import modeling_mixtral as mixtral  # noqa: E402
from transformers.models.qwen2_moe import modeling_qwen2_moe as qwen  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
SIZES = models.SIZES | {"vocab_size": 30, "num_hidden_layers": 1, "num_key_value_heads": 2}


class Router:
    """As it is written, it computes in float32 whatever it is given, which rounds at 1e-7."""

    def forward(self, states):
        logits = functional.linear(states.reshape(-1, self.hidden_dim), self.weight)
        share, chosen = logits.softmax(-1).topk(self.top_k, -1)
        return logits, share / share.sum(-1, keepdim=True), chosen


class Norm:
    def forward(self, x):
        return self.weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)


NETWORKS = {
    "mixtral": (mixtral, "Mixtral", models.hf.MixtralConfig(**SIZES, num_local_experts=4), 24),
    "qwen2_moe": (
        qwen,
        "Qwen2Moe",
        models.hf.Qwen2MoeConfig(
            **SIZES, num_experts=5, moe_intermediate_size=12, shared_expert_intermediate_size=20
        ),
        12,
    ),
}


@pytest.mark.parametrize("name", one_in(2, NETWORKS))
def test_hidden_units_of_experts_and_the_stream_go(name, monkeypatch, tmp_path):
    module, kind, config, hidden = NETWORKS[name]
    for part, own in (("RMSNorm", Norm), ("TopKRouter", Router)):
        whole = getattr(module, kind + part)
        monkeypatch.setattr(module, kind + part, type(kind + part, (own, whole), {}))
    network = models.seeded(getattr(module, f"{kind}ForCausalLM"), copy.deepcopy(config))
    network.set_experts_implementation("eager")  # the default takes no float64
    example = {"input_ids": models.tokens(2)["input_ids"], "use_cache": False}
    analysis = bp.analyse(network, example, layers="none")
    sizes = {group.name: group.size for group in analysis.groups}
    assert sizes["model_layers_0_mlp_experts"] == hidden
    assert 16 in sizes.values()  # the stream
    alive = {g: torch.arange(size) % 2 == 0 for g, size in sizes.items()}
    small = analysis.cut(alive)
    assert type(small) is type(network)
    count = [sum(p.numel() for p in part.parameters()) for part in (small, network)]
    assert count[0] < 0.3 * count[1]
    more = {"input_ids": models.tokens(4)["input_ids"], "use_cache": False}
    gates = {group: mask.double() for group, mask in alive.items()}
    with torch.no_grad():
        for training in (False, True):
            masked = analysis.gated.train(training)(**more, gates=gates).logits
            assert (small.train(training)(**more).logits - masked).abs().max() < 1e-12
    bp.save(small.eval(), tmp_path, example=example)
    loaded = bp.load(tmp_path)
    difference = (
        loaded(**more)["logits"] - small(**more).logits
    )  # whose loop over experts adds in another order
    assert difference.abs().max() < 1e-12


def test_as_they_are_by_default_their_config_says_what_has_become_of_them(tmp_path):
    network = models.seeded(mixtral.MixtralForCausalLM, NETWORKS["mixtral"][2]).float()
    example = {"input_ids": models.tokens(2)["input_ids"], "use_cache": False}
    assert network.config._experts_implementation == "grouped_mm"
    analysis = bp.analyse(network, example, layers="none")
    small = analysis.cut({"model_layers_0_mlp_experts": torch.arange(24) < 16}).eval()
    small.save_pretrained(tmp_path)
    again = mixtral.MixtralForCausalLM.from_pretrained(tmp_path).eval()
    assert again.config.intermediate_size == 16
    torch.testing.assert_close(again(**example).logits, small(**example).logits)
