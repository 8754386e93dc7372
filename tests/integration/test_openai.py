"""The OpenAI-compatible model against a real server that misbehaves."""

from __future__ import annotations

import asyncio
import socket
import time
import traceback
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import pytest
from misbehaving import Server, logprobs, serve, tokens

from safer_instruct.budget import Budget
from safer_instruct.errors import AccessError, ModelError, RequestError
from safer_instruct.models import calls
from safer_instruct.models.flow import Limits
from safer_instruct.models.openai import OpenAIModel
from safer_instruct.models.protocol import Generated, Generation, Sampling, Schema, Scoring, Turn, Usage
from safer_instruct.models.spending import Spending
from safer_instruct.prices import Price
from safer_instruct.spent import Spent

T = TypeVar("T")
RAW = "Write a complaint about an umbrella."
CHAT = (Turn("system", "You are a customer."), Turn("user", RAW))
KEY = "sk-secret-0123456789"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "_BACKOFF_S", (0.001, 0.01))
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def run(model: OpenAIModel, work: Coroutine[Any, Any, T]) -> T:
    async def main() -> T:
        try:
            return await work
        finally:
            await model.close()

    return asyncio.run(main())


def open_model(server: Server, *, price: Price | None = None, budget: Budget | None = None, **settings: Any) -> OpenAIModel:
    """The model at `server`; settings that `Limits` knows go there."""
    limits = Limits(**{name: settings.pop(name) for name in Limits.__slots__ if name in settings})
    return OpenAIModel("small", base_url=server.base_url, limits=limits, spending=Spending(price, budget), **settings)


def generate(server: Server, prompt: Any = RAW, *, n: int = 1, seed: int = 0, sampling: Sampling | None = None, **settings: Any) -> Generated:
    model = open_model(server, **settings)
    return run(model, model.generate(Generation(prompt, sampling or Sampling(n=n), seed)))


def score(server: Server, prompt: Any, continuation: str, **settings: Any) -> Any:
    model = open_model(server, **settings)
    return run(model, model.score(Scoring(prompt, continuation)))


def ask_many(server: Server, count: int, once_in_line: Callable[[], None] | None = None, **settings: Any) -> list[Generated]:
    """Numbered calls; `once_in_line` is called when all but the first wait for their turn."""
    model = open_model(server, **settings)

    async def work() -> list[Generated]:
        calls = asyncio.gather(*(model.generate(Generation(f"{RAW} {i}", Sampling())) for i in range(count)))
        if once_in_line:
            while model.flows[0].state.waiting < count - 1:  # noqa: ASYNC110 - nothing tells of it
                await asyncio.sleep(0.01)
            once_in_line()
        return await calls

    return run(model, work())


