"""What all models of one task share: the LightningModule around their network, and its losses."""
