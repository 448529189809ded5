"""LangChain's ChatOpenAI: chat completions, and responses, each streamed, and a tool."""

import os

from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings

BASE, KEY = os.environ["BASE"], os.environ["KEY"]


@tool
def weather(city: str) -> str:
    """What the weather is in a city."""
    return f"rain in {city}"


for responses in (False, True):
    model = ChatOpenAI(base_url=BASE, api_key=KEY, model="sim/echo", use_responses_api=responses, stream_usage=True)
    whole = None
    for chunk in model.stream("Hello"):
        whole = chunk if whole is None else whole + chunk
    assert whole.text == "You said: Hello", whole
    assert whole.usage_metadata["output_tokens"] == 3, whole.usage_metadata
    called = model.bind_tools([weather]).invoke("Hello")
    assert called.tool_calls[0]["args"] == {"city": "Hello"}, called
    print(f"ok langchain, responses={responses}")

embedder = OpenAIEmbeddings(base_url=BASE, api_key=KEY, model="sim/embedder", check_embedding_ctx_length=False)
assert len(embedder.embed_query("Hello")) == 8
print("ok langchain embeddings")
