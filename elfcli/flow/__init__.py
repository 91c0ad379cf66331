"""The paper's objective, samplers and schedules as pure functions of arrays."""