class TestAnswers:
    def test_raw_prompts_and_chats_go_to_their_own_paths(self) -> None:
        with serve() as server:
            raw, chat = generate(server, RAW), generate(server, CHAT)
        (raw_path, raw_body, key), (chat_path, chat_body, _) = server.seen
        assert (raw_path, raw_body["prompt"]) == ("/v1/completions", RAW)
        assert (chat_path, chat_body["messages"]) == (
            "/v1/chat/completions",
            [{"role": "system", "content": "You are a customer."}, {"role": "user", "content": RAW}],
        )
        assert raw.completions[0].text != chat.completions[0].text != ""
        assert key == ""

    def test_the_same_request_gets_the_same_answer(self) -> None:
        with serve() as server:
            assert generate(server, seed=3) == generate(server, seed=3)
            assert generate(server, seed=3) != generate(server, seed=4)
        assert (server.answered, server.distinct, server.asked_twice) == (4, 2, 2)

    def test_sampling_is_passed_on(self) -> None:
        with serve() as server:
            generate(server, seed=5, sampling=Sampling(max_tokens=7, temperature=0.3, top_k=11, repetition_penalty=1.2, n=2))
            generate(server, sampling=Sampling(top_k=0))
        (_, full, _), (_, plain, _) = server.seen
        assert full == {"model": "small", "prompt": RAW, "max_tokens": 7, "temperature": 0.3, "n": 2, "seed": 5, "top_k": 11, "repetition_penalty": 1.2}
        assert "top_k" not in plain and "repetition_penalty" not in plain and "logprobs" not in plain

    def test_a_chat_is_held_to_a_schema_and_a_raw_prompt_is_not(self) -> None:
        schema = Schema.of("s", {"type": "object", "properties": {"b": {"type": "string"}, "a": {"type": "string"}}})
        with serve() as server:
            for prompt in (CHAT, RAW):
                model = OpenAIModel("small", base_url=server.base_url)
                run(model, model.generate(Generation(prompt, Sampling(), schema=schema)))
        (_, chat, _), (_, raw, _) = server.seen
        assert chat["response_format"] == {"type": "json_schema", "json_schema": {"name": "s", "strict": True, "schema": schema.definition}}
        assert list(chat["response_format"]["json_schema"]["schema"]["properties"]) == ["b", "a"] and "response_format" not in raw

    def test_an_endpoint_that_knows_no_schemas_is_told_from_one_that_does(self) -> None:
        with serve(reject=(400, {"error": {"message": "'response_format.type' must be 'text'"}})) as server:
            model = OpenAIModel("small", base_url=server.base_url)
            with pytest.raises(RequestError, match="set 'json_schema: false' for this model"):
                run(model, model.generate(Generation(CHAT, Sampling(), schema=Schema.of("s", {}))))
            with pytest.raises(RequestError) as caught:
                generate(server, CHAT)
        assert "json_schema: false" not in str(caught.value)

    def test_finished_says_whether_the_answer_was_cut(self) -> None:
        with serve() as server:
            assert not generate(server, sampling=Sampling(max_tokens=2)).completions[0].finished
            assert generate(server, sampling=Sampling(max_tokens=100)).completions[0].finished

    @pytest.mark.parametrize(("faults", "text", "withheld"), [({"refusal": "I cannot."}, "I cannot.", "refusal"), ({"filtered": True}, "", "filter")])
    def test_an_answer_that_was_withheld_is_an_answer(self, faults: dict[str, Any], text: str, withheld: str) -> None:
        with serve(**faults) as server:
            made = generate(server, CHAT)
        assert [(c.text, c.finished, c.withheld) for c in made.completions] == [(text, True, withheld)] and made.usage.prompt_tokens > 0
        assert server.requests == 1

    @pytest.mark.parametrize("status", [400, 403, 422])
    def test_a_request_that_a_content_filter_stopped_is_answered_for_nothing(self, status: int) -> None:
        error = {"code": "content_filter", "message": "The prompt was \x1b[31mfiltered", "innererror": {"code": "ResponsibleAIPolicyViolation"}}
        with serve(reject=(status, {"error": error})) as server:
            made = generate(server, CHAT, n=3)
        assert server.requests == 1 and made.usage == Usage()
        said = f"openai:small at {server.base_url}: HTTP {status}: The prompt was [31mfiltered"
        assert [(c.text, c.withheld) for c in made.completions] == [(said, "filter")] * 3

    def test_what_a_server_that_ignores_n_answered_before_its_filter_said_no_is_kept(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with serve(ignore_n=True, reject=(400, {"error": {"code": "content_filter", "message": "no"}}), match='"seed": 1') as server:
            made = generate(server, CHAT, n=3)
        assert [c.withheld for c in made.completions] == ["", "filter", ""] and made.usage.prompt_tokens > 0 and server.requests == 3

    def test_a_prompt_that_was_blocked_without_an_error_is_answered_too(self) -> None:
        with serve(reject=(200, {"promptFeedback": {"blockReason": "SAFETY"}})) as server:
            made = generate(server, CHAT)
        assert [c.withheld for c in made.completions] == ["filter"] and server.requests == 1

    def test_scoring_has_no_place_for_a_filter_so_it_is_an_error_of_the_request(self) -> None:
        with serve(reject=(400, {"error": {"code": "content_filter", "message": "no"}})) as server, pytest.raises(RequestError, match="HTTP 400: no"):
            score(server, "a", " b")

    def test_a_query_string_is_sent_but_never_shown(self) -> None:
        with serve(reject=(404, {"error": {"message": "no"}})) as server:
            model = OpenAIModel("m", base_url=f"{server.base_url}/?api-version=SECRET")
            with pytest.raises(AccessError) as caught:
                run(model, model.generate(Generation(RAW, Sampling())))
        assert server.seen[0][0] == "/v1/completions?api-version=SECRET"
        assert "SECRET" not in str(caught.value) + model.fingerprint + model.name

    def test_what_no_request_can_get_is_asked_for_once_and_other_paths_stay_open(self) -> None:
        with serve(reject=(401, {"error": {"message": "bad key"}})) as server:
            model = open_model(server, concurrency=1)

            async def several() -> list[Generated | BaseException]:
                return await asyncio.gather(*(model.generate(Generation(RAW, Sampling(), seed)) for seed in range(5)), return_exceptions=True)

            ends = run(model, several())
            assert [type(end) for end in ends] == [AccessError] * 5 and len({str(end) for end in ends}) == 1
            assert "HTTP 401: bad key" in str(ends[0]) and server.requests == 1

            async def chat() -> Generated:
                return await model.generate(Generation(CHAT, Sampling()))

            with pytest.raises(AccessError, match="bad key"):
                run(model, chat())
            assert server.requests == 2

    def test_a_model_can_be_used_again_after_close(self) -> None:
        with serve() as server:
            model = open_model(server, concurrency=1)

            async def two() -> list[Generated]:
                return await asyncio.gather(*(model.generate(Generation(RAW, Sampling(), seed)) for seed in (1, 2)))

            assert run(model, two()) == run(model, two())


class TestManyCompletions:
    @pytest.mark.parametrize("prompt", [RAW, CHAT])
    def test_n_completions_come_back_in_order(self, prompt: Any) -> None:
        with serve() as server:
            four, one = generate(server, prompt, n=4), generate(server, prompt)
        assert len({c.text for c in four.completions}) == 4
        assert four.completions[0] == one.completions[0]  # though the server sends them in reverse
        assert server.requests == 2

    def test_a_server_that_ignores_n_is_asked_for_the_missing_ones(self) -> None:
        with serve(ignore_n=True) as server:
            made = generate(server, n=3, seed=10)
        assert len({c.text for c in made.completions}) == 3
        assert [(body["seed"], body["n"]) for _, body, _ in server.seen] == [(10, 3), (11, 1), (12, 1)]
        assert made.usage.prompt_tokens == 3 * len(tokens(RAW))

    def test_any_other_number_is_a_malformed_answer(self) -> None:
        with (
            serve(reject=(200, {"choices": [{"text": "a"}, {"text": "b"}]})) as server,
            pytest.raises(ModelError, match="2 choices where 3 were asked for"),
        ):
            generate(server, n=3, retries=2)
        assert server.requests == 3


class TestLogprobs:
    @pytest.mark.parametrize("prompt", [RAW, CHAT])
    def test_the_mean_of_the_tokens_is_reported_on_demand(self, prompt: Any) -> None:
        with serve() as server:
            asked = generate(server, prompt, want_logprobs=True).completions[0]
            unasked = generate(server, prompt).completions[0]
        values = logprobs(asked.text if prompt == RAW else f" {asked.text}")
        assert asked.logprob == pytest.approx(sum(values) / len(values))
        assert unasked.logprob is None

    def test_they_are_part_of_the_fingerprint(self) -> None:
        one, other = (OpenAIModel("m", base_url="http://localhost/v1", want_logprobs=want) for want in (False, True))
        assert one.fingerprint != other.fingerprint


class TestScoring:
    @pytest.mark.parametrize(
        "faults", [{}, {"start_token": "<|begin|>"}, {"no_offsets": True}, {"start_token": "<s>", "no_offsets": True}, {"no_usage": True}, {"silent": True}]
    )
    @pytest.mark.parametrize("continuation", [" is broken.", " Zwölf 😀 Stühle,\n\nund 日本語 ", "."])
    def test_exactly_the_tokens_of_the_continuation_are_taken(self, faults: dict[str, Any], continuation: str) -> None:
        with serve(**faults) as server:
            scored = score(server, RAW, continuation)
        whole = tokens(RAW + continuation)
        before = [i for i in range(len(whole)) if len("".join(whole[: i + 1])) <= len(RAW)]
        assert list(scored.logprobs) == logprobs(RAW + continuation)[len(before) :]

    def test_the_request_asks_for_an_echo(self) -> None:
        with serve() as server:
            score(server, "a b", " c")
        assert server.seen[0] == ("/v1/completions", {"model": "small", "prompt": "a b c", "echo": True, "max_tokens": 1, "temperature": 0, "logprobs": 1}, "")

    def test_up_to_a_cap_of_tokens_and_what_lies_far_behind_it_is_not_sent(self) -> None:
        with serve() as server:
            model = open_model(server)
            capped = run(model, model.score(Scoring("a b", " c d e" + " f" * 100, 2)))
        assert list(capped.logprobs) == logprobs("a b c d e")[2:4] and len(server.seen[0][1]["prompt"]) == len("a b") + 16

    def test_a_token_across_the_border_counts(self) -> None:
        with serve() as server:
            assert list(score(server, "a ", "b c").logprobs) == logprobs("a b c")[1:]

    def test_the_first_token_of_all_has_no_value(self) -> None:
        with serve() as server:
            assert list(score(server, "", "a b c").logprobs) == logprobs("a b c")[1:]

    def test_an_empty_continuation_costs_no_call(self) -> None:
        with serve() as server:
            assert score(server, RAW, "").mean == 0.0
        assert server.requests == 0

    def test_a_chat_cannot_be_scored(self) -> None:
        with serve() as server, pytest.raises(ModelError, match=r"only after a raw prompt \('value' has --layout raw for it\); the embedded scorer can"):
            score(server, CHAT, "yes")
        assert server.requests == 0

    @pytest.mark.parametrize(("prompt", "continuation"), [("", " b c d"), (RAW, " b c d"), ("", "unquestionably"), ("un", "questionably")])
    def test_an_endpoint_without_echo_is_told_from_one_with(self, prompt: str, continuation: str) -> None:
        with serve(no_echo=True) as server, pytest.raises(AccessError, match=r"cannot score; the embedded scorer can: leave models\.scorer"):
            score(server, prompt, continuation)
        assert server.requests == 1

    def test_half_known_is_unknown(self) -> None:
        told = {"tokens": ["a", " b", " c", " d"], "token_logprobs": [None, -1.0, None, -1.0], "text_offset": [0, 1, 3, 5]}
        half_known = {"choices": [{"text": "a b c d", "logprobs": told}], "usage": {"prompt_tokens": 3}}
        with serve(reject=(200, half_known)) as server, pytest.raises(AccessError, match="cannot score"):
            score(server, "a", " b c")

    def test_an_endpoint_that_refuses_an_echo_gets_the_same_advice(self) -> None:
        with (
            serve(reject=(400, {"error": {"message": "echo is not supported"}})) as server,
            pytest.raises(RequestError, match=r"echo is not supported.*models\.scorer"),
        ):
            score(server, "a", " b")


class TestCost:
    def test_it_follows_the_price_list(self) -> None:
        with serve() as server:
            made = generate(server, n=2, price=Price(prompt=3.0, completion=15.0))
        read, written = len(tokens(RAW)), sum(len(tokens(c.text)) for c in made.completions)
        assert (made.usage.prompt_tokens, made.usage.completion_tokens) == (read, written)
        assert made.usage.cost == pytest.approx((read * 3 + written * 15) / 1e6)

    def test_what_the_server_had_in_its_cache_is_told_and_is_never_more_than_the_prompt(self) -> None:
        with serve(cached=3, ignore_n=True) as server:
            assert generate(server, n=2).usage.cached_tokens == 6
        with serve(cached=10_000) as server:
            assert generate(server).usage.cached_tokens == len(tokens(RAW))
        with serve() as server:
            assert generate(server).usage.cached_tokens == 0

    def test_scoring_costs_too(self) -> None:
        with serve() as server:
            assert score(server, "a b", " c", price=Price(prompt=2.0, completion=0.0)).usage.cost == pytest.approx(3 * 2 / 1e6)

    def test_an_answer_without_usage_is_an_answer(self) -> None:
        with serve(no_usage=True) as server:
            assert generate(server).usage.cost == 0.0

    @pytest.mark.parametrize(
        "usage", [{"prompt_tokens": -5}, {"completion_tokens": 2.5}, {"prompt_tokens": True}, {"prompt_tokens": 0, "completion_tokens": 0}]
    )
    @pytest.mark.parametrize("n", [1, 2])
    def test_what_no_count_can_be_is_not_reported_and_keeps_what_was_set_aside(self, usage: dict[str, Any], n: int) -> None:
        budget = Budget(max_cost=1.0)
        with serve(usage=usage) as server:
            model = OpenAIModel("small", base_url=server.base_url, spending=Spending(Price(prompt=1.0, completion=2.0), budget))
            assert run(model, model.generate(Generation(CHAT, Sampling(n=n)))).usage == Usage()
            assert server.requests == 1
        assert budget.spent == budget.unreported != Spent() and budget.forfeited == Spent()

    @pytest.mark.parametrize("n", [1, 2])
    @pytest.mark.parametrize("prompt", [RAW, CHAT])
    def test_of_more_choices_than_were_asked_for_the_first_count(self, prompt: Any, n: int) -> None:
        with serve() as server:
            wanted = generate(server, prompt, n=n)
        with serve(surplus=4) as server:
            assert generate(server, prompt, n=n).completions == wanted.completions and server.requests == 1


class TestFaults:
    @pytest.mark.parametrize("fault", ["error", "rate_limit", "truncated", "cut", "empty", "reset"])
    def test_each_is_survived(self, fault: str) -> None:
        with serve() as server:
            wanted = generate(server)
        with serve(**{fault: 1.0}, per_body=3) as server:
            assert generate(server) == wanted
        assert (server.requests, server.answered) == (4, 1)

    def test_a_server_that_never_answers_is_survived(self) -> None:
        with serve(hang=1.0, per_body=1) as server:
            generate(server, timeout_s=0.2)
        assert server.status == {"hang": 1, "200": 1}

    def test_all_at_once_are_survived_and_nothing_is_paid_twice(self) -> None:
        with serve() as server:
            wanted = ask_many(server, 60)
        with serve(error=0.1, rate_limit=0.1, truncated=0.1, cut=0.1, empty=0.1, reset=0.1, slow=0.1, slow_s=0.02, seed=1) as server:
            assert ask_many(server, 60, retries=30) == wanted
        assert (server.answered, server.distinct, server.asked_twice) == (60, 60, 0)
        assert all(server.status[s] for s in ("500", "429", "truncated", "cut", "empty", "reset", "slow"))

    @pytest.mark.parametrize(
        ("faults", "said"),
        [
            ({"error": 1.0}, "HTTP 500: something broke"),
            ({"truncated": 1.0}, "not valid JSON"),
            ({"cut": 1.0}, "the connection failed: end of file"),
            ({"empty": 1.0}, "0 choices where 1 were asked for"),
            ({"reset": 1.0}, "the connection failed"),
            ({"hang": 1.0}, "no answer within 0.1 s"),
            ({"reject": (200, {"error": {"message": "upstream is away"}})}, "malformed answer.*upstream is away"),
            ({"reject": (200, {"choices": [{"index": 0}]})}, "malformed answer.*neither text nor message"),
            ({"reject": (200, "[]")}, "no JSON object"),
            ({"reject": (500, "<html>\n Bad \x1b[31m day </html>")}, r"HTTP 500: <html> Bad \[31m day </html>"),
        ],
    )
    def test_after_the_retries_the_last_one_is_told(self, faults: dict[str, Any], said: str) -> None:
        with serve(**faults) as server, pytest.raises(ModelError, match=f"no usable answer in 3 attempts.*{said}") as caught:
            generate(server, retries=2, timeout_s=0.1 if "hang" in faults else 5.0)
        assert not isinstance(caught.value, RequestError) and str(caught.value).endswith(f"; {calls.AGAIN}")
        assert server.requests == 3

    @pytest.mark.parametrize(
        ("faults", "said"), [({"rate_limit": 1.0}, "HTTP 429: slow down"), ({"reject": (503, {"error": {"message": "overloaded"}})}, "HTTP 503: overloaded")]
    )
    def test_an_endpoint_that_is_always_too_busy_is_given_up_in_time(self, faults: dict[str, Any], said: str) -> None:
        with serve(**faults) as server, pytest.raises(ModelError, match=said):
            generate(server, retries=2, max_pause_s=0.3)
        assert server.requests >= 3

    def test_nobody_at_the_port(self) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            model = OpenAIModel("m", base_url=f"http://127.0.0.1:{taken.getsockname()[1]}/v1", limits=Limits(retries=1))
            with pytest.raises(ModelError, match="the connection failed: Connection refused"):
                run(model, model.generate(Generation(RAW, Sampling())))

    def test_an_endpoint_that_speaks_no_tls_is_told_at_once(self) -> None:
        with serve() as server:
            model = OpenAIModel("m", base_url=server.base_url.replace("http://", "https://"), limits=Limits(retries=6))
            started = time.monotonic()
            said = r"the connection failed: what answers there speaks no TLS \(InvalidContentType\); does it speak http:// and not https://\?$"
            with pytest.raises(AccessError, match=said):
                run(model, model.generate(Generation(RAW, Sampling())))
        assert time.monotonic() - started < 5

    def test_retry_after_is_honoured(self) -> None:
        with serve(rate_limit=1.0, retry_after="0.4", per_body=1) as server:
            started = time.monotonic()
            generate(server)
        assert 0.4 <= time.monotonic() - started < 2


class TestRejections:
    @pytest.mark.parametrize(
        ("status", "hint"),
        [
            (400, "HTTP 400: it is wrong$"),
            (413, "HTTP 413: it is wrong$"),
            (401, "the key is read from the environment variable MY_KEY, which is not set"),
            (403, "the environment variable MY_KEY"),
            (404, "is 'small' the name of a model there, and is base_url http://127.0.0.1:"),
            (402, "HTTP 402: it is wrong; the account has no credit left: top it up, then give the same command again$"),
            (405, "HTTP 405: it is wrong"),
            (422, "HTTP 422: it is wrong"),
            (307, "base_url must be the address that it redirects to"),
        ],
    )
    def test_they_are_not_tried_again(self, status: int, hint: str) -> None:
        kind = RequestError if status in (400, 413, 422) else AccessError
        with serve(reject=(status, {"error": {"message": "it is wrong"}})) as server, pytest.raises(kind, match=hint):
            generate(server, api_key_env="MY_KEY")
        assert (server.requests, server.status) == (1, {str(status): 1})

    @pytest.mark.parametrize("error", [{"error": {"message": "M"}}, {"error": "M"}, {"message": "M"}, {"detail": "M"}, "M"])
    def test_the_message_is_found_wherever_it_stands(self, error: Any) -> None:
        with serve(reject=(400, error)) as server, pytest.raises(RequestError, match=r"HTTP 400: M$"):
            generate(server)

    def test_the_message_is_trimmed_and_printable(self) -> None:
        with serve(reject=(400, {"error": {"message": "\x1b[2J\x00\n" + "long " * 200}})) as server, pytest.raises(RequestError) as caught:
            generate(server)
        text = str(caught.value)
        assert text.isprintable() and text.endswith("...") and len(text.split("HTTP 400: ")[1]) == 300

    def test_a_field_that_the_endpoint_does_not_know_is_named(self) -> None:
        with (
            serve(reject=(422, {"detail": "extra field top_k"})) as server,
            pytest.raises(RequestError, match=r"may not know top_k; set induce\.top_k and respond\.top_k to 0"),
        ):
            generate(server)

    @pytest.mark.parametrize(
        ("said", "remedy"),
        [
            ("Unsupported parameter: 'logprobs' is not supported with this model.", "set 'logprobs: false' for this model"),
            ("Unsupported value: 'n' does not support 2 with this model.", "set induce.candidates and respond.drafts to 1"),
            ("the context is too long", "the context is too long"),
        ],
    )
    def test_a_parameter_that_the_model_does_not_take_has_a_way_out(self, said: str, remedy: str) -> None:
        with serve(reject=(400, {"error": {"message": said}})) as server, pytest.raises(RequestError) as caught:
            generate(server, n=2, want_logprobs=True)
        assert str(caught.value).endswith(remedy)


class TestKey:
    def test_it_is_sent_in_the_header(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OPENAI_API_KEY", f"{KEY}\n")
        with serve() as server:
            generate(server)
        assert server.seen[0][2] == f"Bearer {KEY}"

    def test_it_is_never_shown(self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        with caplog.at_level("DEBUG"):
            for status in (401, 500):
                with (
                    serve(reject=(status, {"error": {"message": f"bad key {KEY}!" + "x" * 290 + KEY}})) as server,
                    pytest.raises(ModelError, match=r"bad key \[key\]!") as caught,
                ):
                    generate(server, retries=1)
                assert "sk-" not in "".join(traceback.format_exception(caught.value))
        model = OpenAIModel("m", base_url="http://user:pass@127.0.0.1:1/v1")
        assert not [s for s in (repr(model), str(model), model.name, model.fingerprint, caplog.text) if KEY in s or "pass" in s or "user" in s]

    def test_a_password_in_the_address_serves_where_there_is_no_key(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with serve() as server:
            url = server.base_url.replace("//", "//user:pass@")
            for _ in range(2):
                model = OpenAIModel("m", base_url=url)
                run(model, model.generate(Generation(RAW, Sampling())))
                monkeypatch.setenv("OPENAI_API_KEY", KEY)
        assert [authorization for _, _, authorization in server.seen] == ["Basic dXNlcjpwYXNz", f"Bearer {KEY}"]
        assert model.fingerprint == f"openai:m@{server.base_url}"

    def test_a_password_that_the_server_quotes_is_never_shown(self) -> None:
        with serve(reject=(500, {"error": {"message": "user:p%40ss, p@ss and Basic dXNlcjpwQHNz are wrong"}})) as server:
            model = OpenAIModel("m", base_url=server.base_url.replace("//", "//user:p%40ss@"), limits=Limits(retries=0))
            with pytest.raises(ModelError) as caught:
                run(model, model.generate(Generation(RAW, Sampling())))
        said = "".join(traceback.format_exception(caught.value))
        assert "user:[key], [key] and Basic [key] are wrong" in said and "dXNlcj" not in said

    def test_a_missing_one_is_told_on_construction(self) -> None:
        with pytest.raises(ModelError, match="set the environment variable MY_KEY"):
            OpenAIModel("gpt", api_key_env="MY_KEY")

    @pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.9.9.9", "[::1]", "vllm.localhost"])
    def test_this_machine_needs_none(self, host: str) -> None:
        assert OpenAIModel("m", base_url=f"http://{host}:8000/v1").fingerprint == f"openai:m@http://{host}:8000/v1"

    def test_one_that_cannot_stand_in_a_header_is_refused_unseen(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OPENAI_API_KEY", "sk-a\nb")
        with pytest.raises(ModelError, match="OPENAI_API_KEY holds characters") as caught:
            OpenAIModel("gpt")
        assert "sk-" not in str(caught.value)

    @pytest.mark.parametrize("url", ["", "api.openai.com/v1", "ftp://host/v1", "http://", "http://host:port/v1", "http://[::1/v1"])
    def test_an_address_that_is_none_is_refused(self, url: str) -> None:
        with pytest.raises(ModelError, match="base_url is no address"):
            OpenAIModel("m", base_url=url)


class TestConcurrency:
    def test_it_is_limited(self) -> None:
        with serve(latency_s=0.03) as server:
            ask_many(server, 20, concurrency=4)
        assert server.peak == 4

    def test_a_call_that_waits_for_its_next_attempt_holds_no_slot(self) -> None:
        with serve(rate_limit=1.0, retry_after="0.4", per_body=1, match="umbrella. 0") as server:
            server.may_answer.clear()
            ask_many(server, 3, once_in_line=server.may_answer.set, concurrency=1)
        assert [body["prompt"][-1] for _, body, _ in server.seen] == ["0", "1", "2", "0"]

    def test_cancelling_passes_through(self) -> None:
        with serve(hang=1.0) as server:
            model = OpenAIModel("m", base_url=server.base_url)

            async def work() -> None:
                task = asyncio.create_task(model.generate(Generation(RAW, Sampling())))
                while not server.in_flight:  # noqa: ASYNC110 - the server runs in another thread
                    await asyncio.sleep(0.01)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task

            run(model, work())
        assert server.requests == 1
