"""Upstreams as they are declared: what is known of one before it is asked anything.

An upstream's models have the names that callers use (*ours*), and the names that the upstream itself uses (*its own*).
"""

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import Literal
from urllib.parse import urlsplit

from msgspec import Struct

from farebox.core.formats.table import FORMATS
from farebox.core.names import with_fewer_variants
from farebox.core.traits import UNSAID, Traits, over

AtHangUp = Literal["cancel", "drain"]
"""What becomes of a stream whose caller hung up: it is stopped and its cost asked for, or read to its end."""

PricedBy = Literal["itself", "file", "openrouter", "free"]
"""Whose prices an upstream's orders cost: those that it tells with each answer, those of the operator's file, those of
OpenRouter's public list for the same model, or none."""

CappedBy = Literal["max_tokens", "max_completion_tokens"]
"""The member of a chat completion that caps its answer. Ollama, LM Studio and older servers read only the former and
skip the latter, OpenAI's models that reason refuse the former, and both together are refused by OpenAI."""

FORMAT_NAMES: Mapping[str, str] = MappingProxyType({"chat": "/chat/completions"})
"""Formats whose name is not that of their path."""


class Timeouts(Struct, frozen=True):
    """In seconds: for a connection; from the order sent to the answer's head (`first_byte`); between two pieces of its
    body (`no_data`)."""

    connect: float
    first_byte: float
    no_data: float


class KindFacts(Struct, frozen=True):
    """What is so of all upstreams of a kind, unless a declaration says otherwise.

    `formats` are those that it speaks where none are declared, `can_speak` those that may be declared (None: all).
    `tells_cost`: its answers say what they cost. `has_generations`: it keeps a record of each order, and can be asked
    what one cost. `key_variable` is used where no `base_url` is declared.
    """

    base_url: str | None = None
    key_variable: str | None = None
    formats: frozenset[str] | None = None
    can_speak: frozenset[str] | None = None
    tells_cost: bool = True
    has_generations: bool = True


_OPENAIS = frozenset({"/chat/completions", "/responses", "/embeddings"})
_ANTHROPICS = frozenset({"/messages"})

KIND_FACTS: Mapping[str, KindFacts] = MappingProxyType(
    {
        "openrouter": KindFacts("https://openrouter.ai/api/v1", "OPENROUTER_API_KEY"),
        "openai": KindFacts(
            "https://api.openai.com/v1",
            "OPENAI_API_KEY",
            formats=_OPENAIS,
            can_speak=_OPENAIS | {"/rerank"},
            tells_cost=False,
            has_generations=False,
        ),
        "anthropic": KindFacts(
            "https://api.anthropic.com",
            "ANTHROPIC_API_KEY",
            formats=_ANTHROPICS,
            can_speak=_ANTHROPICS,
            tells_cost=False,
            has_generations=False,
        ),
    }
)
"""A kind that is not here tells costs, has generations, speaks every format, and has no URL of its own."""


def facts_of(kind: str) -> KindFacts:
    return KIND_FACTS.get(kind, KindFacts())


_OPENAIS_HOSTS = ("api.openai.com", "openai.azure.com")


def usual_cap(kind: str, base_url: str) -> CappedBy | None:
    """The cap that an upstream is known to read: OpenAI's own, at its own addresses and Azure's."""
    host = urlsplit(base_url).hostname or ""
    is_openais = any(host == each or host.endswith(f".{each}") for each in _OPENAIS_HOSTS)
    return "max_completion_tokens" if kind == "openai" and is_openais else None


