"""Training runs: configs, the LightningCLI command, run folders."""
