"""Price and evidence: what every unit costs under the prior, and what it saves of the data's nats."""

from bayesprune.lazy import callable_room
from bayesprune.posterior.evidence.ask import evidence
from bayesprune.posterior.evidence.file import EVIDENCE, read_evidence, write_evidence
from bayesprune.posterior.evidence.table import EvidenceTable

__all__ = ["EVIDENCE", "EvidenceTable", "evidence", "read_evidence", "write_evidence"]

callable_room(__name__, "evidence")
