"""Commands that run inside a serving pod."""
