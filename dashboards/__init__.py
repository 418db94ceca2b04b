"""Grafana dashboards of the chart, generated: `python -m dashboards --write charts/diffusion-operator/dashboards`."""
