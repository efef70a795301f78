"""Tables run again: what is chosen by what, what is kept, what is compared, and what is printed."""

import json
from dataclasses import dataclass, field, replace

import pytest
import torch

import bayesprune as bp
from bayesprune.errors import RunFolderError, SettingsError
from bayesprune.programs import find
from bayesprune.programs.execute import execute
from bayesprune.reproduce import TABLES, Learnt, as_markdown, as_text, named, run_table
from bayesprune.reproduce.methods import FORWARD_AND_BACK, Gates, WithoutGates
from bayesprune.reproduce.published import ON_LENET5, ON_MLP
from bayesprune.reproduce.setup import Setup
from bayesprune.reproduce.tables import CONTINUOUS, OURS
from bayesprune.reproduce.torch_pruned import TorchPruned

pytestmark = pytest.mark.filterwarnings("ignore::bayesprune.errors.ClockWarning")


def learnt(error=3.0, parameters=50, **settings):
    return Learnt(
        **{
            "kept": {"input": [0, 2], "fc1": [1]}, "parameters": parameters, "macs": 40,
            "dense_parameters": 1000, "dense_macs": 800, "error": error, "nll": 0.1,
            "errors": [error + 1, error - 0.5, error], "training_macs": 1e6, "seconds": 2.0,
            "processor_seconds": 3.0, "undecided": 0, **settings,
        }
    )  # fmt: skip


@dataclass(frozen=True)
class Planned:
    """A method whose errors and sizes are known; it says what it was asked."""

    name: str
    of_value: dict[float, tuple[float, int]]
    beside: str | None = None
    asked: list = field(default_factory=list)
    setting: str = "price"
    needs: str | None = None

    @property
    def settings(self):
        return tuple(self.of_value)

    def learn(self, setup, value, seed, other):
        self.asked.append((value, seed, len(setup.train), len(setup.test), other))
        error, parameters = self.of_value[value]
        return learnt(error + seed, parameters)


def table_of(*methods, **settings):
    return replace(TABLES["mnist-mlp"], methods=methods, most_parameters=6.0, **settings)


def test_a_setting_is_chosen_by_held_out_rows_among_those_that_are_small_enough(tmp_path):
    ours = Planned("ours", {1.0: (2.0, 100), 1.4: (3.0, 60), 2.0: (4.0, 30)})
    found = run_table(table_of(ours), tmp_path / "t", seeds=2, quick=True)
    assert found.chosen == {"ours": 1.4}
    assert found.tried == {"ours": {1.0: (2.0, 10.0), 1.4: (3.0, 6.0), 2.0: (4.0, 3.0)}}
    held, rest = round(1437 / 12), 1437 - round(1437 / 12)
    assert [each[:4] for each in ours.asked] == [
        (1.0, 0, rest, held), (1.4, 0, rest, held), (2.0, 0, rest, held),
        (1.4, 0, 1437, 360), (1.4, 1, 1437, 360),
    ]  # fmt: skip
    digits = bp.data.load("digits")
    assert [run.error for run in found.runs["ours"].values()] == [3.0, 4.0]
    assert len(digits.test) == 360


def test_where_none_is_small_enough_the_smallest_is_taken(tmp_path):
    ours = Planned("ours", {1.0: (2.0, 100), 1.4: (3.0, 90)})
    assert run_table(table_of(ours), tmp_path / "t", seeds=1, quick=True).chosen == {"ours": 1.4}


def test_who_is_fitted_to_another_is_given_its_training_of_the_same_seed(tmp_path):
    ours = Planned("ours", {1.0: (2.0, 30), 2.0: (1.0, 20)})
    small = Planned("small", {0.5: (9.0, 30), 0.1: (8.0, 900)}, beside="ours")
    found = run_table(table_of(ours, small), tmp_path / "t", seeds=2, quick=True)
    assert [each[4].error for each in small.asked] == [1.0, 1.0, 1.0, 2.0]  # held out twice, then two seeds
    assert found.chosen["small"] == 0.5  # 90 % of the parameters are too many


def test_what_is_kept_is_not_learnt_again_and_a_table_grows(tmp_path):
    ours = Planned("ours", {1.0: (2.0, 50), 1.4: (3.0, 60)})
    one = run_table(table_of(ours), tmp_path / "t", seeds=1, quick=True)
    count = len(ours.asked)
    assert run_table(table_of(ours), tmp_path / "t", seeds=1, quick=True) == one
    assert len(ours.asked) == count
    two = run_table(table_of(ours), tmp_path / "t", seeds=2, quick=True)
    assert len(ours.asked) == count + 1 and two.runs["ours"][0] == one.runs["ours"][0]


def test_a_folder_of_another_table_or_of_other_files_is_left_alone(tmp_path):
    ours = Planned("ours", {1.0: (2.0, 50)})
    run_table(table_of(ours), tmp_path / "t", seeds=1, quick=True)
    with pytest.raises(RunFolderError, match="epochs 40, not 3"):
        run_table(table_of(ours), tmp_path / "t", seeds=1, quick=True, epochs=3)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/letter.txt").write_text("dear")
    with pytest.raises(RunFolderError, match="no table"):
        run_table(table_of(ours), tmp_path / "mine", seeds=1, quick=True)


