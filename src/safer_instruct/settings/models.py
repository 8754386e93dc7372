"""What a config can say of models: which they are, how they are reached or served, who does what, and what it may cost."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal
from urllib.parse import SplitResult, parse_qsl, urlsplit

from pydantic import Field, field_validator, model_validator

from safer_instruct.settings.numbers import Positive, Seconds
from safer_instruct.yamlfile import Strict

Price = Annotated[float, Field(ge=0, allow_inf_nan=False)]
_OURS = "it is set for you, so that nobody else on this machine can use the server"
_SERVE_FLAGS = {
    **dict.fromkeys(("--host", "--uds", "--api-key", "--api-key-file", "--reuse-port", "--root-path", "--api-prefix"), _OURS),
    **dict.fromkeys(("--port", "-p"), "write serve.port"),
    **dict.fromkeys(("--model", "-m", "--served-model-name", "--alias", "-a"), "the model string names the weights, and their name follows from it"),
    **dict.fromkeys(("--enable-lora", "--lora-modules", "--lora"), "write serve.adapters"),
    **dict.fromkeys(("--hf-token", "-hft"), "export HF_TOKEN instead: configs are copied into run directories"),
}
ALWAYS_IN_PROCESS = ("embedded", "scripted")
_LIKE_A_KEY = re.compile(r"(?=.*[a-z])(?=.*[0-9]).{20,}")
_SCHEMES = ("http", "https")
_SECRET_WORDS = ("key", "token", "secret", "sig", "password")


class ServeConfig(Strict):
    """For `served:` models: how the server is started.

    Attributes:
        engine: `auto` serves a GGUF file with llama.cpp and a model folder with vLLM.
        args: Further flags for the server, as on its command line: `[--dtype, bfloat16]`.
        adapters: LoRA adapters by name, paths relative to the config. vLLM loads all of them, and models that differ only in
            `adapter` share its server.
        tensor_parallel: For vLLM: GPUs that the weights are spread over.
        context: Longest prompt and completion together, in tokens; by default the model's own for vLLM and 4096 for llama.cpp.
        slots: Sequences worked on at a time; by default vLLM's own number, and 8 for llama.cpp.
        gpu_memory: For vLLM: share of the GPU's memory that it may take.
        port: Of the loopback; by default a free one.
        start_timeout_s: Seconds that it may take to load.
    """

    engine: Literal["auto", "vllm", "llama.cpp"] = "auto"
    args: tuple[str | int | float, ...] = ()
    adapters: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+$")], str] = Field(default_factory=dict)
    tensor_parallel: Positive = 1
    context: Positive | None = None
    slots: Positive | None = None
    gpu_memory: Annotated[float, Field(gt=0, le=1)] | None = None
    port: Annotated[int, Field(gt=0, lt=65536)] | None = None
    start_timeout_s: Annotated[float, Field(gt=0)] = 600.0

    @field_validator("args")
    @classmethod
    def _not_ours(cls, args: tuple[str | int | float, ...]) -> tuple[str | int | float, ...]:
        """Where the server listens and who may use it is ours to say, and a config is no place for a secret."""
        for arg in args:
            flag = str(arg).partition("=")[0].replace("_", "-")
            if flag in _SERVE_FLAGS:
                raise ValueError(f"'{flag}' is not for 'args'; {_SERVE_FLAGS[flag]}")
        return args

    def __hash__(self) -> int:
        return hash(self.model_dump_json())


class ModelConfig(Strict):
    """A model and how to reach it. A bare string in the config stands for `{model: STRING}`.

    Attributes:
        model: `embedded:NAME` (in this process), `openai:NAME` (any OpenAI-compatible endpoint), `anthropic:NAME` (any endpoint
            that speaks Anthropic's Messages), `gemini:NAME` and `mistral:NAME`, `litellm:PROVIDER/NAME` (every other provider;
            extra litellm), `served:PATH` (weights of one's own, behind a server that is started for them), `scripted:FILE`
            (tests).
        adapter: For `embedded:` a LoRA adapter to merge: one that ships with the package, or a folder. For `served:` the adapter
            that answers: one of `serve.adapters`, or a path.
        serve: For `served:` how the server is started.
        base_url: For remote models the endpoint, up to and with `/v1`, or a list of endpoints that serve the same weights: each
            call goes to the one with the least to do. Without it the provider's own.
        api_key_env: Name of the environment variable with the key; the key itself never stands in a config. Without it the
            provider's own: OPENAI_API_KEY, ANTHROPIC_API_KEY, GEMINI_API_KEY, MISTRAL_API_KEY, or the one that LiteLLM reads.
        revision: What is served, in words of one's own; then the same weights may move to another address, and finished
            calls are not made again.
        concurrency: Most requests in flight at one endpoint; within that it adapts to what the endpoint takes.
        requests_per_min: Most requests a minute that this entry sends to one endpoint; without it the endpoint's answers tell. Roles
            whose entries are alike in every key share it, but for the inducer, which has it for itself; what other entries send to the
            same endpoint is not counted.
        tokens_per_min: Most tokens a minute, read and written together; shared as `requests_per_min`.
        timeout_s: Cap on one attempt, from connecting to the last byte.
        retries: Further attempts of a request after its first; being told to wait is none.
        max_pause_s: Longest wait for an endpoint that answers nobody, before the run stops. By default 900 seconds (15 minutes), but
            only about one minute for one that has not answered in this sitting at all, for it may not be there. A longer one that is
            given holds for that one too: for a run that is started while its server still loads.
        logprobs: As inducer: ask for log-probabilities, which rank the candidates. As judge: ask for them, where answers are
            weighted. `false` where the endpoint refuses or withholds them.
        json_schema: As judge: hold the model to a JSON schema (`response_format`); `false` where the endpoint does not know
            that, and the prompt alone asks for JSON.
        batch: Send the calls through the provider's batch API, at half the price and minutes to a day later: for `openai:`,
            `anthropic:`, `gemini:` and `mistral:`.
        batch_rows: Rows of a full batch.
        batch_wait_s: A batch that is not full is sent when no further call has come for so many seconds.
        batch_poll_s: Seconds between two questions how a batch stands: at first, and at most.
        price_per_million: US dollars for a million prompt tokens and for a million completion tokens; without it the price
            files are asked. `[0, 0]` for what costs nothing.
    """

    model: str
    adapter: str | None = None
    serve: ServeConfig | None = None
    base_url: str | Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    api_key_env: str | None = None
    revision: str | None = None
    concurrency: Positive = 128
    requests_per_min: Annotated[float, Field(gt=0)] | None = None
    tokens_per_min: Annotated[float, Field(gt=0)] | None = None
    timeout_s: Annotated[float, Field(gt=0)] = 120.0
    retries: Annotated[int, Field(ge=0)] = 6
    max_pause_s: Annotated[float, Field(gt=0)] | None = None
    logprobs: bool = True
    json_schema: bool = True
    batch: bool = False
    batch_rows: Positive = 10_000
    batch_wait_s: Seconds = 10.0
    batch_poll_s: tuple[Seconds, Seconds] = (5.0, 120.0)
    price_per_million: tuple[Price, Price] | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_string(cls, value: object) -> object:
        return {"model": value} if isinstance(value, str) else value

    @field_validator("model")
    @classmethod
    def _has_a_name(cls, model: str) -> str:
        provider, colon, name = model.partition(":")
        if colon and not name.strip() and provider != "scripted":  # which needs no script
            raise ValueError(f"'{model}' names no model; write its name behind the colon: {provider}:NAME")
        return model

    @field_validator("price_per_million", mode="before")
    @classmethod
    def _two_prices(cls, prices: object) -> object:
        if isinstance(prices, int | float) or (isinstance(prices, list | tuple) and len(prices) != 2):
            raise ValueError("needs two prices in US dollars: of a million tokens read, and of a million written, such as [0.15, 0.6]")
        return prices

    @model_validator(mode="after")
    def _serve_needs_served(self) -> ModelConfig:
        if self.serve and not self.model.startswith("served:"):
            raise ValueError(f"'serve' is for models 'served:PATH', not for '{self.model}'")
        return self

    @model_validator(mode="after")
    def _for_remote_models(self) -> ModelConfig:
        """A key that says nothing may mean that another model was meant."""
        if not (self.in_process or self.model.startswith("served:")):
            return self
        says_nothing = ("base_url", "api_key_env", *(("requests_per_min", "tokens_per_min") if self.in_process else ()))
        if key := next((key for key in says_nothing if getattr(self, key) is not None), ""):
            why = "which works in this process" if self.in_process else "whose server is started for it"
            remedy = "give base_url for one that is served" if self.model.startswith("reward:") else "for an endpoint write 'openai:NAME'"
            raise ValueError(f"'{key}' is for remote models, not for '{self.model}', {why}; {remedy}, or leave {key} out")
        return self

    @field_validator("api_key_env")
    @classmethod
    def _names_a_variable(cls, name: str | None) -> str | None:
        """What is no such name may be the key itself, and is not repeated."""
        if name is not None and (not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) or _LIKE_A_KEY.fullmatch(name)):
            raise ValueError("is no name of an environment variable, such as OPENAI_API_KEY; put the key into one, and its name here")
        return name

    @property
    def in_process(self) -> bool:
        """Whether it works in this process: its calls draw on no budget, and no limit of an endpoint holds for them."""
        provider = self.model.partition(":")[0]
        return provider in ALWAYS_IN_PROCESS or (provider == "reward" and self.base_url is None)

    @field_validator("base_url")
    @classmethod
    def _no_secret(cls, base_url: str | tuple[str, ...] | None) -> str | tuple[str, ...] | None:
        """A config is copied into run.yaml and shared; a secret has no place in it."""
        for url in (base_url,) if isinstance(base_url, str) else base_url or ():
            parts = _parts(url)
            named = [name for name, _ in parse_qsl(parts.query) if any(word in name.lower() for word in _SECRET_WORDS)]
            if "@" in parts.netloc or named:
                raise ValueError("holds a secret, and configs are copied into run directories; name an environment variable in 'api_key_env' instead")
            if not is_http(url):
                no_port = parts.scheme in _SCHEMES and parts.hostname and not _has_possible_port(parts)
                remedy = "give it a port from 1 to 65535, for the one that it names can be none" if no_port else "begin it with http:// or https://"
                raise ValueError(f"{_quoted(url)} is no address such as https://api.openai.com/v1 or http://127.0.0.1:8000/v1; {remedy}")
        return base_url


class ExpertConfig(ModelConfig):
    """One of several experts: a model as everywhere, and when it writes.

    Attributes:
        weight: Share of the prompts that it answers, in any unit, for `respond.choose: weight`.
        categories: The categories that it writes for; by default all.
        template: Renders its system prompt; by default `respond.template`.
        temperature: Of its draws; by default `respond.temperature`.
        max_tokens: Cap on its responses; by default `respond.max_tokens`.
    """

    weight: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    categories: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    template: str | None = None
    temperature: Annotated[float, Field(ge=0)] | None = None
    max_tokens: Positive | None = None

    @property
    def bare(self) -> ModelConfig:
        """The model alone: experts that differ in nothing else share it."""
        return ModelConfig.model_construct(None, **{name: getattr(self, name) for name in ModelConfig.model_fields})


class ModelsConfig(Strict):
    """Who does what.

    Attributes:
        inducer: Writes the instruction that a text answers; not needed with `induce: {given: keep}`.
        expert: Writes the chosen response; for domains of direction `rejected`, where the corpus is what we do not want.
        experts: Instead of `expert`: several, by name; `respond.choose` says who answers which prompt.
        student: Writes the rejected response; for domains of direction `chosen`, and for `rejected: student`.
        scorer: Gives log-probabilities of given texts: consistency, and verification by contrast.
        judge: Answers the domain's criteria, for `verify: {form: question}`.
        panel: Further judges by name; the majority decides, ties against the response.
        reward: A sequence classifier, for `verify: {form: reward}`.
        rewriter: For whatever `twins` and `rejected` give to it: a model that follows instructions on a text.
    """

    inducer: ModelConfig | None = None
    expert: ModelConfig | None = None
    experts: Annotated[dict[Annotated[str, Field(pattern=r"^[a-z0-9_-]+$")], ExpertConfig], Field(min_length=1)] | None = None
    student: ModelConfig | None = None
    scorer: ModelConfig = ModelConfig(model="embedded:smollm2-135m-instruct")
    judge: ModelConfig | None = None
    panel: dict[Annotated[str, Field(pattern=r"^[a-z0-9_-]+$")], ModelConfig] | None = None
    reward: ModelConfig | None = None
    rewriter: ModelConfig | None = None

    @property
    def by_role(self) -> dict[str, ModelConfig]:
        """Role -> model, of all that are named."""
        found: dict[str, ModelConfig] = {}
        for name in type(self).model_fields:
            value: Any = getattr(self, name)
            if isinstance(value, ModelConfig):
                found[name] = value
            elif isinstance(value, dict):
                found |= {f"{name}.{one}": model for one, model in value.items()}
        return found

    @model_validator(mode="after")
    def _expert_or_experts(self) -> ModelsConfig:
        if self.expert and self.experts:
            raise ValueError("give 'expert' (one) or 'experts' (several by name), not both")
        return self


class BudgetConfig(Strict):
    """A hard cap on what the calls of a run to remote models may take, over all its sittings.

    What a call may take at most is set aside before it is sent, so the caps are never passed, by retries neither. At a cap
    the run stops with everything saved; it goes on once the cap is raised.

    Attributes:
        max_cost: US dollars; needs the price of every model that is called.
        max_tokens: Tokens, read and written together.
    """

    max_cost: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    max_tokens: Annotated[int, Field(ge=0)] | None = None


def is_http(url: str) -> bool:
    """Whether `url` is the address of something that is reached over HTTP."""
    try:
        parts = urlsplit(url)
        return parts.scheme in _SCHEMES and bool(parts.hostname) and _has_possible_port(parts)
    except ValueError:
        return False


def _has_possible_port(parts: SplitResult) -> bool:
    """Whether the port, if one is named, is one that there can be."""
    try:
        return parts.port != 0
    except ValueError:
        return False


def _parts(url: str) -> SplitResult:
    try:
        return urlsplit(url)
    except ValueError:
        return SplitResult("", "", "", "", "")


def _quoted(url: str) -> str:
    """What was given for an address, unless it may hold a secret or be one."""
    secret = "@" in url or "?" in url or any(_LIKE_A_KEY.fullmatch(part.lower()) for part in re.split(r"[/:.]", url))
    return "the value (not repeated, for it may hold a secret)" if secret else f"'{url}'"
