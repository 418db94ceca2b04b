"""Grafana dashboards of the chart; `python -m tools.dashboards --write FOLDER` generates them."""