def test_a_damaged_training_is_named_and_not_replaced(tmp_path):
    ours = Planned("ours", {1.0: (2.0, 50)})
    run_table(table_of(ours), tmp_path / "t", seeds=1, quick=True)
    path = tmp_path / "t/ours/seed-0.json"
    content = json.loads(path.read_text())
    content["learnt"]["macs"] = "many"
    path.write_text(json.dumps(content))
    with pytest.raises(RunFolderError, match=r"seed-0\.json: learnt\.macs is 'many'.*Delete it"):
        run_table(table_of(ours), tmp_path / "t", seeds=1, quick=True)
    assert "many" in path.read_text()


def test_a_training_at_another_setting_is_not_taken_for_this_one(tmp_path):
    run_table(table_of(Planned("ours", {1.0: (2.0, 50)})), tmp_path / "t", seeds=1, quick=True)
    with pytest.raises(RunFolderError, match="was learnt at 1, and 3 is chosen now"):
        run_table(table_of(Planned("ours", {3.0: (2.0, 50)})), tmp_path / "t", seeds=1, quick=True)


def test_real_methods_are_as_small_as_they_are_to_be_and_count_what_they_train(tmp_path):
    ours, dense, small, scratch, magnitude = TABLES["mnist-mlp"].methods[:5]
    alone = (replace(ours, settings=(1.0,)),)
    rest = tuple(replace(each, settings=(1.0,)) for each in (dense, small, scratch, magnitude))
    table = replace(TABLES["mnist-mlp"], methods=alone + rest)
    runs = {
        name: by[0]
        for name, by in run_table(table, tmp_path / "t", seeds=1, quick=True, epochs=3).runs.items()
    }
    pruned = runs[OURS]
    assert pruned.parameters < pruned.dense_parameters == 784 * 300 + 300 + 300 * 100 + 100 + 1010
    whole = runs["dense"]
    assert whole.parameters == whole.dense_parameters and whole.undecided is None
    assert whole.training_macs == FORWARD_AND_BACK * 3 * 1437 * whole.dense_macs
    assert pruned.training_macs < whole.training_macs
    kept = runs["the kept shape, from scratch"]
    assert (kept.kept, kept.parameters, kept.macs) == (pruned.kept, pruned.parameters, pruned.macs)
    for name in ("small dense, all widths alike", "magnitude, ten cuts, inputs too"):
        assert 0.9 * pruned.parameters < runs[name].parameters <= pruned.parameters
    for run in runs.values():
        assert len(run.errors) == 3 and run.errors[-1] == run.error and run.best <= run.error


def test_every_epoch_of_a_shipped_inference_is_scored_as_fit_scores_its_own():
    digits = bp.data.load("digits")
    setup = Setup(execute(find("lenet_300_100", "models")), digits.train, digits.test, 10, 2, 32)
    by_fit, by_program = (
        Gates("ours", inference=inference).learn(setup, 1.0, 0, None) for inference in (None, "svi_shrink")
    )
    assert len(by_program.errors) == 2 and by_program.errors == by_fit.errors
    slab = replace(setup, program=execute(find("lenet_300_100_spike_slab", "models")))
    methods = [each for each in TABLES["spike-slab"].methods if isinstance(each, Gates)]
    assert len({method.inference for method in methods}) == 2  # ours, and the published one
    for method in methods:
        scored = method.learn(slab, 1.0, 0, None)
        assert len(scored.errors) == 2 and scored.best == min(scored.errors)


def test_a_scale_of_prices_is_one_and_setups_are_alike_by_seed():
    digits = bp.data.load("digits")
    setup = Setup(execute(find("lenet_300_100", "models")), digits.train, digits.test, 10, 1, 32)
    before = torch.random.get_rng_state()
    one, two = setup.gated(3), setup.gated(3, 2.0)
    assert torch.equal(before, torch.random.get_rng_state())
    for a, b in zip(one.network.parameters(), two.network.parameters(), strict=True):
        assert torch.equal(a, b)
    table = setup.program.prices(1437)
    doubled = {group: 2 * nats for group, nats in table.items()}
    assert two.prior.hyper == bp.priors.Flattening(doubled) != one.prior.hyper


def test_published_families_prune_the_same_network_from_the_same_weights(tmp_path):
    chosen = [replace(each, settings=each.settings[:1]) for each in CONTINUOUS]
    assert len({each.name for each in chosen}) == 6
    table = replace(TABLES["mnist-mlp"], methods=tuple(chosen))
    found = run_table(table, tmp_path / "t", seeds=1, quick=True, epochs=2)
    digits = bp.data.load("digits")
    setup = Setup(execute(find("lenet_300_100", "models")), digits.train, digits.test, 10, 1, 32)
    first = dict(setup.gated(0).network.named_parameters())
    for method in chosen:
        (learnt,) = found.runs[method.name].values()
        assert set(learnt.kept) == {"input", "fc1", "fc2"} and len(learnt.errors) == 2
        assert learnt.parameters <= learnt.dense_parameters == 266_610
        gated = method.gated(setup, method.settings[0], 0)
        begun = dict(gated.network.named_parameters())
        assert all(torch.equal(begun[name], tensor) for name, tensor in first.items())
        assert not gated.unit_noise and gated.weights.posterior == method.posterior
        if method.setting == "weight":  # of fewer rows evidence is less, and so is what units pay
            assert gated.prior.weight == pytest.approx(method.settings[0] * (1437 / 60_000) ** 0.75)


