"""Which config says what a network has become: found by building its class, and put in only if it is so."""

import copy
import pickle

import pytest
import torch

import bayesprune as bp
from bayesprune.errors import UnsupportedNetworkError
from bayesprune.structure.pretrained import configure_
from bayesprune.structure.pretrained.config import changed, fields, is_pretrained, outermost, shapes, written
from bayesprune.structure.pretrained.search import Search, Sizes, candidates
from tests.structure.pretrained.written import Around, Config, Network

X = torch.randn(3, 4, generator=torch.Generator().manual_seed(0)).double()


def network(kind=Network, **fields):
    torch.manual_seed(0)
    return kind(Config(**fields)).double()


def search(wanted, units=(), layers=(), **fields):
    return Search(Network, Config(**fields), shapes(Network(wanted)), Sizes(frozenset(units), tuple(layers)))


def test_fields_are_numbers_lists_and_nothing_below_configs_too():
    found = dict(fields(Config()))
    assert found["width",] == 8 and found["inner",] is None and found["stages", 1] == 10
    assert found["head", "size"] == 5 and found["kinds",] == ["full"] * 3
    assert written(("head", "sizes", 1)) == "head.sizes[1]"
    config = Config()
    new = changed(config, {("head", "size"): 2, ("stages", 0): 3, ("width",): 4})
    assert (new.head.size, new.stages, new.width) == (2, [3, 10], 4)
    assert (config.head.size, config.stages, config.width) == (5, [6, 10], 8)


def test_what_takes_part_has_a_config_and_is_saved_with_it():
    assert is_pretrained(network()) and not is_pretrained(network().layers[0])
    assert list(outermost(network(Around))) == ["body"] and list(outermost(network())) == [""]


@pytest.mark.parametrize(
    "new, units",
    [
        (dict(width=4, heads=2), [(8, 4)]),  # no shape hangs on the heads, and three do not divide four
        (dict(inner=20), [(32, 20)]),  # it had no value
        (dict(stages=[3, 10]), [(6, 3)]),
        (dict(stages=[3, 4], head=dict(size=2)), [(6, 3), (10, 4), (5, 2)]),
        (dict(width=6, heads=3, inner=32), [(8, 6), (4, 3)]),  # neither alone is a network
    ],
    ids=str,
)
def test_values_are_found_by_the_shapes_that_they_make(new, units):
    wanted = Config(**new)
    looked = search(wanted, units, inner=new.get("inner") and None)
    found = next(looked.found())
    assert shapes(Network(changed(Config(), found.changes))) == shapes(Network(wanted))
    assert len(found.changes) <= sum(len(v) if isinstance(v, list) else 1 for v in new.values())


def test_fields_that_no_unit_stands_for_are_left_alone():
    names = {path for path, *_ in candidates(Config(), Sizes(frozenset({(8, 4), (4, 2)})), {})}
    assert {("width",), ("heads",)} <= names and ("seen_tokens",) in names
    assert ("seen_tokens",) not in {path for path, _ in search(Config(width=4), [(8, 4)]).candidates}


def cut(kind=Network, layers="none", only=None, **less):
    """Network, analysis, and the network cut to the first units of groups whose names end so."""
    dense = network(kind)
    structure = bp.analyse(dense, X, layers=layers)
    keep = {}
    for group in structure.groups:
        for end, left in less.items():
            if group.name.endswith(end):
                keep[group.name] = torch.arange(group.size) < left
    if only is not None:
        keep["layers"] = torch.tensor(only)
    small = structure.cut(keep)
    gates = {name: mask.double() for name, mask in keep.items()}
    with torch.no_grad():
        torch.testing.assert_close(small(X), structure.gated.eval()(X, gates=gates), rtol=0, atol=1e-10)
    return dense, small


def test_a_network_whose_sizes_a_config_says_has_that_config_and_its_class_notes_it():
    dense, small = cut(first=3, second=4, up=20, between=2)
    assert type(small) is Network and small.note == "as it is"
    assert (small.config.stages, small.config.inner, small.config.head.size) == ([3, 4], 20, 2)
    assert all(layer.config is small.config for layer in small.layers)  # one config, as it was
    assert small.config is not dense.config and dense.config.stages == [6, 10]
    assert shapes(Network(changed(small.config, {}))) == shapes(small)


