"""Which upstream serves what LiteLLM calls a provider: the word before the first `/` of a deployment's `model`.

The addresses and variables are those that LiteLLM 1.108 uses where its configuration names none.
"""

from collections.abc import Mapping
from types import MappingProxyType
from urllib.parse import urlsplit

from msgspec import Struct

from farebox.core.declared import CappedBy


class Provider(Struct, frozen=True):
    """`base_url` is used where the configuration has none, `base_variable` names LiteLLM's variable for it, and
    `key_variable` the one for the key. `formats`: None for those of the kind's own host. One that `is_local` runs on
    the operator's own machines: it wants a key only where one is configured, and costs nothing. `tail` is added to a
    configured address, where Farebox's kind and LiteLLM mean different bases by it. `lists_at_openrouter`: OpenRouter's
    public list has its models at its own prices, under this author's name. `capped_by` is the only cap that it reads,
    where it is known to read one alone.
    """

    kind: str = "openai"
    base_url: str | None = None
    key_variable: str | None = None
    base_variable: str | None = None
    formats: tuple[str, ...] | None = ("chat",)
    is_local: bool = False
    tail: str = ""
    lists_at_openrouter: str = ""
    words: str = ""
    capped_by: CappedBy | None = None


_BOTH = ("chat", "embeddings")

PROVIDERS: Mapping[str, Provider] = MappingProxyType(
    {
        "openai": Provider("openai", None, "OPENAI_API_KEY", None, None, lists_at_openrouter="openai"),
        "custom_openai": Provider("openai", None, "OPENAI_API_KEY", None, _BOTH),
        "openai_like": Provider("openai", None, "OPENAI_LIKE_API_KEY", "OPENAI_LIKE_API_BASE", _BOTH),
        "anthropic": Provider("anthropic", None, "ANTHROPIC_API_KEY", None, None, lists_at_openrouter="anthropic"),
        "openrouter": Provider("openrouter", None, "OPENROUTER_API_KEY", None, None),
        "azure": Provider(
            "openai",
            None,
            "AZURE_API_KEY",
            "AZURE_API_BASE",
            ("chat", "responses", "embeddings"),
            tail="/openai/v1",
            words="through Azure's API without versions (`/openai/v1`), where a deployment's name is the model's",
            capped_by="max_completion_tokens",
        ),
        "gemini": Provider(
            "openai",
            "https://generativelanguage.googleapis.com/v1beta/openai",
            "GEMINI_API_KEY",
            None,
            _BOTH,
            words="through Google's OpenAI-compatible API",
        ),
        "litellm_proxy": Provider("openai", None, "LITELLM_PROXY_API_KEY", "LITELLM_PROXY_API_BASE", _BOTH),
        "ollama": Provider(
            "openai",
            "http://localhost:11434/v1",
            "OLLAMA_API_KEY",
            "OLLAMA_API_BASE",
            _BOTH,
            is_local=True,
            tail="/v1",
            words="through Ollama's OpenAI-compatible API",
            capped_by="max_tokens",
        ),
        "ollama_chat": Provider(
            "openai",
            "http://localhost:11434/v1",
            "OLLAMA_API_KEY",
            "OLLAMA_API_BASE",
            is_local=True,
            tail="/v1",
            words="through Ollama's OpenAI-compatible API",
            capped_by="max_tokens",
        ),
        "hosted_vllm": Provider("openai", None, "HOSTED_VLLM_API_KEY", "HOSTED_VLLM_API_BASE", _BOTH, is_local=True),
        "lm_studio": Provider(
            "openai",
            None,
            "LM_STUDIO_API_KEY",
            "LM_STUDIO_API_BASE",
            _BOTH,
            is_local=True,
            capped_by="max_tokens",
        ),
        "llamafile": Provider(
            "openai",
            "http://127.0.0.1:8080/v1",
            "LLAMAFILE_API_KEY",
            "LLAMAFILE_API_BASE",
            is_local=True,
            capped_by="max_tokens",
        ),
        "docker_model_runner": Provider(
            "openai",
            "http://localhost:22088/engines/llama.cpp/v1",
            "DOCKER_MODEL_RUNNER_API_KEY",
            "DOCKER_MODEL_RUNNER_API_BASE",
            is_local=True,
            tail="/v1",
        ),
        "lemonade": Provider(
            "openai", "http://localhost:8000/api/v1", "LEMONADE_API_KEY", "LEMONADE_API_BASE", is_local=True
        ),
        "mistral": Provider(
            "openai",
            "https://api.mistral.ai/v1",
            "MISTRAL_API_KEY",
            "MISTRAL_API_BASE",
            _BOTH,
            capped_by="max_tokens",
        ),
        "groq": Provider("openai", "https://api.groq.com/openai/v1", "GROQ_API_KEY", "GROQ_API_BASE"),
        "deepseek": Provider("openai", "https://api.deepseek.com/beta", "DEEPSEEK_API_KEY", "DEEPSEEK_API_BASE"),
        "xai": Provider("openai", "https://api.x.ai/v1", "XAI_API_KEY", "XAI_API_BASE"),
        "together_ai": Provider(
            "openai", "https://api.together.ai/v1", "TOGETHER_API_KEY", "TOGETHER_AI_API_BASE", _BOTH
        ),
        "fireworks_ai": Provider(
            "openai", "https://api.fireworks.ai/inference/v1", "FIREWORKS_API_KEY", "FIREWORKS_API_BASE", _BOTH
        ),
        "deepinfra": Provider(
            "openai", "https://api.deepinfra.com/v1/openai", "DEEPINFRA_API_KEY", "DEEPINFRA_API_BASE", _BOTH
        ),
        "perplexity": Provider("openai", "https://api.perplexity.ai", "PERPLEXITY_API_KEY", "PERPLEXITY_API_BASE"),
        "cerebras": Provider("openai", "https://api.cerebras.ai/v1", "CEREBRAS_API_KEY", "CEREBRAS_API_BASE"),
        "nvidia_nim": Provider(
            "openai", "https://integrate.api.nvidia.com/v1", "NVIDIA_NIM_API_KEY", "NVIDIA_NIM_API_BASE", _BOTH
        ),
        "sambanova": Provider("openai", "https://api.sambanova.ai/v1", "SAMBANOVA_API_KEY", "SAMBANOVA_API_BASE"),
        "moonshot": Provider("openai", "https://api.moonshot.ai/v1", "MOONSHOT_API_KEY", "MOONSHOT_API_BASE"),
        "dashscope": Provider(
            "openai",
            "https://dashscope.aliyuncs.com/compatible-mode/v1",
            "DASHSCOPE_API_KEY",
            "DASHSCOPE_API_BASE",
            _BOTH,
        ),
        "zai": Provider("openai", "https://api.z.ai/api/paas/v4", "ZAI_API_KEY", "ZAI_API_BASE"),
        "nebius": Provider("openai", "https://api.studio.nebius.ai/v1", "NEBIUS_API_KEY", "NEBIUS_API_BASE", _BOTH),
        "novita": Provider("openai", "https://api.novita.ai/v3/openai", "NOVITA_API_KEY", "NOVITA_API_BASE"),
        "hyperbolic": Provider("openai", "https://api.hyperbolic.xyz/v1", "HYPERBOLIC_API_KEY", "HYPERBOLIC_API_BASE"),
        "nscale": Provider("openai", "https://inference.api.nscale.com/v1", "NSCALE_API_KEY", "NSCALE_API_BASE"),
        "lambda_ai": Provider("openai", "https://api.lambda.ai/v1", "LAMBDA_API_KEY", "LAMBDA_API_BASE"),
        "featherless_ai": Provider(
            "openai", "https://api.featherless.ai/v1", "FEATHERLESS_API_KEY", "FEATHERLESS_API_BASE"
        ),
        "meta_llama": Provider("openai", "https://api.llama.com/compat/v1", "LLAMA_API_KEY", "LLAMA_API_BASE"),
        "baseten": Provider("openai", "https://inference.baseten.co/v1", "BASETEN_API_KEY", "BASETEN_API_BASE"),
        "volcengine": Provider(
            "openai", "https://ark.cn-beijing.volces.com/api/v3", "VOLCENGINE_API_KEY", "VOLCENGINE_API_BASE", _BOTH
        ),
        "vercel_ai_gateway": Provider(
            "openai", "https://ai-gateway.vercel.sh/v1", "VERCEL_AI_GATEWAY_API_KEY", "VERCEL_AI_GATEWAY_API_BASE"
        ),
    }
)