def test_a_method_whose_package_is_absent_is_left_out_with_what_to_install(tmp_path):
    ours, peer = Planned("ours", {1.0: (2.0, 50)}), Planned("peer", {1.0: (1.0, 50)}, needs="no-such-peer")
    said = []
    found = run_table(table_of(ours, peer), tmp_path / "t", seeds=1, quick=True, say=said.append)
    assert set(found.runs) == {"ours"} and not peer.asked
    (line,) = found.left_out
    assert line in said and "pip install no-such-peer" in line and "'bayesprune[benchmarks]'" in line
    assert line in as_text(found) and f"- {line}" in as_markdown(found)
    with_it = table_of(ours, replace(peer, needs="torch"))
    assert set(run_table(with_it, tmp_path / "t", seeds=1, quick=True).runs) == {"ours", "peer"}
    assert len(ours.asked) == 1  # what was learnt is still there


@pytest.mark.filterwarnings("ignore::bayesprune.errors.EmptyGroupWarning")
def test_sections_that_went_are_told_where_there_are_gates_for_them(tmp_path):
    (layers, units, *_) = TABLES["layers"].methods
    digits = bp.data.digits(8)
    setup = Setup(execute(find("resnet20_cifar", "models")), digits.train, digits.test, 10, 4, 32)
    whole, dear = units.gated(setup, 1.0, 0), layers.gated(setup, 1e4, 0)
    assert {g.name for g in dear.groups} - {g.name for g in whole.groups} == {"layers"}
    for name, tensor in whole.network.named_parameters():
        assert torch.equal(dict(dear.network.named_parameters())[name], tensor)
    few = layers.learn(setup, 1e4, 0, None)
    assert few.sections == [len(few.kept["layers"]), 9] and few.sections[0] < 9
    both = replace(
        TABLES["layers"], methods=(Planned("gone", {1.0: (1.0, 50)}), Planned("ours", {1.0: (1.0, 50)}))
    )
    found = run_table(both, tmp_path / "t", seeds=1, quick=True)
    found.runs["gone"][0] = learnt(sections=[7, 9])
    assert "| sections removed |" in as_markdown(found) and "| 2 of 9 |" in as_markdown(found)
    found.runs["gone"][0] = learnt()
    assert "sections removed" not in as_markdown(found)


def test_published_rows_say_what_their_papers_say():
    sizes = {row.method: round(row.parameters_percent, 2) for row in ON_MLP}
    assert sizes["VIBNet"] == 3.59 and sizes["BC-GHS"] == 10.55 and sizes["SBP"] == 8.91
    caffe = {row.method: (round(row.parameters_percent, 2), round(row.macs_percent, 1)) for row in ON_LENET5}
    assert caffe["BC-GHS"] == (0.64, 6.7) and caffe["L0"] == (8.92, 48.6) and caffe["SBP"] == (19.66, 9.3)
    assert all(len(row.kept) == len(row.dense) for row in ON_MLP + ON_LENET5)
    assert all(a <= b for row in ON_MLP + ON_LENET5 for a, b in zip(row.kept, row.dense, strict=True))


def test_a_table_is_printed_with_both_epochs_and_what_was_published(tmp_path):
    ours = Planned("ours", {1.0: (2.0, 50), 1.4: (1.0, 60)})
    found = run_table(table_of(ours), tmp_path / "t", seeds=2, quick=True)
    text, page = as_text(found), as_markdown(found)
    for words in ("ours", "2-1", "1.50 ± 0.71", "1.00 ± 0.71", "price 1.4", "97-71-33", "on the digits"):
        assert words in text or words in page, words
    line = next(line for line in page.splitlines() if line.startswith("| ours"))
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[:6] == ["ours", "2-1", "6.00 ± 0.00", "5.00 ± 0.00", "1.50 ± 0.71", "1.00 ± 0.71"]
    assert "| ours | 1.4 | 1.00 | 6.00 | chosen |" in page


def test_names_are_known(tmp_path):
    with pytest.raises(SettingsError, match="mnist-lenet5"):
        named("imagenet")
    with pytest.raises(SettingsError, match="at least 1"):
        run_table(table_of(Planned("ours", {1.0: (2.0, 50)})), tmp_path / "t", seeds=0)
    for table in TABLES.values():
        names = [method.name for method in table.methods]
        assert len(set(names)) == len(names)
        for number, method in enumerate(table.methods):
            assert isinstance(method, Gates | WithoutGates | TorchPruned)
            assert method.beside is None or method.beside in names[:number]
