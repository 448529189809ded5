"""What a deployment of a LiteLLM configuration costs here: by its own prices, by LiteLLM's list, by OpenRouter's, or
nothing where it runs on the operator's own machines."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from msgspec import Struct

from farebox.core.moving.litellm_notes import Note, not_carried, plain
from farebox.core.moving.litellm_prices import BadPrice, Priced, is_price, others, read_prices
from farebox.core.moving.litellm_providers import Provider

TEXT_MODES = frozenset({"chat", "completion", "responses"})

_FROM_THRESHOLD = frozenset({"xai"})
"""Who charges the price "above" so many tokens from just so many on, as LiteLLM counts it."""

_DATED = re.compile(r"-(\d{8}|latest)$")
_POINTED = re.compile(r"(?<=\d)-(?=\d)")


class Borrowed(Struct, frozen=True):
    """Priced as OpenRouter's public list has `listed`."""

    listed: str


class Unpriced(Struct, frozen=True):
    """Without a price, for this `reason`."""

    reason: str


class Free(Struct, frozen=True):
    """On the operator's own machine: it costs nothing."""


class Told(Struct, frozen=True):
    """Priced by what its answers say, or by OpenRouter's public list under our own names (`by_list`)."""

    by_list: bool = False


class Listed(Struct, frozen=True):
    """A pattern's models, by their provider's own names, as LiteLLM's own list prices them."""

    models: tuple[tuple[str, Priced], ...]


Prices = Priced | Borrowed | Unpriced | Free | Told | Listed

ModelPrices = Mapping[str, Mapping[str, Any]]
"""LiteLLM's own price list."""


class Pricing:
    """Prices one deployment, a model of ours that is `own` at a provider of this `name`. What is to be said of that is
    added to `notes`."""

    def __init__(self, where: str, name: str, provider: Provider, model_prices: ModelPrices, notes: list[Note]) -> None:
        self._where = where
        self._name = name
        self._provider = provider
        self._model_prices = model_prices
        self._notes = notes

    def prices(self, ours: str, own: str, params: Mapping[str, Any], info: Mapping[str, Any]) -> Prices:
        given = _prices_in({**info, **params})
        if self._provider.kind == "openrouter":
            for each in given:
                place = f"{self._where}.{'litellm_params' if each in params else 'model_info'}.{each}"
                self._notes.append(not_carried(place, "OpenRouter's answers say what they cost"))
            return Told()
        if given:
            priced = self._read(given, info.get("mode"))
            assert priced is not None, given
            return priced
        key, listed = self._listed(own, info.get("base_model"))
        self._tell_others(others(listed))
        priced = self._read(_prices_in(listed), info.get("mode") or listed.get("mode"))
        if isinstance(priced, Unpriced):
            return Unpriced(f"LiteLLM's list has `{plain(key)}`, and {priced.reason}")
        is_own_host = params.get("api_base") is None and params.get("base_url") is None
        return priced or self._unpriced(ours, own, is_own_host=is_own_host)

    def _read(self, given: Mapping[str, Any], mode: object) -> Priced | Unpriced | None:
        """What these prices come to; None without any."""
        try:
            return read_prices(given, has_answers=mode != "embedding", is_from_threshold=self._name in _FROM_THRESHOLD)
        except BadPrice as error:
            return Unpriced(str(error))

    def _tell_others(self, names: Iterable[str]) -> None:
        if told := ", ".join(f"`{plain(each)}`" for each in sorted(set(names))):
            self._notes.append(Note(self._where, f"LiteLLM's list has more prices, which no price file holds: {told}"))

    def _listed(self, own: str, base: object) -> tuple[str, Mapping[str, Any]]:
        """What LiteLLM's own price list has of the model, in the order in which LiteLLM looks: the provider's own
        entry first, and nobody else's, but for a base model's."""
        models = (base, own) if isinstance(base, str) else (own,)
        keys = [key for model in models for key in (f"{self._name}/{model}", model) if "*" not in model]
        for key in keys:
            found = self._model_prices.get(key)
            if isinstance(found, Mapping) and self._is_own(found):
                return key, found
        found = self._model_prices.get(base) if isinstance(base, str) else None
        return (str(base), found) if isinstance(found, Mapping) else ("", {})

    def _is_own(self, listed: Mapping[str, Any]) -> bool:
        """Whether an entry of LiteLLM's list is this provider's."""
        whose = listed.get("litellm_provider")
        return whose is None or whose == self._name or str(whose).startswith(f"{self._name}-")

    def _unpriced(self, ours: str, own: str, *, is_own_host: bool) -> Prices:
        """Where neither the configuration nor LiteLLM's list has a price."""
        if self._provider.is_local:
            self._notes.append(
                Note(self._where, "it runs on your own machines, so it is free here, as it is in LiteLLM")
            )
            return Free()
        author = self._provider.lists_at_openrouter if is_own_host else ""
        if "*" in own and self._model_prices:
            return self._of_pattern(own)
        if author and "*" not in own:
            listed = f"{author}/{_POINTED.sub('.', _DATED.sub('', own)) if author == 'anthropic' else own}"
            words = f"no price is set: it costs what OpenRouter's list says of `{plain(listed)}`; look at that"
            self._notes.append(Note(self._where, words))
            return Borrowed(listed)
        if author == "openai" and ours == "openai/*" and own == "*":
            self._notes.append(Note(self._where, "no price is set: models cost what OpenRouter's list says of them"))
            return Told(by_list=True)
        if self._model_prices:
            return Unpriced("no price is set, and LiteLLM's list has none of it")
        return Unpriced("no price is set, and LiteLLM's own list was not given (--model-prices FILE)")

    def _of_pattern(self, own: str) -> Prices:
        """All models of the provider that LiteLLM's own list has, and whose names fit the pattern."""
        before, _, after = own.partition("*")
        models: dict[str, Priced] = {}
        unread: list[str] = []
        for key in sorted(self._model_prices, key=lambda key: not key.startswith(f"{self._name}/")):
            listed, model = self._model_prices[key], key.removeprefix(f"{self._name}/")
            if not isinstance(listed, Mapping) or listed.get("litellm_provider") != self._name or model in models:
                continue
            is_fit = model.startswith(before) and model.endswith(after) and len(model) >= len(before) + len(after)
            mode = listed.get("mode")
            if is_fit and model.isprintable() and (mode in TEXT_MODES or mode == "embedding"):
                priced = self._read(_prices_in(listed), mode)
                if isinstance(priced, Priced):
                    models[model] = priced
                    unread += others(listed)
        if not models:
            return Unpriced("no price is set, and LiteLLM's list has no such models")
        self._tell_others(unread)
        words = f"no price is set: LiteLLM's list has prices of {len(models)} such models, and no others are served"
        self._notes.append(Note(self._where, words))
        return Listed(tuple(sorted(models.items())))


def _prices_in(members: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in members.items() if is_price(name) and value is not None}
