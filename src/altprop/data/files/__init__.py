"""Reading the files that data sets come in: class folders, IDX, pickle and MATLAB files, ImageNet's archives."""
