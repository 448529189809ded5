"""What becomes of the members of a response's order in chat completions and in messages."""

from farebox.core.translate.members import Cell, Member, as_, left, made, refused, taken


def _row(path: str, chat: Cell, messages: Cell | None = None) -> Member:
    return Member(path, {"chat": chat, "messages": messages or chat})


def _kind(path: str, chat: Cell, messages: Cell | None = None) -> Member:
    return Member(path, {"chat": chat, "messages": messages or chat}, is_kind=True)


_ROUTED = taken("Farebox's own routing reads it")
_SAME = made("the same")
_NOT_KEPT = refused("Farebox continues answers that it keeps, and no upstream does", "false")
_HOSTS = refused("it belongs to tools that only OpenAI's host runs; leave it out of the conversation")
_OTHER_TOOL = refused("tools that the host runs are OpenAI's own; send a `function`")

HOSTS_ITEMS = (
    "file_search_call web_search_call computer_call computer_call_output image_generation_call code_interpreter_call"
    " local_shell_call local_shell_call_output shell_call shell_call_output apply_patch_call apply_patch_call_output"
    " mcp_list_tools mcp_approval_request mcp_approval_response mcp_call custom_tool_call custom_tool_call_output"
    " tool_search_call tool_search_output additional_tools configuration_update compaction compaction_trigger"
    " program program_output"
).split()
"""Items of tools that the host runs."""

