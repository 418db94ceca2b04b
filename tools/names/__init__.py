"""Counts bindings whose name is a bare participle or pronoun: such a name does not say what it holds."""
