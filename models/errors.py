"""The root of every failure a user can cause, and the failures of models and weights."""


class RsupError(Exception):
    """A failure a user can cause and mend: one sentence that says what to do.

    The command line prints the sentence, without a traceback, and leaves with `exit_code`.
    """

    exit_code = 1


class ModelError(RsupError):
    """A model that does not exist, does not fit the request, or whose file is damaged."""

    exit_code = 3


class RecipeError(RsupError):
    """A training recipe that cannot be read, or settings in it that do not fit each other."""

    exit_code = 2


class DataError(RsupError):
    """Images to learn from or to be measured on that are missing, unreadable or too few."""

    exit_code = 8


class TrainingError(RsupError):
    """A training run that cannot start, go on, or that lost its footing (a loss that is not finite)."""

    exit_code = 9
