"""Every method that OpenRouter's SDKs have, against the real server: those that are served, and those of managers, are
called and their answers parsed; all others are refused with the reason that the table in docs/api.md gives."""

import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from openrouter import OpenRouter

from farebox.web.not_here import AREAS, area_of
from tests.fast.test_units_formats import packed, wav
from tests.gateway import Gateway, eventually
from tools.openrouter_api import NPM, PYPI, fate_of, known, npm_methods

METHODS = known()[1]
HELLO: Any = [{"role": "user", "content": "Hello"}]
REFUSED = [key for key in METHODS if fate_of(key) == "refused"]


def called(package: str, *fates: str) -> set[str]:
    """What an SDK calls those of its methods that have one of these fates here."""
    return {name for key, names in METHODS.items() if fate_of(key) in fates for name in names.get(package, [])}


class Caller:
    """Calls each method with what it needs at least. `router` is a caller's, `manager` a manager's."""

    def __init__(self, gateway: Gateway, router: OpenRouter, manager: OpenRouter) -> None:
        self.gateway = gateway
        self.router = router
        self.manager = manager
        self.generation_id = router.chat.send(model="sim/echo", messages=HELLO).id
        self.job = ""
        self.hash = ""

    def speak(self) -> None:
        assert self.router.tts.create_speech(model="sim/voice", input="Hello", voice="plain").read()

    def transcribe(self) -> None:
        audio = wav(1)
        given: Any = {"data": packed(audio), "format": "wav"}
        assert self.router.stt.create_transcription(model="sim/scribe", input_audio=given).text

    def transcribe_form(self) -> None:
        file: Any = {"file_name": "a.wav", "content": wav(1)}
        assert self.router.stt.create_transcription_multipart(model="sim/scribe", file=file).text

    def make_video(self) -> None:
        model = self.router.video_generation.list_videos_models().data[0].id
        self.job = self.router.video_generation.generate(model=model, prompt="A red pixel").id

    def find_video(self) -> None:
        eventually(lambda: self.router.video_generation.get_generation(job_id=self.job).status == "completed")

    def load_video(self) -> None:
        assert self.router.video_generation.get_video_content(job_id=self.job).read()

    def make_key(self) -> None:
        self.hash = self.manager.api_keys.create(name="by the SDK", workspace_id=self._workspace()).data.hash

    def _workspace(self) -> str:
        return str(self.manager.api_keys.list().data[0].workspace_id)

    def every(self) -> dict[str, Callable[[], object]]:
        """By their names; in an order in which each finds what it needs."""
        router, manager = self.router, self.manager
        sim: Any = {"author": "sim", "slug": "echo"}
        return {
            "chat.send": lambda: router.chat.send(model="sim/echo", messages=HELLO),
            "responses.send": lambda: router.responses.send(model="sim/echo", input="Hello"),
            "beta_responses.send": lambda: router.beta.responses.send(model="sim/echo", input="Hello"),
            "embeddings.generate": lambda: router.embeddings.generate(model="sim/embedder", input="Hello"),
            "rerank.rerank": lambda: router.rerank.rerank(model="sim/reranker", query="q", documents=["a"]),
            "images.generate": lambda: router.images.generate(model="sim/illustrator", prompt="A red pixel"),
            "tts.create_speech": self.speak,
            "stt.create_transcription": self.transcribe,
            "stt.create_transcription_multipart": self.transcribe_form,
            "video_generation.generate": self.make_video,
            "video_generation.get_generation": self.find_video,
            "video_generation.get_video_content": self.load_video,
            "video_generation.list_videos_models": router.video_generation.list_videos_models,
            "images.list_models": router.images.list_models,
            "images.list_model_endpoints": lambda: router.images.list_model_endpoints(author="sim", slug="poster"),
            "models.list": lambda: router.models.list(limit=3),
            "models.list_for_user": lambda: router.models.list_for_user(security={"bearer": self.gateway.key}, limit=3),
            "models.count": router.models.count,
            "models.get": lambda: router.models.get(**sim),
            "embeddings.list_models": lambda: router.embeddings.list_models(limit=3),
            "endpoints.list": lambda: router.endpoints.list(**sim),
            "endpoints.list_zdr_endpoints": router.endpoints.list_zdr_endpoints,
            "providers.list": router.providers.list,
            "generations.get_generation": lambda: router.generations.get_generation(id=self.generation_id),
            "generations.list_generation_content": lambda: router.generations.list_generation_content(
                id=self.generation_id
            ),
            "api_keys.get_current_key_metadata": router.api_keys.get_current_key_metadata,
            "credits.get_credits": router.credits.get_credits,
            "presets.create_presets_chat_completions": lambda: router.presets.create_presets_chat_completions(
                slug="mine", model="sim/echo", messages=HELLO
            ),
            "presets.create_presets_messages": lambda: router.presets.create_presets_messages(
                slug="mine", model="sim/echo", messages=HELLO, max_tokens=9
            ),
            "presets.create_presets_responses": lambda: router.presets.create_presets_responses(
                slug="mine", model="sim/echo", input="Hello"
            ),
            "presets.list": router.presets.list,
            "presets.get": lambda: router.presets.get(slug="mine"),
            "presets.list_versions": lambda: router.presets.list_versions(slug="mine"),
            "presets.get_version": lambda: router.presets.get_version(slug="mine", version="2"),
            "api_keys.create": self.make_key,
            "api_keys.list": manager.api_keys.list,
            "api_keys.get": lambda: manager.api_keys.get(hash=self.hash),
            "api_keys.update": lambda: manager.api_keys.update(hash=self.hash, name="renamed"),
            "api_keys.delete": lambda: manager.api_keys.delete(hash=self.hash),
            "analytics.get_user_activity": lambda: manager.analytics.get_user_activity(request={}),
        }


