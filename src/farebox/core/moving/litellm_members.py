"""What becomes of each member of a LiteLLM proxy's `config.yaml` (as of LiteLLM 1.108).

`docs/moving-from-litellm.md` has this table, and a test holds it there. A name may be a shell pattern; the first that
matches counts.
"""

import re
from collections.abc import Mapping
from fnmatch import translate
from functools import cache
from types import MappingProxyType

from msgspec import Struct


class Member(Struct, frozen=True):
    """`becomes`: what stands for it in Farebox's files; empty where it is not carried over. `words`: how it is read, or
    why it is not carried over and what there is instead."""

    name: str
    becomes: str
    words: str

    @property
    def is_carried(self) -> bool:
        return bool(self.becomes)


def _carried(name: str, becomes: str, words: str = "") -> Member:
    return Member(name, becomes, words)


def _left(name: str, words: str) -> Member:
    return Member(name, "", words)


TOP = (
    _carried("model_list", "`[upstreams.*]`", "each entry is served by an upstream, several of one name by several"),
    _carried("router_settings", "see below"),
    _carried("litellm_settings", "see below"),
    _carried("general_settings", "see below"),
    _carried("include", "the same file", "the files that it names are read, too, as LiteLLM merges them"),
    _carried("credential_list", "`key_variable`, `base_url`", "where an entry of `model_list` names one of them"),
    _left("environment_variables", "no file holds values of the environment here; set them where Farebox is started"),
    _left("callback_settings", "no callbacks: `GET /metrics`, the order log and OpenTelemetry tell what happened"),
    _left("guardrails", "LiteLLM's own guards do not run here"),
    _left("polic*", "LiteLLM's own guards do not run here"),
    _left("prompts", "prompts are the caller's: an order goes on as it came"),
    _left("mcp_*", "Farebox serves its own tools to agents at `/mcp`, and is no gateway to other MCP servers"),
    _left("*tools", "LiteLLM's own tools do not run here; a provider's tools pass in an order"),
    _left("vector_store_registry", "no such endpoint is served"),
    _left("agent*", "no such endpoint is served"),
    _left("assistant_settings", "no such endpoint is served"),
    _left("finetune_settings", "no such endpoint is served"),
    _left("files_settings", "no such endpoint is served"),
    _left("default_vertex_config", "no such endpoint is served"),
    _left("worker_registry", "nodes that share a database need no registry"),
)

DEPLOYMENT = (
    _carried("model_name", "`models`, `names`", "the id by which callers order; `*` as in LiteLLM"),
    _carried("litellm_params", "see below"),
    _carried("model_info", "see below"),
    _left("blocked", "leave its upstream out of the file instead"),
    _left("tpm", "LiteLLM reads it under `litellm_params` alone, and so does the import"),
    _left("rpm", "LiteLLM reads it under `litellm_params` alone, and so does the import"),
)

PRICES = (
    _carried(
        "input_cost_per_token", "`prompt`", "and `cache_read`, `cache_write` where those have no price, as LiteLLM"
    ),
    _carried("output_cost_per_token", "`answer`"),
    _carried("cache_read_input_token_cost", "`cache_read`"),
    _carried("input_cost_per_token_cache_hit", "`cache_read`", "where the member above is absent"),
    _carried("cache_creation_input_token_cost", "`cache_write`"),
    _carried("cache_creation_input_token_cost_above_1hr", "`cache_write_1h`", "where it is absent, `cache_write`'s"),
    _carried("output_cost_per_reasoning_token", "`reasoning`"),
    _carried("input_cost_per_image_token", "`picture_in`"),
    _carried("output_cost_per_image_token", "`picture_out`"),
    _carried("input_cost_per_audio_token", "`audio_in`"),
    _carried("output_cost_per_audio_token", "`audio_out`"),
    _carried("input_cost_per_request", "`request`"),
    _carried(
        "*_above_*_tokens", "`above_prompt_tokens`", "of the members above: an entry of its own for longer prompts"
    ),
    _carried("*_flex", '`terms = "flex"`', "of the members above: an entry of its own"),
    _carried("*_priority", '`terms = "priority"`', "of the members above: an entry of its own"),
    _left("*_batches", "Farebox sends no orders through a provider's batch API"),
    _left("search_context_cost_per_query", "write the price of a search into `search`, if it is one price"),
    _left("*_per_second*", "what is counted in seconds is no usage that an answer tells"),
    _left("*_per_character*", "what is counted in characters is no usage that an answer tells"),
    _left(
        "*_cost*", "no price file holds it: where a usage tells what it is for, the order stays open; else it is free"
    ),
    _left("off_peak_pricing", "prices by the hour are not known here: the usual ones hold all day"),
    _left("tiered_pricing", "write an entry for each tier, with `above_prompt_tokens`"),
    _left("*_uplift_multiplier*", "multiply the prices yourself"),
)

