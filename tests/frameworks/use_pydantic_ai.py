"""pydantic-ai over chat completions and over responses, streamed, and a tool."""

import asyncio
import os

from pydantic_ai import Agent
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.openai import OpenAIProvider

BASE, KEY = os.environ["BASE"], os.environ["KEY"]


async def main() -> None:
    openai = OpenAIProvider(base_url=BASE, api_key=KEY)
    for model in (
        OpenAIChatModel("sim/echo", provider=openai),
        OpenAIResponsesModel("sim/echo", provider=openai),
    ):
        async with Agent(model).run_stream("Hello") as run:
            text = [piece async for piece in run.stream_text(delta=True)]
            usage = run.usage() if callable(run.usage) else run.usage
        assert "".join(text) == "You said: Hello", text
        assert usage.output_tokens == 3, usage
        print(f"ok pydantic-ai {type(model).__name__}")

        asked: list[str] = []
        agent = Agent(model)

        @agent.tool_plain
        def weather(city: str) -> str:
            """What the weather is in a city."""
            asked.append(city)  # noqa: B023 - called before the next round
            return "rain"

        result = await agent.run("Hello")
        assert asked == ["Hello"], asked
        assert result.output.startswith("You said"), result.output
        print(f"ok pydantic-ai {type(model).__name__}, a tool")


asyncio.run(main())
