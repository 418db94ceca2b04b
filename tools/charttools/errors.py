"""What can go wrong here."""


class ChartError(Exception):
    """One sentence for the person who changed a chart."""
