"""How many replicas a target needs: measured cost, queueing, ceilings, autoscaling."""
