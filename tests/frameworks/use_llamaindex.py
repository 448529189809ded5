"""LlamaIndex, streamed."""

import os

from llama_index.core.llms import ChatMessage
from llama_index.llms.openai_like import OpenAILike

llm = OpenAILike(
    api_base=os.environ["BASE"], api_key=os.environ["KEY"], model="sim/echo", is_chat_model=True, context_window=32_000
)
*_, last = llm.stream_chat([ChatMessage(role="user", content="Hello")])
assert last.message.content == "You said: Hello", last
assert llm.chat([ChatMessage(role="user", content="Hello")]).message.content == "You said: Hello"
print("ok llamaindex")
