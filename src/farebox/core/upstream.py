"""What an upstream is asked besides orders, and what it may answer: lists, and the records of generations.

Lists have names of our own. Their entries and the members of a record have the shapes of OpenRouter's API, since that
is the one served here: an upstream of another kind translates into them.
"""

from collections.abc import Mapping
from enum import StrEnum

from msgspec import Raw, Struct

from farebox.core.formats.videos import Job
from farebox.core.usage import Cost, Unknown


class Unreadable(Struct, frozen=True):
    """The upstream's answer cannot be read, for this reason."""

    reason: str


class Failed(Struct, frozen=True):
    """The upstream answered with an error; `answer` names it, like `status 500`."""

    answer: str


Filters = tuple[tuple[str, str], ...]
"""Names and values of a list's filters, as in the caller's query, unescaped."""


class ListKind(StrEnum):
    """The lists that are served, each by its path under our own base; and CONTENT, what is kept of one generation's
    prompt and answer, which is no list and is never kept here."""

    MODELS = "/models"
    OWN_MODELS = "/models/user"
    EMBEDDING_MODELS = "/embeddings/models"
    PROVIDERS = "/providers"
    ZDR_ENDPOINTS = "/endpoints/zdr"
    MODEL_ENDPOINTS = "/models/{model}/endpoints"
    IMAGE_MODELS = "/images/models"
    IMAGE_ENDPOINTS = "/images/models/{model}/endpoints"
    VIDEO_MODELS = "/videos/models"
    CONTENT = "/generation/content"


class ListQuery(Struct, frozen=True):
    """A list, how it is filtered, and for MODEL_ENDPOINTS and IMAGE_ENDPOINTS the model that it is about."""

    kind: ListKind
    filters: Filters = ()
    model: str = ""

    @property
    def path(self) -> str:
        """The path at which callers read it, which is its name in messages."""
        return self.kind.format(model=self.model)


ALL_MODELS = ListQuery(ListKind.MODELS, (("output_modalities", "all"),))
"""Every model. Without the filter the list has only those that put out text."""


class Listing(Struct, frozen=True):
    """A list's entries; or, where the upstream answers with a single object, that one as `data`."""

    entries: tuple[Raw, ...] = ()
    data: Raw = Raw(b"null")


class NoSuchList(Struct, frozen=True):
    """The upstream has no such list."""


class QueryRefused(Struct, frozen=True):
    """The upstream does not accept the filters; `message` says why."""

    message: str


ListAnswer = Listing | NoSuchList | QueryRefused | Failed | Unreadable


class Recorded(Struct, frozen=True):
    """A generation's record. `cost` is Unknown where the record does not say it. `members` are the record's, by their
    names in `GET /generation`, as callers read them."""

    cost: Cost | Unknown
    members: Mapping[str, Raw] | Unreadable
    model: str | None = None
    prompt_tokens: int | None = None
    answer_tokens: int | None = None


class NotYet(Struct, frozen=True):
    """The upstream has no record of the generation; there may be one later."""


class NoRecords(Struct, frozen=True):
    """The upstream keeps no records of generations: what its answer said is all that will ever be known."""


class AskedTooOften(Struct, frozen=True):
    """Ask nothing for a while: for `retry_after_seconds`, where the upstream says how long. `answer` as in `Failed`."""

    answer: str
    retry_after_seconds: float | None = None


RecordAnswer = Recorded | NotYet | NoRecords | AskedTooOften | Failed


class NoSuchJob(Struct, frozen=True):
    """The upstream does not know the job; it may have forgotten it."""


JobAnswer = Job | NoSuchJob | Unreadable | AskedTooOften | Failed
