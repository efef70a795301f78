"""What can go wrong, named: every message gives the place, the value and the remedy."""


class BayespruneError(Exception):
    """Base of every error that a user can cause and mend; the command line ends with exit code 2 on it."""


class UnsupportedNetworkError(BayespruneError):
    """A module or operation of the network has no removal rule yet."""


class NothingToGateError(BayespruneError):
    """The network has no unit that could be removed."""


class PriorError(BayespruneError):
    """A prior, hyper-prior or price is not usable as given."""


class LikelihoodError(BayespruneError):
    """Outputs or targets do not fit the likelihood."""


class SettingsError(BayespruneError):
    """A setting of the inference is out of range."""


class DataError(BayespruneError):
    """A data file or tensor is missing, corrupt or of the wrong shape."""


class ProgramError(BayespruneError):
    """A program file cannot be found, or lacks what is needed."""


class CheckpointError(BayespruneError):
    """A checkpoint is truncated, corrupt, or belongs to another run."""


class RunFolderError(BayespruneError):
    """An output folder cannot be used as asked."""


class PosteriorError(BayespruneError):
    """Posterior draws are missing, of another program, or do not fit together."""


class CertificateError(BayespruneError):
    """A certificate cannot be made or checked: levels, rows, labels, outputs or a file do not fit."""


class DivergedError(BayespruneError):
    """The loss became NaN or infinite."""


class ProcessError(BayespruneError):
    """The processes of one training are not alike any more, or one of them has ended."""


class EndedElsewhereError(ProcessError):
    """Another process of the training has failed, and says why."""


class EmptyGroupWarning(UserWarning):
    """A prior wants every unit of a group gone; the library kept the most probable ones."""


class RemovalError(BayespruneError):
    """A removal would have changed what the network computes; nothing was removed."""


class SelectionError(BayespruneError):
    """A rule cannot choose as asked: too many units, an unknown group, numbers that are not finite, no "
    "budget."""


class TiesWarning(UserWarning):
    """A rule had to choose among units that it cannot tell apart; how many is named."""


class ClockWarning(UserWarning):
    """The end of the selection decides gates, not what is known of them: there were too few steps."""


class RoundingWarning(UserWarning):
    """Gates that a fit has left undecided were put at the nearer vertex, since a network has to be one."""


class BudgetWarning(UserWarning):
    """The network could not be brought close to its budget, or need not be; what it comes to is named."""


class CountWarning(UserWarning):
    """A network multiplies by weights in a way that is not counted, so that its MACs are too few; named."""


class ExportWarning(UserWarning):
    """A file was written, and what it computes could not be compared with the network; why is said."""


class LatencyWarning(UserWarning):
    """Fewer units, or multiplications, did not make a network measurably faster; times are named."""


class PriorWarning(UserWarning):
    """An optimiser decays weights by itself, beside the prior that they have; what that means is said."""


class LossScaleWarning(UserWarning):
    """Losses of several batches add up to more than a mean, beside which the priors weigh too little."""


class TheoryError(BayespruneError):
    """A teacher, a student or their order parameters do not fit together, or a setting is out of range."""


class CertificateWarning(UserWarning):
    """It cannot be known whether calibration rows were trained on; then a certificate would say nothing."""


class LockWarning(UserWarning):
    """A folder's file system knows no locks: nothing keeps two processes from working in it at once."""


class LikelihoodWarning(UserWarning):
    """A network's outputs are of another kind than the likelihood takes them for."""


class CorrelationWarning(UserWarning):
    """Units are correlated, and what is said of them takes them as independent."""


class RowsWarning(UserWarning):
    """Some of the rows that a question rests on are not of the kind that it needs."""


class UnitWarning(UserWarning):
    """Targets are far from mean 0 and standard deviation 1, and the last layer does not take that up."""
