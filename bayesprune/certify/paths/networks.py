"""A path of networks that somebody made: each its own training, or pruned elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial

from torch import nn

from bayesprune.certify.paths.protocol import Candidate
from bayesprune.errors import CertificateError
from bayesprune.rows import Inputs


class Networks:
    """Any networks, in the order in which they shall be tested: the least pruned first.

    A certificate names the certified one by its weights; the others cannot be made again from the file, so
    that whoever verifies takes their p-values as they are written.

    Args:
        networks: modules, or name → module. Consumed at once.
        name: how the certificate calls the path.

    Raises:
        CertificateError: none, or something that is no network.
    """

    def __init__(
        self, networks: Iterable[nn.Module] | Mapping[str, nn.Module], name: str = "given networks"
    ) -> None:
        named = dict(networks) if isinstance(networks, Mapping) else dict(enumerate(networks))
        strange = [
            f"{key}: {type(value).__name__}"
            for key, value in named.items()
            if not isinstance(value, nn.Module)
        ]
        if strange or not named:
            raise CertificateError(
                f"The path holds {'; '.join(strange) or 'no network'}: give nn.Modules, the least pruned "
                "first."
            )
        self.networks, self._name = named, name

    @property
    def name(self) -> str:
        """How the certificate calls it."""
        return self._name

    def candidates(self, reference: nn.Module, example: Inputs) -> Sequence[Candidate]:
        """The networks, as they are.

        Args:
            reference: not looked at.
            example: not looked at.
        """
        return [Candidate(str(key), partial(_itself, network)) for key, network in self.networks.items()]


def _itself(network: nn.Module) -> nn.Module:
    return network
