"""Filters that ask the detectors (`safer_instruct.detect`): leakage, refusals, personal data, credentials, injections, junk, benchmarks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PrivateAttr

from safer_instruct.detect.contamination import BenchmarkIndex, read_prompts
from safer_instruct.detect.gibberish import gibberish_reason
from safer_instruct.detect.injection import find_injections
from safer_instruct.detect.leakage import measure_leakage, without_said
from safer_instruct.detect.pii import find_pii
from safer_instruct.detect.refusal import classify
from safer_instruct.detect.secrets import find_secrets
from safer_instruct.detect.spans import Span, counted, masked
from safer_instruct.example import Example
from safer_instruct.filters.meaning import BenchmarkMeaning
from safer_instruct.filters.protocol import Filter, Finding
from safer_instruct.filters.refusal_reader import reader_if
from safer_instruct.filters.rules import said_already

_Share = Annotated[float, Field(ge=0, le=1)]
_PiiKind = Literal["email", "url", "iban", "ip", "ssn", "card", "phone"]
_InjectionKind = Literal["override", "role", "extract", "judge", "channel", "hidden"]


class Leakage(Filter):
    """Instructions that hold too much of the response they were induced from.

    Attributes:
        max_run: Longest run of words in common.
        max_contained: Largest share of the response's word trigrams that may stand in the instruction.
        max_covered: Largest share of the response's content words that may stand in the instruction.
        allow_quotes: Do not count a block that the instruction quotes for a task on it (rewrite, translate, classify ...).
    """

    on: Literal["prompt"] = "prompt"
    max_run: Annotated[int, Field(gt=0)] = 7
    max_contained: _Share = 0.5
    max_covered: _Share = 1.0
    allow_quotes: bool = True

    def check(self, example: Example) -> Finding:
        """Compare instruction and text; the score is the longest run in common.

        What the text repeats of its conversation is no secret that an instruction could give away.
        """
        if said := said_already(example):
            return Finding(False, None, said)
        found = self._measured(example, example.text)
        if example.history and not found.passed:
            relieved = self._measured(example, without_said(example.text, [turn.content for turn in example.history]))
            return relieved if relieved.passed else found
        return found

    def _measured(self, example: Example, text: str) -> Finding:
        found = measure_leakage(example.prompt, text, allow_quotes=self.allow_quotes)
        reasons = (
            (found.identical, "is the text itself"),
            (found.whole, "contains the whole text"),
            (found.longest > self.max_run, f"shares a run of {found.longest} words with the text, more than {self.max_run}"),
            (found.contained > self.max_contained, f"holds {found.contained:.0%} of the text's word trigrams, more than {self.max_contained:.0%}"),
            (found.covered > self.max_covered, f"holds {found.covered:.0%} of the text's content words, more than {self.max_covered:.0%}"),
        )
        reason = next((reason for wrong, reason in reasons if wrong), "")
        return Finding(not reason, found.longest, reason)


class Refusing(Filter):
    """Answers that refuse: a source text before induction, the accepted response after it.

    Attributes:
        drop_partial: Partial refusals do not pass either.
        min_confidence: Of the detector, from which a refusal counts.
        reader: Where words do not tell clearly, the embedded model reads the answer (extra `local`): right more often, and some dozens of
            milliseconds for each that it reads.
    """

    on: Literal["text", "pair"]
    drop_partial: bool = False
    min_confidence: _Share = 0.5
    reader: bool = False

    def model_post_init(self, context: Any) -> None:
        """Open the model now, so that a missing one is known before the run."""
        reader_if(self.reader)

    def check(self, example: Example) -> Finding:
        """Classify the answer; the score is the confidence in its class."""
        found = classify(self.subject(example), example.prompt, reader_if(self.reader))
        refuses = found.label == "refusal" or (found.label == "partial" and self.drop_partial)
        how = "refuses in part" if found.label == "partial" else "refuses"
        return Finding(not refuses or found.confidence < self.min_confidence, found.confidence, f"{how}: {found.span[:60]!r}")


class _Kept(Filter):
    """A filter on what is kept of a source: on source texts it also looks at what was said before them, which stands in the prompts."""

    def texts(self, example: Example) -> list[str]:
        """What is looked at."""
        return [self.subject(example), *(turn.content for turn in example.history if self.on == "text")]


class Pii(_Kept):
    """Texts with personal data.

    Attributes:
        kinds: What counts.
    """

    kinds: tuple[_PiiKind, ...] = ("email", "phone", "iban", "card", "ssn", "ip")

    def check(self, example: Example) -> Finding:
        """Look for personal data; the score is the number of findings."""
        return _none_of([span for text in self.texts(example) for span in find_pii(text, self.kinds)])

    def mend(self, example: Example) -> str:
        """The text with `<email>` in the place of each address, and so on."""
        return masked(example.text, find_pii(example.text, self.kinds))


class Secrets(_Kept):
    """Texts with credentials."""

    def check(self, example: Example) -> Finding:
        """Look for credentials; the score is the number of findings."""
        return _none_of([span for text in self.texts(example) for span in find_secrets(text)])

    def mend(self, example: Example) -> str:
        """The text with the kind of each credential in its place."""
        return masked(example.text, find_secrets(example.text))


class Injection(_Kept):
    """Texts with marks of prompt injection.

    Attributes:
        kinds: What counts.
    """

    kinds: tuple[_InjectionKind, ...] = ("override", "role", "extract", "judge", "channel", "hidden")

    def check(self, example: Example) -> Finding:
        """Look for marks; the score is the number of kinds."""
        return _none_of([span for text in self.texts(example) for span in find_injections(text) if span.kind in self.kinds])


class Gibberish(Filter):
    """Texts that are no language, code or list."""

    def check(self, example: Example) -> Finding:
        """Look for what speaks against it being a text."""
        reason = gibberish_reason(self.subject(example))
        return Finding(not reason, None, f"is gibberish: {reason}")


class Contamination(Filter):
    """Instructions that stand in a benchmark: thirteen words in a row, or a shorter prompt as a whole; or, if wanted, in other words.

    Attributes:
        benchmarks: Name -> file of prompts, JSONL or one a line, relative to the config.
        semantic: Cosine from which an instruction counts as a benchmark's prompt in other words; null: only words in a row count.
        embedder: `static`, `minilm`, or `sentence-transformers:NAME-OR-FOLDER`; what a cosine means depends on it.
    """

    on: Literal["prompt"] = "prompt"
    benchmarks: dict[str, str] = Field(default_factory=dict)
    semantic: Annotated[float, Field(gt=0, le=1)] | None = None
    embedder: str = "static"
    _index: BenchmarkIndex = PrivateAttr()
    _meaning: BenchmarkMeaning | None = PrivateAttr(default=None)

    def model_post_init(self, context: Any) -> None:
        """Read the files now, so that a missing one is known before the run."""
        base = context["base"] if context else Path()
        prompts = [(name, read_prompts(base / file)) for name, file in self.benchmarks.items()]
        self._index = BenchmarkIndex(prompts)
        if self.semantic is not None:
            self._meaning = BenchmarkMeaning(prompts, self.embedder)

    def check(self, example: Example) -> Finding:
        """Look the instruction up."""
        found = self._index.find(example.prompt)
        if found:
            return Finding(False, None, f"stands in benchmark '{found.benchmark}': {found.prompt[:60]!r}")
        if self._meaning is None or self.semantic is None:
            return Finding(True)
        cosine, name, prompt = self._meaning.nearest(example.prompt)
        return Finding(cosine < self.semantic, round(cosine, 4), f"means the same as a prompt of benchmark '{name}' (cosine {cosine:.2f}): {prompt[:60]!r}")


def _none_of(spans: list[Span]) -> Finding:
    """Passes where nothing was found; never shows what was."""
    held = ", ".join(f"{count} {kind}" for kind, count in counted(spans).items())
    return Finding(not spans, len(spans), f"holds {held}")
