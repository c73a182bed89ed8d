"""Networks whose train loss is the objective: tasks, rivals at equal seconds, a study, a demo."""