GUESSED = (
    ("claude-", "anthropic"),
    ("gpt-", "openai"),
    ("chatgpt-", "openai"),
    ("o1", "openai"),
    ("o3", "openai"),
    ("o4", "openai"),
    ("text-embedding-", "openai"),
    ("ft:gpt-", "openai"),
)
"""Whose a model is that is named without a provider, by how its name begins. LiteLLM has long lists of names."""

_DETOURS = ("responses/", "o_series/", "gpt5_series/", "chat/")
"""What may stand between a provider and a model's name, for LiteLLM alone."""


def named(model: str, provider: str | None) -> tuple[str, str] | None:
    """The provider and its own name for a deployment's `model`; None where nothing says whose it is."""
    own = model
    if provider is None:
        before, slash, after = model.partition("/")
        guessed = next((each for start, each in GUESSED if model.startswith(start)), None)
        if slash and (before in PROVIDERS or guessed is None):
            provider, own = before, after
        elif guessed is not None:
            provider = guessed
        else:
            return None
    own = own.removeprefix(f"{provider}/")
    if provider in ("openai", "azure"):
        for detour in _DETOURS:
            own = own.removeprefix(detour)
    return (provider, own) if own else None


def base_of(provider: Provider, configured: str) -> str:
    """The base URL that a kind wants, of the one that LiteLLM was given."""
    url = configured.strip().rstrip("/")
    if provider.kind == "anthropic":
        return url.removesuffix("/v1/messages").removesuffix("/v1")
    if provider.tail and not url.endswith(provider.tail):
        if provider.tail == "/openai/v1":
            url = url.partition("/openai/")[0].removesuffix("/openai")
        return url + provider.tail
    return url


def is_plain_url(url: str) -> bool:
    """Whether a URL is one that may stand in a file: http, and no key in it."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    plain = parts.scheme in ("http", "https") and parts.hostname and not parts.query and not parts.fragment
    return bool(plain) and parts.username is None and url.isprintable() and " " not in url


def rows() -> list[str]:
    """The providers as rows of a table in Markdown."""
    lines = []
    for name, each in PROVIDERS.items():
        base = f"`{each.base_url}`" if each.base_url else "the kind's own" if _has_own(each) else "`api_base`"
        words = "; ".join(filter(None, ["free" if each.is_local else "", each.words]))
        lines.append(f"| `{name}/` | `{each.kind}` | {base} | `{each.key_variable}` | {words} |")
    return lines


def _has_own(provider: Provider) -> bool:
    return provider.formats is None
