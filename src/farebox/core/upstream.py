"""What an upstream is asked beside orders, and what it may answer: its lists, and its record of a generation.

Lists go by our own names, and a model's entry and a record's members have the shapes of OpenRouter's API, which is the
one that callers speak here: an upstream of another kind puts what it knows into them.
"""

from collections.abc import Mapping
from enum import StrEnum

from msgspec import Raw, Struct

from farebox.core.usage import Cost, Unknown


class Unreadable(Struct, frozen=True):
    """It answered, and what it said cannot be read."""

    reason: str


class Failed(Struct, frozen=True):
    """It answered something else than what was asked; `answer` names that, like `status 500`."""

    answer: str


# Lists

Filters = tuple[tuple[str, str], ...]
"""Names and values of a list's filters, as callers write them, not yet escaped."""


class ListKind(StrEnum):
    """The lists that callers read, each by its path under a base of ours."""

    MODELS = "/models"
    OWN_MODELS = "/models/user"
    EMBEDDING_MODELS = "/embeddings/models"
    PROVIDERS = "/providers"
    ZDR_ENDPOINTS = "/endpoints/zdr"
    MODEL_ENDPOINTS = "/models/{model}/endpoints"


class ListQuery(Struct, frozen=True):
    """Which list is wanted: of which model, where it is about one, and filtered how."""

    kind: ListKind
    filters: Filters = ()
    model: str = ""

    @property
    def path(self) -> str:
        """Where callers read it: its name in what they are told."""
        return self.kind.format(model=self.model)


ALL_MODELS = ListQuery(ListKind.MODELS, (("output_modalities", "all"),))
"""Without the filter, the list has only models that put out text."""


class Listing(Struct, frozen=True):
    """A list's entries; or `data`, where it is not a list but an object that describes one thing."""

    entries: tuple[Raw, ...] = ()
    data: Raw = Raw(b"null")


class NoSuchList(Struct, frozen=True):
    """It has no such list."""


class QueryRefused(Struct, frozen=True):
    """It does not take the filters; `message` says why."""

    message: str


ListAnswer = Listing | NoSuchList | QueryRefused | Failed | Unreadable


# Records


class Recorded(Struct, frozen=True):
    """A generation's record. `cost` is Unknown where the record does not say it. `members` are what a caller may read
    of it, by the names of `GET /generation`."""

    cost: Cost | Unknown
    members: Mapping[str, Raw] | Unreadable
    model: str | None = None
    prompt_tokens: int | None = None
    answer_tokens: int | None = None


class NotYet(Struct, frozen=True):
    """It has no record of the generation; there may be one later."""


class AskedTooOften(Struct, frozen=True):
    """Nothing is to be asked for a while: `retry_after_seconds`, where it says how long."""

    answer: str
    retry_after_seconds: float | None = None


RecordAnswer = Recorded | NotYet | AskedTooOften | Failed
