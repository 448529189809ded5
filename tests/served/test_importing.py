"""A configuration of LiteLLM's proxy, imported and served, as somebody does who moves."""

from pathlib import Path

from farebox.simulator.server import embedded
from tests.gateway import Gateway

CONFIG = """
model_list:
  - model_name: fast
    litellm_params: {{model: hosted_vllm/gpt-sim, api_base: "{root}/openai/v1", api_key: sk-that-stands-here}}
  - model_name: thoughtful
    litellm_params: {{model: hosted_vllm/o-sim, api_base: "{root}/openai/v1", api_key: os.environ/OTHER_KEY}}
  - model_name: "all/*"
    litellm_params: {{model: "hosted_vllm/*", api_base: "{root}/openai/v1", api_key: os.environ/OTHER_KEY}}
router_settings:
  model_group_alias: {{quick: fast}}
  fallbacks: [{{fast: [thoughtful]}}]
general_settings: {{master_key: sk-1234}}
"""


def test_a_configuration_is_imported_and_serves_the_same_names(tmp_path: Path) -> None:
    with embedded() as url:
        gateway = Gateway(tmp_path, HOSTED_VLLM_API_KEY="sk-that-stands-here", OTHER_KEY="sk-other")
        (tmp_path / "config.yaml").write_text(CONFIG.format(root=url.removesuffix("/api/v1")))
        done = gateway.run("import", "litellm", "config.yaml")
        assert done.returncode == 0, done.stderr
        assert "HOSTED_VLLM_API_KEY: the key that stands at model_list[0].litellm_params.api_key" in done.stderr
        assert "sk-that-stands-here" not in (tmp_path / "farebox.toml").read_text()
        with gateway:
            gateway.key = gateway.new_key("demo", "--plan", "paying", "--prepaid", "1")
            served = {}
            for name in ("fast", "quick", "thoughtful", "all/gpt-sim"):
                answer = gateway.chat(model=name)
                assert answer.status == 200, answer.body
                served[name] = answer.json["model"].partition("-sim")[0]
            assert served == {"fast": "gpt", "quick": "gpt", "thoughtful": "o", "all/gpt-sim": "gpt"}
            headers = {"authorization": f"Bearer {gateway.key}"}
            listed = {each["id"] for each in gateway.request("GET", "/api/v1/models", headers=headers).json["data"]}
            assert {"fast", "quick", "thoughtful", "all/gpt-sim"} <= listed
            assert "gpt-sim" not in listed
            gateway.audit()
