"""The LightningModules of each task: training steps, inference, optimiser and schedule."""
