"""Calls sent through a provider's batch API, at the batch's price, as if they were calls like any others.

jobs.py        what is at the provider and what has come back, on disk: nothing is paid for twice, whatever is killed
provider.py    what a batch API is to the rest: build a row, submit, ask how it stands, read a row
api.py         HTTP exchanges with a provider: what may be repeated, and what may have happened when no reply came
openai.py, anthropic.py, gemini.py, mistral.py      the four providers
carrier.py     brings one batch through: submit, wait, fetch
collector.py   `BatchedModel`: gathers calls into batches and hands out the answers
"""
