"""What run and tuning configs may say, and what stands in when they do not."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from safer_instruct.config import ModelConfig, RunConfig, TuneConfig, load_config, load_tune_config
from safer_instruct.errors import ConfigError
from safer_instruct.models import _limits, open_model

pytestmark = pytest.mark.filterwarnings("error")
ROOT = Path(__file__).parents[2]
MINIMAL = "domain: civility\nsource: {path: texts.jsonl}\nmodels: {inducer: 'scripted:', expert: 'scripted:'}\n"
TUNE = "out: adapter\ndata: [{path: a.jsonl}]\n"


def loaded(folder: Path, text: str) -> RunConfig:
    (folder / "run.yaml").write_text(text, encoding="utf-8")
    return load_config(folder / "run.yaml")


def tune_loaded(folder: Path, text: str) -> TuneConfig:
    (folder / "tune.yaml").write_text(text, encoding="utf-8")
    return load_tune_config(folder / "tune.yaml")


def test_three_sections_are_enough_and_the_gates_are_on_by_default(tmp_path: Path) -> None:
    config = loaded(tmp_path, MINIMAL)
    assert config.source.format == "auto" and config.source.text == "text" and config.source.id is None
    assert config.models.scorer.model == "embedded:smollm2-135m-instruct" and config.models.judge is None
    assert config.filter.prompt == {} and config.filter.consistency is not None and config.filter.near_duplicate == 0.7
    assert config.verify.form == "contrast" and config.seed == 0


def test_paths_start_from_the_folder_of_the_config(tmp_path: Path) -> None:
    assert loaded(tmp_path, MINIMAL).base == tmp_path
    assert load_config(str(tmp_path / "run.yaml")).base == tmp_path


def test_both_loaders_take_a_path_or_a_string(tmp_path: Path) -> None:
    run, tune = loaded(tmp_path, MINIMAL), tune_loaded(tmp_path, TUNE)
    assert load_config(str(tmp_path / "run.yaml")) == run
    assert load_tune_config(str(tmp_path / "tune.yaml")) == tune


def test_a_bare_string_stands_for_a_model_with_defaults(tmp_path: Path) -> None:
    short = loaded(tmp_path, MINIMAL)
    long = loaded(tmp_path, MINIMAL.replace("expert: 'scripted:'", "expert: {model: 'scripted:'}"))
    assert short == long and short.models.expert == ModelConfig(model="scripted:")


def test_null_switches_a_gate_off(tmp_path: Path) -> None:
    config = loaded(tmp_path, MINIMAL + "filter: {prompt: null, near_duplicate: null, consistency: null}\n")
    assert config.filter.prompt is None and config.filter.near_duplicate is None and config.filter.consistency is None


def test_a_key_cannot_be_written_into_a_config(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean 'api_key_env'"):
        loaded(tmp_path, MINIMAL.replace("expert: 'scripted:'", "expert: {model: 'openai:m', api_key: sk-123}"))


def test_questions_need_a_judge(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"verify\.form 'question' needs models\.judge"):
        loaded(tmp_path, MINIMAL + "verify: {form: question}\n")
    judged = MINIMAL.replace("expert: 'scripted:'", "expert: 'scripted:', judge: 'scripted:'")
    assert loaded(tmp_path, judged + "verify: {form: question}\n").models.judge == ModelConfig(model="scripted:")


@pytest.mark.parametrize(
    "section",
    [
        "filter: {near_duplicate: 0}",
        "filter: {near_duplicate: 1.1}",
        "filter: {prompt: 3}",
        "filter: {prompt: {length: 3}}",
        "filter: {prompt: {UPPER: {}}}",
        "filter: {consistency: {max_tokens: 0}}",
        "induce: {candidates: 0}",
        "induce: {temperature: -1}",
        "induce: {top_k: -1}",
        "induce: {form: poem}",
        "respond: {drafts: 0}",
        "respond: {repetition_penalty: 0.9}",
        "verify: {rounds: 0}",
        "verify: {form: vote}",
        "seed: x",
        "seed: true",
        "induce: {candidates: true}",
        "target: {support: true}",
        "budget: {max_cost: false}",
    ],
)
def test_values_out_of_bounds_are_refused(tmp_path: Path, section: str) -> None:
    with pytest.raises(ConfigError, match=r"run\.yaml:4"):
        loaded(tmp_path, MINIMAL + section + "\n")


def test_bounds_themselves_are_allowed(tmp_path: Path) -> None:
    config = loaded(tmp_path, MINIMAL + "filter: {near_duplicate: 1, min_logprob: 0}\ninduce: {temperature: 0, top_k: 0}\n")
    assert config.filter.near_duplicate == 1 and config.filter.min_logprob == 0 and config.induce.temperature == 0 and config.induce.top_k == 0


def test_a_config_cannot_be_changed_after_it_was_read(tmp_path: Path) -> None:
    config = loaded(tmp_path, MINIMAL)
    with pytest.raises(ValidationError, match="frozen"):
        config.seed = 7  # type: ignore[misc]
    with pytest.raises(ValidationError, match="frozen"):
        config.verify.rounds = 7  # type: ignore[misc]


def test_tuning_a_respondent_needs_domain_and_category(tmp_path: Path) -> None:
    assert tune_loaded(tmp_path, TUNE).task == "induce"
    for text in ("", "domain: civility\n", "category: support\n"):
        with pytest.raises(ConfigError, match="needs 'domain' and 'category'"):
            tune_loaded(tmp_path, TUNE + "task: respond\n" + text)
    assert tune_loaded(tmp_path, TUNE + "task: respond\ndomain: civility\ncategory: support\n").category == "support"


def test_tuning_needs_data(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'data'"):
        tune_loaded(tmp_path, "out: adapter\ndata: []\n")


def test_the_shipped_example_configs_are_valid() -> None:
    assert load_config(ROOT / "examples" / "civility.yaml").domain == "civility"
    tunes = sorted((ROOT / "examples").glob("tune-*.yaml"))
    assert [load_tune_config(path).task for path in tunes] == ["induce", "induce", "respond"]


@pytest.mark.parametrize("url", ["https://me:hunter2@host/v1", "https://host/v1?api-key=hunter2", "https://host/v1?sig=hunter2"])
def test_a_secret_in_an_address_is_refused_and_not_repeated(tmp_path: Path, url: str) -> None:
    with pytest.raises(ConfigError, match="name an environment variable in 'api_key_env'") as caught:
        loaded(tmp_path, MINIMAL.replace("expert: 'scripted:'", f"expert: {{model: 'openai:m', base_url: '{url}'}}"))
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("127.0.0.1:8000/v1", "'127.0.0.1:8000/v1' is no address"),
        ("localhost:8000/v1", "'localhost:8000/v1' is no address"),
        ("ftp://h/v1", "'ftp://h/v1' is no address"),
        ("http://h:99999/v1", "'http://h:99999/v1' is no address"),
        ("http://[h", "'http://[h' is no address"),
        ("someone:open-sesame@h/v1", "the value (not repeated, for it may hold a secret) is no address"),
        ("sk-4f9a8b7c6d5e4f3a2b1c0d9e", "the value (not repeated, for it may hold a secret) is no address"),
    ],
)
def test_an_address_that_is_none_is_told_with_its_line_and_key(tmp_path: Path, url: str, shown: str) -> None:
    text = MINIMAL.replace("expert: 'scripted:'", f"expert: {{model: 'openai:m', base_url: '{url}'}}")
    line = next(n for n, line in enumerate(text.splitlines(), 1) if "base_url" in line)
    with pytest.raises(ConfigError) as caught:
        loaded(tmp_path, text)
    assert re.search(rf"\.yaml:{line}: 'models\.expert\.base_url': {re.escape(shown)} such as", str(caught.value))
    remedy = "give it a port from 1 to 65535, for the one that it names can be none" if ":99999/" in url else "begin it with http:// or https://"
    assert str(caught.value).endswith(f"; {remedy}")


def test_a_version_in_an_address_is_no_secret(tmp_path: Path) -> None:
    config = loaded(tmp_path, MINIMAL.replace("expert: 'scripted:'", "expert: {model: 'openai:m', base_url: 'https://host/v1?api-version=7'}"))
    assert config.models.expert.base_url == "https://host/v1?api-version=7"


def test_an_endpoint_that_never_answered_is_waited_for_longer_only_where_that_is_asked_for() -> None:
    waits = [_limits(ModelConfig(model="openai:m", max_pause_s=given)) for given in (None, 300.0, 900.0)]
    assert [(limits.max_pause_s, limits.first_answer_s) for limits in waits] == [(900.0, None), (300.0, 300.0), (900.0, 900.0)]


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (
            "{model: 'embedded:smollm2-135m-instruct', base_url: 'http://h/v1'}",
            "'base_url' is for remote models, not for 'embedded:smollm2-135m-instruct', which",
        ),
        (
            "{model: 'scripted:', api_key_env: KEY}",
            "'api_key_env' is for remote models, not for 'scripted:', which works in this process; for an endpoint write 'op",
        ),
        (
            "{model: 'embedded:smollm2-135m-instruct', requests_per_min: 60}",
            "'requests_per_min' is for remote models, not for 'embedded:smollm2-135m-instruct', which",
        ),
        ("{model: 'served:w', base_url: ['http://h/v1']}", "'base_url' is for remote models, not for 'served:w', whose server is started for it"),
        (
            "{model: 'reward:rm', api_key_env: KEY}",
            "'api_key_env' is for remote models, not for 'reward:rm', which works in this process; give base_url for one",
        ),
    ],
)
def test_an_address_or_a_key_beside_a_model_that_needs_none_is_refused(tmp_path: Path, model: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        loaded(tmp_path, MINIMAL.replace("expert: 'scripted:'", f"expert: {model}"))
    assert f"run.yaml:3: 'models.expert': {said}" in str(caught.value)
    served = ModelConfig(model="reward:rm", base_url="http://h", api_key_env="KEY")
    assert not served.in_process, "a reward model may be served elsewhere"


@pytest.mark.parametrize("provider", ["openai", "anthropic", "gemini", "mistral", "litellm", "served", "embedded", "reward"])
def test_a_model_without_a_name_is_refused_with_its_key(tmp_path: Path, provider: str) -> None:
    for expert, key in ((f"'{provider}:'", "models.expert"), (f"{{model: '{provider}: '}}", "models.expert.model")):
        with pytest.raises(ConfigError, match=rf"run\.yaml:3: '{key}': '{provider}: ?' names no model; write its name behind the colon: {provider}:NAME$"):
            loaded(tmp_path, MINIMAL.replace("expert: 'scripted:'", f"expert: {expert}"))
    with pytest.raises(ConfigError, match=f"model '{provider}': names no model; write {provider}:NAME"):
        open_model(ModelConfig(model=provider), tmp_path)
    assert loaded(tmp_path, MINIMAL).models.expert == ModelConfig(model="scripted:")


def test_a_folder_in_the_place_of_a_models_name_is_told_how_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAFER_INSTRUCT_CACHE", str(tmp_path / "cache"))
    (tmp_path / "emb").mkdir()
    (tmp_path / "emb" / "model.bin").touch()
    with pytest.raises(ConfigError, match=r"model 'embedded:emb': .* of a model in the cache; for the folder emb write embedded:\./emb$"):
        open_model(ModelConfig(model="embedded:emb"), tmp_path)
