"""What a finished set is like, figures over what a run wrote, never a run of their own; and measures of texts, with their intervals."""
