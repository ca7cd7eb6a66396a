"""Data sets as device-resident tensors or streamed folders, augmentation, splits, embedded samples."""
