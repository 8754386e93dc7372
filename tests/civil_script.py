"""Answers of a scripted model that takes every role of a run in the domain civility."""

SCRIPT = """\
generate:
- {match: "Below is a response", answers: ["Could you tell me about {words}, please?"]}
- {answers: ["I am sorry about that, and I will look into {words}."]}
score:
- {match: "that is kind", logprob: -1.0}
- {match: "that is rude", logprob: -1.5}
- {match: "Instruction:", logprob: -1.0}
- {logprob: -2.0}
"""
