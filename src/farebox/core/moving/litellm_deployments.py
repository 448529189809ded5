"""One entry of a LiteLLM configuration's `model_list`: who serves it here, under which names and at what prices."""

import re
from collections.abc import Mapping
from decimal import Decimal
from fractions import Fraction
from itertools import chain, count
from typing import Any

from msgspec import Struct

from farebox.core.declared import CappedBy
from farebox.core.moving.litellm_members import member_of, unread_price
from farebox.core.moving.litellm_notes import ENVIRONMENT, Note, left, not_carried, number_of, plain, what
from farebox.core.moving.litellm_prices import is_price
from farebox.core.moving.litellm_pricing import TEXT_MODES, ModelPrices, Prices, Pricing, Told
from farebox.core.moving.litellm_providers import PROVIDERS, Provider, base_of, is_plain_url, named

NO_KEYS = frozenset(
    {"", "none", "null", "empty", "fake", "fake-key", "dummy", "no-key", "not-needed", "ollama", "lm-studio", "sk-1234"}
)
"""What people write for a server of their own that wants no key."""

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_PATTERN_SIGNS = frozenset("?[]")


class Rank(Struct, frozen=True, order=True):
    """Of deployments of a model, the lowest is tried first. `fallback`: 0 for the model's own, then as they are listed;
    one whose name is a pattern comes behind exact ones, one without weight behind those that have one."""

    fallback: int = 0
    is_pattern: bool = False
    order: Fraction = Fraction(0)
    is_weightless: bool = False


class Place(Struct, frozen=True):
    """What deployments must have in common to be one upstream."""

    kind: str
    base_url: str | None = None
    key_variable: str | None = None
    formats: tuple[str, ...] | None = None
    first_byte_seconds: Decimal | None = None
    orders_max: int | None = None
    by_list: bool = False
    capped_by: CappedBy | None = None
    rank: Rank = Rank()
    weight: int = 1


class Deployment(Struct, frozen=True):
    """A model, by our name and its provider's own, at a place. `label` is what its upstream's name is made of. `order`
    and `shares` (weight, rpm, tpm) are as they were written."""

    where: str
    ours: str
    own: str
    label: str
    place: Place
    prices: Prices
    order: Fraction | None = None
    shares: tuple[Fraction | None, ...] = (None, None, None)
    notes: tuple[Note, ...] = ()


class Lost(Struct, frozen=True):
    """An entry that cannot be carried over; the last of the notes says why."""

    ours: str
    notes: tuple[Note, ...]


class Keys:
    """Which environment variables hold the upstreams' keys. `owners` says what each of them is for."""

    def __init__(self) -> None:
        self.owners: dict[str, str] = {}
        self._taken: set[str] = set()
        self._of_literals: dict[str, str] = {}

    def keep_free(self, variable: str) -> None:
        """Have no key that stands in the file put under this name."""
        self._taken.add(variable)

    def of_literal(self, key: str, wanted: str, where: str) -> str:
        """A variable for a key that stands in the file."""
        if key not in self._of_literals:
            numbered = (f"{wanted}_{number}" for number in count(2))
            variable = next(each for each in chain((wanted,), numbered) if each not in self._taken)
            self._taken.add(variable)
            self._of_literals[key] = variable
            self.owners[variable] = f"the key that stands at {where}.api_key"
        return self._of_literals[key]

    def of_variable(self, variable: str, where: str) -> str:
        self.owners.setdefault(variable, f"named at {where}.api_key")
        return variable


class Surroundings(Struct, frozen=True):
    """What is outside of an entry: the environment, LiteLLM's own price list, the configuration's credentials."""

    environment: Mapping[str, str]
    model_prices: ModelPrices
    credentials: Mapping[str, Mapping[str, Any]]
    keys: Keys


