"""What a config can say of tuning data: where it is, how it is cleaned, and what is held out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import model_validator

from safer_instruct.settings.numbers import Positive, Share, Similarity
from safer_instruct.yamlfile import Strict

PairFormat = Literal["auto", "pairs", "alpaca", "dolly", "sharegpt", "messages"]


class RowSource(Strict):
    """Where rows are. A bare string in the config stands for `{path: STRING}`.

    Attributes:
        path: A file, a folder or a glob of JSONL, JSON, CSV, TSV or Parquet, relative to the config; a folder that
            `datasets` saved; or `hf:NAME`, which `datasets.load_dataset` reads (extra `datasets`).
        group: Column to split by, so that no group stands on both sides.
        subset: For `hf:`: the dataset's configuration, where it has several.
        split: For datasets, and folders with files that are named after splits (`train.jsonl`): which one.
        revision: For `hf:`: a commit or tag.
    """

    path: str
    group: str | None = None
    subset: str | None = None
    split: str = "train"
    revision: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_string(cls, value: object) -> object:
        return {"path": value} if isinstance(value, str) else value


def check_apart(columns: Mapping[str, str | None]) -> None:
    """That no two keys name one column.

    Raises:
        ValueError: Two do.
    """
    keys: dict[str, str] = {}
    for key, column in columns.items():
        if column and keys.setdefault(column, key) != key:
            raise ValueError(f"'{keys[column]}' and '{key}' name the same column, '{column}'")


class PairSource(RowSource):
    """Instructions with their responses. A bare string in the config stands for `{path: STRING}`.

    Without `group`, rows with one instruction and the turns of one conversation stay together.

    Attributes:
        format: `auto` goes by the columns of the first row that fits one, among a hundred. `alpaca`: instruction, input, output. `dolly`: instruction, context,
            response. `sharegpt`: conversations of {from, value}. `messages`: messages of {role, content}. `pairs`: the columns below.
        prompt: For `pairs`: column with the instruction, by default `prompt`.
        input: For `pairs`: column with what the instruction is about, put below it.
        response: For `pairs`: column with the response, by default `response`.
        turns: Of a conversation: `all` gives one pair per answer, `first` only the first, which needs no context.
        history: Keep what was said before as context; the template must show it (`reverse-chat` does).
    """

    format: PairFormat = "auto"
    prompt: str | None = None
    input: str | None = None
    response: str | None = None
    turns: Literal["all", "first"] = "all"
    history: bool = False

    @model_validator(mode="after")
    def _columns_mean_pairs(self) -> PairSource:
        if (self.prompt or self.input or self.response) and self.format not in ("auto", "pairs"):
            raise ValueError(f"'prompt', 'input' and 'response' name columns of format 'pairs', not of '{self.format}'")
        check_apart({"prompt": self.prompt or "prompt", "input": self.input, "response": self.response or "response"})
        return self


class Holdout(Strict):
    """What is kept out of training: the named groups, and of the other files a share chosen by content hash.

    Attributes:
        groups: Held out by name; a file that has one of them is split by these names alone.
        share: Of the groups of the other files, about this share.
        count: Instead of a share: groups in the order of their hash until this many pairs are held out.
        near_duplicate: A pair to train on whose instruction or response is this similar to one held out is dropped; null keeps it.
    """

    groups: tuple[str, ...] = ()
    share: Share = 0.1
    count: Positive | None = None
    near_duplicate: Similarity | None = 0.7

    @model_validator(mode="after")
    def _share_or_count(self) -> Holdout:
        if self.count is not None and self.share != Holdout.model_fields["share"].default:  # what is kept of a config names the default, too
            raise ValueError(f"give one of share ({self.share:g}) and count ({self.count})")
        return self


class CleanConfig(Strict):
    """What a pair must pass before it is trained on or held out.

    Attributes:
        near_duplicate: Jaccard similarity of word trigrams, instruction and response together, from which a pair counts as
            seen before; null keeps near-duplicates. Exact duplicates are always dropped.
        refusals: Drop pairs whose response declines to answer.
        languages: ISO 639-1 codes; a response reliably found to be in another language is dropped. Empty: any.
        prompt_words: Least and most words of an instruction.
        response_words: Least and most words of a response.
        evaluation: Prompts that a model will be tested on: pairs whose instruction overlaps with one of them are dropped.
        shared_run: An instruction overlaps that shares so many words in a row with a prompt, is its near-duplicate, or has its words.
    """

    near_duplicate: Similarity | None = 0.7
    refusals: bool = True
    languages: tuple[str, ...] = ("en",)
    prompt_words: tuple[Positive, Positive] = (1, 1_000)
    response_words: tuple[Positive, Positive] = (1, 4_000)
    evaluation: tuple[PairSource, ...] = ()
    shared_run: Positive = 13
