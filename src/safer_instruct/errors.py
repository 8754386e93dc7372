"""Every exception this package raises on purpose.

    SaferInstructError
    ├── ConfigError          a config, domain or template file says something it must not
    ├── SourceError          a corpus is missing, or holds no usable row
    │   └── ColumnError      a table lacks a column that is asked for
    ├── MissingExtraError    an optional dependency is not installed
    ├── RunDirectoryError    the run directory belongs to another config, another process, or is damaged
    ├── AccountingError      rows in != pairs + dropped + set aside: a bug, never ignored
    ├── BudgetError          the cap in money or tokens leaves no room for the next call; the run stops, nothing is lost
    ├── RunnerError          the engine that runs the workers of a run failed; what they had finished is saved
    ├── HubError             the hub cannot be reached, or refuses an upload; what was exported stays
    ├── StorageError         object storage cannot be reached, refuses, or lacks what is asked for; what was saved is safe
    └── ModelError           a model is missing, unusable, or failed after its retries
        ├── AccessError      the endpoint refuses or lacks what every request needs: key, model, scoring; the run stops
        ├── RequestError     this one request can never succeed; its example is set aside, the run goes on
        └── AnswerError      an answer cannot be read as what was asked for; its example is dropped, the run goes on

Each message says what was wrong, where, and what to do. The command line prints it on one line and exits with 2.
"""

from __future__ import annotations


class SaferInstructError(Exception):
    """Root of the tree: catch this to catch all of them."""


class ConfigError(SaferInstructError):
    """A config, domain or template file says something it must not."""


class SourceError(SaferInstructError):
    """A corpus is missing, or holds no usable row."""


class ColumnError(SourceError):
    """A table lacks a column that is asked for.

    Attributes:
        problem: What is wrong, and where.
    """

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(problem, remedy)
        self.problem, self._remedy = problem, remedy

    def __str__(self) -> str:
        return f"{self.problem}; {self._remedy}"


class MissingExtraError(SaferInstructError):
    """An optional dependency is not installed.

    Attributes:
        package: What is not there.
        extra: The extra that brings it.
        purpose: What needs it.
    """

    def __init__(self, package: str, extra: str, purpose: str, instead: str = "") -> None:
        super().__init__(f"{purpose} needs {package}, which is not installed; run: pip install 'safer-instruct[{extra}]'{instead}")
        self.package, self.extra, self.purpose = package, extra, purpose


class RunDirectoryError(SaferInstructError):
    """The run directory belongs to another config, another process, or is damaged."""


class AccountingError(SaferInstructError):
    """Rows in do not equal pairs + dropped + set aside."""


class BudgetError(SaferInstructError):
    """The cap in money or tokens leaves no room for the next call."""


class RunnerError(SaferInstructError):
    """The engine that runs the workers of a run failed; what they had finished is saved."""


class HubError(SaferInstructError):
    """The hub cannot be reached, or refuses an upload; what was exported stays."""


class StorageError(SaferInstructError):
    """Object storage cannot be reached, refuses, or lacks what is asked for."""


class ModelError(SaferInstructError):
    """A model is missing, unusable, or failed after its retries."""


class AccessError(ModelError):
    """The endpoint refuses or lacks what every request needs: a key, the model, prompt log-probabilities."""


class RequestError(ModelError):
    """The endpoint refused this one request for what is in it (HTTP 400, 413, 422); other requests may succeed.

    Attributes:
        stage: What the request was for; empty where no ledger records it.
    """

    stage = ""


class AnswerError(ModelError):
    """A model's answer cannot be read as what was asked for; it is in the ledger all the same."""
