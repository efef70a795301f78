"""Graph convolutions: edges are integers among the inputs, of any number, and messages are added up."""

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

import bayesprune as bp
from bayesprune.errors import DataError, UnsupportedNetworkError
from tests.structure.graph.test_rules import exact, sizes

pytestmark = pytest.mark.filterwarnings("ignore:Sparse invariant checks are implicitly disabled:UserWarning")


def batch(rows=4, edges=7, seed=0):
    """(rows, nodes, 5), and (rows, 2, edges) from where to where."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, 4, 5, generator=generator), torch.randint(
        4, (rows, 2, edges), generator=generator
    )


class Convolved(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second, self.head = nn.Linear(5, 8), nn.Linear(8, 6), nn.Linear(6, 2)

    def forward(self, x, edges):
        h = self.first(x).tanh()
        h = self.second(h + self.mixed(h, edges)).tanh()
        return self.head((h + self.mixed(h, edges)).mean(1))

    def flat(self, h, edges):
        """Nodes of all rows one behind the other."""
        edges = edges + h.shape[1] * torch.arange(h.shape[0])[:, None, None]
        return h.flatten(0, 1), edges[:, 0].flatten(), edges[:, 1].flatten()


class Gathered(Convolved):
    def mixed(self, h, edges):
        messages = h.gather(1, edges[:, 0, :, None].expand(-1, -1, h.shape[-1]))
        target = edges[:, 1, :, None].expand_as(messages)
        return torch.zeros_like(h).scatter_add(1, target, messages)


class Largest(Convolved):
    def mixed(self, h, edges):
        messages = h.gather(1, edges[:, 0, :, None].expand(-1, -1, h.shape[-1]))
        target = edges[:, 1, :, None].expand_as(messages)
        return torch.zeros_like(h).scatter_reduce(1, target, messages, "amax", include_self=False)


class Mean(Convolved):
    def mixed(self, h, edges):
        whole, source, target = self.flat(h, edges)
        count = h.new_zeros(len(whole)).index_add(0, target, torch.ones(len(target), dtype=h.dtype))
        y = torch.zeros_like(whole).index_add(0, target, whole[source])
        return (y / count.clamp(min=1)[:, None]).view_as(h)


class InPlace(Convolved):
    def mixed(self, h, edges):
        whole, source, target = self.flat(h, edges)
        y = whole.new_zeros(whole.shape)
        y.index_add_(0, target, whole[source])
        return y.view_as(h)


class Product(Convolved):
    """A sparse matrix that is put together in forward."""

    def mixed(self, h, edges):
        whole, source, target = self.flat(h, edges)
        ones = torch.ones(len(source), dtype=h.dtype)
        matrix = torch.sparse_coo_tensor(torch.stack([target, source]), ones, (len(whole), len(whole)))
        return torch.sparse.mm(matrix, whole).view_as(h)


class Summed(Convolved):
    """As the refusals of sparse matrices say."""

    def mixed(self, h, edges):
        h, source, target = self.flat(h, edges)
        return torch.zeros_like(h).index_add(0, target, h[source]).view(len(edges), -1, h.shape[-1])


@pytest.mark.parametrize(
    "kind",
    [
        Gathered,
        Mean,
        InPlace,
        Product,
        *(pytest.param(k, marks=pytest.mark.nightly) for k in (Largest, Summed)),
    ],
)
def test_units_pass_along_edges(kind, tmp_path):
    analysis = exact(kind(), *batch())
    assert sizes(analysis) == {"first": 8, "second": 6}
    small = analysis.cut({"first": torch.arange(8) % 3 > 0}).eval()
    assert type(small) is kind
    x, edges = batch(edges=3)  # fewer than it has seen
    if kind is not Product:
        bp.save(small, tmp_path, example=(x.double(), edges))
        x, edges = batch(edges=11, seed=1)
        assert torch.equal(bp.load(tmp_path)(x.double(), edges), small(x.double(), edges))


class Buffered(Convolved):
    """One graph for all rows, kept as a sparse matrix."""

    def __init__(self):
        super().__init__()
        self.register_buffer("matrix", torch.eye(4).to_sparse())

    def mixed(self, h, edges):
        return torch.stack([torch.sparse.mm(self.matrix, one) for one in h])


def test_what_sparse_is_refused_is_told_with_what_is_the_same(tmp_path):
    x, edges = batch()
    with pytest.raises(UnsupportedNetworkError, match=r"rows are dense: give them \.to_dense\(\)"):
        bp.analyse(Convolved(), (x, torch.eye(4).expand(4, 4, 4).to_sparse()))
    with pytest.raises(UnsupportedNetworkError, match=r"'matrix' is sparse: keep its indices.*index_add\(0"):
        bp.analyse(Buffered(), (x, edges))
    product, summed = Product().eval(), Summed().eval()
    summed.load_state_dict(product.state_dict())
    torch.testing.assert_close(summed(x, edges), product(x, edges))
    with pytest.raises(UnsupportedNetworkError, match=r"sparse_coo_tensor.*zeros_like\(h\)\.index_add\(0"):
        bp.save(product, tmp_path, example=(x, edges))
    bp.save(summed, tmp_path, example=(x, edges))


def learnt():
    """The result of a fit, its batches, and an example."""
    torch.manual_seed(0)
    drawn = (batch(16, number, seed) for seed, number in enumerate((5, 9, 2, 12, 7)))
    batches = DataLoader(
        [{"x": x, "edges": e, "labels": (x[:, 0, 0] > 0).long()} for x, e in drawn], batch_size=None
    )
    prior = bp.priors.BernoulliGates(bp.priors.Flattening(3.0))
    example = dict(zip(("x", "edges"), batch(2), strict=True))
    gated = bp.gate(Mean(), example, prior=prior, likelihood=bp.Categorical(rows=80))
    return bp.fit(gated, batches, epochs=3, rows=80, progress=False), batches, example


def test_batches_have_as_many_edges_as_they_like(tmp_path):
    result, batches, example = learnt()
    small = bp.prune(result)
    assert type(small) is Mean
    score = bp.evaluate(small, batches, result.likelihood).score
    bp.save(small, tmp_path, example=example)
    assert bp.evaluate(bp.load(tmp_path), batches, result.likelihood).score == score
    with pytest.raises(DataError, match=r"edges have \(2, 5\) in one batch and \(2, 9\) in another"):
        bp.evidence(result, batches)


@pytest.mark.nightly
def test_evidence_certificates_and_selections_are_of_edges_too():
    result, batches, example = learnt()
    small, one = bp.prune(result), next(iter(batches))  # of one size
    assert {"first", "second"} <= set(bp.evidence(result, one).group)
    trained_on = dict(zip(("x", "edges"), batch(9, 5, 99), strict=True))
    found = bp.certify(small, one, alpha=0.9, delta=0.2, trained_on=trained_on, progress=False)
    assert found.certificate is not None
    masks = bp.selection.select(bp.selection.Magnitude(), bp.selection.Subject.of(small, example), share=0.8)
    chosen = bp.selection.prune(small, masks, example=example)
    assert type(chosen) is Mean and chosen.first.out_features < small.first.out_features