PARAMS = (
    _carried(
        "model", "`kind`, `names`", "what stands before the first `/` says who the provider is (see the providers)"
    ),
    _carried("custom_llm_provider", "`kind`", "where it is set, `model` is the provider's name for the model as it is"),
    _carried("api_base", "`base_url`", "`os.environ/NAME` is read while importing"),
    _carried("base_url", "`base_url`", "where `api_base` is absent"),
    _carried("api_key", "`key_variable`", "a key that stands in the file is not copied: the report names a variable"),
    _carried("litellm_credential_name", "`key_variable`, `base_url`", "by `credential_list`"),
    _carried("order", "`order`", "counted from 0, over the whole file"),
    _carried("weight", "`weight`", "as whole numbers up to 1000; of 0: an `order` behind the others"),
    _carried("rpm", "`weight`", "where no deployment of the name has a `weight`, as LiteLLM does. It is no limit here"),
    _carried("tpm", "`weight`", "where none has a `weight` or `rpm`. It is no limit here"),
    _carried("timeout", "`first_byte_seconds`", "from the order sent to the answer's head"),
    _carried("max_parallel_requests", "`orders_max`", "of each process; beyond it, the next upstream or 429"),
    _carried("api_version", "nothing", "of `azure`: the API without versions is used"),
    _carried("model_info", "see below"),
    *PRICES,
    _left("itpm", "no limit of an upstream by the minute: its own 429 sends an order to the next one"),
    _left("otpm", "no limit of an upstream by the minute: its own 429 sends an order to the next one"),
    _left("stream_timeout", "`first_byte_seconds` and `no_data_seconds` are for streams, too"),
    _left("*timeout_by_service_tier", "one deadline for all tiers: `first_byte_seconds`"),
    _left("max_retries", "an order is sent to an upstream once, and to the next one where nothing was accepted"),
    _left("drop_params", "what the upstream cannot take is left out where that harms nothing, and named in a header"),
    _left("additional_drop_params", "an order goes on as its caller wrote it"),
    _left("allowed_openai_params", "an order goes on as its caller wrote it"),
    _left("extra_headers", "no headers of the operator's are added; ask for the provider's own setting"),
    _left("headers", "no headers of the operator's are added"),
    _left("extra_body", "nothing is added to an order; callers write it themselves"),
    _left("temperature", "nothing is added to an order; callers write it themselves"),
    _left("top_p", "nothing is added to an order; callers write it themselves"),
    _left("max_tokens", "a plan's or a key's `answer_tokens_max` caps answers"),
    _left("max_completion_tokens", "a plan's or a key's `answer_tokens_max` caps answers"),
    _left("reasoning_effort", "nothing is added to an order; callers write it themselves"),
    _left("thinking", "nothing is added to an order; callers write it themselves"),
    _left("organization", "give the key to the organization at OpenAI"),
    _left("max_budget", "no budget of an upstream: limits are an account's or a key's"),
    _left("budget_duration", "no budget of an upstream: limits are an account's or a key's"),
    _left("default_api_key_*_limit", "`farebox key limit` sets limits of a key"),
    _left("configurable_clientside_auth_params", "callers never name an upstream's address or key"),
    _left("tags", "a key's `models` says what it may order; an order's `provider` says who shall serve it"),
    _left("tag_regex", "a key's `models` says what it may order; an order's `provider` says who shall serve it"),
    _left("mock_response", "`farebox serve` without upstreams answers from its simulator"),
    _left("keepalive_seconds", "`stream_silence_seconds` and `silence_seconds`"),
    _left("allow_client_keepalive_override", "`stream_silence_seconds` and `silence_seconds`"),
    _left("region_name", "declare an upstream with the region's own address"),
    _left("use_in_pass_through", "an order in the upstream's own format is always passed through byte for byte"),
    _left("azure_*", "Azure's identities are not spoken; use an API key"),
    _left("tenant_id", "Azure's identities are not spoken; use an API key"),
    _left("client_*", "Azure's identities are not spoken; use an API key"),
    _left("aws_*", "no kind of upstream speaks AWS' API"),
    _left("bedrock_*", "no kind of upstream speaks AWS' API"),
    _left("s3_*", "no kind of upstream speaks AWS' API"),
    _left("vertex_*", "no kind of upstream speaks Vertex AI's API"),
    _left("watsonx_*", "no kind of upstream speaks watsonx' API"),
    _left("anthropic_*", "workload identities are not spoken; use an API key"),
    _left("openai_*", "workload identities are not spoken; use an API key"),
    _left("token_exchange_*", "workload identities are not spoken; use an API key"),
    _left("*_router_*", "no router reads prompts here; an order names its model, or several in `models`"),
    _left("cache_control_injection_points", "callers mark what the provider shall keep"),
    _left("*", "a setting of LiteLLM or of its provider; nothing here reads it"),
)