class Entry:
    """Use `read` once; after that, `wrong` has a line for each mistake."""

    def __init__(
        self, where: str, ours: str, params: Mapping[str, Any], info: Mapping[str, Any], around: Surroundings
    ) -> None:
        self._where = where
        self._ours = ours
        self._given = {str(name): value for name, value in params.items()}
        self._info = {str(name): value for name, value in info.items()}
        self._around = around
        self.notes: list[Note] = []
        self.wrong: list[str] = []

    def read(self, model: str) -> Deployment | Lost:
        self._take_credential()
        self._tell_what_is_left()
        provider_given = self._given.get("custom_llm_provider")
        found = named(model, provider_given if isinstance(provider_given, str) else None)
        if found is None:
            return self._lost("nothing says whose model it is; write the provider before it, as `openai/NAME`")
        name, own = found
        provider = PROVIDERS.get(name)
        if provider is None:
            return self._lost(
                f"no kind of upstream speaks `{plain(name)}`'s API; a LiteLLM that serves it can be an upstream itself"
            )
        mode = self._info.get("mode")
        if isinstance(mode, str) and mode not in TEXT_MODES and mode != "embedding":
            return self._lost(f"its mode is `{plain(mode)}`, and only text and embeddings are served")
        if unfit := self._unfit_names(own):
            return self._lost(unfit)
        base_url = self._base_url(provider)
        if base_url == "":
            return self._lost("where it is served is not known; without that, its key goes nowhere")
        return self._deployment(name, provider, own, base_url)

    def _deployment(self, name: str, provider: Provider, own: str, base_url: str | None) -> Deployment:
        if provider.words:
            self.notes.append(Note(f"{self._where}.litellm_params.model", provider.words))
        pricing = Pricing(self._where, name, provider, self._around.model_prices, self.notes)
        prices = pricing.prices(self._ours, own, self._given, self._info)
        is_elsewhere = base_url != provider.base_url
        label = _label(name, base_url if is_elsewhere else None)
        place = Place(
            provider.kind,
            base_url,
            self._key_variable(provider, name, label, is_elsewhere=is_elsewhere),
            self._formats(provider, base_url),
            self._seconds("timeout"),
            self._whole("max_parallel_requests"),
            by_list=isinstance(prices, Told) and prices.by_list,
            capped_by=provider.capped_by,
        )
        shares = (self._number("weight"), self._number("rpm"), self._number("tpm"))
        for each in ("rpm", "tpm"):
            if self._given.get(each) is not None:
                words = "it says how orders are shared out among deployments of one name, and is no limit here"
                self.notes.append(Note(self._at(each), words))
        order = self._number("order") if self._given.get("order") is not None else self._number("order", of_info=True)
        return Deployment(
            self._where,
            self._ours,
            own,
            label,
            place,
            prices,
            order,
            shares,
            tuple(self.notes),
        )

    def _lost(self, words: str) -> Lost:
        return Lost(self._ours, (*self.notes, not_carried(self._where, words)))

    def _at(self, name: str) -> str:
        return f"{self._where}.litellm_params.{name}"

    # Members

    def _take_credential(self) -> None:
        given = self._given.get("litellm_credential_name")
        if given is None:
            return
        values = self._around.credentials.get(str(given))
        if values is None:
            self.wrong.append(f"{self._at('litellm_credential_name')}: credential_list has none of that name")
            return
        self._given = {**{name: value for name, value in values.items() if name not in self._given}, **self._given}

    def _tell_what_is_left(self) -> None:
        for section, members in (("litellm_params", self._given), ("model_info", self._info)):
            for name, value in members.items():
                member = member_of(section, name)
                if "_cost" in name and not is_price(name):
                    member = unread_price(name)
                if not member.is_carried:
                    self.notes += left(member, name, f"{self._where}.{section}.{name}", value)

    def _resolved(self, name: str, given: object) -> object:
        """A value, be it one of the environment's."""
        if not isinstance(given, str) or not given.startswith(ENVIRONMENT):
            return given
        variable = given.removeprefix(ENVIRONMENT)
        if variable not in self._around.environment:
            self.notes.append(
                not_carried(self._at(name), f"{plain(variable)} is not set here; set it, and import again")
            )
        return self._around.environment.get(variable)

    def _number(self, name: str, *, of_info: bool = False) -> Fraction | None:
        given = self._resolved(name, (self._info if of_info else self._given).get(name))
        number = number_of(given)
        if given is not None and (number is None or (number < 0 and name != "order")):
            self.wrong.append(f"{self._at(name)}: it should be a number, and is {_what_number(given)}")
        return number

    def _seconds(self, name: str) -> Decimal | None:
        number = self._number(name)
        if number is None:
            return None
        if number <= 0:
            self.wrong.append(f"{self._at(name)}: it should be a number of seconds above 0")
            return None
        return Decimal(number.numerator) / Decimal(number.denominator)

    def _whole(self, name: str) -> int | None:
        number = self._number(name)
        if number is not None and (number < 1 or number.denominator != 1):
            self.wrong.append(f"{self._at(name)}: it should be a whole number from 1 on")
            return None
        return None if number is None else int(number)

    def _unfit_names(self, own: str) -> str:
        if _PATTERN_SIGNS & set(self._ours) or not self._ours.isprintable() or not own.isprintable():
            return "its name has signs that are no part of one here"
        if self._ours.count("*") > 1 or self._ours.count("*") != own.count("*"):
            return "write one `*` or none into both names; what this one stands for cannot be followed"
        return ""

    # Where it is served

    def _base_url(self, provider: Provider) -> str | None:
        """Its address; None for the kind's own host, empty where it is not known."""
        name = "api_base" if self._given.get("api_base") is not None else "base_url"
        given = self._given.get(name)
        if given is None and provider.base_variable is not None:
            given = self._around.environment.get(provider.base_variable)
        if given is None:
            return provider.base_url or (None if provider.formats is None else "")
        given = self._resolved(name, given)
        if given is None:
            return ""
        if not isinstance(given, str) or not given.strip():
            self.wrong.append(f"{self._at(name)}: it should be a URL, and is {what(given)}")
            return ""
        url = base_of(provider, given)
        if not is_plain_url(url):
            words = "no URL that may stand in a file (http or https, and no key in it)"
            self.notes.append(not_carried(self._at(name), words))
            return ""
        return url

    def _key_variable(self, provider: Provider, name: str, label: str, *, is_elsewhere: bool) -> str | None:
        given = self._given.get("api_key")
        usual = provider.key_variable or f"{name.upper()}_API_KEY"
        if given is None:
            return None if provider.is_local else self._around.keys.of_variable(usual, self._where)
        if not isinstance(given, str):
            self.wrong.append(f"{self._at('api_key')}: it should be a key or os.environ/NAME, and is {what(given)}")
            return None
        if not given.startswith(ENVIRONMENT):
            if provider.is_local and given.strip().lower() in NO_KEYS:
                self.notes.append(not_carried(self._at("api_key"), "it is no key; the server is asked without one"))
                return None
            # A provider's own key may stand under the usual name already, and is nobody else's.
            has_own_host = provider.formats is None or provider.base_url is not None
            wanted = f"{label.upper().replace('-', '_')}_API_KEY" if is_elsewhere and has_own_host else usual
            return self._around.keys.of_literal(given, wanted, self._at("")[:-1])
        variable = given.removeprefix(ENVIRONMENT)
        if not _VARIABLE.fullmatch(variable):
            self.wrong.append(f"{self._at('api_key')}: after os.environ/ stands no name of a variable")
            return None
        return self._around.keys.of_variable(variable, self._where)

    def _formats(self, provider: Provider, base_url: str | None) -> tuple[str, ...] | None:
        if provider.kind != "openai" or (provider.formats is None and base_url is None):
            return None
        if self._info.get("mode") == "embedding":
            return ("embeddings",)
        if self._info.get("mode") == "responses":
            return ("responses",)
        return provider.formats or ("chat", "embeddings")


def _what_number(given: object) -> str:
    number = number_of(given)
    return "below zero" if number is not None and number < 0 else what(given)


def _label(provider: str, base_url: str | None) -> str:
    """What an upstream may be called: its provider, and its host where that is not the provider's own."""
    words = provider
    if base_url is not None:
        host = base_url.partition("://")[2].partition("/")[0]
        first = host.partition(".")[0] if not host.replace(".", "").replace(":", "").isdigit() else host
        words = f"{provider}-{first}"
    return re.sub(r"[^a-z0-9]+", "-", words.lower()).strip("-")[:40] or "upstream"
