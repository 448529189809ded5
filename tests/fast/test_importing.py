"""`farebox import litellm`: a LiteLLM configuration becomes Farebox's, and nothing of it is lost without a word."""

import json
import re
import sys
import tomllib
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from farebox.cli.commands import app
from farebox.core.declared import Declared
from farebox.core.moving import litellm_providers, toml_text
from farebox.core.moving.litellm import BadConfig, import_config
from farebox.core.moving.litellm_members import SECTIONS, member_of, rows
from farebox.core.price_files import read_price_file
from farebox.core.tariffs import Entry, Tariffs
from farebox.core.usage import Cost, Usage
from farebox.settings import PREFIX, Settings, load

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "moving-from-litellm.md"


class Folder:
    """A folder with a configuration in it, and what the command makes of it there."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.path = path
        self._monkeypatch = monkeypatch
        for name in ("OPENAI_API_KEY", "OPENROUTER_API_KEY", "ANTHROPIC_API_KEY"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.chdir(path)
        self.said = ""

    def run(self, config: str, *options: str, code: int = 0) -> dict[str, Any]:
        """Import it; gives farebox.toml as it is read."""
        (self.path / "config.yaml").write_text(config)
        done = CliRunner().invoke(app, ["import", "litellm", "config.yaml", *options])
        self.said = done.output
        assert done.exit_code == code, done.output
        return tomllib.loads(self.settings_text) if code == 0 else {}

    @property
    def settings_text(self) -> str:
        return (self.path / "farebox.toml").read_text()

    @property
    def prices(self) -> list[dict[str, Any]]:
        entries: list[dict[str, Any]] = tomllib.loads((self.path / "prices.toml").read_text()).get("prices", [])
        return entries

    def declared(self) -> dict[str, Declared]:
        """The upstreams as Farebox's own settings read them."""
        return {each.name: each for each in load().declared}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    return Folder(tmp_path, monkeypatch)


SMALL = """
model_list:
  - model_name: fast
    litellm_params: {model: hosted_vllm/qwen, api_base: "http://gpu:8000/v1"}
"""


def deployment(model: str, **params: object) -> dict[str, Any]:
    return {"model_name": "m", "litellm_params": {"model": model, **params}}


def one(*deployments: dict[str, Any], environment: Mapping[str, str] | None = None, **sections: object) -> Any:
    return import_config({"model_list": list(deployments), **sections}, environment or {}, "prices.toml")


def upstreams(found: Any) -> dict[str, Any]:
    tables: dict[str, Any] = tomllib.loads(found.settings)["upstreams"]
    return tables


def test_the_smallest_configuration_becomes_an_upstream_that_farebox_reads(folder: Folder) -> None:
    assert folder.run(SMALL)["upstreams"] == {
        "hosted-vllm-gpu-8000": {
            "kind": "openai",
            "base_url": "http://gpu:8000/v1",
            "models": ["fast"],
            "names": {"fast": "qwen"},
            "formats": ["chat", "embeddings"],
            "prices": "free",
        }
    }
    upstream = folder.declared()["hosted-vllm-gpu-8000"]
    assert (upstream.own_name("fast"), upstream.is_free, upstream.key_variable) == ("qwen", True, None)
    assert "Written: farebox.toml\n" in folder.said


def test_deployments_of_one_name_are_upstreams_that_serve_one_model(folder: Folder) -> None:
    folder.run("""
model_list:
  - model_name: gpt
    litellm_params: {model: openrouter/openai/gpt-5, api_key: os.environ/ONE, weight: 0.75, order: 1}
  - model_name: gpt
    litellm_params: {model: openrouter/openai/gpt-5, api_key: os.environ/TWO, weight: 0.25, order: 1}
  - model_name: gpt
    litellm_params: {model: openrouter/openai/gpt-5-mini, api_key: os.environ/TWO, order: 2}
  - model_name: other
    litellm_params: {model: openrouter/x-ai/grok, api_key: os.environ/TWO, order: 2}
""")
    found = folder.declared()
    assert {name: (each.key_variable, each.order, each.weight) for name, each in found.items()} == {
        "openrouter": ("ONE", 0, 3),
        "openrouter-2": ("TWO", 0, 1),
        "openrouter-3": ("TWO", 1, 1),
    }
    assert found["openrouter-3"].models == ("gpt", "other")
    assert found["openrouter-3"].own_name("gpt") == "openai/gpt-5-mini"
    assert not (folder.path / "prices.toml").exists()