INFO = (
    _carried("mode", "`formats`", "`embedding` serves embeddings; what is neither that nor a text model is not served"),
    _carried("base_model", "nothing", "under that name the file that `--model-prices` names is looked into"),
    _carried("order", "`order`", "where `litellm_params` has none"),
    *PRICES,
    _left("id", "an upstream has a name; every answer's record says which one served it"),
    _left("max_*tokens", "the upstream's own list says it, where it does; a plan's `answer_tokens_max` caps answers"),
    _left("supports_*", "what an upstream cannot take it refuses itself"),
    _left("access_groups", "`models` of a key or a plan says what it may order"),
    _left("team_*", "no teams: an account is who pays, and has keys"),
    _left("*", "a description; nothing here reads it"),
)

ROUTER = (
    _carried(
        "routing_strategy",
        "`routing`",
        "`simple-shuffle` is what `order` does; `cost-based-routing` is `cheapest`; of the others, callers ask by"
        " `provider.sort` for `latency` or `throughput`, as at OpenRouter",
    ),
    _carried("fallbacks", "`[upstreams.*]`, `order`", "as further upstreams of the model, behind its own"),
    _carried("default_fallbacks", "`[upstreams.*]`, `order`", "the same, for models without fallbacks of their own"),
    _carried("model_group_alias", "`names`", "as a further name of the model"),
    _carried("timeout", "`first_byte_seconds`", "of all upstreams; before `litellm_settings.request_timeout`"),
    _left("context_window_fallbacks", "a 400 is the caller's to see; an order may name several `models` itself"),
    _left("content_policy_fallbacks", "a refusal is the caller's to see; an order may name several `models` itself"),
    _left("stream_timeout", "`first_byte_seconds` and `no_data_seconds` are for streams, too"),
    _left("num_retries", "each upstream is tried once, then the next one; SDKs repeat by themselves what is refused"),
    _left("max_fallbacks", "up to 8 upstreams are tried"),
    _left("retry_*", "each upstream is tried once, then the next one; a `Retry-After` is passed on"),
    _left("*retry_policy", "each upstream is tried once, then the next one"),
    _left("allowed_fails*", "after three failures in a row an upstream is left alone"),
    _left("cooldown_time", "one that fails is left alone for 2 seconds, twice as long each time, up to a minute"),
    _left("disable_cooldowns", "an upstream that fails is always left alone for a while"),
    _left("redis_*", "nodes share what they know through the database of the books"),
    _left("cache_*", "answers are kept for keys and orders that ask for it (`X-Farebox-Cache`), in the books"),
    _left("caching_groups", "answers are kept for keys and orders that ask for it (`X-Farebox-Cache`), in the books"),
    _left("provider_budget_config", "no budget of an upstream: limits are an account's or a key's"),
    _left("*tag*", "a key's `models` says what it may order; an order's `provider` says who shall serve it"),
    _left("*health_check*", "no orders are sent to see whether an upstream lives; real ones show it"),
    _left("default_max_parallel_requests", "`orders_max` of each upstream"),
    _left("enable_pre_call_checks", "an order that no upstream can take is refused before anything is held"),
    _left("alerting_config", "`GET /metrics` is for your own alerts"),
    _left("*", "nothing here works like that"),
)

