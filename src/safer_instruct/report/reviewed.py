"""What people said who read the pairs: decisions, the answers to the domain's questions, agreement, tags."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

from safer_instruct.analysis.proportion import wilson
from safer_instruct.calibration.labels import Label, Scored
from safer_instruct.oneline import many
from safer_instruct.report.document import Figure, Section, Table
from safer_instruct.report.gather import RunView
from safer_instruct.review.figures import agreement, standing
from safer_instruct.review.index import ensure_index
from safer_instruct.review.labels import current_labels
from safer_instruct.review.serve import plan_review
from safer_instruct.review.store import Label as Said
from safer_instruct.review.store import Store, read_labels

_TAGS_SHOWN = 20


def labels_of_review(view: RunView, examples: Sequence[Scored]) -> list[Label]:
    """Accepted and rejected as good and bad, of the examples as they stand in the run now."""
    return [Label(said.id, good) for said, good in current_labels(view.path, examples).labels]


def reviewed(views: Sequence[RunView]) -> tuple[Section, ...]:
    """A section for all runs that somebody reviewed; none where nobody did."""
    parts: list[Figure | Table] = []
    for number, view in enumerate(views):
        said = list(read_labels(view.path))
        if any(label.decision for _, _, label in said):
            parts += _of_run(number, view, said, f": {view.name}" if len(views) > 1 else "")
    intro = "Shares with their 95% intervals (Wilson); a small sample says little. Alpha is Krippendorff's, over pairs that two people decided."
    return (Section("reviewed", "Review", "What people said", intro, tuple(parts)),) if parts else ()


def _of_run(number: int, view: RunView, every: Sequence[tuple[str, str, Said]], of: str) -> list[Figure | Table]:
    """What was said of the examples as they stand; what was said of texts that the run no longer holds is only told of."""
    store = Store(view.path)
    try:
        store.attach(ensure_index(view.path))
        agreed, stands = agreement(store), set(standing(store))
    finally:
        store.close()
    awake = {(name, id_) for name, id_, _ in stands}
    rest = len({id_ for name, id_, label in every if label.decision and (name, id_) not in awake})
    said = [(name, label) for name, id_, label in every if (name, id_, label.digest) in stands]
    told = f"{agreed['shared']:,} pairs were decided by two readers" if agreed["shared"] else ""
    told += f" (alpha {agreed['alpha']:.2f})" if told and agreed["alpha"] is not None else ""
    gone = f"of {many(rest, 'example')} the run no longer holds the texts that were read, so what was decided of these counts no more" if rest else ""
    parts: list[Figure | Table] = [_readers(sorted({name for name, *_ in every}), said, "; ".join(filter(None, (f"Decisions{of}", told, gone))))]
    asked = {question.id: question.ask for question in plan_review(view.path).config.questions}
    answers = _answers(said)
    if answers:
        alphas = {question["id"]: question["alpha"] for question in agreed["questions"]}
        parts.insert(0, _questions(number, answers, asked, alphas, of))
    tags = Counter(tag for _, label in said for tag in label.tags)
    if tags:
        parts.append(Table(f"Tags{of}", ("tag", "times"), tuple(tags.most_common(_TAGS_SHOWN))))
    return parts


def _readers(people: Sequence[str], said: Sequence[tuple[str, Said]], caption: str) -> Table:
    rows: list[tuple[str | int, ...]] = []
    for reader in people:
        labels = [label for name, label in said if name == reader]
        counts = Counter(label.decision for label in labels)
        decided = counts["accept"] + counts["reject"]
        share = share_of(counts["accept"], decided) if decided else ""
        corrected = sum(label.decision == "accept" and bool(label.edit) for label in labels)
        rows.append((reader, counts["accept"], counts["reject"], counts["skip"], corrected, share))
    return Table(caption, ("reader", "accepted", "rejected", "skipped", "accepted as corrected", "share accepted"), tuple(rows))


def _answers(said: Sequence[tuple[str, Said]]) -> dict[str, Counter[bool]]:
    found: dict[str, Counter[bool]] = defaultdict(Counter)
    for _, label in said:
        for question, answer in label.answers.items():
            found[question][answer] += 1
    return dict(found)


def _questions(number: int, answers: dict[str, Counter[bool]], asked: dict[str, str], alphas: dict[str, float | None], of: str) -> Figure:
    order = [*(id_ for id_ in asked if id_ in answers), *sorted(answers.keys() - asked.keys())]
    rows = []
    for id_ in order:
        yes, total = answers[id_][True], answers[id_].total()
        alpha = alphas.get(id_)
        rows.append((asked.get(id_, id_), total, share_of(yes, total), "" if alpha is None else f"{alpha:.2f}"))
    least = min(order, key=lambda id_: answers[id_][True] / answers[id_].total())
    says = f"The question with the fewest yes is '{asked.get(least, least)}': {share_of(answers[least][True], answers[least].total())}."
    series = [
        {"name": "yes", "values": [answers[id_][True] for id_ in order], "color": "chosen"},
        {"name": "no", "values": [answers[id_][False] for id_ in order], "color": "rejected"},
    ]
    data = {"labels": [id_.replace("_", " ") for id_ in order], "series": series, "stacked": True, "unit": "answers"}
    table = Table("", ("question", "answers", "yes", "alpha"), tuple(rows))
    return Figure(f"questions-{number}", f"Answers to the quality questions{of}", says, "bars", data, table, wide=True)


def share_of(part: int, total: int) -> str:
    """A share in percent with its 95% interval (Wilson 1927)."""
    found = wilson(part, total)
    return f"{found.estimate:.0%} [{found.low:.0%}, {found.high:.0%}]"
