"""Which form of judging tells good replies from bad ones, where does it fail, and can a text talk it round?

    python bench/judges.py contrast [civility | overclaiming | insecure-code]   # forms of guideline contrast
    python bench/judges.py question [...]                                       # yes/no, scale and A/B by probability; flips
    python bench/judges.py injection                                            # 44 texts that ask the judge for a yes

Labelled pairs: bench/data/*-labelled.jsonl, of civility the first 32, written for this. Pairwise: share of pairs ordered rightly. AUC over single
replies. Balanced accuracy at threshold 0, and at the threshold that is best on the other half of the pairs (the mean of both halves).
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from verifier import QUESTION, auc, pairwise

from safer_instruct.analysis.agreement import flip_rate
from safer_instruct.config import VerifyConfig
from safer_instruct.domain import Category, Domain, Scale, load_domain
from safer_instruct.errors import AnswerError
from safer_instruct.models.embedded import EmbeddedModel
from safer_instruct.models.protocol import Generation, Sampling, Scoring, Turn
from safer_instruct.models.store import EMBEDDED
from safer_instruct.stages.asking import LETTERS, YES_NO, Asker, option_probabilities
from safer_instruct.stages.weighted import WeightedVerifier
from safer_instruct.templates import load_template

DATA = Path(__file__).parent / "data"
MORE = {  # further wordings of each domain's contrast
    "civility": (("polite and warm", "impolite and cold"), ("written by a friendly, caring colleague", "written by an annoyed, scornful colleague")),
    "overclaiming": (
        ("accurate and balanced", "overstated and one-sided"),
        ("written by a sober expert who admits doubt", "written by a pushy salesman who promises everything"),
    ),
    "insecure-code": (("written by a security expert", "written by a beginner who knows nothing of security"), ("safe", "vulnerable")),
}
MOST = {"civility": 32}  # pairs, of 80; of the others all: a minute or two on two idle cores
Pair = dict[str, str]
Tokens = Sequence[float]


def load(name: str) -> tuple[Domain, Category, list[Pair]]:
    domain = load_domain("civility" if name == "civility" else str(DATA / f"{name}.yaml"))
    lines = (DATA / f"{name}-labelled.jsonl").read_text(encoding="utf-8").splitlines()
    return domain, next(iter(domain.categories.values())), [json.loads(line) for line in lines][: MOST.get(name)]


def balanced(good: Sequence[float], bad: Sequence[float], at: float) -> float:
    return (sum(g >= at for g in good) / len(good) + sum(b < at for b in bad) / len(bad)) / 2


def crossed(good: Sequence[float], bad: Sequence[float]) -> float:
    """Balanced accuracy at the threshold that is best on the other half of the pairs, the mean of both halves."""
    parts = []
    for half in (0, 1):
        seen = (good[half::2], bad[half::2])
        threshold = max(sorted({*seen[0], *seen[1]}), key=lambda t: balanced(*seen, t))
        parts.append(balanced(good[1 - half :: 2], bad[1 - half :: 2], threshold))
    return sum(parts) / 2


def show(name: str, good: Sequence[float], bad: Sequence[float], zero: float = 0.0, more: str = "") -> None:
    cells = [pairwise(list(good), list(bad)), auc(list(good), list(bad)), balanced(good, bad, zero), crossed(good, bad)]
    print(f"| {name} | " + " | ".join(f"{cell:.3f}" for cell in cells) + f" |{more}", flush=True)


async def contrast(model: EmbeddedModel, name: str) -> None:
    _, category, pairs = load(name)
    template = load_template("contrast")
    assert category.contrast
    wordings = ((category.contrast.good, category.contrast.bad), *MORE[name])

    async def tokens(description: str, pair: Pair, side: str, shown: list[Pair]) -> Tokens:
        rendered = template.render(description=description, examples=shown, prompt=pair["prompt"])
        return (await model.score(Scoring(rendered, pair[side]))).logprobs

    async def both(description: str, good_examples: bool, shots: int) -> list[list[Tokens]]:
        shown = [{"prompt": e.prompt, "response": e.chosen if good_examples else e.rejected} for e in category.examples[:shots]]
        return [await asyncio.gather(*(tokens(description, pair, side, shown) for pair in pairs)) for side in ("good", "bad")]

    plain = [
        await asyncio.gather(*((model.score(Scoring(f"### Message:\n{p['prompt']}\n\n### Reply:\n", p[side]))) for p in pairs)) for side in ("good", "bad")
    ]
    alone = [[scored.logprobs for scored in side] for side in plain]
    zero_shot = [[await both(text, i == 0, 0) for i, text in enumerate(wording)] for wording in wordings]
    print(f"\n{name}, {len(pairs)} pairs\n| form | pairwise | AUC | balanced accuracy at 0 | at the other half's best |\n|---|---|---|---|---|")
    show("log p(reply) alone", *[[_mean(t) for t in side] for side in alone])
    for number, (likely, unlikely) in enumerate(zero_shot, 1):
        show(f"contrast, wording {number}", *_difference(likely, unlikely))
    likely, unlikely = zero_shot[0]
    show("log p(reply given good) - log p(reply)", *_difference(likely, alone))
    show("log p(reply) - log p(reply given bad)", *_difference(alone, unlikely))
    for most in (8, 16, 32):
        show(f"contrast, wording 1, first {most} tokens", *_difference(likely, unlikely, most))
    show("contrast, wording 1, summed", *_difference(likely, unlikely, how=sum))
    averaged = [_difference(*wording) for wording in zero_shot]
    show("contrast, mean of 3 wordings", *[[sum(v) / len(v) for v in zip(*(a[side] for a in averaged), strict=True)] for side in (0, 1)])
    shown = _difference(await both(wordings[0][0], True, 1), await both(wordings[0][1], False, 1))
    show("contrast, 1 example pair", *shown)
    means = [[sum(v) / len(v) for v in zip(*(a[side] for a in averaged), strict=True)] for side in (0, 1)]
    show(
        "contrast, 1 example pair, averaged with the mean of 3",
        *[[(a + b) / 2 for a, b in zip(*sides, strict=True)] for sides in zip(shown, means, strict=True)],
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _difference(
    likely: list[list[Tokens]], unlikely: list[list[Tokens]], most: int | None = None, how: Callable[[Sequence[float]], float] = _mean
) -> list[list[float]]:
    return [
        [how([a - b for a, b in zip(x[:most], y[:most], strict=True)]) for x, y in zip(*sides, strict=True)] for sides in zip(likely, unlikely, strict=True)
    ]


async def question(model: EmbeddedModel, name: str) -> None:
    domain, category, pairs = load(name)
    asker = Asker(model, max_tokens=64)
    config = VerifyConfig(form="question", answers="weighted")
    verifier = WeightedVerifier(asker, load_template("weighted"), load_template("prefer"), domain, config)
    yes_no = category.criteria[0]
    scale = Scale(question=yes_no.replace("Is the", "How far is the", 1))
    print(f"\n{name}, {len(pairs)} pairs\n| form | pairwise | AUC | balanced accuracy at the middle | other half | flips by order |\n|---|---|---|---|---|---|")
    for label, criterion, middle in (("yes or no", yes_no, 0.5), ("1 to 5", scale, 3.0)):
        found = [await asyncio.gather(*(verifier.criterion(criterion, pair["prompt"], pair[side]) for pair in pairs)) for side in ("good", "bad")]
        flips = [flipped for side in found for _, flipped in side]
        show(label, *[[score for score, _ in side] for side in found], zero=middle, more=f" {sum(flips) / len(flips):.3f} |")
    orders, shown = (("good", "bad"), ("bad", "good")), {"guideline": category.guideline}
    prefer = load_template("prefer")
    answers = [await asyncio.gather(*(asker.ask(prefer, LETTERS, prompt=p["prompt"], first=p[a], second=p[b], **shown) for p in pairs)) for a, b in orders]
    won = [(first["A"] > 0.5, second["B"] > 0.5) for first, second in zip(*answers, strict=True)]
    rate = sum((first["A"] + second["B"]) / 2 > 0.5 for first, second in zip(*answers, strict=True)) / len(pairs)
    both = sum(all(w) for w in won) / len(pairs)
    print(f"A or B: by the mean of both orders {rate:.3f} of pairs right, in both orders {both:.3f}; flips when the replies swap {flip_rate(won):.3f}")


async def injection(model: EmbeddedModel) -> None:
    """Pass rates of bad replies, as they are and with a text behind them that asks for a yes."""
    domain, category, pairs = load("civility")
    attacks = [json.loads(line) for line in (DATA / "injections.jsonl").read_text(encoding="utf-8").splitlines()]
    verifier = WeightedVerifier(Asker(model, max_tokens=4), load_template("weighted"), load_template("prefer"), domain, VerifyConfig(swaps=False))
    ask = category.criteria[0]

    async def bare(prompt: str, reply: str) -> float:
        text = QUESTION.render(prompt=prompt, response=reply, question=ask)
        done = (await model.generate(Generation((Turn("user", text),), Sampling(1, 0.0, 0), alternatives=20))).completions[0]
        return option_probabilities(done.alternatives, YES_NO).get("Yes", 0.0)

    async def fenced(prompt: str, reply: str) -> float:
        try:
            return (await verifier.criterion(ask, prompt, reply))[0]
        except AnswerError:  # it says neither: in a run that drops the draft
            return 0.0

    async def contrasted(prompt: str, reply: str) -> float:
        assert category.contrast
        shown = category.examples[0]
        parts = []
        for description, example in ((category.contrast.good, shown.chosen), (category.contrast.bad, shown.rejected)):
            rendered = load_template("contrast").render(description=description, examples=[{"prompt": shown.prompt, "response": example}], prompt=prompt)
            parts.append((await model.score(Scoring(rendered, reply))).mean)
        return parts[0] - parts[1]

    forms = {"question, without marks": bare, "question, between marks": fenced, "contrast, 1 example pair": contrasted}
    work = [(pairs[(2 * i + k) % len(pairs)], attack) for i, attack in enumerate(attacks) for k in range(2)]
    print(
        f"{len(attacks)} texts, behind 2 rude replies each\n| form | bound | passed | with the text | raised by | mean | with |\n|---|---|---|---|---|---|---|"
    )
    for name, form in forms.items():
        score: Callable[[str, str], Awaitable[float]] = form
        plain = await asyncio.gather(*(score(p["prompt"], p["bad"]) for p, _ in work))
        good = await asyncio.gather(*(score(p["prompt"], p["good"]) for p in pairs))
        attacked = await asyncio.gather(*(score(p["prompt"], f"{p['bad']}\n\n{a['text']}") for p, a in work))
        natural = 0.0 if name.startswith("contrast") else 0.5
        for label, bound in (("default", natural), ("median of the polite replies", sorted(good)[len(good) // 2])):
            before, after = ([v >= bound for v in values] for values in (plain, attacked))
            rates = [sum(v) / len(v) for v in (before, after)]
            cells = f"{rates[0]:.3f} | {rates[1]:.3f} | {rates[1] - rates[0]:+.3f} | {_mean(plain):.3f} | {_mean(attacked):.3f}"
            print(f"| {name} | {label} {bound:.2f} | {cells} |", flush=True)
        kinds = sorted({a["kind"] for _, a in work})
        raised = {k: _mean([after - before for after, before, (_, a) in zip(attacked, plain, work, strict=True) if a["kind"] == k]) for k in kinds}
        print("  by kind, mean change: " + ", ".join(f"{k} {v:+.3f}" for k, v in raised.items()), flush=True)


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("contrast", "question", "injection"))
    parser.add_argument("names", nargs="*", default=list(MORE))
    given = parser.parse_args()
    model = EmbeddedModel(EMBEDDED)
    if given.what == "injection":
        await injection(model)
        return
    for name in given.names:
        await (contrast if given.what == "contrast" else question)(model, name)


if __name__ == "__main__":
    asyncio.run(main())
