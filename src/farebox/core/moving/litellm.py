"""A LiteLLM proxy's configuration as Farebox's: upstreams, a price file, and what is to be said of all the rest.

Every member is carried over or told, at its place in the file and in the report. No key is written anywhere, nor any
other value that may be one.
"""

from collections.abc import Iterable, Mapping
from decimal import Decimal
from fractions import Fraction
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from farebox.core.moving.litellm_deployments import Deployment, Entry, Keys, Lost, Surroundings
from farebox.core.moving.litellm_members import member_of
from farebox.core.moving.litellm_notes import ENVIRONMENT, BadConfig, Note, left, not_carried, number_of, plain, what
from farebox.core.moving.litellm_upstreams import orders_of, ranked, upstreams_of, write
from farebox.core.moving.toml_text import Value, comment
from farebox.core.moving.toml_text import member as line_of

__all__ = ["BadConfig", "Imported", "Note", "import_config"]

_SECTIONS = ("general_settings", "litellm_settings", "router_settings")

_HEAD = (
    "Made from a LiteLLM proxy's configuration by `farebox import litellm`.",
    "What is not carried over is said in comments, by the names that it has there.",
)
_PRICES_HEAD = (
    "Prices in USD for one token, made from a LiteLLM proxy's configuration by `farebox import litellm`.",
    "What is commented out has no price yet, and is not served until it has one.",
)


class Imported(Struct, frozen=True):
    """`settings` is the text of farebox.toml, `prices` that of the price file, empty where none is needed. `variables`
    are to be set where Farebox is started, with what each holds."""

    settings: str
    prices: str
    notes: tuple[Note, ...]
    variables: Mapping[str, str]
    upstreams: tuple[str, ...]


def import_config(
    config: object,
    environment: Mapping[str, str],
    prices_path: str,
    model_prices: Mapping[str, Mapping[str, Any]] | None = None,
) -> Imported:
    """Farebox's files for a configuration that was read from YAML, its numbers with a point as Decimal.

    `environment` is asked for addresses and numbers that the configuration leaves to it. `prices_path` is where the
    price file will be. `model_prices` is LiteLLM's own list, for models whose prices the configuration does not set.

    Raises:
        BadConfig: it is no configuration of LiteLLM's proxy, or nothing of it can be carried over.
    """
    if not isinstance(config, dict):
        raise BadConfig(f"it should be a table with model_list in it, and is {what(config)}")
    importing = _Import({str(name): value for name, value in config.items()}, environment, model_prices or {})
    importing.read()
    if importing.wrong:
        raise BadConfig("\n".join(importing.wrong))
    return importing.written(prices_path)


