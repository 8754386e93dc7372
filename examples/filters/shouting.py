"""Drops what shouts."""

from safer_instruct.filters import Example, Filter, Finding


class Shouting(Filter):
    """Texts with too many capitals.

    Attributes:
        max_share: Largest share of the letters that may be capitals.
    """

    max_share: float = 0.5

    def check(self, example: Example) -> Finding:
        """Count the capitals; the score is their share of the letters."""
        letters = [c for c in self.subject(example) if c.isalpha()]
        share = sum(c.isupper() for c in letters) / max(1, len(letters))
        return Finding(share <= self.max_share, share, f"{share:.0%} of its letters are capitals, more than {self.max_share:.0%}")
