"""The root of every failure a user can cause, and the failures of models and weights."""


class RsupError(Exception):
    """A failure a user can cause and mend: one sentence that says what to do.

    The command line prints the sentence, without a traceback, and leaves with `exit_code`.
    """

    exit_code = 1


class ModelError(RsupError):
    """A model that does not exist, does not fit the request, or whose file is damaged."""

    exit_code = 3
