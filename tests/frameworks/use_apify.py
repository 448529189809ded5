"""The platform's Python client, of whichever version this environment has: its documented example, then orders."""

import os
import sys

from apify_client import ApifyClient

client = ApifyClient(os.environ["KEY"], api_url=os.environ["BASE"].removesuffix("/api/v1"))


def told(run: object, name: str) -> str:
    """A member of a run: version 3 has models, those before had dictionaries."""
    if isinstance(run, dict):
        return run[name]
    return getattr(run, "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name))


run_input: dict[str, object] = {}
run = client.actor("apify/openrouter").call(run_input=run_input)
assert told(run, "status") == "SUCCEEDED"
assert list(client.dataset(told(run, "defaultDatasetId")).iterate_items()) == []
print("ok the example")

hello = {"model": "sim/echo", "messages": [{"role": "user", "content": "Hello " * 400}]}
run = client.actor("apify/openrouter").call(run_input={"requests": [hello, {"model": "sim/echo", "input": "Hi"}]})
items = list(client.dataset(told(run, "defaultDatasetId")).iterate_items())
assert [item["status"] for item in items] == [200, 200], items
store = client.key_value_store(told(run, "defaultKeyValueStoreId"))
record = store.get_record("OUTPUT")
output = record["value"] if isinstance(record, dict) else record.value
assert output["served"] == 2, output
print("ok orders")

assert "2 orders served" in (client.log(told(run, "id")).get() or "")
assert client.dataset(told(run, "defaultDatasetId")).list_items(limit=1, desc=True).items == items[1:]
assert client.run("nobody").get() is None
assert client.dataset("nobody").get() is None
listed = client.actor("apify/openrouter").runs().list()
assert listed.total >= 2, listed
assert client.user("me").get() is not None
assert client.actor("apify/openrouter").get() is not None
print("ok pages, logs, and what is not there")
sys.exit()
