"""The commands: one module each. Only here are arguments parsed, text printed, the environment read."""