@pytest.mark.parametrize(
    ("shares", "weights"),
    [
        ([{"rpm": 900}, {"rpm": 100}], [9, 1]),
        ([{"tpm": 100_000}, {"tpm": 50_000}], [2, 1]),
        ([{"weight": 1, "rpm": 1}, {"weight": 2, "rpm": 100}], [1, 2]),
        ([{"weight": "0.001"}, {"weight": 7}], [1, 1000]),
        ([{}, {}], [1, 1]),
    ],
)
def test_weights_are_those_of_the_shuffle(shares: list[dict[str, Any]], weights: list[int]) -> None:
    several = [deployment("ollama/a", api_base=f"http://h{at}", **each) for at, each in enumerate(shares)]
    found = upstreams(one(*several)).values()
    assert [each.get("weight", 1) for each in found] == weights
    assert not any("order" in each for each in found)


def test_who_has_no_weight_beside_one_that_has_comes_behind_it() -> None:
    found = upstreams(
        one(
            deployment("ollama/a", api_base="http://h0", weight=0),
            deployment("ollama/a", api_base="http://h1", weight=5),
        )
    )
    assert [each.get("order", 0) for each in found.values()] == [1, 0]


def test_a_pattern_comes_behind_exact_names() -> None:
    every = {"model_name": "*", "litellm_params": {"model": "ollama/*", "api_base": "http://h0"}}
    found = upstreams(one(every, deployment("ollama/m", api_base="http://h1")))
    assert found["ollama-h0"] == {
        "kind": "openai",
        "base_url": "http://h0/v1",
        "formats": ["chat", "embeddings"],
        "capped_by": "max_tokens",
        "order": 1,
        "prices": "free",
    }
    assert "order" not in found["ollama-h1"]


def test_fallbacks_are_upstreams_behind_the_models_own() -> None:
    other = {"model_name": "other", "litellm_params": {"model": "ollama/b", "api_base": "http://h1"}}
    found = one(
        deployment("ollama/a", api_base="http://h0"),
        other,
        router_settings={"fallbacks": [{"m": ["other", "unknown"]}]},
        litellm_settings={"default_fallbacks": ["m"]},
    )
    tables = upstreams(found)
    assert tables["ollama-h1-fallback"]["names"] == {"m": "b"}
    assert tables["ollama-h0-fallback"]["names"] == {"other": "a"}
    assert [tables[name].get("order", 0) for name in ("ollama-h0", "ollama-h1", "ollama-h1-fallback")] == [0, 0, 1]
    assert "router_settings.fallbacks.m[1]: not carried over: nothing that is carried over is called unknown" in map(
        str, found.notes
    )


def test_an_alias_is_another_name() -> None:
    found = one(
        deployment("ollama/a", api_base="http://h0"),
        router_settings={"model_group_alias": {"n": "m", "o": {"model": "m", "hidden": True}, "p": "q"}},
    )
    assert upstreams(found)["ollama-h0"]["names"] == {"m": "a", "n": "a", "o": "a"}
    assert [str(note) for note in found.notes if "alias" in note.where] == [
        "router_settings.model_group_alias.o.hidden: not carried over: every model that is served is listed",
        "router_settings.model_group_alias.p: not carried over: nothing that is carried over is called q",
    ]


@pytest.mark.parametrize(
    ("model", "params", "base_url", "own"),
    [
        ("azure/mine", {"api_base": "https://a.openai.azure.com/"}, "https://a.openai.azure.com/openai/v1", "mine"),
        (
            "azure/gpt5_series/mine",
            {"api_base": "https://a.openai.azure.com/openai/deployments/mine"},
            "https://a.openai.azure.com/openai/v1",
            "mine",
        ),
        ("anthropic/claude", {"api_base": "http://h/v1/messages"}, "http://h", "claude"),
        ("anthropic/claude", {"api_base": "http://h/"}, "http://h", "claude"),
        ("ollama_chat/llama3", {}, "http://localhost:11434/v1", "llama3"),
        ("openai/some/model", {"api_base": "http://h/v1/"}, "http://h/v1", "some/model"),
        ("openai/responses/gpt-5", {}, None, "gpt-5"),
        ("gpt-5", {}, None, "gpt-5"),
        ("x", {"custom_llm_provider": "groq"}, "https://api.groq.com/openai/v1", "x"),
        ("lm_studio/x", {"base_url": "http://h:1234/v1"}, "http://h:1234/v1", "x"),
        ("openai/x", {"api_base": "os.environ/BASE"}, "http://env/v1", "x"),
        ("hosted_vllm/x", {}, "http://vllm/v1", "x"),
    ],
)
def test_a_deployment_is_found_where_litellm_finds_it(
    model: str, params: dict[str, Any], base_url: str | None, own: str
) -> None:
    environment = {"BASE": "http://env/v1", "HOSTED_VLLM_API_BASE": "http://vllm/v1"}
    (found,) = upstreams(one(deployment(model, **params), environment=environment)).values()
    assert (found.get("base_url"), found["names"]["m"]) == (base_url, own)


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (deployment("bedrock/nova"), "no kind of upstream speaks `bedrock`'s API"),
        (deployment("my-model"), "nothing says whose model it is"),
        (deployment("lm_studio/x"), "where it is served is not known"),
        (deployment("openai/x", api_base="os.environ/NOWHERE"), "where it is served is not known"),
        (deployment("openai/x", api_base="https://user:secret@h/v1"), "where it is served is not known"),
        (deployment("openai/x", api_base="https://h/v1?key=secret"), "where it is served is not known"),
        ({**deployment("openai/*"), "model_name": "all-*-of-*"}, "write one `*` or none into both names"),
        ({**deployment("openai/dall-e-3"), "model_info": {"mode": "image_generation"}}, "only text and embeddings"),
        ({**deployment("ollama/x"), "model_name": "what?"}, "signs that are no part of one here"),
    ],
)
def test_what_cannot_be_served_is_said_and_the_rest_is_carried_over(entry: dict[str, Any], words: str) -> None:
    found = one(entry, deployment("ollama/a"))
    assert list(upstreams(found)) == ["ollama"]
    assert words in str(found.notes[-1])
    assert words in " ".join(found.settings.replace("\n#", "").split())
    assert "secret" not in found.settings + str(found.notes)
    with pytest.raises(BadConfig, match=re.escape(words)):
        one(entry)


