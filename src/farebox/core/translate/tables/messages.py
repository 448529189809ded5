"""What becomes of the members of a message's order in chat completions and in responses."""

from farebox.core.translate.members import Cell, Member, as_, left, made, refused, taken


def _row(path: str, chat: Cell, responses: Cell | None = None) -> Member:
    return Member(path, {"chat": chat, "responses": responses or chat})


def _kind(path: str, chat: Cell, responses: Cell | None = None) -> Member:
    return Member(path, {"chat": chat, "responses": responses or chat}, is_kind=True)


_ROUTED = taken("Farebox's own routing reads it")
_SAME = made("the same")
_HOSTS = refused("it belongs to tools that only Anthropic's host runs; leave it out of the conversation")
_OTHER_TOOL = refused("tools that the host runs are Anthropic's own; send a function (`custom`)")
_SEARCHED = refused("send what was found as `text`")

HOSTS_BLOCKS = (
    "server_tool_use mcp_tool_use mcp_tool_result web_search_tool_result web_fetch_tool_result"
    " code_execution_tool_result bash_code_execution_tool_result text_editor_code_execution_tool_result"
    " tool_search_tool_result advisor_tool_result container_upload compaction tool_reference"
).split()
"""Blocks of tools that the host runs."""

TABLE: tuple[Member, ...] = (
    _row("model", as_("model")),
    _row("messages", _SAME, made("`input`")),
    _row("system", made("`messages`"), made("`input`")),
    _row("stream", _SAME),
    _row("max_tokens", made("`max_tokens`, or what the upstream's `capped_by` says"), made("`max_output_tokens`")),
    _row("temperature", as_("temperature")),
    _row("top_p", as_("top_p")),
    _row("top_k", left()),
    _row(
        "stop_sequences",
        made("`stop`"),
        refused("responses have no stop sequences; leave it out, and cut the text yourself", "[]"),
    ),
    _row("tools", _SAME),
    _row("tool_choice", made("the same, `parallel_tool_calls`")),
    _row("thinking", made("`reasoning_effort`"), made("`reasoning`")),
    _row("output_config", made("`response_format`, `reasoning_effort`"), made("`text.format`, `reasoning`")),
    _row("metadata", made("`user`")),
    _row("user", made("`user`")),
    _row("service_tier", made("`standard_only` is `default`; other tiers are left out")),
    _row("speed", left('"standard"')),
    _row("cache_control", left()),
    _row("context_management", left("{}")),
    _row("diagnostics", left()),
    _row("user_profile_id", left()),
    _row("workspace_id", left()),
    _row("safeguards", refused("they cannot be asked for there; leave it out", "[]", "{}")),
    _row("thread", refused("nothing is stored here; send the earlier messages")),
    _row("compaction", refused("only Anthropic's host summarizes a conversation; leave it out")),
    _row("billing_policy", left()),
    _row("fallback_credit_token", left()),
    _row("container", refused("only Anthropic's host has containers; leave it out")),
    _row("inference_geo", refused("where it runs cannot be asked for there; leave it out")),
    _row("mcp_servers", refused("only Anthropic's host calls MCP servers; leave it out", "[]")),
    _row("models", _ROUTED),
    _row("fallbacks", _ROUTED),
    _row("provider", _ROUTED),
    _row("route", _ROUTED),
    _row("plugins", refused("plugins are OpenRouter's own; leave them out", "[]")),
    _row("deferred_tools", refused("only OpenRouter defers tools; leave it out")),
    _row("stop_server_tools_when", left("[]")),
    _row("session_id", left()),
    _row("trace", left("{}")),
    # Turns
    _kind("messages[system]", _SAME),
    _kind("messages[user]", _SAME),
    _kind("messages[assistant]", _SAME),
    *(
        row
        for role in ("system", "user", "assistant")
        for row in (_row(f"messages[{role}].role", _SAME), _row(f"messages[{role}].content", _SAME))
    ),
    _kind("messages[system].content[text]", made("`text`"), made("`input_text`")),
    _kind("messages[user].content[text]", made("`text`"), made("`input_text`")),
    _kind("messages[user].content[image]", made("`image_url`"), made("`input_image`")),
    _kind("messages[user].content[document]", made("`file`"), made("`input_file`")),
    _kind("messages[user].content[tool_result]", made("a message `tool`"), made("`function_call_output`")),
    _kind("messages[user].content[search_result]", _SEARCHED),
    _kind("messages[assistant].content[text]", made("`text`"), made("`output_text`")),
    _kind("messages[assistant].content[tool_use]", made("`tool_calls`"), made("`function_call`")),
    _kind(
        "messages[assistant].content[thinking]",
        made("`reasoning_details` where its host said it; else left out"),
        made("`reasoning` where its host said it; else left out"),
    ),
    _kind(
        "messages[assistant].content[redacted_thinking]",
        made("`reasoning_details` where its host said it; else left out"),
        made("`reasoning` where its host said it; else left out"),
    ),
    *(_kind(f"messages[{role}].content[{each}]", _HOSTS) for role in ("user", "assistant") for each in HOSTS_BLOCKS),
    # Blocks
    *(
        _row(f"block[{kind}].{name}", _SAME)
        for kind, name in (
            ("text", "type"),
            ("text", "text"),
            ("image", "type"),
            ("image", "source"),
            ("document", "type"),
            ("document", "source"),
            ("tool_use", "type"),
            ("tool_use", "id"),
            ("tool_use", "name"),
            ("tool_result", "type"),
            ("tool_result", "tool_use_id"),
            ("tool_result", "content"),
            ("thinking", "type"),
            ("thinking", "thinking"),
            ("thinking", "signature"),
            ("redacted_thinking", "type"),
            ("redacted_thinking", "data"),
        )
    ),
    *(_row(f"block[{kind}].cache_control", left()) for kind in "text image document tool_use tool_result".split()),
    _row("block[text].citations", left("[]")),
    _row("block[image].transformations", left()),
    _row("block[document].title", made("`filename`")),
    _row("block[document].context", left()),
    _row("block[document].citations", left('{"enabled":false}', '{"enabled": false}')),
    _row("block[tool_use].input", made("`arguments`, a text")),
    _row("block[tool_use].caller", left('{"type":"direct"}', '{"type": "direct"}')),
    _row("block[tool_use].toolset_name", left()),
    _row("block[tool_result].is_error", left("false")),
    _row("block[tool_result].toolset_name", left()),
    _kind("image.source[base64]", made("a `data:` URL")),
    _kind("image.source[url]", made("its URL")),
    _kind("image.source[file]", refused("send the picture itself, or its URL"), made("`file_id`")),
    _kind("document.source[base64]", made("a `data:` URL")),
    _kind("document.source[text]", made("a `data:` URL")),
    _kind("document.source[url]", refused("send the file itself"), made("`file_url`")),
    _kind("document.source[file]", made("`file_id`")),
    _kind("document.source[content]", refused("send its blocks beside it")),
    _kind("tool_result.content[text]", _SAME),
    _kind("tool_result.content[image]", made("in a message of the user's, after the results"), made("`input_image`")),
    _kind("tool_result.content[document]", made("in a message of the user's, after the results"), made("`input_file`")),
    _kind("tool_result.content[search_result]", _SEARCHED),
    _kind("tool_result.content[tool_reference]", _HOSTS),
    _kind("tool_result.content[browser_state]", _HOSTS),
    # Tools and the rest
    _kind("tools[custom]", made("`function`")),
    _kind("tools[host's]", _OTHER_TOOL),
    _row("tools[custom].type", _SAME),
    _row("tools[custom].name", _SAME),
    _row("tools[custom].description", _SAME),
    _row("tools[custom].input_schema", made("`parameters`")),
    _row("tools[custom].strict", _SAME),
    _row("tools[custom].cache_control", left()),
    _row("tools[custom].allowed_callers", left('["direct"]')),
    _row("tools[custom].defer_loading", left("false")),
    _row("tools[custom].eager_input_streaming", left("false")),
    _row("tools[custom].input_examples", left("[]")),
    _row("tool_choice.type", _SAME),
    _row("tool_choice.name", _SAME),
    _row("tool_choice.disable_parallel_tool_use", made("`parallel_tool_calls`")),
    _row("thinking.type", _SAME),
    _row("thinking.budget_tokens", made("the nearest effort")),
    _row("thinking.display", taken("chat completions show it where the host does"), made("`reasoning.summary`")),
    _row("output_config.effort", made("`reasoning_effort`"), made("`reasoning.effort`")),
    _row("output_config.format", made("`response_format`"), made("`text.format`")),
    _row("output_config.task_budget", left()),
    _row("output_config.format.type", _SAME),
    _row("output_config.format.schema", _SAME),
    _row("metadata.user_id", made("`user`; one of over 64 characters is left out")),
)
