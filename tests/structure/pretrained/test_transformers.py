"""Networks of transformers in, and out: exact, of their own class, saved and loaded as any other."""

import copy
import io
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import bayesprune as bp
from bayesprune.errors import UnsupportedNetworkError

models = pytest.importorskip("tests.structure.pretrained.models", reason="transformers is not installed")

pytestmark = [
    pytest.mark.usefixtures("quiet"),
    # transformers is written for several versions of PyTorch
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
]


@pytest.fixture
def quiet():
    level = models.hf.utils.logging.get_verbosity()
    models.hf.utils.logging.set_verbosity_error()
    yield
    models.hf.utils.logging.set_verbosity(level)


def halves(structure, more=()):
    """Half of the units of every group, drawn; one more of some; and all sections but the first."""
    generator, keep = torch.Generator().manual_seed(1), {}
    for group in structure.groups:
        if group.optional:
            keep[group.name] = torch.arange(group.size) != 0
            continue
        units = torch.randperm(group.size, generator=generator)[: group.size // 2 + (group.name in more)]
        keep[group.name] = torch.zeros(group.size, dtype=torch.bool).index_fill(0, units, True)
    return keep


def outputs(network, example, **more):
    with torch.no_grad():
        return models.first(network.eval()(**example, **more))


def loaded(network, folder):
    """The network that is saved with its config, as transformers loads it."""
    network.save_pretrained(folder)
    again = type(network).from_pretrained(folder)
    return copy.deepcopy(again).eval()  # what is mapped from a file lies elsewhere, which moves roundings


def saved_fields(folder):
    return json.loads((folder / "config.json").read_text())


def check_round_trip(network, example, structure, keep, folder):
    """Removal is exact, and saving and loading loses no bit; gives the small network."""
    small = structure.cut(keep)
    assert type(small) is type(network)
    gates = {name: mask.double() for name, mask in keep.items()}
    masked = outputs(structure.gated, example, gates=gates)
    assert float((outputs(small, example) - masked).abs().max()) <= 1e-10
    assert float((masked - outputs(network, example)).abs().max()) > 1e-3  # something was removed
    again = loaded(small, folder)
    assert type(again) is type(network)
    mine, theirs = small.state_dict(), again.state_dict()
    assert mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)
    small_outputs = outputs(copy.deepcopy(small), example)
    assert torch.equal(outputs(again, example), small_outputs) or torch.allclose(
        outputs(again, example), small_outputs, rtol=0, atol=1e-14
    )
    return small


def test_bert(tmp_path):
    network, example = models.bert()
    before = network.config.to_dict()
    structure = bp.analyse(network, example, layers="none")
    check_round_trip(network, example, structure, halves(structure), tmp_path)
    fields = saved_fields(tmp_path)
    assert (fields["hidden_size"], fields["num_attention_heads"], fields["intermediate_size"]) == (8, 2, 12)
    assert (fields["vocab_size"], fields["num_hidden_layers"]) == (30, 2)
    assert network.config.to_dict() == before  # the user's own is left alone
    uneven = structure.cut(halves(structure, more=["bert_encoder_layer_1_intermediate_dense"]))
    with pytest.raises(UnsupportedNetworkError) as caught:
        uneven.save_pretrained(tmp_path / "uneven")
    said = str(caught.value)
    assert "cannot be saved with a BertConfig: intermediate_size=24 is one number" in said
    assert "bert.encoder.layer.0.intermediate.dense.bias has 12 of 24" in said
    assert "bert.encoder.layer.1.intermediate.dense.bias has 13 of 24" in said and "uniform=True" in said
    assert not (tmp_path / "uneven").exists()
    for twin in (copy.deepcopy(uneven), pickled(uneven)):
        assert torch.equal(outputs(twin, example), outputs(uneven, example))
        with pytest.raises(UnsupportedNetworkError, match="intermediate_size=24"):
            twin.save_pretrained(tmp_path / "uneven")
    bp.save(uneven, tmp_path / "ours", example=example)
    assert torch.equal(outputs(bp.load(tmp_path / "ours"), example), outputs(uneven, example))
    shares = bp.analyse(network, example, layers="none", exclude=["*intermediate*"])
    shares = shares.cut({g.name: torch.arange(g.size) < g.size * (0.5 if g.size == 4 else 0.75)
                         for g in shares.groups})  # fmt: skip
    with pytest.raises(
        UnsupportedNetworkError, match=r"=16 .*uniform=\[\('bert.* lets them lose the same sh"
    ):
        shares.save_pretrained(tmp_path / "uneven")
    heads = structure.cut({"bert_encoder_layer_0_attention_self_query": torch.arange(4) < 2})
    with pytest.raises(UnsupportedNetworkError, match=r"hidden_size=16 is one number.*exclude="):
        heads.save_pretrained(tmp_path / "uneven")  # a head is hidden_size / num_attention_heads wide there


