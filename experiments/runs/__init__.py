"""How a run is carried out: step, loop, checkpoints, records, optimizers, controls, devices."""
