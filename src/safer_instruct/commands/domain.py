"""`safer-instruct domain`: check, new, list and show."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from safer_instruct.remote.arguments import path as local_path
from safer_instruct.remote.arguments import pattern

if TYPE_CHECKING:
    from rich.console import Console

    from safer_instruct.domain import Domain
    from safer_instruct.domainfile import NewCategory, NewDomain

app = typer.Typer(no_args_is_help=True, help="Write, check and show domain files.")
_NOTHING = frozenset(("never", "no", "none", "nothing", "-"))  # typed where Enter would say it
DomainArgument = Annotated[str, typer.Argument(metavar="FILE", parser=pattern, help="A domain file, or the name of a shipped domain.")]


@app.command("check")
def check(
    domain: DomainArgument,
    prompts: Annotated[bool, typer.Option("--prompts/--no-prompts", help="Print every prompt that the domain leads to.")] = True,
) -> None:
    """Validate a domain file, show every prompt that it leads to, and run its programs on its examples."""
    from rich.console import Console

    from safer_instruct.domain import load_domain
    from safer_instruct.domaincheck import render_prompts
    from safer_instruct.placeholders import still_to_fill_in, unfilled
    from safer_instruct.terminal import safe

    loaded, console = load_domain(domain), Console()
    rendered = render_prompts(loaded)
    for prompt in rendered if prompts else []:
        console.print(safe(f"--- {prompt.category}: {prompt.title}"), style="bold", soft_wrap=True)
        console.print(safe(prompt.text), soft_wrap=True, highlight=False)
    held = _show_programs(console, loaded)
    count = f"{len(loaded.categories)} categor{'y' if len(loaded.categories) == 1 else 'ies'}"
    console.print(safe(f"{domain} is valid: direction {loaded.direction}, {count}, {len(rendered)} prompts"), highlight=False, soft_wrap=True)
    if keys := unfilled(loaded):
        console.print(safe(f"{still_to_fill_in(keys)}; until then 'run' refuses it"), highlight=False, soft_wrap=True)
    if keys or not held:
        raise typer.Exit(1)


@app.command("new")
def new(
    name: Annotated[str, typer.Argument(help="Of the domain; the file is called NAME-domain.yaml.")],
    folder: Annotated[Path, typer.Option("--dir", parser=local_path, help="Where to write.")] = Path(),
    no_input: Annotated[bool, typer.Option("--no-input", help="Ask nothing; what no option says is a placeholder to fill in.")] = False,
    extends: Annotated[Optional[str], typer.Option(help="A domain that this one builds on.")] = None,
    description: Annotated[Optional[str], typer.Option(help="One paragraph for the dataset card.")] = None,
    direction: Annotated[Optional[str], typer.Option(help="rejected or chosen: what the corpus is.")] = None,
    languages: Annotated[Optional[str], typer.Option(help="ISO 639-1 codes, with commas.")] = None,
    expert: Annotated[Optional[str], typer.Option(help="Who the expert is: 'You are ...'.")] = None,
    category: Annotated[Optional[str], typer.Option(help="Name of the category.")] = None,
    definition: Annotated[Optional[str], typer.Option(help="What belongs in it.")] = None,
    guideline: Annotated[Optional[str], typer.Option(help="How a good answer is.")] = None,
    refuse: Annotated[Optional[str], typer.Option(help="When a good answer declines.")] = None,
    safe_help: Annotated[Optional[str], typer.Option("--help-safely", help="How it helps safely then.")] = None,
    criterion: Annotated[Optional[list[str]], typer.Option(help="A yes-or-no question about a response; may be repeated.")] = None,
    good: Annotated[Optional[str], typer.Option(help="Completes 'a reply that is ...' for what is wanted.")] = None,
    bad: Annotated[Optional[str], typer.Option(help="The opposite.")] = None,
) -> None:
    """Write a commented domain file from answers to a few questions."""
    from safer_instruct.domain import load_domain
    from safer_instruct.domainfile import NewCategory, NewDomain, place_for, write_domain
    from safer_instruct.errors import ConfigError
    from safer_instruct.placeholders import unfilled

    if direction not in (None, "rejected", "chosen"):
        raise typer.BadParameter("--direction is rejected or chosen")
    answers = _given(description=description, direction=direction, extends=extends, expert=expert)
    about = _given(name=category, definition=definition, guideline=guideline, refuse=refuse, help=safe_help, criteria=criterion, good=good, bad=bad)
    domain, first = NewDomain(name, **answers), NewCategory(**about)  # type: ignore[arg-type]
    if languages is not None:
        domain.languages = [code.strip() for code in languages.split(",") if code.strip()]
    path = place_for(domain, folder)
    try:
        if not no_input:
            _ask_domain(domain, {*answers, *({"languages"} if languages is not None else ())})
        domain.categories = [first] if no_input else _ask_categories(first, set(about))
    except typer.Abort:
        raise ConfigError(f"the answers ended before the questions, so {path} was not written; say it by options (--help lists them) and --no-input") from None
    path = write_domain(domain, folder)
    typer.echo(f"wrote {path}")
    there = "" if folder == Path() else f" --dir {folder}"
    fill_in = f"fill in {path}, then: " if unfilled(load_domain(path.name, folder)) else ""
    typer.echo(f"next: {fill_in}safer-instruct domain check {path}, then: safer-instruct init {name} --source YOUR-TEXTS --text COLUMN{there}")


@app.command("list")
def list_() -> None:
    """List the shipped domains."""
    from safer_instruct.domain import load_domain, shipped_domains

    for name in shipped_domains():
        domain = load_domain(name)
        programs = {program.title: None for category in domain.categories for program in domain.programs(category)}
        checked = f"; programs: {', '.join(programs)}" if programs else ""
        typer.echo(f"{name}  (the corpus is the {domain.direction} side)  {', '.join(domain.categories)}{checked}")


@app.command("show")
def show(domain: DomainArgument) -> None:
    """Print a domain as it is once everything that it extends is in its place."""
    import yaml
    from rich.console import Console

    from safer_instruct.domain import load_domain
    from safer_instruct.terminal import safe

    data = load_domain(domain).model_dump(mode="json", exclude_defaults=True)
    Console().print(safe(yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=110).rstrip("\n")), soft_wrap=True, highlight=False)


def _show_programs(console: Console, domain: Domain) -> bool:
    """What the programs said of the examples; False where a chosen one fails, a rejected one passes all of them, or one raised an exception."""
    from safer_instruct.domaincheck import try_programs
    from safer_instruct.terminal import safe

    held = True
    for result in try_programs(domain):
        held &= result.right
        said = "; ".join(f"{name}: {reason}" for name, reason in result.failures.items()) or "passes"
        line = f"{'ok  ' if result.right else 'no  '} {result.category}, example {result.number}, {result.side}: {said}"
        console.print(safe(line), soft_wrap=True, highlight=False)
    return held


def _given(**options: object) -> dict[str, object]:
    return {name: value for name, value in options.items() if value is not None}


def _ask_domain(domain: NewDomain, given: set[str]) -> None:
    """Ask for what no option said; Enter keeps what is shown."""
    if "description" not in given:
        domain.description = typer.prompt("What are these texts, and what does the chosen side do better?", default=domain.description, show_default=False)
    if "expert" not in given:
        domain.expert = typer.prompt("Who is the expert?", default=domain.expert)
    if "direction" not in given:
        unwanted = typer.confirm("Is your corpus what you do NOT want? (no: it is what you want)", default=True)
        domain.direction = "rejected" if unwanted else "chosen"
    if "languages" not in given:
        domain.languages = typer.prompt("Languages, as ISO 639-1 codes with commas", default="en").replace(",", " ").split()


def _ask_categories(first: NewCategory, given: set[str]) -> list[NewCategory]:
    from safer_instruct.domainfile import NewCategory

    categories = [_ask_category(first, given)]
    while typer.confirm("Another category?", default=False):
        categories.append(_ask_category(NewCategory(), set()))
    return categories


def _ask_category(category: NewCategory, given: set[str]) -> NewCategory:
    questions = {
        "name": "Name of the category",
        "definition": "What belongs in it, and what does not?",
        "guideline": "How is a good answer? What does it do, what must it not do, how long is it?",
        "refuse": "When does a good answer decline? (Enter: never)",
        "help": "How does it help safely then? (Enter: nothing to say)",
        "good": "A wanted reply is one that is ... (for instance: kind, respectful and helpful)",
        "bad": "The opposite is one that is ... (for instance: rude, sarcastic and dismissive)",
    }
    for field, question in questions.items():
        if field not in given and (field != "help" or category.refuse):
            answer = typer.prompt(question, default=getattr(category, field), show_default=field in ("name", "good", "bad"))
            setattr(category, field, "" if field in ("refuse", "help") and answer.strip(" .").lower() in _NOTHING else answer)
    if "criteria" not in given:
        asked = []
        while question := typer.prompt("A yes-or-no question that a good response must pass (Enter: no more)", default="", show_default=False):
            asked.append(question)
        category.criteria = asked or category.criteria
    return category