SECRETS = ["sk-proj-very-secret", "hunter2", "sk-lf-secret", "postgresql://u:pw@h/db", "Bearer secret", "4711"]


def test_no_key_is_written_and_the_report_names_the_variable(folder: Folder) -> None:
    folder.run(
        """
model_list:
  - model_name: a
    litellm_params: {model: anthropic/claude-opus-4-5, api_key: sk-proj-very-secret, aws_secret_access_key: hunter2}
  - model_name: b
    litellm_params: {model: anthropic/claude-opus-4-5, api_key: os.environ/ANTHROPIC_API_KEY}
  - model_name: c
    litellm_params:
      model: anthropic/claude-opus-4-5
      litellm_credential_name: mine
      extra_headers: {Authorization: Bearer secret}
  - model_name: d
    litellm_params: {model: ollama/x, api_key: none}
credential_list:
  - {credential_name: mine, credential_values: {api_key: hunter2}}
general_settings: {master_key: sk-proj-very-secret, database_url: "postgresql://u:pw@h/db"}
router_settings: {redis_password: 4711}
environment_variables: {LANGFUSE_SECRET_KEY: sk-lf-secret}
"""
    )
    text = folder.said + folder.settings_text + (folder.path / "prices.toml").read_text()
    assert not [each for each in SECRETS if each in text]
    tables = tomllib.loads(folder.settings_text)["upstreams"]
    assert {name: each.get("key_variable") for name, each in tables.items()} == {
        "anthropic": "ANTHROPIC_API_KEY_2",
        "anthropic-2": "ANTHROPIC_API_KEY",
        "anthropic-3": "ANTHROPIC_API_KEY_3",
        "ollama": None,
    }
    assert "ANTHROPIC_API_KEY_2: the key that stands at model_list[0].litellm_params.api_key" in folder.said


def test_a_key_for_another_host_is_not_looked_for_where_the_providers_own_stands() -> None:
    """Who has OpenAI's key there already would send it to the other host."""
    elsewhere = {"model_name": "o", **deployment("openai/x", api_base="http://h.example/v1", api_key="sk-other")}
    found = one(deployment("openai/x", api_key="sk-own"), elsewhere)
    assert {name: each["key_variable"] for name, each in upstreams(found).items()} == {
        "openai": "OPENAI_API_KEY",
        "openai-h": "OPENAI_H_API_KEY",
    }
    local = one(deployment("ollama/x", api_base="http://gpu:11434", api_key="sk-mine"))
    assert upstreams(local)["ollama-gpu-11434"]["key_variable"] == "OLLAMA_GPU_11434_API_KEY"


PRICED = """
model_list:
  - model_name: m
    litellm_params:
      model: groq/llama
      input_cost_per_token: 0.0000025
      output_cost_per_token: 1e-5
      cache_read_input_token_cost: 1.25E-6
      input_cost_per_token_above_200k_tokens: 0.000005
      output_cost_per_token_priority: "0.00002"
      cost_per_second: 0.1
      input_cost_per_image_above_128k_tokens: 0.1
"""


def test_prices_are_carried_over_digit_by_digit(folder: Folder) -> None:
    assert folder.run(PRICED)["prices_file"] == "prices.toml"
    usual = {"prompt": "0.0000025", "answer": "0.00001", "cache_read": "0.00000125"}
    usual |= {"cache_write": "0.0000025", "cache_write_1h": "0.0000025"}
    longer = usual | {"prompt": "0.000005", "cache_write": "0.000005", "cache_write_1h": "0.000005"}
    at = {"upstream": "groq", "model": "llama"}
    assert folder.prices == [
        at | usual,
        at | {"above_prompt_tokens": 200_000} | longer,
        at | {"terms": "priority"} | usual | {"answer": "0.00002"},
        at | {"terms": "priority", "above_prompt_tokens": 200_000} | longer | {"answer": "0.00002"},
    ]
    assert "litellm_params.cost_per_second = 0.1: not carried over" in folder.said
    assert "litellm_params.input_cost_per_image_above_128k_tokens = 0.1: not carried over" in folder.said


