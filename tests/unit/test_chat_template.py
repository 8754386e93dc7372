"""A model's own chat template gives the text that transformers gives, which the model was trained on."""

from __future__ import annotations

from typing import Any

import pytest

from safer_instruct.errors import ModelError
from safer_instruct.models.chattemplate import ChatTemplate

SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}
MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why <b>so</b>?"}]
LINES = """{{- bos_token }}
{%- if tools %}
    tools: {{ tools | length }}
{%- endif %}
{% for message in messages %}
    {% if message.role == 'system' %}
[SYS]{{ message['content'] | trim }}
    {% else %}
[{{ message.role | upper }}]{{ message.content }}{{ eos_token }}
    {% endif %}
{% endfor %}
{% if add_generation_prompt %}
[ASSISTANT]
{% endif %}
"""
TEMPLATES = {
    "lines": LINES,
    "tools, which are none": "{%- if not tools is defined %}{% set tools = none %}{% endif %}{% if tools is not none %}x{% endif %}{{ messages[0].content }}",
    "a value that nobody gives": "{% if enable_thinking is defined and enable_thinking is false %}no{% endif %}{{ messages[1].content }}{{ date_string }}",
    "a loop that ends early": "{% for m in messages %}{% if m.role == 'user' %}{% break %}{% endif %}{{ m.content }}{% endfor %}",
    "as JSON": "{{ messages | tojson }}{{ messages[1] | tojson(indent=2) }}",
    "what the assistant says marked": "{% for m in messages %}{% generation %}{{ m.content }}{{ eos_token }}{% endgeneration %}{% endfor %}",
}


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("speaks", [True, False])
def test_the_text_is_that_of_transformers(name: str, speaks: bool) -> None:
    utils: Any = pytest.importorskip("transformers.utils.chat_template_utils", reason="the extra train is not installed")
    [expected], _ = utils.render_jinja_template([MESSAGES], chat_template=TEMPLATES[name], add_generation_prompt=speaks, **SPECIAL)
    assert ChatTemplate(TEMPLATES[name], SPECIAL).render(MESSAGES, add_generation_prompt=speaks) == expected != ""


def test_a_refusal_of_the_template_is_told_in_its_words() -> None:
    template = ChatTemplate("{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}{{ messages[0].content }}", {})
    assert template.render(MESSAGES[1:], add_generation_prompt=True) == "Why <b>so</b>?"
    with pytest.raises(ModelError, match="the chat template of this model refuses this conversation: System role not supported"):
        template.render(MESSAGES, add_generation_prompt=True)


def test_the_clock_is_not_told() -> None:
    source = "{% if strftime_now is defined %}{{ strftime_now('%d %b %Y') }}{% else %}26 Jul 2024{% endif %}"
    assert ChatTemplate(source, {}).render(MESSAGES, add_generation_prompt=True) == "26 Jul 2024"


@pytest.mark.parametrize("source", ["{{ messages.__class__.__mro__ }}", "{{ ''.__class__.__base__.__subclasses__() }}", "{{ messages.append(1) }}"])
def test_a_template_from_anywhere_runs_in_a_sandbox(source: str) -> None:
    with pytest.raises(ModelError, match="refuses this conversation"):
        ChatTemplate(source, {}).render(MESSAGES, add_generation_prompt=True)


def test_no_template_and_a_broken_one_are_told() -> None:
    with pytest.raises(ModelError, match="no chat template; send it a raw prompt"):
        ChatTemplate("", {}).render(MESSAGES, add_generation_prompt=True)
    with pytest.raises(ModelError, match=r"the chat template of this model is not valid: .*endfor"):
        ChatTemplate("{% for m in messages %}", {})