SETTINGS = (
    _carried("request_timeout", "`first_byte_seconds`", "where `router_settings.timeout` is absent"),
    _carried("fallbacks", "`[upstreams.*]`, `order`", "where `router_settings` has none"),
    _carried("default_fallbacks", "`[upstreams.*]`, `order`", "where `router_settings` has none"),
    _left("context_window_fallbacks", "a 400 is the caller's to see; an order may name several `models` itself"),
    _left("content_policy_fallbacks", "a refusal is the caller's to see; an order may name several `models` itself"),
    _left("num_retries*", "each upstream is tried once, then the next one; SDKs repeat by themselves what is refused"),
    _left("allowed_fails", "after three failures in a row an upstream is left alone"),
    _left("drop_params", "what an upstream cannot take is left out where that harms nothing, and named in a header"),
    _left("modify_params", "an order goes on as its caller wrote it"),
    _left("cache*", "answers are kept for keys and orders that ask for it (`X-Farebox-Cache`), in the books"),
    _left("*redis*", "nodes share what they know through the database of the books"),
    _left("*callback*", "no callbacks: `GET /metrics`, the order log and OpenTelemetry (`OTEL_*`) tell what happened"),
    _left("prometheus_*", "`GET /metrics` is always there, and has its own labels"),
    _left("langfuse*", "no callbacks: spans go to any OpenTelemetry collector (`OTEL_*`)"),
    _left("turn_off_message_logging", "no prompt and no answer is ever logged"),
    _left("redact_*", "no prompt, no answer and no key is ever logged"),
    _left("json_logs", "orders are logged as JSON, a line each (`order_log`)"),
    _left("set_verbose", "orders are logged as JSON, a line each (`order_log`)"),
    _left("*max_budget*", "an account pays in advance, or has limits (`farebox account limit NAME usd_per_month=200`)"),
    _left("*budget*", "an account pays in advance, or has limits (`farebox account limit NAME usd_per_month=200`)"),
    _left("default_*_params", "`farebox account create` and `farebox key create` say what each gets"),
    _left("default_team_settings", "no teams: an account is who pays, and has keys"),
    _left("*key_generat*", "`farebox key create` and `farebox key limit` say what each key gets"),
    _left("ssl_*", "certificates are always checked; `ca_file` adds authorities to believe"),
    _left("guardrails", "LiteLLM's own guards do not run here"),
    _left("*_rules", "LiteLLM's own guards do not run here"),
    _left("include_cost_in_streaming_usage", "what an order cost stands in its record (`GET /generation`)"),
    _left("disable_end_user_cost_tracking*", "every order is booked"),
    _left("*_key", "name the variable with the key in `key_variable` of an upstream"),
    _left("api_base", "write `base_url` into an upstream"),
    _left("model_alias_map", "`names` of an upstream maps names"),
    _left("*", "a setting of LiteLLM's own; nothing here reads it"),
)