@pytest.mark.parametrize(
    ("prices", "words"),
    [
        ({"input_cost_per_token": Decimal("0.001")}, "no output_cost_per_token"),
        ({"output_cost_per_token": 0}, "no input_cost_per_token"),
        ({"input_cost_per_token": Decimal("-0.1"), "output_cost_per_token": 0}, "input_cost_per_token is below zero"),
        ({"input_cost_per_token": 1, "output_cost_per_token": 0}, "more than $0.01 for one token"),
        ({"input_cost_per_token": Decimal("1.5000000000000002E-7"), "output_cost_per_token": 0}, "more than 20 digits"),
        ({"input_cost_per_token": "free", "output_cost_per_token": 0}, "input_cost_per_token is no number"),
        ({}, "no price is set"),
    ],
)
def test_what_has_no_price_is_not_free(prices: dict[str, Any], words: str) -> None:
    found = one(deployment("groq/llama", **prices))
    assert "[[prices]]" in found.prices
    assert tomllib.loads(found.prices) == {}
    assert words in " ".join(found.prices.replace("\n#", "").split())
    assert upstreams(found)["groq"]["prices"] == "file"
    assert "without a price, `m` is not served" in str(found.notes[-1])


def test_a_deployment_of_responses_is_asked_in_them() -> None:
    entry = {**deployment("openai/x", api_base="http://h/v1"), "model_info": {"mode": "responses"}}
    assert upstreams(one(entry))["openai-h"]["formats"] == ["responses"]


def test_what_an_entry_says_itself_counts_before_its_credential() -> None:
    values = {"api_key": "os.environ/SHARED", "api_base": "http://shared/v1"}
    entry = deployment("openai/x", api_base="http://own/v1", litellm_credential_name="c")
    found = one(entry, credential_list=[{"credential_name": "c", "credential_values": values}])
    (table,) = upstreams(found).values()
    assert (table["base_url"], table["key_variable"]) == ("http://own/v1", "SHARED")


def test_all_of_openais_models_cost_what_openrouters_list_says_where_it_has_the_names() -> None:
    every = {"model_name": "openai/*", "litellm_params": {"model": "openai/*"}}
    assert upstreams(one(every))["openai"]["prices"] == "openrouter"
    elsewhere = one({**every, "litellm_params": {"model": "openai/*", "api_base": "http://h/v1"}})
    assert "without a price" in str(elsewhere.notes[-1])
    assert "without a price" in str(one(deployment("openai/gpt-5", api_base="http://h/v1")).notes[-1])
    assert "without a price" in str(one({**every, "model_name": "*"}).notes[-1])


def test_deployments_with_a_bound_of_their_own_are_upstreams_of_their_own() -> None:
    """The bound would hold for both together."""
    bounded = [
        {**deployment("ollama/a", max_parallel_requests=2), "model_name": "a"},
        {**deployment("ollama/b", max_parallel_requests=2), "model_name": "b"},
    ]
    assert [each["orders_max"] for each in upstreams(one(*bounded)).values()] == [2, 2]


def test_who_has_no_order_beside_one_that_has_comes_last() -> None:
    found = one(
        deployment("ollama/a", api_base="http://h0"),
        deployment("ollama/a", api_base="http://h1", order=1),
        deployment("ollama/a", api_base="http://h2", order=2),
    )
    assert [each.get("order", 0) for each in upstreams(found).values()] == [2, 0, 1]


def test_an_alias_is_no_name_of_a_deployment_and_a_model_no_fallback_of_itself() -> None:
    other = {"model_name": "n", "litellm_params": {"model": "ollama/b", "api_base": "http://h1"}}
    found = one(
        deployment("ollama/a", api_base="http://h0"),
        other,
        router_settings={"model_group_alias": {"n": "m"}, "default_fallbacks": ["m"]},
    )
    told = [str(note) for note in found.notes]
    assert "router_settings.model_group_alias.n: not carried over: there are deployments of this name" in told
    assert {name: each["names"] for name, each in upstreams(found).items()} == {
        "ollama-h0": {"m": "a"},
        "ollama-h1": {"n": "b"},
        "ollama-h0-fallback": {"n": "a"},
    }


