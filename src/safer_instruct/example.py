"""The only data that moves between rooms: `Example`, and the small records it is made of. All frozen."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one check said of one example.

    Attributes:
        name: The check, for example `prompt.length` or `consistency`.
        passed: False drops the example (or, for a candidate, that candidate), unless it is only flagged.
        score: The number the check looked at, where it has one; its unit is the check's own.
        reason: One sentence, empty when the check passed.
        flag: True for a check that only records what it finds.
    """

    name: str
    passed: bool
    score: float | None = None
    reason: str = ""
    flag: bool = False

    @property
    def drops(self) -> bool:
        """True where it stands in the way of what it looked at."""
        return not self.passed and not self.flag


@dataclass(frozen=True, slots=True)
class Turn:
    """One message of a conversation.

    Attributes:
        role: `user`, `assistant` or `system`.
        content: What was said.
    """

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Candidate:
    """One instruction, chosen or not: induced, or as the source gives it.

    Attributes:
        text: The instruction.
        logprob: Log P(instruction | response) under the inducer, in nats, of the whole instruction; None when the model gives none.
        finished: False when it was cut at the token limit.
        verdicts: What the gates said; empty when an earlier candidate was already taken.
    """

    text: str
    logprob: float | None = None
    finished: bool = True
    verdicts: tuple[Verdict, ...] = ()


@dataclass(frozen=True, slots=True)
class Draft:
    """One response written by the expert (or the student), accepted or not.

    Attributes:
        text: The response.
        attempt: 0 for the first round, 1 for the first regeneration, and so on.
        logprob: Mean log-probability per token under the expert, in nats; None when the model gives none.
        finished: False when it was cut at the token limit.
        margin: How much better than the rejected text the verifier found the chosen one, in the verifier's unit.
        verdicts: What the verifiers said; empty when an earlier draft was already taken.
        expert: Who wrote it: the role (`expert`, `student`), or the name of one of several experts.
        revision: 0 for a draft that was drawn, 1 for one that mends such a draft, 2 for one that mends that, and so on.
    """

    text: str
    attempt: int
    logprob: float | None = None
    finished: bool = True
    margin: float | None = None
    verdicts: tuple[Verdict, ...] = ()
    expert: str = ""
    revision: int = 0

    @property
    def passed(self) -> bool:
        """True while no verifier stands in its way."""
        return not any(v.drops for v in self.verdicts)

    @property
    def rank(self) -> float:
        """Its margin, for comparing; below all others where it has none."""
        return self.margin if self.margin is not None else float("-inf")


@dataclass(frozen=True, slots=True)
class Example:
    """One source text on its way to a preference pair; fields fill from left to right, none is ever emptied.

    Attributes:
        id: The user's id, or a digest of the text; unique within a run.
        text: The source text: the rejected response, or the chosen one where the domain's direction says so.
        category: One of the domain's categories.
        file: Where the text came from.
        line: Row within that file, counted from 1.
        candidates: Induced instructions, likeliest first; or the one that the source gives, where the config keeps it.
        prompt: The instruction that was taken; empty until then.
        chosen: The chosen response: the expert's accepted one, or the source text; empty until one was accepted.
        rejected: The rejected response where it is not the source text: the student's accepted one, a rewrite of the source text, or a
            twin's needless refusal; otherwise empty.
        margin: The verifier's margin of chosen over rejected.
        drafts: Every response that was written.
        verdicts: What every check said, in order; the first that did not pass, and was no flag, dropped the example.
        history: What was said before the prompt, user and assistant in turn; empty where the text begins a conversation.
        license: Licence of the source text, where it has one of its own.
        place: Where a passage stands in its document; `line` is then the number of its first paragraph.
        twin_of: Of a contrast twin the id of the pair that it looks like, whose instruction is its `text`; otherwise empty.
    """

    id: str
    text: str
    category: str
    file: str
    line: int
    candidates: tuple[Candidate, ...] = ()
    prompt: str = ""
    chosen: str = ""
    rejected: str = ""
    margin: float | None = None
    drafts: tuple[Draft, ...] = ()
    verdicts: tuple[Verdict, ...] = ()
    history: tuple[Turn, ...] = ()
    license: str = ""
    place: str = ""
    twin_of: str = ""

    @property
    def rejected_text(self) -> str:
        """The rejected response, wherever it came from."""
        return self.rejected or self.text

    @property
    def source_is_chosen(self) -> bool:
        """Whether the source text became the chosen response; no draft that repeats it is accepted, and the text of a twin is an instruction."""
        return bool(self.chosen) and self.chosen == self.text and not self.twin_of

    @property
    def accepted(self) -> Draft | None:
        """The draft that became the other side than the source text's; of several with its text the one with the largest margin.

        What took the place of the source text as the rejected response is another draft.
        """
        written = self.rejected if self.source_is_chosen else self.chosen
        return max((d for d in self.drafts if written and d.text == written and d.passed), key=lambda d: d.rank, default=None)

    @property
    def dropped_by(self) -> Verdict | None:
        """The verdict that dropped this example, or None while it is alive."""
        return next((v for v in self.verdicts if v.drops), None)

    @property
    def ended_with(self) -> Draft | None:
        """The draft that its last verdicts are of; of several with the same ones the last, and None where they are of no draft."""
        return next((d for d in reversed(self.drafts) if d.verdicts and d.verdicts == self.verdicts[-len(d.verdicts) :]), None)

    @property
    def drop_reason(self) -> str:
        """Why it was dropped, and of which of several drafts that is said; empty while it is alive."""
        dropped, draft = self.dropped_by, self.ended_with
        if not dropped or not draft or dropped not in draft.verdicts or len(self.drafts) == 1:
            return dropped.reason if dropped else ""
        number = next(number for number, one in enumerate(self.drafts, 1) if one is draft)
        best = "" if draft.margin is None else ", the best of the last round"
        return f"{dropped.reason} (draft {number} of {len(self.drafts)}{best})"

    @property
    def alive(self) -> bool:
        """True while no verdict has dropped this example."""
        return self.dropped_by is None

    def with_verdicts(self, *verdicts: Verdict) -> Example:
        """A copy with `verdicts` appended."""
        return replace(self, verdicts=(*self.verdicts, *verdicts))
