"""What is done to the image of one chromosome: arrays in, arrays out, torch only in preset."""