@given(st.text())
def test_any_text_is_one_in_toml_and_any_words_are_a_comment(words: str) -> None:
    assert tomllib.loads(f"x = {toml_text.text(words)}") == {"x": words}
    assert tomllib.loads("\n".join(toml_text.comment(words))) == {}


def test_many_names_are_a_table_of_their_own(folder: Folder) -> None:
    many = "".join(f"  - {{model_name: our.{at}, litellm_params: {{model: ollama/own-{at}}}}}\n" for at in range(9))
    folder.run(f"model_list:\n{many}")
    assert "\n\n[upstreams.ollama.names]\n" in folder.settings_text
    assert folder.declared()["ollama"].own_name("our.7") == "own-7"


def test_one_model_at_two_prices_is_two_upstreams() -> None:
    """The price file knows models by their upstream's own names."""
    cheap = deployment("groq/llama", input_cost_per_token=Decimal("1E-6"), output_cost_per_token=Decimal("2E-6"))
    dear = deployment("groq/llama", input_cost_per_token=Decimal("3E-6"), output_cost_per_token=Decimal("4E-6"))
    found = one(cheap, {**cheap, "model_name": "n"}, {**dear, "model_name": "o"})
    assert {name: each["models"] for name, each in upstreams(found).items()} == {"groq": ["m", "n"], "groq-2": ["o"]}
    entries = tomllib.loads(found.prices)["prices"]
    assert [(each["upstream"], each["model"], each["prompt"]) for each in entries] == [
        ("groq", "llama", "0.000001"),
        ("groq-2", "llama", "0.000003"),
    ]


def test_zero_prices_are_free_and_are_said_so() -> None:
    found = one(deployment("groq/llama", input_cost_per_token=0, output_cost_per_token=Decimal("0.0")))
    assert tomllib.loads(found.prices)["prices"] == [{"upstream": "groq", "model": "llama", "free": True}]


def test_the_makers_own_models_cost_what_openrouters_list_says() -> None:
    found = one(deployment("anthropic/claude-3-5-haiku-20241022"), {**deployment("gpt-5"), "model_name": "n"})
    assert [each["openrouter"] for each in tomllib.loads(found.prices)["prices"]] == [
        "anthropic/claude-3.5-haiku",
        "openai/gpt-5",
    ]


LIST = {
    "groq/llama": {"litellm_provider": "groq", "mode": "chat", "input_cost_per_token": 1e-7},
    "groq/qwen": {
        "litellm_provider": "groq",
        "mode": "chat",
        "input_cost_per_token": 1e-7,
        "output_cost_per_token": 2.5e-7,
    },
    "groq/whisper": {"litellm_provider": "groq", "mode": "audio_transcription", "input_cost_per_second": 1e-5},
    "gpt-4o": {"litellm_provider": "openai", "input_cost_per_token": 3e-6, "output_cost_per_token": 1e-5},
}


def test_litellms_own_list_prices_what_the_configuration_does_not(folder: Folder) -> None:
    (folder.path / "list.json").write_text(json.dumps(LIST))
    folder.run(
        """
model_list:
  - {model_name: q, litellm_params: {model: groq/qwen}}
  - model_name: g
    litellm_params: {model: azure/mine, api_base: "https://a.example"}
    model_info: {base_model: gpt-4o}
  - {model_name: "groq/*", litellm_params: {model: "groq/*"}}
""",
        "--model-prices",
        "list.json",
    )
    found = {(each["upstream"], each["model"]): (each["prompt"], each["answer"]) for each in folder.prices}
    assert found == {
        ("groq", "qwen"): ("0.0000001", "0.00000025"),
        ("azure-a", "mine"): ("0.000003", "0.00001"),
        ("groq-2", "qwen"): ("0.0000001", "0.00000025"),
    }


def listed(provider: str, prompt: float, **more: Any) -> dict[str, Any]:
    prices = {"input_cost_per_token": Decimal(str(prompt)), "output_cost_per_token": Decimal(0)}
    return {"litellm_provider": provider, "mode": "chat", **prices, **more}


def prompts(found: Any) -> dict[str, str]:
    return {each["model"]: each["prompt"] for each in tomllib.loads(found.prices)["prices"]}


def importing(prices: Mapping[str, Any], *deployments: dict[str, Any]) -> Any:
    return import_config({"model_list": list(deployments)}, {}, "prices.toml", prices)


def test_the_providers_own_price_is_taken_from_litellms_list_and_nobody_elses() -> None:
    """Two providers may list a model under one name, at different prices."""
    prices = {"m": listed("openai", 1e-6), "azure/m": listed("azure", 2e-6), "n": listed("openai", 3e-6)}
    base = {"api_base": "https://a.example"}
    assert prompts(importing(prices, deployment("azure/m", **base))) == {"m": "0.000002"}
    of_base = {**deployment("azure/mine", **base), "model_info": {"base_model": "azure/m"}}
    assert prompts(importing(prices, of_base)) == {"mine": "0.000002"}
    of_others = {**deployment("azure/mine", **base), "model_info": {"base_model": "n"}}
    assert prompts(importing(prices, of_others)) == {"mine": "0.000003"}
    assert "LiteLLM's list has none of it" in importing(prices, deployment("groq/n")).prices
    twice = {"m": listed("groq", 1e-6), "groq/m": listed("groq", 2e-6)}
    assert prompts(importing(twice, {**deployment("groq/*"), "model_name": "*"})) == {"m": "0.000002"}