GENERAL = (
    _carried("global_max_parallel_requests", "`orders_max`", "of each process"),
    _carried("max_request_size_mb", "`body_bytes_max`"),
    _left("master_key", "`farebox management-key create` makes a key for managing; keys that order are made from it"),
    _left(
        "database_*", "the books are Farebox's own: set `FAREBOX_DATABASE_URL` to a database without LiteLLM's tables"
    ),
    _left("store_model_in_db", "upstreams stand in `farebox.toml`, which is taken up again when it changes"),
    _left("max_parallel_requests", "`farebox key limit KEY orders_at_once=...`"),
    _left("completion_model", "an order names its model"),
    _left("infer_model_from_keys", "an order names its model"),
    _left("*alert*", "`GET /metrics` is for your own alerts"),
    _left("*health_check*", "no orders are sent to see whether an upstream lives; real ones show it"),
    _left("custom_*", "no code of yours runs in the gateway by this file"),
    _left("plugins", "no code of yours runs in the gateway by this file"),
    _left("pass_through_endpoints", "nothing but the documented paths reaches an upstream"),
    _left("allowed_routes", "the paths are fixed (docs/api.md)"),
    _left("allowed_ips", "let the proxy in front decide who may connect"),
    _left("*spend_logs*", "every order stands in the ledger and is never deleted: fares are proved by it"),
    _left("*retention_period*", "every order stands in the ledger and is never deleted: fares are proved by it"),
    _left("disable_budget_reservation", "an order's money is always set aside first"),
    _left("fail_closed_*", "while the books cannot take an order, it is refused"),
    _left("cancel_on_disconnect", "`hang_up`, and `at_hang_up` of an upstream"),
    _left("forward_client_headers_to_llm_api", "a caller's headers do not go upstream"),
    _left("litellm_jwtauth", "callers have keys; there are no tokens of others"),
    _left("user_header_*", "a key is who orders; the order's own `user` goes on to the upstream"),
    _left("use_*", "keys are in the environment; let your platform put them there"),
    _left("key_management_*", "keys are in the environment; let your platform put them there"),
    _left("mcp_*", "Farebox serves its own tools to agents at `/mcp`, and is no gateway to other MCP servers"),
    _left("*password*", "there is no page to log in to"),
    _left("ui_access_mode", "there is no page to log in to"),
    _left("*", "a setting of LiteLLM's own; nothing here reads it"),
)

SECTIONS: Mapping[str, tuple[Member, ...]] = MappingProxyType(
    {
        "top": TOP,
        "model_list": DEPLOYMENT,
        "litellm_params": PARAMS,
        "model_info": INFO,
        "router_settings": ROUTER,
        "litellm_settings": SETTINGS,
        "general_settings": GENERAL,
    }
)

UNKNOWN = Member("*", "", "LiteLLM has no such member here, as far as is known; nothing reads it")


def member_of(section: str, name: str) -> Member:
    """What the table says of a member, by its name."""
    return next((each for pattern, each in _patterns(SECTIONS[section]) if pattern.match(name)), UNKNOWN)


@cache
def _patterns(members: tuple[Member, ...]) -> tuple[tuple[re.Pattern[str], Member], ...]:
    return tuple((re.compile(translate(each.name)), each) for each in members)


def unread_price(name: str) -> Member:
    """What the table says of a price that no price file can hold."""
    return next(each for pattern, each in _patterns(PRICES) if not each.is_carried and pattern.match(name))


def rows(section: str) -> list[str]:
    """The section as rows of a table in Markdown."""
    return [f"| `{each.name}` | {each.becomes or '-'} | {each.words} |" for each in SECTIONS[section]]