@pytest.fixture(scope="module")
def manager(shared_gateway: Gateway) -> str:
    return str(shared_gateway.cli("management-key", "create", "--label", "every method")["key"])


@pytest.fixture(scope="module")
def caller(shared_gateway: Gateway, manager: str) -> Iterator[Caller]:
    with ExitStack() as stack:
        router, managing = (
            stack.enter_context(OpenRouter(server_url=shared_gateway.base, api_key=key))
            for key in (shared_gateway.new_key("every method", "--plan", "paying", "--prepaid", "5"), manager)
        )
        yield Caller(shared_gateway, router, managing)


@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")
def test_every_method_of_the_python_sdk_is_answered_and_parsed(caller: Caller) -> None:
    calls, served = caller.every(), called(PYPI, "served", "managed")
    assert served <= calls.keys(), "these are served: call them here, too"
    for name, call in calls.items():
        if name in served:
            call()


def test_every_other_method_is_refused_with_its_reason(shared_gateway: Gateway) -> None:
    for key in REFUSED:
        method, _, path = key.partition(" ")
        area = area_of(path)
        assert area is not None
        headers = {"authorization": f"Bearer {shared_gateway.key}", "content-type": "application/json"}
        answer = shared_gateway.request(method, "/api/v1" + re.sub(r"{\w+}", "x", path), b"{}", headers)
        assert (answer.status, answer.error["message"]) == (404, f"{area} is not served here: {AREAS[area]}"), key


def test_every_method_of_the_node_sdk_is_answered_and_parsed(shared_gateway: Gateway, node: Path, manager: str) -> None:
    versions, methods = known()
    found = npm_methods(node / "node_modules")
    assert found == {key: {NPM: names[NPM]} for key, names in methods.items() if NPM in names}, "make the list anew"
    assert json.loads((node / "package.json").read_text())["dependencies"][NPM] == versions[NPM]
    served = sorted(called(NPM, "served", "managed"))
    key = shared_gateway.new_key("every method of npm", "--plan", "paying", "--prepaid", "5")
    told = {"BASE": shared_gateway.base, "KEY": key, "MANAGER": manager, "SERVED": json.dumps(served)}
    done = subprocess.run(
        ["node", "methods.mjs"], cwd=node, env={**os.environ, **told}, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout) == dict.fromkeys(served, "ok")