def test_what_a_price_file_cannot_hold_of_litellms_list_is_told() -> None:
    more = {"search_context_cost_per_query": {"search_context_size_low": 0.01}, "off_peak_pricing": {"windows": []}}
    more |= {"input_cost_per_token_batches": 1e-6, "input_cost_per_video_per_second": 1, "citation_cost_per_token": 0}
    told = (
        "LiteLLM's list has more prices, which no price file holds: `off_peak_pricing`, `search_context_cost_per_query`"
    )
    prices = {"groq/m": listed("groq", 1e-6, **more)}
    for entry in (deployment("groq/m"), {**deployment("groq/*"), "model_name": "*"}):
        assert told in [note.words for note in importing(prices, entry).notes]


def test_a_price_by_the_request_is_one() -> None:
    prices = {"input_cost_per_token": 0, "output_cost_per_token": 0, "input_cost_per_request": Decimal("0.05")}
    (entry,) = tomllib.loads(one(deployment("perplexity/sonar", **prices)).prices)["prices"]
    assert (entry["request"], entry["prompt"]) == ("0.05", "0")
    dear = one(deployment("perplexity/sonar", **{**prices, "input_cost_per_request": 101}))
    assert "more than $100 for one request" in str(dear.notes[-1])


def test_xais_price_above_so_many_tokens_is_that_from_so_many_on() -> None:
    prices: dict[str, Any] = {"input_cost_per_token": 0, "output_cost_per_token": 0}
    prices["input_cost_per_token_above_128k_tokens"] = Decimal("1E-6")
    for model, above in (("xai/grok", 127_999), ("groq/llama", 128_000)):
        entries = tomllib.loads(one(deployment(model, **prices)).prices)["prices"]
        assert [each.get("above_prompt_tokens") for each in entries] == [None, above]


def test_settings_of_the_whole_gateway_are_carried_over(folder: Folder) -> None:
    found = folder.run(
        SMALL
        + """
router_settings: {timeout: 12.5, routing_strategy: simple-shuffle}
litellm_settings: {request_timeout: 600}
general_settings: {global_max_parallel_requests: 100, max_request_size_mb: 1.5}
"""
    )
    assert {name: value for name, value in found.items() if name != "upstreams"} == {
        "orders_max": 100,
        "body_bytes_max": 1_572_864,
        "first_byte_seconds": 12.5,
    }
    assert load().orders_max == 100
    assert "litellm_settings.request_timeout: not carried over: router_settings.timeout counts before it" in folder.said


def test_the_cheapest_may_be_first() -> None:
    found = one(deployment("ollama/a"), router_settings={"routing_strategy": "cost-based-routing"})
    assert tomllib.loads(found.settings)["routing"] == "cheapest"


def test_included_files_are_read_as_litellm_reads_them(folder: Folder) -> None:
    (folder.path / "more").mkdir()
    (folder.path / "more" / "models.yaml").write_text(
        "include: [again.yaml]\nmodel_list:\n  - {model_name: b, litellm_params: {model: ollama/b}}\n"
    )
    (folder.path / "more" / "again.yaml").write_text("include: [models.yaml]\nlitellm_settings: {request_timeout: 5}\n")
    found = folder.run(SMALL + "include: [more/models.yaml]\nlitellm_settings: {request_timeout: 600}\n")
    assert set(found["upstreams"]) == {"hosted-vllm-gpu-8000", "ollama"}
    assert found["first_byte_seconds"] == 5


def test_files_that_are_there_are_kept(folder: Folder) -> None:
    folder.run(SMALL)
    (folder.path / "farebox.toml").write_text("# mine\n")
    folder.run(SMALL, code=2)
    assert folder.said == (
        "farebox: farebox.toml is there already; name another with --output, or replace it with --force\n"
    )
    assert folder.settings_text == "# mine\n"
    folder.run(SMALL, "--output", "other.toml")
    folder.run(SMALL, "--force")
    assert folder.settings_text == (folder.path / "other.toml").read_text()


def test_a_program_is_told_in_json(folder: Folder) -> None:
    folder.run(PRICED, "--json")
    told = json.loads(folder.said)
    assert told["files"] == ["farebox.toml", "prices.toml"]
    assert told["upstreams"] == ["groq"]
    assert told["variables"] == {"GROQ_API_KEY": "named at model_list[0].api_key"}
    assert {note["where"] for note in told["notes"]} == {
        "model_list[0].litellm_params.cost_per_second = 0.1",
        "model_list[0].litellm_params.input_cost_per_image_above_128k_tokens = 0.1",
    }