def pickled(network):
    buffer = io.BytesIO()
    torch.save(network, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=False)


def test_llama_with_shared_keys_and_whole_blocks(tmp_path, monkeypatch):
    network, example = models.llama(monkeypatch)
    structure = bp.analyse(network, example, layers="blocks")
    keep = halves(structure)
    small = check_round_trip(network, example, structure, keep | {"layers": torch.ones(2) > 0}, tmp_path)
    fields = saved_fields(tmp_path)
    assert (fields["hidden_size"], fields["intermediate_size"], fields["head_dim"]) == (8, 12, 4)
    assert (fields["num_attention_heads"], fields["num_key_value_heads"]) == (2, 1)
    assert fields["num_hidden_layers"] == 2 and small.config.num_key_value_heads == 1
    one = check_round_trip(network, example, structure, keep, tmp_path / "one")
    assert saved_fields(tmp_path / "one")["num_hidden_layers"] == 1 == len(one.model.layers)
    assert one.model.layers[0].self_attn.layer_idx == 0  # it was the second one
    torch.testing.assert_close(
        one.model.layers[0].mlp.up_proj.weight, small.model.layers[1].mlp.up_proj.weight, rtol=0, atol=0
    )
    example = {"input_ids": example["input_ids"]}
    with torch.no_grad():  # another way through the class: with a cache, which has the config's sizes
        written = one.generate(**example, max_new_tokens=3, do_sample=False, pad_token_id=0)
        again = one(input_ids=written[:, :-1]).logits[:, -1].argmax(-1)
    assert torch.equal(written[:, -1], again)


def test_vit(tmp_path):
    network, example = models.vit()
    structure = bp.analyse(network, example, layers="none")
    small = check_round_trip(network, example, structure, halves(structure), tmp_path)
    fields = saved_fields(tmp_path)
    assert (fields["hidden_size"], fields["num_attention_heads"], fields["intermediate_size"]) == (8, 2, 12)
    assert (fields["image_size"], fields["patch_size"], fields["num_channels"]) == (8, 4, 1)
    folder = tmp_path / "ours"
    bp.save(small, folder, example=example)
    own = bp.load(folder, into=models.vit()[0])  # an instance of the old sizes follows, config and all
    named = ("hidden_size", "num_attention_heads", "intermediate_size")
    assert [getattr(own.config, name) for name in named] == [8, 2, 12]
    assert torch.equal(outputs(loaded(own, tmp_path / "again"), example), outputs(own, example))
    uneven = structure.cut(halves(structure, more=["vit_layers_0_mlp_fc1"]))
    bp.save(uneven, tmp_path / "uneven", example=example)
    own = bp.load(tmp_path / "uneven", into=models.vit()[0])
    with pytest.raises(UnsupportedNetworkError, match="intermediate_size=24 is one number"):
        own.save_pretrained(tmp_path / "none")


@pytest.mark.nightly
def test_t5(tmp_path):
    network, example = models.t5()
    structure = bp.analyse(network, example, layers="none")
    small = check_round_trip(network, example, structure, halves(structure), tmp_path)
    fields = saved_fields(tmp_path)
    assert (fields["num_heads"], fields["d_kv"], fields["d_ff"], fields["d_model"]) == (2, 4, 12, 16)
    assert small.decoder.block[0].layer[0].SelfAttention.n_heads == 2  # noted where the class notes it
    assert small.decoder.config.d_ff == 12 and small.encoder.config.num_heads == 2  # copies of the config
    uneven = structure.cut(halves(structure, more=["decoder_block_0_layer_2_DenseReluDense_wi"]))
    with pytest.raises(UnsupportedNetworkError, match=r"d_ff=24 is one number.*has 13 of 24.*uniform=\.\.\."):
        uneven.save_pretrained(tmp_path)


