"""What a run works with: domain, filters, models and live figures, and what of it goes into `run.yaml`."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

from safer_instruct import conversation, rundir
from safer_instruct.budget import Budget
from safer_instruct.config import RunConfig, SourceConfig
from safer_instruct.distinct import memories
from safer_instruct.domain import Domain, load_domain
from safer_instruct.embed import load_embedder
from safer_instruct.errors import ConfigError
from safer_instruct.filters.dedup import Deduplicators
from safer_instruct.filters.registry import Filters, open_filters
from safer_instruct.ledger import Commits
from safer_instruct.margins import Margins, margins_of
from safer_instruct.placeholders import still_to_fill_in, still_to_name, unfilled, unnamed
from safer_instruct.reverse import Reversal, Shot, domain_shots, reversal
from safer_instruct.roles import EXPERTS, Roles
from safer_instruct.routing import Router, open_router, route_record
from safer_instruct.settings.pairs import PairSource
from safer_instruct.sources import check_columns, read_source
from safer_instruct.sources.files import DOCUMENTS, describe
from safer_instruct.stages.programs import record
from safer_instruct.stages.rejected import rejected_template
from safer_instruct.state import REJECTED, TWINS, RunState, StageState, WriterState
from safer_instruct.storage.address import is_remote
from safer_instruct.target import check_target
from safer_instruct.templates import load_template
from safer_instruct.tuning.pairs import whole_pairs
from safer_instruct.twins.opening import twin_templates
from safer_instruct.yamlfile import located, named_at

_COUNT_BELOW_BYTES = 256 << 20  # larger sources are not read twice just to know how many rows they hold


@dataclass(frozen=True, slots=True)
class Equipment:
    """What examples are worked on with."""

    config: RunConfig
    domain: Domain
    filters: Filters
    roles: Roles
    asked: Reversal | None
    state: RunState
    seen: dict[str, Deduplicators]
    margins: Margins
    router: Callable[[], Router | None]  # opened when it is first asked for

    def resolved(self) -> dict[str, Any]:
        """What goes into `run.yaml`."""
        return _resolve(self.config, self.domain, self.filters, self.roles, self.asked, self.router()) | self.margins.identity()

    def recording(self, ledger: Commits, state: RunState | None = None) -> Opened:
        """The same with a ledger, and with other live figures where there are `state`s for parts of the work."""
        return Opened(self.config, self.domain, self.filters, self.roles, self.asked, state or self.state, self.seen, self.margins, self.router, ledger)


@dataclass(frozen=True, slots=True)
class Opened(Equipment):
    """What a run works with, from its opening to its end."""

    ledger: Commits


@asynccontextmanager
async def equip(config: RunConfig, out: Path, budget: Budget, state: RunState) -> AsyncIterator[Equipment]:
    """Domain, filters and models, whose calls draw on `budget`; closed again when the block ends.

    Raises:
        SaferInstructError: Something does not fit, or is missing.
    """
    domain = load_domain(config.domain, config.base)
    _check_placeholders(config, domain)
    _check_categories(config, domain)
    if config.filter.semantic:
        load_embedder(config.filter.semantic.embedder)  # a missing one is known before anything is paid for
    filters = open_filters(config.filter.in_languages(domain.languages), config.base, config.file)
    inducer = config.models.inducer if config.induce.given == "replace" else None
    asked = reversal(config.induce, inducer, config.base, _shots(config, domain)) if inducer else None
    async with AsyncExitStack() as stack:
        state.budget = budget
        roles = Roles(config, budget, out / rundir.BATCHES, stack, domain.direction)
        state.waits = roles.waits
        for stage in state.stages:
            state.stages[stage].priced = roles.priced(stage)
        for part, model in roles.by_part().items():
            state.parts[part] = StageState(priced=model.priced)
            state.stages[TWINS].priced &= model.priced
        state.writers = {role.removeprefix(EXPERTS): WriterState(priced=m.priced, role=role, model=m.name) for role, m in roles.writers.items()}
        check_target(config, domain, state)
        seen = {name: stack.enter_context(closing(memory)) for name, memory in memories(config).items()}
        fingerprints = {role: model.fingerprint for role, model in roles.by_role().items()}
        margins = margins_of(config.verify.form, config.verify.answers, config.calibrated, fingerprints)
        router = cache(partial(open_router, config.source, domain, config.base))
        yield Equipment(config, domain, filters, roles, asked, state, seen, margins, router)


def new_state(config: RunConfig, total: int | None) -> RunState:
    """Live figures, with lines for what the run makes beside the flow."""
    state = RunState(total=total)
    state.sides.form = config.rejected.form
    beside = [*([REJECTED] if config.rejected.writer else []), *([TWINS] if config.twins else [])]
    state.stages |= {name: StageState() for name in beside}
    return state


def count_rows(source: SourceConfig, base: Path) -> int | None:
    """How many rows the source holds, where reading it twice is cheap; taking documents and crawls apart is not.

    Raises:
        SourceError: Nothing is there: better known before a run directory is made and models are opened.
    """
    if is_remote(source.path):
        return None
    path, rows = base / source.path, read_source(source, base)
    if not path.is_file() or path.stat().st_size > _COUNT_BELOW_BYTES or describe(path, source, base).format in DOCUMENTS:
        check_columns(source, base)
        return None
    return sum(1 for _ in rows)


def _check_placeholders(config: RunConfig, domain: Domain) -> None:
    """What `init` and `domain new` leave to be written is missed now, and not when a model is called."""
    models = {role: which.model for role, which in config.models.by_role.items()}
    missing = [f"domain '{config.domain}': {still_to_fill_in(keys)}"] if (keys := unfilled(domain)) else []
    missing += [f"{located(('models', *role.split('.'), 'model'), config.file)}: {still_to_name(f'models.{role}', models[role])}" for role in unnamed(models)]
    if missing:
        raise ConfigError("\n".join(missing))


def _check_categories(config: RunConfig, domain: Domain) -> None:
    source = config.source
    if source.category:
        with named_at(("source", "category"), config.file):
            domain.category(source.category)
    elif not (source.category_column or source.route) and len(domain.categories) > 1:
        raise ConfigError(
            f"domain '{domain.name}' has several categories ({', '.join(domain.categories)}); set source.category, source.category_column or source.route"
        )


def _shots(config: RunConfig, domain: Domain) -> dict[str, tuple[Shot, ...]]:
    """The examples that an inducer which was not tuned may be shown."""
    if config.induce.examples == "domain":
        return domain_shots(domain, config.induce.shots)
    pairs = whole_pairs((PairSource(path=config.induce.examples),), config.base)
    return {"": tuple(Shot(pair.prompt, pair.response) for pair in pairs[: config.induce.shots])}


def _resolve(config: RunConfig, domain: Domain, filters: Filters, roles: Roles, asked: Reversal | None, router: Router | None) -> dict[str, Any]:
    """The config with everything that the result depends on; a change of any of it makes another run, but for `how`."""
    names = {"respond": config.respond.template}
    several = config.models.experts if domain.direction == "rejected" else None
    names |= {f"respond.{name}": which.template for name, which in (several or {}).items() if which.template}
    names |= {"revise": config.respond.revision} if config.respond.revise else {}
    names |= {"critique": "critique"} if config.respond.critique else {}
    names |= {name: name for name in ("forward", "contrast", "question", "pairwise", "weighted", "prefer")}
    names |= {name: name for name in conversation.TEMPLATES if config.source.messages}
    induced = {"induce": asked.template.digest} if asked else {}
    names |= {REJECTED: rejected_template(config)} if config.rejected.writer else {}
    names |= twin_templates(config.twins) if config.twins else {}
    what, how = config.parted()
    what["filter"] |= filters.record()
    return {
        "config": what,
        "domain_sha256": hashlib.sha256(domain.model_dump_json().encode()).hexdigest(),
        **route_record(router),
        **({"programs": programs} if (programs := record(domain)) else {}),
        "templates": induced | {use: load_template(name, config.base).digest for use, name in names.items()},
        "models": {role: model.fingerprint for role, model in roles.by_role().items()},
        rundir.HOW: how,
    }
