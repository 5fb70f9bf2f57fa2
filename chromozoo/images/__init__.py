"""What is done to the picture of one chromosome: arrays in, arrays out, torch only in preset."""
