"""What becomes of the members of a chat completion's order in messages and in responses."""

from farebox.core.translate.members import Cell, Member, as_, left, made, refused, taken


def _row(path: str, messages: Cell, responses: Cell | None = None) -> Member:
    return Member(path, {"messages": messages, "responses": responses or messages})


def _kind(path: str, messages: Cell, responses: Cell | None = None) -> Member:
    return Member(path, {"messages": messages, "responses": responses or messages}, is_kind=True)


_ONE = refused("one answer is given an order there; send 1, or leave it out", "1")
_ROUTED = taken("Farebox's own routing reads it")
_NO_SOUND = refused("sounds and films cannot be put into it; send a text, a picture or a file")
_OLD = refused("send `tools` and `tool_choice`, which took its place")
_SAME = made("the same")

TABLE: tuple[Member, ...] = (
    _row("model", as_("model")),
    _row("messages", made("`system`, `messages`; before an assistant who begins `(no message)`"), made("`input`")),
    _row("stream", _SAME),
    _row("stream_options", taken("usage is always told")),
    _row("max_tokens", made("`max_tokens`"), made("`max_output_tokens`")),
    _row("max_completion_tokens", made("`max_tokens`"), made("`max_output_tokens`")),
    _row("temperature", made("the same, 0 to 1"), as_("temperature")),
    _row("top_p", as_("top_p")),
    _row("top_k", as_("top_k"), left()),
    _row(
        "stop",
        made("`stop_sequences`"),
        refused("responses have no stop sequences; leave it out, and cut the text yourself", "[]", '""'),
    ),
    _row("seed", left()),
    _row("frequency_penalty", left("0", "0.0")),
    _row("presence_penalty", left("0", "0.0")),
    _row("repetition_penalty", left("1", "1.0")),
    _row("min_p", left("0", "0.0")),
    _row("top_a", left("0", "0.0")),
    _row("logit_bias", refused("single tokens cannot be weighed there; leave it out", "{}")),
    _row("n", _ONE),
    _row("logprobs", refused("messages tell no odds of tokens; leave it out", "false"), made("`include`")),
    _row("top_logprobs", refused("messages tell no odds of tokens; leave it out", "0"), made("`top_logprobs`")),
    _row("tools", _SAME),
    _row("tool_choice", _SAME),
    _row("parallel_tool_calls", made("`tool_choice.disable_parallel_tool_use`"), _SAME),
    _row("functions", _OLD),
    _row("function_call", _OLD),
    _row("response_format", made("`output_config.format`"), made("`text.format`")),
    _row("reasoning_effort", made("`output_config.effort`, `thinking`"), made("`reasoning.effort`")),
    _row("reasoning", made("`output_config.effort`, `thinking`"), made("`reasoning`")),
    _row("include_reasoning", left()),
    _row("verbosity", left(), made("`text.verbosity`")),
    _row("user", made("`metadata.user_id`"), as_("user")),
    _row("safety_identifier", left(), as_("safety_identifier")),
    _row("metadata", left("{}"), as_("metadata")),
    _row("service_tier", made("`auto`, `standard_only`; other tiers are left out"), made("the same")),
    _row("store", left("false"), made("the same; false where it is not there")),
    _row("prompt_cache_key", left(), as_("prompt_cache_key")),
    _row("prompt_cache_options", left(), as_("prompt_cache_options")),
    _row("prompt_cache_retention", left(), as_("prompt_cache_retention")),
    _row("cache_control", as_("cache_control"), left()),
    _row("prediction", left()),
    _row("modalities", refused('only text can be answered there; send ["text"]', '["text"]', "[]")),
    _row("audio", refused("no sound can be answered there; leave it out")),
    _row("image_config", refused("no picture can be answered there; leave it out", "{}")),
    _row("moderation", refused("it cannot be asked for there; leave it out")),
    _row("web_search_options", refused("its host has other tools for searching; leave it out")),
    _row("prompt", refused("send `messages`")),
    _row("models", _ROUTED),
    _row("provider", _ROUTED),
    _row("route", _ROUTED),
    _row("plugins", refused("plugins are OpenRouter's own; leave them out", "[]")),
    _row("deferred_tools", refused("only OpenRouter defers tools; leave it out")),
    _row("transforms", left("[]")),
    _row("stop_server_tools_when", left("[]")),
    _row("session_id", left()),
    _row("trace", left("{}")),
    _row("debug", left("{}")),
    _row("usage", taken("usage is always told")),
    _row("structured_outputs", left()),
    # Turns
    _kind("messages[system]", made("`system`; later ones stay in their place"), _SAME),
    _kind("messages[developer]", made("as `system`"), _SAME),
    _kind("messages[user]", _SAME),
    _kind("messages[assistant]", _SAME),
    _kind("messages[tool]", made("`tool_result`"), made("`function_call_output`")),
    _kind("messages[function]", refused("send the role `tool`, which took its place")),
    *(
        row
        for role in ("system", "developer")
        for row in (
            _row(f"messages[{role}].role", _SAME),
            _row(f"messages[{role}].content", _SAME),
            _row(f"messages[{role}].name", left()),
            _kind(f"messages[{role}].content[text]", _SAME),
        )
    ),
    _row("messages[user].role", _SAME),
    _row("messages[user].content", _SAME),
    _row("messages[user].name", left()),
    _kind("messages[user].content[text]", made("`text`"), made("`input_text`")),
    _kind("messages[user].content[image_url]", made("`image`"), made("`input_image`")),
    _kind("messages[user].content[file]", made("`document`"), made("`input_file`")),
    _kind("messages[user].content[input_audio]", _NO_SOUND),
    _kind("messages[user].content[input_video]", _NO_SOUND),
    _kind("messages[user].content[video_url]", _NO_SOUND),
    _row("messages[assistant].role", _SAME),
    _row("messages[assistant].content", _SAME),
    _row("messages[assistant].name", left()),
    _row("messages[assistant].refusal", made("`text`"), made("`refusal`")),
    _row("messages[assistant].tool_calls", made("`tool_use`"), made("`function_call`")),
    _row("messages[assistant].function_call", _OLD),
    _row("messages[assistant].reasoning", taken("`reasoning_details` say it with its seal")),
    _row("messages[assistant].reasoning_content", taken("a host takes it back under its seal only")),
    _row(
        "messages[assistant].reasoning_details",
        made("`thinking`, `redacted_thinking`; those of other hosts are left out"),
        made("`reasoning`; those of other hosts are left out"),
    ),
    _row("messages[assistant].annotations", left("[]")),
    _row("messages[assistant].audio", refused("an earlier sound cannot be sent again; leave it out")),
    _row("messages[assistant].images", refused("send the picture in a message of the user's", "[]")),
    _row("messages[assistant].model", left()),
    _kind("messages[assistant].content[text]", made("`text`"), made("`output_text`")),
    _kind("messages[assistant].content[refusal]", made("`text`"), made("`refusal`")),
    _kind("messages[assistant].tool_calls[function]", _SAME),
    _kind("messages[assistant].tool_calls[custom]", refused("only functions can be called there")),
    _row("messages[tool].role", _SAME),
    _row("messages[tool].content", _SAME),
    _row("messages[tool].tool_call_id", made("`tool_use_id`"), made("`call_id`")),
    _row("messages[tool].name", left()),
    _kind("messages[tool].content[text]", made("`text`"), made("`input_text`")),
    # Parts
    *(
        _row(f"part[{kind}].{name}", _SAME)
        for kind, name in (
            ("text", "type"),
            ("text", "text"),
            ("refusal", "type"),
            ("refusal", "refusal"),
            ("image_url", "type"),
            ("image_url", "image_url"),
            ("file", "type"),
            ("file", "file"),
        )
    ),
    *(
        row
        for kind in ("text", "image_url", "file")
        for row in (
            _row(f"part[{kind}].cache_control", _SAME, left()),
            _row(f"part[{kind}].prompt_cache_breakpoint", left()),
        )
    ),
    _row("part[image_url].image_url.url", made("`source`"), made("`image_url`")),
    _row("part[image_url].image_url.detail", left('"auto"'), _SAME),
    _row("part[file].file.file_data", made("`source`"), made("`file_data`, `file_url`")),
    _row("part[file].file.file_id", made("`source.file_id`"), _SAME),
    _row("part[file].file.filename", made("`title`"), _SAME),
    _row("tool_calls[function].id", _SAME),
    _row("tool_calls[function].type", _SAME),
    _row("tool_calls[function].index", taken("calls stand in their order")),
    _row("tool_calls[function].function", _SAME),
    _row("tool_calls[function].function.name", _SAME),
    _row("tool_calls[function].function.arguments", made("`input`, an object"), _SAME),
    # Tools and formats
    _kind("tools[function]", made("`custom`"), _SAME),
    _kind("tools[custom]", refused("send a function whose one argument is a text")),
    _row("tools[function].type", _SAME),
    _row("tools[function].function", _SAME),
    _row("tools[function].cache_control", _SAME, left()),
    _row("tools[function].function.name", _SAME),
    _row("tools[function].function.description", _SAME),
    _row("tools[function].function.parameters", made("`input_schema`"), _SAME),
    _row("tools[function].function.strict", _SAME),
    _kind("response_format[text]", taken("it is the default"), _SAME),
    _kind("response_format[json_object]", refused("messages promise JSON of a schema only; send `json_schema`"), _SAME),
    _kind("response_format[json_schema]", _SAME),
    _row("response_format.type", _SAME),
    _row("response_format.json_schema", _SAME),
    _row("response_format.json_schema.schema", _SAME),
    _row("response_format.json_schema.name", taken("schemas have no name there"), _SAME),
    _row("response_format.json_schema.description", left(), _SAME),
    _row("response_format.json_schema.strict", left("true"), _SAME),
    _row("reasoning.effort", made("`output_config.effort`, `thinking`"), _SAME),
    _row("reasoning.max_tokens", made("`thinking.budget_tokens`"), made("`reasoning.effort`, the nearest")),
    _row("reasoning.enabled", made("`thinking`"), made("`reasoning.effort`")),
    _row("reasoning.exclude", made("`thinking.display`"), made("`reasoning.summary`")),
    _row("reasoning.summary", left('"auto"'), _SAME),
)
