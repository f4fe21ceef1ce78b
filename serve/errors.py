"""Every way in which a request can fail.

    ParleyError
    ├── ConfigError             a profile or catalog is wrong: nothing was deployed
    ├── BadRequest              the caller's input is wrong: names the field
    │   └── ContextExceeded     the conversation is longer than the model can read
    ├── DeadlineExceeded        no answer within the request's time
    ├── ModelError
    │   ├── EngineMissing       a package, library or file is not installed
    │   ├── EngineFailed        the engine broke down on this request        (retryable)
    │   └── StreamLost          the replica does not know this stream: send the utterance whole  (retryable)
    ├── Unavailable                                                          (retryable)
    │   ├── Overloaded          full: every slot is taken                    (retryable)
    │   ├── ReplicaLost         the replica died or went away                (retryable)
    │   └── NotDeployed         no model of this name is running
    └── ProviderError           a proxied provider refused
        ├── AuthFailed          key missing, wrong or without rights
        ├── QuotaExceeded       the account's budget is used up
        ├── RateLimited         too many requests for now                    (retryable)
        └── ProviderDown        it is away, broken, or its circuit is open   (retryable)

`retryable` means: the same request may succeed on another replica. Another model may serve whatever is not the caller's
own fault (`elsewhere`). Errors are built from positional arguments alone, so that they cross a Serve handle with type
and fields.
"""

from __future__ import annotations

from typing import ClassVar


class ParleyError(Exception):
    """Base of all; `str(error)` is a sentence for a person, without content of the conversation."""

    retryable: ClassVar[bool] = False
    elsewhere: ClassVar[bool] = True

    @property
    def code(self) -> str:
        """A stable name for logs, metrics and API errors: the class's name."""
        return type(self).__name__


class ConfigError(ParleyError):
    """A profile or catalog is wrong; the message names the key, its place and the choices."""


class BadRequest(ParleyError):
    """The caller's input is wrong.

    Args:
        field: The field at fault, as the caller wrote it.
        problem: What is wrong, and what would be right.
    """

    elsewhere = False

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(field, problem)
        self.field = field
        self.problem = problem

    def __str__(self) -> str:
        return f"{self.field}: {self.problem}"


class ContextExceeded(BadRequest):
    """The conversation is longer than the model can read; the same arguments as `BadRequest`."""


class DeadlineExceeded(ParleyError):
    """No answer within the request's time."""


class ModelError(ParleyError):
    """A model did not do its work."""


class EngineMissing(ModelError):
    """A package, library or file is not there; the message says what to install."""


class EngineFailed(ModelError):
    """The engine broke down on this request; another replica may not."""

    retryable = True


class StreamLost(ModelError):
    """The replica does not know this stream (it is new, or gave it up): send the utterance whole."""

    retryable = True
    elsewhere = False


class Unavailable(ParleyError):
    """Nobody can take the request now."""

    retryable = True


class Overloaded(Unavailable):
    """Every slot is taken."""


class ReplicaLost(Unavailable):
    """The replica died or went away in the middle of the request."""


class NotDeployed(Unavailable):
    """No model of this name is running."""

    retryable = False


class ProviderError(ParleyError):
    """A proxied provider refused; the message carries the provider's meaning, never its payload."""


class AuthFailed(ProviderError):
    """The provider's key is missing, wrong or without rights."""


class QuotaExceeded(ProviderError):
    """The provider's budget for this account is used up."""


class RateLimited(ProviderError):
    """Too many requests for now."""

    retryable = True


class ProviderDown(ProviderError):
    """The provider is away or broken; or it was, a moment ago, and is given time to recover."""

    retryable = True