def test_layers_that_are_gone_leave_the_list_and_lists_of_the_config(tmp_path):
    _, small = cut(layers="blocks", only=[True, False, True], up=20)
    assert type(small) is Network and len(small.layers) == small.config.depth == len(small.config.kinds) == 2
    assert [layer.number for layer in small.layers] == [0, 1] and small.config.inner == 20
    _, half = cut(layers="sections", only=[True, True, True, False, True, True])
    with pytest.raises(
        UnsupportedNetworkError, match=r"layers\.1\.down, layers\.1\.norms\.1, .* are gone.*blocks"
    ):
        half.save_pretrained(None)
    assert type(half) is Network  # modules stand in for what is gone, and the reason goes along
    for twin in (copy.deepcopy(half), pickle.loads(pickle.dumps(half))):
        with pytest.raises(UnsupportedNetworkError, match=r"are gone.*blocks"):
            twin.save_pretrained(None)
    bp.save(half, tmp_path, example=X)
    assert torch.equal(bp.load(tmp_path)(X), half.eval()(X))


def test_a_part_of_a_network_has_a_config_of_its_own(tmp_path):
    _, small = cut(Around, first=3, between=2)
    assert type(small) is Around and small.body.config.stages == [3, 10]
    small.body.save_pretrained(tmp_path)
    _, uneven = cut(Around, layers_0_up=20, layers_1_up=24)
    with pytest.raises(UnsupportedNetworkError, match="cannot be saved with a Config"):
        uneven.body.save_pretrained(tmp_path)


def test_what_a_config_cannot_say_says_why_and_travels_with_the_network():
    _, small = cut(layers_0_up=20, layers_1_up=20, layers_2_up=20, second=4)
    again = bp.analyse(small, X, layers="none").cut({"layers_1_up": torch.arange(20) < 12})
    assert type(again) is Network and again.config.inner == 20  # as it was, since no other says it
    for twin in (again, copy.deepcopy(again), pickle.loads(pickle.dumps(again))):
        with pytest.raises(UnsupportedNetworkError) as caught:
            twin.save_pretrained("nowhere")
        said = str(caught.value)
        assert "inner=20 is one number" in said and "layers.1.down.weight has 12 of 20" in said
        assert "bp.save" in said and torch.equal(twin(X), again(X))
    whole = bp.analyse(again, X, layers="none").cut({"layers_0_up": torch.arange(20) < 12})
    with pytest.raises(UnsupportedNetworkError, match="its config alone did not make this network"):
        whole.save_pretrained("nowhere")


def test_nothing_is_put_in_where_the_network_would_compute_something_else():
    small = network()
    small.between, small.out = torch.nn.Linear(8, 2).double(), torch.nn.Linear(2, 3).double()
    before = {name: dict(vars(module)) for name, module in small.named_modules()}
    owners = {("between.weight", 0): ("between", 5), ("between.bias", 0): ("between", 5),
              ("out.weight", 1): ("between", 5)}  # fmt: skip
    assert not configure_(small, frozenset({(5, 2)}), set(), lambda: False, owners)
    with pytest.raises(UnsupportedNetworkError, match=r"head\.size=2, but then it computes something else"):
        small.save_pretrained("nowhere")
    before[""]["save_pretrained"] = vars(small)["save_pretrained"]
    assert {name: dict(vars(module)) for name, module in small.named_modules()} == before
    assert configure_(small, frozenset({(5, 2)}), set(), lambda: True, owners)
    assert small.config.head.size == 2 and "save_pretrained" not in vars(small)


def test_what_a_user_has_set_on_a_module_stays():
    small = network()
    small.scale, small.note, small.layers[0].inner = 7.0, "mine", 99
    for layer in small.layers:
        layer.up, layer.down = torch.nn.Linear(8, 20).double(), torch.nn.Linear(20, 8).double()
    owners = {(f"layers.{n}.{t}", d): ("up", 32) for n in range(3)
              for t, d in (("up.weight", 0), ("up.bias", 0), ("down.weight", 1))}  # fmt: skip
    assert configure_(small, frozenset({(32, 20)}), set(), lambda: True, owners)
    assert (small.scale, small.note, small.config.inner) == (7.0, "mine", 20)
    assert [layer.inner for layer in small.layers] == [99, 20, 20]


def test_an_instance_that_is_loaded_into_has_the_config_of_what_it_is(tmp_path):
    _, small = cut(first=3, up=20)
    bp.save(small, tmp_path, example=X)
    own = bp.load(tmp_path, into=network())
    assert own.config.stages == [3, 10] and own.config.inner == 20 and torch.equal(own(X), small.eval()(X))
    _, uneven = cut(layers_0_up=20)
    bp.save(uneven, tmp_path / "uneven", example=X)
    own = bp.load(tmp_path / "uneven", into=network())
    with pytest.raises(UnsupportedNetworkError, match="cannot be saved with a Config"):
        own.save_pretrained(tmp_path)
