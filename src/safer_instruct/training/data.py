"""Preference pairs from their files to token ids on the two sides of the split, with every row accounted for."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from safer_instruct.errors import SourceError
from safer_instruct.models.codec import Codec
from safer_instruct.models.protocol import Prompt, Turn
from safer_instruct.settings.pairs import Holdout
from safer_instruct.settings.preference import DpoConfig, PreferenceConfig, PreferenceSource
from safer_instruct.sources import BadRow
from safer_instruct.training.preferences import Preference, read_preferences
from safer_instruct.tuning.loss import Encoded
from safer_instruct.tuning.split import split, straddling


@dataclass(frozen=True, slots=True)
class Cut:
    """What did not fit into `max_tokens`, of the pairs on both sides of the split.

    Attributes:
        at: That many tokens.
        of: How many pairs there are.
        prompts: How many lost their beginning.
        chosen: Of how many the chosen response lost its end, and the end token with it.
        rejected: Of how many the other one did, where it is trained on.
    """

    at: int
    of: int
    prompts: int
    chosen: int
    rejected: int

    def told(self) -> list[str]:
        """A line for the responses, and one for the prompts, where some were cut."""
        sides = " and ".join(f"{n} of {self.of} {side}" for side, n in (("chosen", self.chosen), ("rejected", self.rejected)) if n)
        responses = f"{sides} responses were cut at max_tokens: {self.at}; a model that sees no end does not learn to stop: write a larger max_tokens"
        prompts = f"{self.prompts} of {self.of} prompts were cut at max_tokens: {self.at}; their last tokens were kept"
        return [line for line, some in ((responses, sides), (prompts, self.prompts)) if some]


@dataclass(frozen=True, slots=True)
class Divided:
    """Preference pairs, read and divided; `rows = set aside + duplicates + straddling + beyond + train + held_out`.

    Attributes:
        train: Pairs to train on, in input order.
        held_out: Pairs held out, in input order.
        duplicates: Pairs that came a second time.
        straddling: Pairs dropped from the training side because one held out has nearly the same prompt or rejected response.
        beyond: Pairs dropped from the training side because so many were not asked for.
        bad_rows: What could not be read.
        cut: What did not fit, once the pairs are encoded.
    """

    train: tuple[Preference, ...]
    held_out: tuple[Preference, ...]
    duplicates: int
    straddling: int
    beyond: int = 0
    bad_rows: tuple[BadRow, ...] = field(repr=False, default=())
    cut: Cut | None = None

    @property
    def sha256(self) -> str:
        """Digest of what is trained on and what is held out."""
        sides = [[(p.prompt, p.response, p.rejected, p.source, [asdict(t) for t in p.history]) for p in side] for side in (self.train, self.held_out)]
        return hashlib.sha256(json.dumps(sides).encode()).hexdigest()

    def counts(self) -> dict[str, int]:
        """How many went where."""
        return {
            "set_aside": len(self.bad_rows),
            "duplicates": self.duplicates,
            "straddling": self.straddling,
            "beyond": self.beyond,
            "train": len(self.train),
            "held_out": len(self.held_out),
        }


def read_unique(sources: Sequence[PreferenceSource], base: Path) -> tuple[list[Preference], int, tuple[BadRow, ...]]:
    """The pairs of `sources`, each once; how many came again; and the rows that gave none.

    Raises:
        SourceError: A source is missing, or no row is usable.
    """
    bad: list[BadRow] = []
    pairs: dict[tuple[object, ...], Preference] = {}
    found = 0
    for item in read_preferences(sources, base):
        if isinstance(item, BadRow):
            bad.append(item)
            continue
        found += 1
        pairs.setdefault((item.history, item.prompt, item.response, item.rejected), item)
    if not pairs:
        where = ", ".join(source.path for source in sources)
        first = "; of a run 'safer-instruct filters DIR' tells why"
        if bad:
            first = f"; the first of {len(bad)}, {bad[0].told}"
        named = "; say which column is which: 'prompt', 'chosen' and 'rejected' of this source, or --prompt, --chosen and --rejected"
        raise SourceError(f"{where}: no usable preference pair{first}{named if bad and bad[0].reason.startswith('no column') else ''}")
    return list(pairs.values()), found - len(pairs), tuple(bad)


def divide(sources: Sequence[PreferenceSource], holdout: Holdout, base: Path, max_pairs: int | None = None) -> Divided:
    """Read and divide preference pairs; the side of a pair is decided by the hash of its prompt, or by its group.

    Args:
        sources: Where they are.
        holdout: Which are held out.
        base: What paths are relative to.
        max_pairs: Train on so many at most.

    Raises:
        SourceError: A source is missing, no row is usable, or a side of the split is empty.
    """
    pairs, duplicates, bad = read_unique(sources, base)
    train, held_out = split(pairs, holdout)
    straddles = straddling(train, held_out, holdout, ("prompt", "rejected"))  # chosen ones may be alike: a refusal often is
    kept = [pair for pair in train if pair not in straddles]
    if not kept:
        raise SourceError(f"every pair to train on is nearly the same as one of the {len(held_out)} held out; see 'holdout.near_duplicate'")
    drawn = draw(kept, max_pairs)
    return Divided(tuple(drawn), tuple(held_out), duplicates, len(straddles), len(kept) - len(drawn), bad)


def draw(pairs: Sequence[Preference], most: int | None) -> list[Preference]:
    """All, or `most` of them by their own hash, in input order."""
    if most is None or most >= len(pairs):
        return list(pairs)
    ranked = sorted(range(len(pairs)), key=lambda n: hashlib.sha256(f"{pairs[n].prompt}\n{pairs[n].response}\n{pairs[n].rejected}".encode()).digest())
    return [pairs[n] for n in sorted(ranked[:most])]


@dataclass(frozen=True, slots=True)
class EncodedPair:
    """A preference pair as token ids.

    Attributes:
        prompt: Context tokens.
        chosen: Tokens of the chosen response, the end token last.
        rejected: Tokens of the other one, likewise.
        source: Where the pair came from.
        cut: Which of the three did not fit into `max_tokens`.
    """

    prompt: tuple[int, ...]
    chosen: tuple[int, ...]
    rejected: tuple[int, ...]
    source: str
    cut: tuple[str, ...] = ()

    @property
    def length(self) -> int:
        """Tokens that a step reads: both sequences, padded to the longer one."""
        return 2 * (len(self.prompt) + max(len(self.chosen), len(self.rejected)))

    def sides(self) -> tuple[Encoded, Encoded]:
        """The two responses, each with the prompt."""
        return Encoded(self.prompt, self.chosen, self.source), Encoded(self.prompt, self.rejected, self.source)


def encoder(codec: Codec, config: PreferenceConfig) -> Callable[[Preference], EncodedPair]:
    """What turns a pair into token ids, as serving will: prompt and response apart, each cut at `max_tokens`.

    Of a prompt that is too long the end is kept, where the question mostly stands.
    """
    most = config.max_tokens

    def encode(pair: Preference) -> EncodedPair:
        asked = laid_out(pair, config.layout, config.system)
        prompt = codec.prompt(asked if isinstance(asked, str) else [asdict(turn) for turn in asked])
        chosen, rejected = (codec.continuation(text, end=True) for text in (pair.response, pair.rejected))
        cut = tuple(name for name, tokens in (("prompt", prompt), ("chosen", chosen), ("rejected", rejected)) if len(tokens) > most)
        return EncodedPair(tuple(prompt[-most:]), tuple(chosen[:most]), tuple(rejected[:most]), pair.source, cut)

    return encode


def cut_of(pairs: Sequence[EncodedPair], config: PreferenceConfig) -> Cut:
    """What did not fit; SFT reads no rejected response."""
    counts = Counter(name for pair in pairs for name in pair.cut)
    rejected = counts["rejected"] if isinstance(config, DpoConfig) else 0
    return Cut(config.max_tokens, len(pairs), counts["prompt"], counts["chosen"], rejected)


def laid_out(pair: Preference, layout: str, system: str | None) -> Prompt:
    """The prompt of a pair as a text, or as messages."""
    if layout == "raw":
        return "\n\n".join([*(turn.content for turn in pair.history), pair.prompt])
    said = pair.history
    if system is not None and not any(turn.role == "system" for turn in said):
        said = (Turn("system", system), *said)
    return (*said, Turn("user", pair.prompt))


def sources_of(pairs: Sequence[Preference]) -> dict[str, int]:
    """Pairs by source."""
    return dict(Counter(pair.source for pair in pairs))