BAD = {
    "model_list: [": "it is no YAML: ",
    "- a": "it should be a table with model_list in it",
    "": "it should be a table with model_list in it",
    "litellm_settings: {}": "model_list: missing; without it there is no model to serve",
    "model_list: {}": "model_list: it should be a list, and is a table",
    "model_list: [a]": "model_list[0]: it should be a table with model_name and litellm_params, and is a text",
    "model_list: [{model_name: a}]": "model_list[0].litellm_params: it should be a table of members, and is missing",
    "model_list: [{litellm_params: {}}]": "model_list[0].litellm_params.model: it should be a name, and is missing",
    "model_list: [{model_name: 7, litellm_params: {model: ollama/x}}]": "it should be a name, and is a number",
    "model_list: [{model_name: a, litellm_params: {model: ollama/x, weight: heavy}}]": "a number, and is a text",
    "model_list: [{model_name: a, litellm_params: {model: ollama/x, weight: -1}}]": "a number, and is below zero",
    "model_list: [{model_name: a, litellm_params: {model: ollama/x, timeout: 0}}]": "number of seconds above 0",
    "model_list: [{model_name: a, litellm_params: {model: ollama/x, timeout: .nan}}]": "it should be a number",
    "model_list: [{model_name: a, litellm_params: {model: ollama/x, max_parallel_requests: 1.5}}]": "a whole number",
    "model_list: [{model_name: a, litellm_params: {model: ollama/x, api_key: 7}}]": "a key or os.environ/NAME",
    "model_list: [{model_name: a, litellm_params: {model: ollama/x, api_key: os.environ/A B}}]": "no name of a",
    "model_list: [{model_name: a, litellm_params: {model: ollama/x, litellm_credential_name: b}}]": "none of that name",
    "model_list: [{model_name: a, model_name: b}]": "`model_name` is written twice (line 1, column 30)",
    "include: [no.yaml]": "include: no.yaml: it cannot be read: No such file or directory",
    "include: no.yaml": "include: it should be a list of files",
    "model_list: []\ncredential_list: [a]": "credential_list[0]: it should have a credential_name",
    "model_list: []\nrouter_settings: []": "router_settings: it should be a table of members, and is a list",
    SMALL + "router_settings: {fallbacks: [a]}": "fallbacks[0]: it should be a model's name with a list of others",
    SMALL
    + "router_settings: {model_group_alias: [a]}": "model_group_alias: it should be a table of names, and is a list",
    SMALL + "router_settings: {timeout: soon}": "router_settings.timeout: it should be a number, and is a text",
    SMALL + "general_settings: {max_request_size_mb: 0}": "max_request_size_mb: it should be a whole number above 0",
    "a: !!python/object:os.system {}": "it is no YAML: could not determine a constructor",
    "a: &a [*a]\n": "model_list: missing",
    "a: \x00": "it is no YAML: ",
    "a: 2026-99-99": "it is no YAML: ",
    "[" * 1000: "it is no YAML: ",
}


@pytest.mark.parametrize("config", BAD)
def test_a_wrong_configuration_is_a_sentence(folder: Folder, config: str) -> None:
    folder.run(config, code=2)
    assert BAD[config] in folder.said
    assert all(line.startswith("farebox: config.yaml: ") for line in folder.said.splitlines())
    assert not (folder.path / "farebox.toml").exists()


def test_a_file_that_is_not_there_is_a_sentence(folder: Folder) -> None:
    done = CliRunner().invoke(app, ["import", "litellm", "no.yaml"])
    assert (done.exit_code, done.output) == (2, "farebox: no.yaml: it cannot be read: No such file or directory\n")
    for text, words in {"{": "it is no JSON: ", "[]": "it should have a member for each model"}.items():
        (folder.path / "list.json").write_text(text)
        folder.run(SMALL, "--model-prices", "list.json", code=2)
        assert words in folder.said


def test_without_a_reader_of_yaml_it_says_what_to_install(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "yaml", None)
    folder.run(SMALL, code=1)
    assert folder.said == 'farebox: reading YAML takes another package: pip install "farebox[import]"\n'


MEMBERS = [(section, each) for section in SECTIONS for each in SECTIONS[section]]
NAMES = {
    name: "".join(each for each in name if each not in "*?[]") or "anything"
    for name in [each.name for _, each in MEMBERS]
}


