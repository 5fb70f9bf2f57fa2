"""What is true of the chromosomes of one cell together: assignment, ISCN and the karyogram."""