class _Import:
    def __init__(
        self, config: Mapping[str, Any], environment: Mapping[str, str], model_prices: Mapping[str, Mapping[str, Any]]
    ) -> None:
        self.wrong: list[str] = []
        self._config = config
        self._notes: list[Note] = []
        self._settings: dict[str, Value] = {}
        self._deployments: list[Deployment] = []
        self._lost: list[Lost] = []
        self._environment = environment
        self._around = Surroundings(environment, model_prices, self._credentials(), Keys())

    def read(self) -> None:
        for name, value in self._config.items():
            member = member_of("top", name)
            if not member.is_carried:
                self._notes += left(member, name, name, value)
        sections = {name: self._section(name) for name in _SECTIONS}
        self._read_settings(sections)
        entries = self._list("model_list", self._config.get("model_list"))
        if not entries and not self.wrong:
            self.wrong.append("model_list: missing; without it there is no model to serve")
        self._keep_variables_free(entries)
        for at, entry in enumerate(entries):
            self._read_entry(f"model_list[{at}]", entry)
        self._deployments = ranked(self._deployments)
        self._read_routing(sections["router_settings"], sections["litellm_settings"])

    def _section(self, name: str) -> Mapping[str, Any]:
        given = self._config.get(name)
        if given is not None and not isinstance(given, dict):
            self.wrong.append(f"{name}: it should be a table of members, and is {what(given)}")
            return {}
        return {str(each): value for each, value in (given or {}).items()}

    def _list(self, where: str, given: object) -> list[Any]:
        if given is not None and not isinstance(given, list):
            self.wrong.append(f"{where}: it should be a list, and is {what(given)}")
            return []
        return given or []

    def _credentials(self) -> Mapping[str, Mapping[str, Any]]:
        found: dict[str, Mapping[str, Any]] = {}
        for at, each in enumerate(self._list("credential_list", self._config.get("credential_list"))):
            name = each.get("credential_name") if isinstance(each, dict) else None
            values = each.get("credential_values") if isinstance(each, dict) else None
            if isinstance(name, str) and isinstance(values, dict):
                found[name] = {str(member): value for member, value in values.items()}
            else:
                self.wrong.append(f"credential_list[{at}]: it should have a credential_name and credential_values")
        return found

    # Settings

    def _read_settings(self, sections: Mapping[str, Mapping[str, Any]]) -> None:
        for section, members in sections.items():
            for name, value in members.items():
                member = member_of(section, name)
                if not member.is_carried:
                    self._notes += left(member, name, f"{section}.{name}", value)
        general = sections["general_settings"]
        self._take(general, "general_settings", "global_max_parallel_requests", "orders_max")
        self._take(general, "general_settings", "max_request_size_mb", "body_bytes_max", scale=2**20)
        self._take_seconds(sections["router_settings"], "router_settings", "timeout")
        self._take_seconds(sections["litellm_settings"], "litellm_settings", "request_timeout")

    def _take(self, members: Mapping[str, Any], section: str, name: str, ours: str, *, scale: int = 1) -> None:
        number = self._number(f"{section}.{name}", members.get(name))
        if number is not None and number > 0 and (number * scale).denominator == 1:
            self._settings[ours] = int(number * scale)
        elif number is not None:
            self.wrong.append(f"{section}.{name}: it should be a whole number above 0")

    def _take_seconds(self, members: Mapping[str, Any], section: str, name: str) -> None:
        where = f"{section}.{name}"
        number = self._number(where, members.get(name))
        if number is None:
            return
        if number <= 0:
            self.wrong.append(f"{where}: it should be a number of seconds above 0")
        elif "first_byte_seconds" in self._settings:
            self._notes.append(not_carried(where, "router_settings.timeout counts before it"))
        else:
            self._settings["first_byte_seconds"] = Decimal(number.numerator) / Decimal(number.denominator)

    def _number(self, where: str, given: object) -> Fraction | None:
        if isinstance(given, str) and given.startswith(ENVIRONMENT):
            variable = given.removeprefix(ENVIRONMENT)
            if variable not in self._environment:
                self._notes.append(not_carried(where, f"{plain(variable)} is not set here; set it, and import again"))
                return None
            given = self._environment[variable]
        number = number_of(given)
        if given is not None and number is None:
            self.wrong.append(f"{where}: it should be a number, and is {what(given)}")
        return number

    # Deployments

    def _keep_variables_free(self, entries: Iterable[object]) -> None:
        """What any entry calls a variable is not the name for a key that stands in the file."""
        variables = self._config.get("environment_variables")
        for name in variables if isinstance(variables, dict) else ():
            self._around.keys.keep_free(str(name))
        sources = [each.get("litellm_params") for each in entries if isinstance(each, dict)]
        for source in (*sources, *self._around.credentials.values()):
            given = source.get("api_key") if isinstance(source, Mapping) else None
            if isinstance(given, str) and given.startswith(ENVIRONMENT):
                self._around.keys.keep_free(given.removeprefix(ENVIRONMENT))

    def _read_entry(self, where: str, entry: object) -> None:
        if not isinstance(entry, dict):
            self.wrong.append(f"{where}: it should be a table with model_name and litellm_params, and is {what(entry)}")
            return
        params = entry.get("litellm_params")
        if not isinstance(params, dict):
            self.wrong.append(f"{where}.litellm_params: it should be a table of members, and is {what(params)}")
            return
        info = entry.get("model_info") or params.get("model_info") or {}
        if not isinstance(info, dict):
            self.wrong.append(f"{where}.model_info: it should be a table of members, and is {what(info)}")
            return
        ours, model = entry.get("model_name"), params.get("model")
        for name, given in (("model_name", ours), ("litellm_params.model", model)):
            if not isinstance(given, str) or not given.strip():
                self.wrong.append(f"{where}.{name}: it should be a name, and is {what(given)}")
        if not isinstance(ours, str) or not isinstance(model, str):
            return
        reading = Entry(where, ours.strip(), params, info, self._around)
        for name, value in entry.items():
            member = member_of("model_list", str(name))
            if not member.is_carried:
                reading.notes += left(member, str(name), f"{where}.{name}", value)
        found = reading.read(model.strip())
        self.wrong += reading.wrong
        if isinstance(found, Deployment):
            self._deployments.append(found)
        else:
            self._lost.append(found)

    # Routing

    def _read_routing(self, router: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
        strategy = router.get("routing_strategy")
        if strategy == "cost-based-routing":
            self._settings["routing"] = "cheapest"
        elif strategy is not None and strategy != "simple-shuffle":
            words = member_of("router_settings", "routing_strategy").words
            self._notes.append(not_carried("router_settings.routing_strategy", words))
        self._add_aliases("router_settings.model_group_alias", router.get("model_group_alias"))
        where, chains = self._one_of("fallbacks", router, settings)
        rest_where, rest = self._one_of("default_fallbacks", router, settings)
        self._add_fallbacks(where, chains, rest_where, rest)

    def _one_of(self, name: str, router: Mapping[str, Any], settings: Mapping[str, Any]) -> tuple[str, list[Any]]:
        if router.get(name) is None:
            return f"litellm_settings.{name}", self._list(f"litellm_settings.{name}", settings.get(name))
        if settings.get(name) is not None:
            self._notes.append(not_carried(f"litellm_settings.{name}", f"router_settings.{name} counts before it"))
        return f"router_settings.{name}", self._list(f"router_settings.{name}", router[name])

    def _add_aliases(self, where: str, given: object) -> None:
        if given is not None and not isinstance(given, dict):
            self.wrong.append(f"{where}: it should be a table of names, and is {what(given)}")
            return
        for alias, target in (given or {}).items():
            at = f"{where}.{plain(alias)}"
            model = target.get("model") if isinstance(target, dict) else target
            of_model = [each for each in self._deployments if each.ours == model and "*" not in each.ours]
            if isinstance(target, dict) and target.get("hidden"):
                self._notes.append(not_carried(f"{at}.hidden", "every model that is served is listed"))
            if not isinstance(alias, str) or not alias.isprintable() or set(alias) & set("*?[]"):
                self._notes.append(not_carried(at, "its name has signs that are no part of one here"))
            elif any(each.ours == alias for each in self._deployments):
                self._notes.append(not_carried(at, "there are deployments of this name"))
            elif not of_model:
                self._notes.append(not_carried(at, f"nothing that is carried over is called {plain(model)}"))
            else:
                self._deployments += [replace(each, ours=alias, notes=()) for each in of_model]

    def _add_fallbacks(self, where: str, given: list[Any], rest_where: str, rest: list[Any]) -> None:
        own = list(self._deployments)
        chains: dict[str, tuple[str, list[Any]]] = {}
        for at, each in enumerate(given):
            if isinstance(each, dict) and all(isinstance(others, list) for others in each.values()):
                chains |= {str(model): (where, others) for model, others in each.items()}
            else:
                self.wrong.append(f"{where}[{at}]: it should be a model's name with a list of others")
        of_all = chains.pop("*", (rest_where, rest))
        for model in dict.fromkeys(each.ours for each in own if "*" not in each.ours):
            chains.setdefault(model, (of_all[0], [each for each in of_all[1] if each != model]))
        for model, (at_where, others) in chains.items():
            self._add_chain(f"{at_where}.{plain(model)}", model, others, own)

    def _add_chain(self, where: str, model: str, others: list[Any], own: list[Deployment]) -> None:
        if "*" in model or not any(each.ours == model for each in own):
            self._notes.append(not_carried(where, "nothing that is carried over has exactly this name"))
            return
        for at, other in enumerate(others, start=1):
            found = [each for each in own if each.ours == other and "*" not in each.ours]
            if not found:
                words = f"nothing that is carried over is called {plain(other)}"
                self._notes.append(not_carried(f"{where}[{at - 1}]", words))
            for each in found:
                rank = replace(each.place.rank, fallback=at)
                behind = replace(each, ours=model, place=replace(each.place, rank=rank), notes=())
                self._deployments.append(behind)

    # Writing

    def written(self, prices_path: str) -> Imported:
        upstreams = upstreams_of(self._deployments)
        orders = orders_of(upstreams)
        blocks = [write(each, orders[each.place.rank]) for each in upstreams]
        if not blocks:
            raise BadConfig("\n".join(str(each.notes[-1]) for each in self._lost))
        prices = [entry for each in blocks for entry in each.prices]
        if prices:
            self._settings["prices_file"] = prices_path
        lost = [_commented((f"The model {plain(each.ours)}:", *map(str, each.notes))) for each in self._lost]
        texts = (
            _commented(_HEAD),
            _commented(map(str, self._notes)),
            "\n".join(line_of(name, value) for name, value in self._settings.items()),
            *(each.block for each in blocks),
            *lost,
        )
        used = {each.place.key_variable for each in self._deployments}
        return Imported(
            _joined(texts),
            _joined((_commented(_PRICES_HEAD), *prices)) if prices else "",
            (
                *self._notes,
                *(n for each in blocks for n in each.notes),
                *(n for each in self._lost for n in each.notes),
            ),
            {name: words for name, words in self._around.keys.owners.items() if name in used},
            tuple(each.name for each in upstreams),
        )


def _commented(sentences: Iterable[str]) -> str:
    return "\n".join(line for each in sentences for line in comment(each))


def _joined(texts: Iterable[str]) -> str:
    return "\n\n".join(filter(None, texts)) + "\n"
