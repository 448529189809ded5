"""LiteLLM as a client, by its OpenAI, OpenRouter and Anthropic routes, streamed."""

import os

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # else it asks the internet for prices at import

import litellm

litellm.suppress_debug_info = True

BASE, KEY = os.environ["BASE"], os.environ["KEY"]
HELLO = [{"role": "user", "content": "Hello"}]

for route, base in (("openai", BASE), ("openrouter", BASE), ("anthropic", BASE.removesuffix("/v1"))):
    stream = litellm.completion(
        model=f"{route}/sim/echo",
        api_base=base,
        api_key=KEY,
        messages=HELLO,
        stream=True,
        max_tokens=100,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == "You said: Hello", text
    print(f"ok litellm {route}")
