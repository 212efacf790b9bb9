"""The command immich-triton: one module for each subcommand."""