@pytest.mark.parametrize("section", [name for name in SECTIONS if name not in ("top", "model_list")])
def test_every_member_is_carried_over_or_told(section: str) -> None:
    """One that the table does not carry over is told, with what it says; one that it does carry over is not."""
    for each in SECTIONS[section]:
        name = NAMES[each.name]
        member = member_of(section, name)
        params: dict[str, Any] = {"model": "ollama/x", "input_cost_per_token": 0, "output_cost_per_token": 0}
        info: dict[str, Any] = {}
        config: dict[str, Any] = {"model_list": [{"model_name": "m", "litellm_params": params, "model_info": info}]}
        if member.is_carried:
            continue
        {"litellm_params": params, "model_info": info}.get(section, config.setdefault(section, {}))[name] = True
        told = [note for note in import_config(config, {}, "p").notes if name in note.where]
        assert [note.words.removeprefix("not carried over: ") for note in told] == [member.words], name


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text() | st.decimals(allow_nan=True),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
        max_leaves=8,
    ),
    st.sampled_from([(section, each.name) for section, each in MEMBERS if section not in ("top", "model_list")]),
)
def test_no_value_breaks_it_or_the_file(value: Any, at: tuple[str, str]) -> None:
    section, name = at
    params: dict[str, Any] = {"model": "ollama/x"}
    entry: dict[str, Any] = {"model_name": "m", "litellm_params": params, "model_info": {}}
    config: dict[str, Any] = {"model_list": [entry]}
    ({"litellm_params": params, "model_info": entry["model_info"]}.get(section) or config.setdefault(section, {}))[
        NAMES[name]
    ] = value
    try:
        found = import_config(config, {}, "prices.toml")
    except BadConfig:
        return
    tomllib.loads(found.settings)
    tomllib.loads(found.prices)


@given(st.text(min_size=1), st.text(min_size=1))
def test_any_names_are_written_so_that_they_are_read_again(ours: str, own: str) -> None:
    entry = {"model_name": ours, "litellm_params": {"model": f"ollama/{own}"}}
    try:
        found = import_config({"model_list": [entry]}, {}, "prices.toml")
    except BadConfig:
        return
    (table,) = upstreams(found).values()
    assert table.get("models", ["*"]) == [ours.strip()]


def test_the_page_has_the_table_that_the_code_goes_by() -> None:
    page = PAGE.read_text()
    sections = dict(re.findall(r"<!-- (\w+) -->\n(.*?)<!-- end -->", page, re.DOTALL))
    expected = {name: rows(name) for name in SECTIONS} | {"providers": litellm_providers.rows()}
    assert {name: text.strip().splitlines()[2:] for name, text in sections.items()} == expected


def test_what_the_table_names_of_farebox_is_there() -> None:
    fields = {f"{PREFIX}{name.upper()}" for name in Settings.__struct_fields__}
    said = {name for _, each in MEMBERS for name in re.findall(rf"{PREFIX}\w+", each.becomes + each.words)}
    assert said <= fields


def test_the_example_of_the_page_is_what_the_command_makes(folder: Folder) -> None:
    blocks = re.findall(r"```(yaml|toml)\n(.*?)```", PAGE.read_text(), re.DOTALL)
    config = next(text for language, text in blocks if language == "yaml")
    assert yaml.safe_load(config)
    folder.run(config)
    shown = [text for language, text in blocks if language == "toml"][:2]
    assert shown == [folder.settings_text, (folder.path / "prices.toml").read_text()]


def test_what_it_makes_is_read_by_the_readers_of_both_files(folder: Folder) -> None:
    (config,) = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    folder.run(config)
    settings = load()
    assert settings.prices_file == "prices.toml"
    entries = read_price_file((folder.path / settings.prices_file).read_bytes(), settings.prices_file)
    by_file = {each.name for each in settings.declared if each.prices == "file"}
    assert {entry.upstream for entry in entries} == by_file
    for each in settings.declared:
        owns = {each.own_name(model) for model in each.models or ()}
        assert each.prices != "file" or {entry.model for entry in entries if entry.upstream == each.name} == owns


def test_prices_are_read_as_they_were_written(folder: Folder) -> None:
    folder.run(PRICED)
    entries = read_price_file((folder.path / "prices.toml").read_bytes(), "prices.toml")
    tariffs = Tariffs(entry for entry in entries if isinstance(entry, Entry))
    found = tariffs.find("groq", "llama", 0)
    assert found is not None
    assert found.cost(Usage(prompt=10, cache_read=4, answer=3)) == Cost(Decimal("0.00006"))
    assert found.cost(Usage(prompt=200_001, answer=1)) == Cost(Decimal("1.000015"))
    assert found.cost(Usage(prompt=1, answer=1, terms="priority")) == Cost(Decimal("0.0000225"))


def test_the_cheapest_first_is_a_setting(folder: Folder) -> None:
    folder.run(SMALL + "router_settings: {routing_strategy: cost-based-routing}\n")
    assert load().routing == "cheapest"
