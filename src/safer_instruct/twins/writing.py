"""Who writes a twin: a model that rewrites the instruction, or one that goes on as the user (Magpie, Xu et al. 2024, section 2)."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from safer_instruct.domain import Domain
from safer_instruct.example import Candidate, Example
from safer_instruct.models.protocol import UNFINISHED_USER, Completion, Generation, Model, Prompt, Sampling, Turn
from safer_instruct.reverse import bare
from safer_instruct.seeds import derive_seed
from safer_instruct.settings.sides import PREFIXES, TwinsConfig
from safer_instruct.stages.fence import mark_for
from safer_instruct.stages.withheld import content_filter
from safer_instruct.templates import Template

_CONTROL = re.compile(r"<(?=[\w/|])|\[(?=/?INST\])")  # how control tokens begin that a raw prompt could spell out


@dataclass(frozen=True, slots=True)
class TwinWriter:
    """Draws candidates for twins.

    Attributes:
        model: An aligned, instruction-following model.
        template: It is given `instruction`, `definition` and `mark`; for `sample` it is the system prompt.
        domain: Holds the definitions.
        config: How many, and how they are drawn.
        seed: The run's seed.
        knows_its_template: For `sample`: the model takes a chat that breaks off in the user's turn.
    """

    model: Model
    template: Template
    domain: Domain
    config: TwinsConfig
    seed: int
    knows_its_template: bool = True

    async def write(self, twin: Example) -> Example:
        """Candidates for `twin.text`, the instruction that the twin is to look like.

        Raises:
            ModelError: The model failed after its retries.
        """
        config = self.config
        sampling = Sampling(max_tokens=config.max_tokens, temperature=config.temperature, n=config.candidates)
        answer = await self.model.generate(Generation(self.prompt(twin), sampling, derive_seed(self.seed, "twin", twin.text)))
        if answer.withheld:
            return twin.with_verdicts(content_filter("twins", answer.withheld))
        read = replace(answer, completions=tuple(self._read(c, twin) for c in answer.completions))
        return replace(twin, candidates=tuple(Candidate(c.text, c.total_logprob, c.finished) for c in read.ranked(whole=True)))

    def prompt(self, twin: Example) -> Prompt:
        """What the model is given.

        Raises:
            ConfigError: The template asks for a value that it is not given.
        """
        definition = self.domain.category(twin.category).definition
        asked = self.template.render(instruction=twin.text, definition=definition, mark=mark_for(twin.text)).strip()
        if self.config.by == "rewrite":
            return (Turn("user", asked),)
        lead = self._lead(twin)
        if self.knows_its_template:
            return (Turn("system", asked), Turn(UNFINISHED_USER, lead))
        prefix = self.config.prefix or ""
        return PREFIXES.get(prefix, prefix).replace("{system}", _defused(asked)) + _defused(lead)

    def _lead(self, twin: Example) -> str:
        return " ".join(twin.text.split()[: self.config.lead])

    def _read(self, completion: Completion, twin: Example) -> Completion:
        """The twin in what was written; of one who speaks as the user, all of it belongs to the twin."""
        if self.config.by == "rewrite":
            return replace(completion, text=bare(completion.text.strip()))
        return replace(completion, text=f"{self._lead(twin)} {completion.text.strip()}".strip())


def _defused(text: str) -> str:
    """`text` without control tokens: a raw prompt is all that keeps it in its place."""
    return _CONTROL.sub(lambda found: f"{found.group()} ", text)
