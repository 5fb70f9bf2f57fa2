"""Reading and writing of the files of data sets: archives, labelme, COCO, results, karyograms."""
