"""The commands, one module each. Only this package parses arguments, prints text and reads the environment."""