def test_whisper_encoder_loses_a_layer_and_inner_units(tmp_path):
    network, example = models.whisper()
    exclude = ["conv1", "layers_?_self_attn*"]
    structure = bp.analyse(network, example, layers="blocks", exclude=exclude)
    check_round_trip(network, example, structure, halves(structure), tmp_path)
    fields = saved_fields(tmp_path)
    assert (fields["encoder_layers"], fields["encoder_ffn_dim"], fields["d_model"]) == (1, 12, 16)
    assert (fields["decoder_layers"], fields["decoder_ffn_dim"]) == (1, 24)
    heads = bp.analyse(network, example, layers="none").cut({"conv1": torch.arange(16) < 9})
    with pytest.raises(UnsupportedNetworkError, match=r"d_model=16 .*conv1.* has 9 of 16.*'conv1' whole"):
        heads.save_pretrained(tmp_path)


@pytest.mark.filterwarnings("ignore::bayesprune.errors.BudgetWarning", "ignore::UserWarning")
def test_a_fit_under_a_uniform_budget_is_saved_as_it_comes(tmp_path):
    network, _ = models.vit()
    network = network.float()
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(64, 1, 8, 8, generator=generator)
    rows = {"pixel_values": x, "labels": (x.mean((1, 2, 3)) > 0).long()}
    gated = bp.gate(
        network, {"pixel_values": x[:2]}, likelihood=bp.Categorical(rows=64, output="logits"), layers="none",
        exclude=["*attention*", "*embeddings*"], prior=bp.Budget(params=0.85, uniform=True, multiple_of=4),
    )  # fmt: skip
    result = bp.fit(gated, rows, epochs=2, batch_size=16, progress=False)
    small = bp.prune(result)
    again = loaded(small, tmp_path)
    size = saved_fields(tmp_path)["intermediate_size"]
    assert size % 4 == 0 and size < 24 and again.vit.layers[1].mlp.fc1.out_features == size
    with torch.no_grad():
        torch.testing.assert_close(again(x).logits, small(x).logits, rtol=0, atol=1e-6)


@pytest.mark.filterwarnings("ignore::bayesprune.errors.BudgetWarning", "ignore::UserWarning")
def test_what_the_page_shows_runs(tmp_path, monkeypatch, capsys):
    page = (Path(__file__).parents[3] / "docs" / "own_network.md").read_text()
    (shown,) = re.findall(r"```python\n(import torch\nfrom transformers.*?)```", page, flags=re.DOTALL)
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    names: dict = {}
    exec(shown, names)
    x, small, again = names["x"], names["small"], names["again"]
    assert int(capsys.readouterr().out) == small.config.intermediate_size in (8, 16, 24)
    with torch.no_grad():
        torch.testing.assert_close(again(x).logits, small(x).logits, rtol=0, atol=1e-6)


def test_transformers_is_not_imported_by_the_library():
    code = "import sys, bayesprune as bp; bp.analyse, bp.prune; print('transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


@pytest.mark.filterwarnings("ignore::bayesprune.errors.BudgetWarning", "ignore::UserWarning")
def test_heads_and_stream_lose_the_same_share_where_a_config_asks_for_it(tmp_path):
    network, example = models.bert()
    rows = {**example, "labels": torch.arange(3)}
    gated = bp.gate(
        network, dict(example), likelihood=bp.Categorical(rows=3, output="logits"), layers="none",
        prior=bp.Budget(params=0.5, uniform=[("*_attention_*", "bert_pooler_dense")]),
    )  # fmt: skip
    small = bp.prune(bp.fit(gated, rows, epochs=4, batch_size=3, progress=False))
    again, fields = loaded(small, tmp_path), saved_fields(tmp_path)
    assert fields["hidden_size"] == 4 * fields["num_attention_heads"] < 16
    assert torch.allclose(outputs(again, example), outputs(small, example), rtol=0, atol=1e-14)
