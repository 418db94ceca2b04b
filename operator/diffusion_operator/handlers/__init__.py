"""The operator process: events of kopf, the work queue, endpoints."""