class Declared(Struct, frozen=True):
    """One upstream as it is declared; `name` is the operator's for it.

    `key_variable` names the environment variable with its key, None where it wants none. `models` are shell patterns
    over our names of what it serves, None for all that it lists itself. `names` are pairs of our name and its own, each
    with one `*` at most, which stands for the same in both. `formats` are those that it speaks, by their paths, None
    for every one. `orders_max`: how many orders it gets at once, None without a bound. `order` and `weight` are for
    picking one of several: the lowest order first, those of one order by their weights. `capped_by` is the only cap
    that its chat completions get; None where an order's own goes along as it came, and `max_tokens` with what is made
    here. `traits` are of all its models; `per_model` are those of some, by names or patterns over our names.
    """

    name: str
    kind: str
    base_url: str
    timeouts: Timeouts
    key_variable: str | None = None
    models: tuple[str, ...] | None = None
    names: tuple[tuple[str, str], ...] = ()
    formats: frozenset[str] | None = None
    at_hang_up: AtHangUp = "cancel"
    orders_max: int | None = None
    order: int = 0
    weight: int = 1
    prices: PricedBy = "itself"
    capped_by: CappedBy | None = None
    traits: Traits = UNSAID
    per_model: tuple[tuple[str, Traits], ...] = ()
    is_built_in: bool = False
    """None is declared, and this is the one that there is then."""

    @property
    def tells_cost(self) -> bool:
        return facts_of(self.kind).tells_cost

    @property
    def has_generations(self) -> bool:
        return facts_of(self.kind).has_generations

    @property
    def is_free(self) -> bool:
        """Whether no order costs anything there, whatever its answer says or leaves out."""
        return self.prices == "free"

    def speaks(self, path: str) -> bool:
        return self.formats is None or path in self.formats

    def native(self, path: str) -> str | None:
        """The path of the format in which an order of this one goes there, be it translated; None where there is
        none."""
        if self.formats is None or path in self.formats:
            return path
        return next((each for each in _NATIVES if each in self.formats), None) if path in _NATIVES else None

    @property
    def takes_all(self) -> bool:
        """Whether every order can go there as it is: it has all formats and models, and tells what each cost."""
        return self.formats is None and self.models is None and self.tells_cost

    def may_serve(self, model: str) -> bool:
        """Whether its patterns let a model of ours through, or one that this is a variant of."""
        if self.models is None:
            return True
        return any(_is_meant(model, pattern) for pattern in self.models)

    def traits_of(self, model: str) -> Traits:
        """What is declared of a model of ours: by its full name, else by the first pattern that says it, else of the
        whole upstream."""
        patterns = [(name, traits) for name, traits in self.per_model if is_pattern(name)]
        named = [(name, traits) for name, traits in self.per_model if not is_pattern(name)]
        found = self.traits
        for name, traits in (*reversed(patterns), *named):
            if _is_meant(model, name):
                found = over(found, traits)
        return found

    def own_name(self, model: str) -> str:
        """What the upstream itself calls a model of ours; a variant (`:nitro`) goes along."""
        return _renamed(model, self.names)

    def our_names(self, own: str) -> tuple[str, ...]:
        """What we call a model of the upstream's; its own name, where `names` has no other for it."""
        found = [ours for to, at in self.names if (ours := _through(own, at, to)) is not None]
        return tuple(found) or (own,)

    def served(self, own_names: Iterable[str]) -> tuple[str, ...]:
        """Our names of what it serves, of all that it lists and of those that are declared by their full names."""
        listed = [ours for own in own_names for ours in self.our_names(own)]
        declared = [each for each in self.models or () if not is_pattern(each)]
        named = [ours for ours, _ in self.names if not is_pattern(ours)]
        every = dict.fromkeys([*declared, *named, *listed])
        return tuple(each for each in every if self.may_serve(each))

    def unmatched(self, served: Iterable[str]) -> tuple[str, ...]:
        """Those of its patterns, and of the names under which traits are declared, that match nothing of what it
        serves."""
        names = tuple(served)
        every = dict.fromkeys((*(self.models or ()), *(name for name, _ in self.per_model)))
        return tuple(each for each in every if not any(fnmatchcase(name, each) for name in names))


_NATIVES = ("/chat/completions", "/responses", "/messages")
"""Into which format an order becomes, where its upstream does not speak its own: the first that it does speak."""


def _is_meant(model: str, pattern: str) -> bool:
    """Whether a pattern matches a model, or one that this is a variant of."""
    return any(fnmatchcase(name, pattern) for name in with_fewer_variants(model))


def is_pattern(text: str) -> bool:
    return any(each in text for each in "*?[")


def _renamed(model: str, names: tuple[tuple[str, str], ...]) -> str:
    for name in with_fewer_variants(model):
        for ours, own in names:
            if (found := _through(name, ours, own)) is not None:
                return found + model.removeprefix(name)
    return model


def _through(name: str, pattern: str, to: str) -> str | None:
    """What a name becomes by a pair; None where the pair is not for it."""
    before, star, after = pattern.partition("*")
    if not star:
        return to if name == pattern else None
    is_match = name.startswith(before) and name.endswith(after) and len(name) >= len(before) + len(after)
    return to.replace("*", name[len(before) : len(name) - len(after)], 1) if is_match else None


def prices_source(declared: Iterable[Declared]) -> str:
    """What the price list of several upstreams together is called, among processes that share it: the same for all that
    have the same declared."""
    return "; ".join(sorted(f"{each.name} {each.base_url}" for each in declared))


def format_name(path: str) -> str:
    """The word for a format in settings and messages: `chat` of `/chat/completions`."""
    return next((name for name, each in FORMAT_NAMES.items() if each == path), path.removeprefix("/"))


def format_paths() -> dict[str, str]:
    """Every format's path by its word."""
    return {format_name(path): path for path in FORMATS}


def names_of(paths: frozenset[str] | None) -> list[str]:
    """The words for formats, in the order of FORMATS; for all of them, where none are said."""
    return [format_name(path) for path in FORMATS if paths is None or path in paths]
