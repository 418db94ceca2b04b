"""The planner: from observed objects and the spec to actions, status and Events; pure."""