TABLE: tuple[Member, ...] = (
    _row("model", as_("model")),
    _row("input", made("`messages`"), made("`system`, `messages`; before an assistant who begins `(no message)`")),
    _row("instructions", made("`messages`"), made("`system`")),
    _row("stream", _SAME),
    _row("stream_options", taken("it only asks for padding")),
    _row("max_output_tokens", made("`max_tokens`, or what the upstream's `capped_by` says"), made("`max_tokens`")),
    _row("temperature", as_("temperature"), made("the same, 0 to 1")),
    _row("top_p", as_("top_p")),
    _row("top_k", left(), as_("top_k")),
    _row("stop", _SAME, made("`stop_sequences`")),
    _row("frequency_penalty", as_("frequency_penalty"), left("0", "0.0")),
    _row("presence_penalty", as_("presence_penalty"), left("0", "0.0")),
    _row(
        "top_logprobs",
        made("`logprobs`, `top_logprobs`"),
        refused("messages tell no odds of tokens; leave it out", "0"),
    ),
    _row("include", made("`logprobs`; sealed reasoning always comes; else left out")),
    _row("tools", _SAME),
    _row("tool_choice", _SAME),
    _row("parallel_tool_calls", _SAME, made("`tool_choice.disable_parallel_tool_use`")),
    _row("max_tool_calls", left()),
    _row("reasoning", made("`reasoning_effort`"), made("`output_config.effort`, `thinking`")),
    _row("text", made("`response_format`, `verbosity`"), made("`output_config.format`")),
    _row("user", as_("user"), made("`metadata.user_id`")),
    _row("safety_identifier", as_("safety_identifier"), left()),
    _row("metadata", as_("metadata"), left("{}")),
    _row("service_tier", _SAME, made("`auto`, `standard_only`; other tiers are left out")),
    _row("store", refused("Farebox keeps answers, and no upstream does", "false")),
    _row("prompt_cache_key", as_("prompt_cache_key"), left()),
    _row("prompt_cache_options", as_("prompt_cache_options"), left()),
    _row("prompt_cache_retention", as_("prompt_cache_retention"), left()),
    _row("cache_control", left(), as_("cache_control")),
    _row("truncation", left('"disabled"')),
    _row("context_management", left("[]")),
    _row("access_programs", left()),
    _row("image", left("{}")),
    _row("background", refused("Farebox runs it in the background, and no upstream does", "false")),
    _row("background_options", left("{}")),
    _row("conversation", _NOT_KEPT),
    _row("previous_response_id", _NOT_KEPT),
    _row("prompt", refused("templates are kept at OpenAI; send `input`")),
    _row("moderation", refused("it cannot be asked for there; leave it out")),
    _row("modalities", refused('only text can be answered there; send ["text"]', '["text"]', "[]")),
    _row("image_config", refused("no picture can be answered there; leave it out", "{}")),
    _row("models", _ROUTED),
    _row("provider", _ROUTED),
    _row("route", _ROUTED),
    _row("plugins", refused("plugins are OpenRouter's own; leave them out", "[]")),
    _row("deferred_tools", refused("only OpenRouter defers tools; leave it out")),
    _row("stop_server_tools_when", left("[]")),
    _row("session_id", left()),
    _row("trace", left("{}")),
    _row("debug", left("{}")),
    # Items
    _kind("input[message]", _SAME),
    _kind("input[function_call]", made("`tool_calls`"), made("`tool_use`")),
    _kind("input[function_call_output]", made("a message `tool`"), made("`tool_result`")),
    _kind(
        "input[reasoning]",
        made("`reasoning_details` where its host said it; else left out"),
        made("`thinking`, `redacted_thinking` where its host said it; else left out"),
    ),
    _kind("input[item_reference]", refused("nothing is stored here; send the item itself")),
    *(_kind(f"input[{each}]", _HOSTS) for each in HOSTS_ITEMS),
    _kind("message[system]", _SAME, made("`system`; later ones stay in their place")),
    _kind("message[developer]", _SAME, made("as `system`")),
    _kind("message[user]", _SAME),
    _kind("message[assistant]", _SAME),
    *(
        _row(f"input[message].{name}", cell)
        for name, cell in {
            **dict.fromkeys(("type", "role", "content"), _SAME),
            **dict.fromkeys(("id", "status"), taken("it is a name of the answer that it stood in")),
            "phase": left(),
        }.items()
    ),
    *(
        _row(f"input[function_call].{name}", cell)
        for name, cell in {
            **dict.fromkeys(("type", "call_id", "name"), _SAME),
            **dict.fromkeys(("id", "status"), taken("it is a name of the answer that it stood in")),
            **dict.fromkeys(("caller", "namespace"), left()),
            "async": left("false"),
        }.items()
    ),
    _row("input[function_call].arguments", _SAME, made("`input`, an object")),
    *(
        _row(f"input[function_call_output].{name}", cell)
        for name, cell in {
            **dict.fromkeys(("type", "call_id", "output"), _SAME),
            **dict.fromkeys(("id", "status"), taken("it is a name of the answer that it stood in")),
            **dict.fromkeys(("caller", "name", "namespace"), left()),
        }.items()
    ),
    *(
        _row(f"input[reasoning].{name}", cell)
        for name, cell in {
            **dict.fromkeys(("type", "id", "summary", "content", "encrypted_content"), _SAME),
            **dict.fromkeys(("status", "format", "signature"), taken("its seal stands in `encrypted_content`")),
        }.items()
    ),
    # Parts
    *(
        _kind(f"message[{role}].content[{kind}]", cell)
        for role in ("system", "developer", "user")
        for kind, cell in {
            "input_text": made("`text`"),
            "text": made("`text`"),
        }.items()
    ),
    _kind("message[user].content[input_image]", made("`image_url`"), made("`image`")),
    _kind("message[user].content[input_file]", made("`file`"), made("`document`")),
    *(
        _kind(f"message[user].content[{kind}]", refused("send a text, a picture or a file"))
        for kind in ("input_audio", "input_video")
    ),
    _kind("message[assistant].content[output_text]", made("`text`")),
    _kind("message[assistant].content[input_text]", made("`text`")),
    _kind("message[assistant].content[text]", made("`text`")),
    _kind("message[assistant].content[refusal]", _SAME, made("`text`")),
    _kind("output.content[input_text]", _SAME),
    _kind("output.content[input_image]", made("in a message of the user's, after the results"), made("`image`")),
    _kind("output.content[input_file]", made("in a message of the user's, after the results"), made("`document`")),
    *(
        _row(f"part[{kind}].{name}", cell)
        for kind in ("input_text", "output_text", "text")
        for name, cell in {
            **dict.fromkeys(("type", "text"), _SAME),
            "annotations": left("[]"),
            "logprobs": taken("odds are only told"),
            "prompt_cache_breakpoint": left(),
            "cache_control": left(),
        }.items()
    ),
    _row("part[refusal].type", _SAME),
    _row("part[refusal].refusal", _SAME),
    _row("part[input_image].type", _SAME),
    _row("part[input_image].image_url", made("`image_url.url`"), made("`source`")),
    _row("part[input_image].file_id", refused("send the picture itself, or its URL"), made("`source.file_id`")),
    _row("part[input_image].detail", _SAME, left('"auto"')),
    _row("part[input_file].type", _SAME),
    _row("part[input_file].file_data", made("`file.file_data`"), made("`source`")),
    _row("part[input_file].file_url", refused("send the file itself, in `file_data`"), made("`source.url`")),
    _row("part[input_file].file_id", made("`file.file_id`"), made("`source.file_id`")),
    _row("part[input_file].filename", made("`file.filename`"), made("`title`")),
    _row("part[input_file].detail", left('"auto"')),
    *(_row(f"part[{kind}].prompt_cache_breakpoint", left()) for kind in ("input_image", "input_file")),
    # Tools and the rest
    _kind("tools[function]", _SAME, made("`custom`")),
    _kind("tools[custom]", refused("send a `function` whose one argument is a text")),
    _kind("tools[host's]", _OTHER_TOOL),
    _row("tools[function].type", _SAME),
    _row("tools[function].name", _SAME),
    _row("tools[function].description", _SAME),
    _row("tools[function].parameters", _SAME, made("`input_schema`")),
    _row("tools[function].strict", _SAME),
    _row("tools[function].allowed_callers", left('["direct"]')),
    _row("tools[function].defer_loading", left("false")),
    _row("tools[function].output_schema", left()),
    _row("tools[function].async", left("false")),
    _row("reasoning.effort", made("`reasoning_effort`"), made("`output_config.effort`, `thinking`")),
    _row("reasoning.max_tokens", made("the nearest effort"), made("`thinking.budget_tokens`")),
    _row("reasoning.enabled", made("`reasoning_effort`"), made("`thinking`")),
    _row("reasoning.exclude", taken("chat completions show it where the host does"), made("`thinking.display`")),
    *(
        _row(f"reasoning.{name}", taken("chat completions show it where the host does"), made("`thinking.display`"))
        for name in ("summary", "generate_summary")
    ),
    _row("reasoning.context", left('"auto"')),
    _row("reasoning.mode", left('"standard"')),
    _row("text.format", made("`response_format`"), made("`output_config.format`")),
    _row("text.verbosity", made("`verbosity`"), left('"medium"')),
    _kind("text.format[text]", _SAME, taken("it is the default")),
    _kind("text.format[json_object]", _SAME, refused("messages promise JSON of a schema only; send `json_schema`")),
    _kind("text.format[json_schema]", _SAME),
    _row("text.format.type", _SAME),
    _row("text.format.schema", _SAME),
    _row("text.format.name", _SAME, taken("schemas have no name there")),
    _row("text.format.description", _SAME, left()),
    _row("text.format.strict", _SAME, left("true")),
)
