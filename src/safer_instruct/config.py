"""What a YAML config can say: `RunConfig` for `run`, `TuneConfig` for `tune`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import parse_qsl, urlsplit

from pydantic import BeforeValidator, Field, PrivateAttr, field_validator, model_validator

from safer_instruct import yamlfile
from safer_instruct.selectconfig import SelectConfig
from safer_instruct.settings.answers import AlsoCheck, BoilerplateConfig, CeilingConfig, Target, named_check
from safer_instruct.settings.documents import DocumentConfig
from safer_instruct.settings.pairs import CleanConfig, Holdout, PairSource
from safer_instruct.settings.route import RouteConfig
from safer_instruct.settings.semantic import SemanticConfig
from safer_instruct.settings.sides import RejectedConfig, Role, TwinsConfig
from safer_instruct.settings.training import TrainerConfig
from safer_instruct.settings.web import WebConfig
from safer_instruct.thresholds import apply, load_calibration
from safer_instruct.yamlfile import Strict

Positive = Annotated[int, Field(gt=0)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, lt=1)]
Filters_ = dict[Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")], dict[str, Any] | None] | None
Price_ = Annotated[float, Field(ge=0, allow_inf_nan=False)]
_HOW_REACHED = (
    *("base_url", "api_key_env", "concurrency", "requests_per_min", "tokens_per_min"),
    *("timeout_s", "retries", "max_pause_s", "price_per_million"),
    *("batch", "batch_rows", "batch_wait_s", "batch_poll_s"),
)
_OF_CONVERSATIONS = {"source": ("messages", "turns"), "induce": ("given",)}
_OURS = "it is set for you, so that nobody else on this machine can use the server"
_SERVE_FLAGS = {
    **dict.fromkeys(("--host", "--uds", "--api-key", "--api-key-file", "--reuse-port", "--root-path", "--api-prefix"), _OURS),
    **dict.fromkeys(("--port", "-p"), "write serve.port"),
    **dict.fromkeys(("--model", "-m", "--served-model-name", "--alias", "-a"), "the model string names the weights, and their name follows from it"),
    **dict.fromkeys(("--enable-lora", "--lora-modules", "--lora"), "write serve.adapters"),
    **dict.fromkeys(("--hf-token", "-hft"), "export HF_TOKEN instead: configs are copied into run directories"),
}
_SILENT = (
    (None, "rejected"),
    (None, "twins"),
    ("models", "rewriter"),
    ("source", "web"),
    ("source", "route"),
)  # are no part of a run's identity while nobody asks for them
_SECRET_WORDS = ("key", "token", "secret", "sig", "password")


class TuneConfig(TrainerConfig):
    """`safer-instruct tune`: reversed instruction tuning, or that of a small expert.

    Attributes:
        task: `induce` tunes P(prompt | response), the paper's reversed instruction tuning (section 2.1);
            `respond` tunes P(response | prompt) under a domain's guideline, for a small expert.
        template: For `induce`: the reversed template, shipped (`reverse`, `reverse-chat`) or a file.
        form: For `induce`: `raw` trains on the rendered template as a text to continue, `chat` as a user's message in the
            model's chat template; `auto` is chat for `reverse-chat` and raw for others.
        domain: For `respond`: the domain whose guideline is the system prompt.
        category: For `respond`: one of its categories.
        data: Where the pairs are.
        clean: What they must pass.
        holdout: Which of them are kept out of training.
    """

    task: Literal["induce", "respond"] = "induce"
    template: str = "reverse"
    form: Literal["auto", "raw", "chat"] = "auto"
    domain: str | None = None
    category: str | None = None
    data: Annotated[tuple[PairSource, ...], Field(min_length=1)]
    clean: CleanConfig = CleanConfig()
    holdout: Holdout = Holdout()

    @model_validator(mode="after")
    def _respond_needs_domain(self) -> TuneConfig:
        if self.task == "respond" and not (self.domain and self.category):
            raise ValueError("task 'respond' needs 'domain' and 'category': their guideline is the system prompt")
        return self


class SourceConfig(Strict):
    """Where the source texts are, and which column is which.

    Attributes:
        path: A file, a folder (read with everything below it) or a glob, relative to the config. `.gz` and `.zst` are
            unpacked on the way.
        format: `auto` goes by the file's ending: .jsonl .ndjson .json (one object per line), .csv, .tsv, .parquet, .txt .md,
            with the extra `docs` .html .htm .xhtml, .pdf, .docx, and with the extra `web` .warc .wet.
        text: Column with the source text.
        messages: Column with a conversation, in place of `text`: OpenAI's messages, ShareGPT's turns, or an HH transcript. The
            assistant's turn is the source text, and what was said before it its history.
        turns: Of a conversation: `last` takes the last turn of the assistant, `all` makes an example of each.
        id: Column with the user's own id; without it the id is a digest of the text.
        category: The domain's category that all rows belong to; needed when the domain has several and no column tells.
        category_column: Column with the category.
        route: Instead of both: by what a text is given its category.
        unit: For plain text: one document per `file`, or one per `paragraph` (blocks between empty lines).
        max_chars: Longer texts are set aside.
        license: Licence of the texts, for the dataset card and for `--provenance`.
        license_column: Column with the licence of each text, where they differ; an empty one means `license`.
        documents: How HTML, PDF, DOCX and the pages of crawls are cut into passages.
        web: How crawls (WARC and WET) are read; null: as it is by default.
    """

    path: str
    format: Literal["auto", "jsonl", "csv", "tsv", "parquet", "text", "html", "pdf", "docx", "warc"] = "auto"
    text: str = "text"
    messages: str | None = None
    turns: Literal["last", "all"] = "last"
    id: str | None = None
    category: str | None = None
    category_column: str | None = None
    unit: Literal["file", "paragraph"] = "paragraph"
    max_chars: Positive = 20_000
    license: str = ""
    license_column: str | None = None
    documents: DocumentConfig = DocumentConfig()
    web: WebConfig | None = None
    route: RouteConfig | None = None

    @model_validator(mode="after")
    def _text_or_messages(self) -> SourceConfig:
        if self.messages is not None and self.text != "text":
            raise ValueError("has both 'text' and 'messages'; a conversation's text is the assistant's turn, so leave out 'text'")
        if self.messages is None and self.turns != "last":
            raise ValueError("'turns' is for conversations; name their column with 'messages'")
        if self.route is not None and (self.category or self.category_column):
            raise ValueError("'route' finds the category, so leave out 'category' and 'category_column'")
        return self


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
        requests_per_min: Most requests a minute at one endpoint; without it the endpoint's answers tell.
        tokens_per_min: Most tokens a minute at one endpoint, read and written together.
        timeout_s: Cap on one attempt, from connecting to the last byte.
        retries: Further attempts of a request after its first; being told to wait is none.
        max_pause_s: Longest wait for an endpoint that answers nobody, before the run stops.
        logprobs: As inducer: ask for log-probabilities, which rank the candidates; `false` where the endpoint refuses them.
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
    max_pause_s: Annotated[float, Field(gt=0)] = 900.0
    logprobs: bool = True
    json_schema: bool = True
    batch: bool = False
    batch_rows: Positive = 10_000
    batch_wait_s: Seconds = 10.0
    batch_poll_s: tuple[Seconds, Seconds] = (5.0, 120.0)
    price_per_million: tuple[Price_, Price_] | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_string(cls, value: object) -> object:
        return {"model": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _serve_needs_served(self) -> ModelConfig:
        if self.serve and not self.model.startswith("served:"):
            raise ValueError(f"'serve' is for models 'served:PATH', not for '{self.model}'")
        return self

    @field_validator("base_url")
    @classmethod
    def _no_secret(cls, base_url: str | tuple[str, ...] | None) -> str | tuple[str, ...] | None:
        """A config is copied into run.yaml and shared; a secret has no place in it."""
        for url in (base_url,) if isinstance(base_url, str) else base_url or ():
            parts = urlsplit(url)
            named = [name for name, _ in parse_qsl(parts.query) if any(word in name.lower() for word in _SECRET_WORDS)]
            if "@" in parts.netloc or named:
                raise ValueError("holds a secret, and configs are copied into run directories; name an environment variable in 'api_key_env' instead")
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

    @model_validator(mode="after")
    def _expert_or_experts(self) -> ModelsConfig:
        if self.expert and self.experts:
            raise ValueError("give 'expert' (one) or 'experts' (several by name), not both")
        return self


class InduceConfig(Strict):
    """Instruction induction (paper, section 2.2).

    Attributes:
        given: What becomes of the user's message that a conversation gives before the text: `replace` it by one that is induced,
            which is the method; or `keep` it as the prompt, and no inducer is called.
        template: The template the inducer was tuned with, shipped or a file; `prompted` for a strong model that was not tuned.
        form: `raw` sends the rendered template as a text to continue, `chat` as a user's message; `auto` is the form that the
            adapter was tuned with, else chat for `reverse-chat`, raw for embedded models and chat for others.
        examples: For templates that show examples: `domain` takes the domain's own (each category its own, where it has some),
            otherwise a file of pairs, as in tuning data.
        shots: Most examples shown.
        candidates: Instructions drawn per text.
        max_tokens: Cap on an instruction.
        temperature: Of the draw.
        top_k: Of the draw; 0 for all tokens.
    """

    given: Literal["replace", "keep"] = "replace"
    template: str = "reverse"
    form: Literal["auto", "raw", "chat"] = "auto"
    examples: str = "domain"
    shots: Positive = 4
    candidates: Positive = 4
    max_tokens: Positive = 80
    temperature: Annotated[float, Field(ge=0)] = 0.8
    top_k: Annotated[int, Field(ge=0)] = 40


class ConsistencyConfig(Strict):
    """Cycle consistency: mean log p(response | instruction) - log p(response) under the scorer.

    Attributes:
        min_gain: Nats per token that the instruction must make the response likelier. A default, not calibrated.
        max_rank: Drop a candidate when so many or more candidates of the same text have a larger gain; all of them are scored
            for it. Null, and candidates are scored only until one passes.
        max_tokens: The response is scored up to here: more cost more and told less (bench/README.md).
    """

    min_gain: float = 0.1
    max_rank: Positive | None = None
    max_tokens: Positive = 64


class FilterConfig(Strict):
    """What an example must pass.

    Filters are named below the place where they look: `text` (the source text, before anything is induced from it), `prompt`
    (each induced instruction), `pair` (once a response was accepted). Below a name stand the filter's options, and with them
    `mode` (`drop`, or `flag` to only record), `use` (the filter, where its name here is another) or `path` (a Python file with a
    filter of one's own, relative to the config). Null switches a filter off, or all of a place. Those that are on without
    being named: filters/registry.py.

    Attributes:
        text: Filters on source texts.
        prompt: Filters on instructions.
        pair: Filters on finished pairs.
        near_duplicate: Jaccard similarity of word trigrams from which a text or an instruction counts as seen before;
            null switches near-duplicate removal off. Exact duplicates are always dropped.
        keep: Of duplicates, `first` keeps the one that came first, while streaming; `best` keeps the longest text and the likeliest
            instruction, and so must see all texts before the first is induced, and all instructions before the first is answered.
        semantic: Duplicates in meaning among source texts and among instructions; with `keep: best` only.
        consistency: Cycle consistency; null switches it off.
        min_logprob: Least log P(instruction | response), in nats, of the whole instruction under an inducer that tells it; null
            switches it off. What it is good for depends on the inducer: set it by reading (bench/README.md).
    """

    text: Filters_ = Field(default_factory=dict)
    prompt: Filters_ = Field(default_factory=dict)
    pair: Filters_ = Field(default_factory=dict)
    near_duplicate: Annotated[float, Field(gt=0, le=1)] | None = 0.7
    keep: Literal["first", "best"] = "first"
    semantic: SemanticConfig | None = None
    consistency: ConsistencyConfig | None = ConsistencyConfig()
    min_logprob: float | None = None

    @model_validator(mode="after")
    def _semantic_needs_all(self) -> FilterConfig:
        if self.semantic is not None and self.keep != "best":
            raise ValueError("filter.semantic compares all texts with each other: it needs 'keep: best' beside it")
        return self

    def in_languages(self, languages: tuple[str, ...]) -> FilterConfig:
        """With `languages` for the filter `language` on instructions, where the config does not name its own."""
        options = {"languages": list(languages)} if self.prompt is None else self.prompt.get("language", {})
        if self.prompt is None or options is None or "languages" in options or options.keys() & {"use", "path"}:
            return self
        return self.model_copy(update={"prompt": {**self.prompt, "language": {**options, "languages": list(languages)}}})


class RespondConfig(Strict):
    """How the expert writes.

    Attributes:
        template: Renders the system prompt from the domain and the category.
        drafts: Responses per round; the best by margin is taken.
        max_tokens: Cap on a response.
        temperature: Of the draw.
        top_k: Of the draw; 0 for all tokens.
        repetition_penalty: Above 1 keeps small models from looping.
        choose: Of several experts: `weight` takes one for each prompt and round, by a hash of the prompt and in shares as their weights;
            `best` has all of them write, and the verifier's margin decides.
        revise: How often in each round the expert is shown why its draft was not accepted, and mends it.
        revision: Renders what it is shown then.
        critique: Before that, the judge (`models.judge`) says what is to be changed, by the guideline.
        boilerplate: What becomes of responses that repeat accepted ones; null accepts them.
    """

    template: str = "respond"
    drafts: Positive = 2
    max_tokens: Positive = 160
    temperature: Annotated[float, Field(ge=0)] = 0.7
    top_k: Annotated[int, Field(ge=0)] = 40
    repetition_penalty: Annotated[float, Field(ge=1)] = 1.1
    choose: Literal["weight", "best"] = "weight"
    revise: Annotated[int, Field(ge=0)] = 0
    revision: str = "revise"
    critique: bool = False
    boilerplate: BoilerplateConfig | None = None

    @model_validator(mode="after")
    def _critique_is_for_revising(self) -> RespondConfig:
        if self.critique and not self.revise:
            raise ValueError("'critique' is part of revising: set 'revise' to 1 or more")
        return self


class VerifyConfig(Strict):
    """When a response is good enough.

    Attributes:
        form: `contrast` compares log-probabilities under the guideline and its opposite (any model that scores);
            `question` asks the judge the domain's criteria, and which response is better in both orders; `reward` asks
            `models.reward`, a classifier of one's own; `program` leaves it to the domain's `verifiers`, which come first with the other
            forms too.
        answers: For `question`: `written` asks all criteria in one call and reads what the judge writes; `weighted` asks each
            in a call of its own and reads how likely its options are, or what it writes where the endpoint does not tell.
        swaps: For `weighted`: put each question with its options in both orders; twice the calls, and no liking for the first.
        min_yes: For `weighted`: least probability of yes.
        min_reward: For `reward`: least reward of an acceptable response; null asks only for the margin.
        pick: `best` judges every draft of a round and takes the one with the largest margin; `first` goes through them,
            likeliest under the expert first, and takes the first that passes: fewer calls.
        examples: For `contrast`: how many of the category's example pairs the scorer is shown; each makes it surer and slower.
        rounds: How often the expert may try; then the example is dropped with the reasons.
        min_contrast: For `contrast`: least contrast of an acceptable response, nats per token.
        min_margin: For `contrast`: least margin over the rejected response, nats per token; a judge must prefer it in both orders.
        min_words: Shorter responses are not acceptable.
        max_tokens: For `question`: cap on one answer of the judge; a judge that thinks before it answers needs more.
        also: Further checks that each response must pass before `form` is asked: `grounded` and `refusal`, by name or with options
            (`{check: grounded, by: judge}`).
    """

    form: Literal["contrast", "question", "reward", "program"] = "contrast"
    answers: Literal["written", "weighted"] = "written"
    swaps: bool = True
    min_yes: Annotated[float, Field(ge=0, le=1)] = 0.5
    min_reward: float | None = None
    pick: Literal["best", "first"] = "best"
    examples: Annotated[int, Field(ge=0)] = 4
    rounds: Positive = 2
    min_contrast: float = 0.0
    min_margin: float = 0.0
    min_words: Positive = 5
    max_tokens: Positive = 512
    also: tuple[Annotated[AlsoCheck, BeforeValidator(named_check)], ...] = ()

    @field_validator("also")
    @classmethod
    def _each_once(cls, also: tuple[AlsoCheck, ...]) -> tuple[AlsoCheck, ...]:
        names = [check.check for check in also]
        if doubled := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"'{doubled[0]}' stands there twice")
        return also


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


class RunConfig(Strict):
    """`safer-instruct run`: from a pile of texts to a preference dataset.

    Attributes:
        domain: A shipped domain or a YAML file.
        source: Where the texts are.
        models: Who does what.
        rejected: Who writes the rejected response, where it is not the source text.
        twins: Contrast twins, which teach what need not be refused; null makes none.
        select: Which of the accepted pairs make the set; null takes all.
        target: How many pairs are wanted, in all or by category (`{hate: 500, illegal: 300}`); the run ends as soon as it has them, and
            goes through the sources again for what is missing. Null: one pass, and as many pairs as it gives.
        ceiling: Where a run with a target stops all the same.
        budget: How much it may cost.
        prices: A file of prices, relative to the config, that wins over the shipped ones and the user's own.
        calibration: What `safer-instruct calibrate` wrote, relative to the config: its thresholds take the place of those here.
        seed: Every draw depends on it and on the text, never on order or timing.
        license: Licence of the dataset, for its card; empty when not decided.
    """

    domain: str
    source: SourceConfig
    models: ModelsConfig
    induce: InduceConfig = InduceConfig()
    filter: FilterConfig = FilterConfig()
    respond: RespondConfig = RespondConfig()
    verify: VerifyConfig = VerifyConfig()
    rejected: RejectedConfig = RejectedConfig()
    twins: TwinsConfig | None = None
    select: SelectConfig | None = None
    target: Target | None = None
    ceiling: CeilingConfig = CeilingConfig()
    budget: BudgetConfig = BudgetConfig()
    prices: str | None = None
    calibration: str | None = None
    seed: int = 0
    license: str = ""
    _base: Path = PrivateAttr(default_factory=Path)
    _file: Path | None = PrivateAttr(default=None)
    _thresholds: str = PrivateAttr(default="defaults, not calibrated")

    @property
    def file(self) -> Path | None:
        """The file it was read from, for messages."""
        return self._file

    @property
    def thresholds(self) -> str:
        """Where the bounds of filters and verifiers come from, for summary, card and report."""
        return self._thresholds

    @property
    def base(self) -> Path:
        """The folder that paths in the config are relative to: the config's own."""
        return self._base

    def parted(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """As plain data: what the result depends on, and how it is come by (addresses, rates, prices, budget)."""
        what = self.model_dump(mode="json")
        for section, fields in _OF_CONVERSATIONS.items():  # a run that was begun before they could be said goes on
            what[section] = {name: value for name, value in what[section].items() if self.source.messages or name not in fields}
        how = {name: what.pop(name) for name in ("budget", "prices", "calibration")}  # the calibrated thresholds stand in their places
        for part, name in _SILENT:  # so that a directory from before there was a choice goes on
            if (what if part is None else what[part])[name] in (None, RejectedConfig().model_dump(mode="json")):
                del (what if part is None else what[part])[name]
        models = {role: model for role, model in what["models"].items() if model and role not in ("panel", "experts")}
        models |= {f"{group}.{name}": model for group in ("panel", "experts") for name, model in (what["models"][group] or {}).items()}
        how["models"] = {role: {name: model.pop(name) for name in _HOW_REACHED} for role, model in models.items()}
        return what, how

    @model_validator(mode="after")
    def _given_or_induced(self) -> RunConfig:
        if self.induce.given == "keep" and self.source.messages is None:
            raise ValueError("induce.given 'keep' is for conversations; name their column with source.messages")
        if self.induce.given == "replace" and self.models.inducer is None:
            raise ValueError("models.inducer is missing: the model that writes the instructions")
        return self

    @model_validator(mode="after")
    def _judge_for_questions(self) -> RunConfig:
        if self.verify.form == "question" and self.models.judge is None:
            raise ValueError("verify.form 'question' needs models.judge")
        if self.verify.form == "reward" and self.models.reward is None:
            raise ValueError("verify.form 'reward' needs models.reward")
        if self.models.judge is None and (self.respond.critique or any(c.check == "grounded" and c.by == "judge" for c in self.verify.also)):
            raise ValueError(f"{'respond.critique' if self.respond.critique else 'grounded by judge'} needs models.judge")
        if self.models.experts and self.respond.choose == "best" and self.verify.pick != "best":
            raise ValueError("respond.choose 'best' compares margins, so it needs verify.pick 'best'")
        return self

    @model_validator(mode="after")
    def _target_streams(self) -> RunConfig:
        if self.target is not None and (self.select is not None or self.filter.keep == "best"):
            what = "select" if self.select is not None else "filter.keep 'best'"
            raise ValueError(f"a target ends the run as soon as it is reached, and {what} must see all examples first; give one or the other")
        return self

    @model_validator(mode="after")
    def _writers_of_the_sides(self) -> RunConfig:
        """Whoever twins and rejected responses are left to must be there, and able to."""
        if self.twins and self.models.experts:
            raise ValueError("twins are answered by one expert: give models.expert in place of models.experts")
        for asked_by, role in self.side_roles.items():
            if getattr(self.models, role) is None:
                raise ValueError(f"{asked_by} is left to '{role}', so models.{role} is needed")
        if self.twins:
            writer = getattr(self.models, self.twins.model)
            self.twins.check_writer(writer.model, batch=writer.batch)
            if self.twins.benign == "judge" and self.models.judge is None:
                raise ValueError("twins.benign 'judge' needs models.judge")
        return self

    @property
    def side_roles(self) -> dict[str, Role]:
        """Key of the config -> the role that it gives work to, for twins and rejected responses."""
        roles: dict[str, Role] = {} if self.twins is None else {"twins": "expert", "twins.model": self.twins.model, "twins.refuser": self.twins.refuser}
        return roles | ({f"rejected '{self.rejected.form}'": self.rejected.writer} if self.rejected.writer else {})


def load_config(path: Path | str) -> RunConfig:
    """Read a run config.

    Raises:
        ConfigError: It is missing or not valid.
    """
    config = yamlfile.load(Path(path), RunConfig)
    base = Path(path).parent
    if config.calibration:
        found = load_calibration(base / config.calibration)
        config = RunConfig.model_validate(apply(config.model_dump(), found.thresholds), strict=False)
        config._thresholds = found.described
    config._file, config._base = Path(path), base
    return config


def load_tune_config(path: Path | str) -> TuneConfig:
    """Read a tuning config.

    Raises:
        ConfigError: It is missing or not valid.
    """
    return yamlfile.load(Path(path), TuneConfig)
